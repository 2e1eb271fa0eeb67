import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayes_panns.predictions import Tags, Window, decompose
from bayes_panns.report import render_tags
from bayes_panns.report.formatting import exact


@pytest.fixture
def tags():
    draws = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [[0.5, 0.4, 0.1], [0.1, 0.8, 0.1]]])
    windows = (Window("a b.wav", 0.0, 5.0), Window("a b.wav", 5.0, 7.5))
    return Tags(("dog", "rain", "sea, waves"), windows, decompose(draws, "one-of-k"), ())


def test_json_holds_everything(tags):
    table = json.loads(render_tags(tags, "json"))
    assert table["labels"] == ["dog", "rain", "sea, waves"]
    first, second = table["windows"]
    assert (first["file"], first["start"], first["end"]) == ("a b.wav", 0, 5)
    assert first["probability"] == pytest.approx([0.6, 0.3, 0.1])
    assert first["epistemic"] == pytest.approx([0.01, 0.01, 0], abs=1e-6)
    assert first["aleatoric"] == pytest.approx([0.23, 0.2, 0.09])
    assert first["entropy"] == pytest.approx(-sum(p * np.log(p) for p in (0.6, 0.3, 0.1)))
    assert second["mutual_information"] == pytest.approx(0, abs=1e-6)


def test_csv_has_a_row_for_each_window_and_label(tags):
    rows = list(csv.DictReader(io.StringIO(render_tags(tags, "csv"))))
    assert len(rows) == 6
    assert rows[2]["label"] == "sea, waves"
    assert float(rows[0]["probability"]) == pytest.approx(0.6)
    assert float(rows[3]["start"]) == 5


def test_audacity_is_a_label_track(tags):
    lines = render_tags(tags, "audacity").splitlines()
    start, end, text = lines[0].split("\t")
    assert (float(start), float(end)) == (0, 5)
    assert text.startswith("dog 0.60±0.10, rain 0.30")
    two = Tags(tags.labels, (tags.windows[0], Window("b.wav", 0, 1)), tags.uncertainty, ())
    with pytest.raises(ValueError, match="for one file"):
        render_tags(two, "audacity")


def test_the_table_names_the_most_probable_first(tags):
    lines = render_tags(tags, "table", top=2).splitlines()
    assert len(lines) == 3
    assert "rain 0.80±0.00, " in lines[2]
    assert lines[1].index("dog") < lines[1].index("rain")
    with pytest.raises(ValueError, match="table, json, csv, audacity"):
        render_tags(tags, "xml")


def test_a_calibrated_posteriors_sets_are_written_everywhere(tags):
    sets = np.array([[True, True, False], [False, False, False]])
    tags = replace(tags, sets=sets, coverage=0.9)
    first, second = json.loads(render_tags(tags, "json"))["windows"]
    assert first["set"] == ["dog", "rain"]
    assert second["set"] == []
    rows = list(csv.DictReader(io.StringIO(render_tags(tags, "csv"))))
    assert [row["in_set"] for row in rows] == ["1", "1", "0", "0", "0", "0"]
    header, line, empty = render_tags(tags, "table").splitlines()
    assert header.endswith("90 % set")
    assert line.endswith("dog, rain")
    assert empty.endswith("none")


@given(
    st.lists(st.integers(0, 10**9), min_size=2, max_size=2, unique=True).map(sorted),
    st.sampled_from([8000, 16000, 32000]),
    st.floats(1e-300, 1, exclude_max=True),
)
def test_times_and_numbers_read_back_as_they_were(samples, rate, probability):
    start, end = (sample / rate for sample in samples)
    draws = torch.tensor([[[probability, 1 - probability]]], dtype=torch.float64)
    tags = Tags(("a", "b"), (Window("x.wav", start, end),), decompose(draws, "one-of-k"), ())
    row = next(csv.DictReader(io.StringIO(render_tags(tags, "csv"))))
    assert (float(row["start"]), float(row["end"])) == (start, end)
    assert float(row["probability"]) == tags.uncertainty.probability[0, 0]
    assert float(row["entropy"]) == tags.uncertainty.entropy[0]
    assert [float(time) for time in render_tags(tags, "audacity").split("\t")[:2]] == [start, end]
    window = json.loads(render_tags(tags, "json"))["windows"][0]
    assert (window["start"], window["end"], window["entropy"]) == (start, end, tags.uncertainty.entropy[0])
    assert f"{exact(start)}-{exact(end)}" in render_tags(tags, "table")


def test_the_table_keeps_times_and_stays_on_one_line(tags):
    long = Tags(
        ("x" * 200, "y\nz", "w"), (Window("a.wav", 10000.25, 10002.25),), tags.uncertainty.take(np.array([0])), ()
    )
    header, line = render_tags(long, "table").splitlines()
    assert "10000.25-10002.25" in line
    assert "x" * 200 in line
    assert r"y\nz 0.30" in line
    assert header.startswith("file")


def test_a_file_name_that_is_not_valid_unicode_survives_in_json(tags):
    odd = Tags(tags.labels, (Window("caf\udce9.wav", 0, 1),), tags.uncertainty.take(np.array([0])), ())
    text = render_tags(odd, "json")
    text.encode("utf-8")
    assert json.loads(text)["windows"][0]["file"] == "caf\udce9.wav"
