import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bayes_panns.predictions import Tags, Window, decompose
from bayes_panns.report import render


@pytest.fixture
def tags():
    draws = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [[0.5, 0.4, 0.1], [0.1, 0.8, 0.1]]])
    windows = (Window("a b.wav", 0.0, 5.0), Window("a b.wav", 5.0, 7.5))
    return Tags(("dog", "rain", "sea, waves"), windows, decompose(draws, "one-of-k"), ())


def test_json_holds_everything(tags):
    table = json.loads(render(tags, "json"))
    assert table["labels"] == ["dog", "rain", "sea, waves"]
    first, second = table["windows"]
    assert (first["file"], first["start"], first["end"]) == ("a b.wav", 0, 5)
    assert first["probability"] == pytest.approx([0.6, 0.3, 0.1])
    assert first["epistemic"] == pytest.approx([0.01, 0.01, 0], abs=1e-6)
    assert first["aleatoric"] == pytest.approx([0.23, 0.2, 0.09])
    assert first["entropy"] == pytest.approx(-sum(p * np.log(p) for p in (0.6, 0.3, 0.1)))
    assert second["mutual_information"] == pytest.approx(0, abs=1e-6)


def test_csv_has_a_row_for_each_window_and_label(tags):
    rows = list(csv.DictReader(io.StringIO(render(tags, "csv"))))
    assert len(rows) == 6
    assert rows[2]["label"] == "sea, waves"
    assert float(rows[0]["probability"]) == pytest.approx(0.6)
    assert float(rows[3]["start"]) == 5


def test_audacity_is_a_label_track(tags):
    lines = render(tags, "audacity").splitlines()
    start, end, text = lines[0].split("\t")
    assert (float(start), float(end)) == (0, 5)
    assert text.startswith("dog 0.60±0.10, rain 0.30")
    two = Tags(tags.labels, (tags.windows[0], Window("b.wav", 0, 1)), tags.uncertainty, ())
    with pytest.raises(ValueError, match="for one file"):
        render(two, "audacity")


def test_the_table_names_the_likeliest_first(tags):
    lines = render(tags, "table", top=2).splitlines()
    assert len(lines) == 3
    assert "rain 0.80±0.00, " in lines[2]
    assert lines[1].index("dog") < lines[1].index("rain")
    with pytest.raises(ValueError, match="table, json, csv, audacity"):
        render(tags, "xml")


def test_a_calibrated_posteriors_sets_are_written_everywhere(tags):
    sets = np.array([[True, True, False], [False, False, False]])
    tags = replace(tags, sets=sets, coverage=0.9)
    first, second = json.loads(render(tags, "json"))["windows"]
    assert first["set"] == ["dog", "rain"]
    assert second["set"] == []
    rows = list(csv.DictReader(io.StringIO(render(tags, "csv"))))
    assert [row["in_set"] for row in rows] == ["1", "1", "0", "0", "0", "0"]
    header, line, empty = render(tags, "table").splitlines()
    assert header.endswith("90 % set")
    assert line.endswith("dog, rain")
    assert empty.endswith("none")
