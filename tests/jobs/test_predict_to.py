"""Whole disks: what a results folder holds, and that an interruption changes none of it."""

import csv
import json
import logging
import os
import shutil

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.clips import Task
from bayes_panns.core.errors import AudioError, ResultsError, SettingError
from bayes_panns.jobs import ResultsFolder, predict_to, recording_results
from bayes_panns.jobs.planning import Planned, plan, together
from bayes_panns.posterior import Posterior, load, save
from bayes_panns.posterior.calibration import Calibration, Usual
from bayes_panns.predictions import EventRules, find_events, tag_each
from bayes_panns.recipes import read_strategy
from bayes_panns.report import RECORDING_FORMATS

RATE = 8000
FORMATS = ("csv", "json", "raven", "audacity")
LOW = {"threshold": 0.34, "gap": 0.5}


@pytest.fixture(scope="module")
def posterior(tmp_path_factory):
    torch.manual_seed(0)
    strategy = read_strategy("det-flip")
    made = Posterior.build(
        net="resnet14-narrow",
        labels=("dog", "=rain\n", "c"),
        task=Task.ONE_OF_K,
        sample_rate=RATE,
        clip_seconds=0.5,
        strategy=strategy,
    )
    folder = tmp_path_factory.mktemp("posterior") / "p"
    save(made, folder)
    return load(folder)


def sound(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = 0.1 * np.random.default_rng(len(str(path.name))).normal(size=round(seconds * RATE))
    with open(path, "wb") as file:  # noqa: PTH123
        soundfile.write(file, made, RATE, format="WAV")


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """Recordings of two places under the same names, odd names, and files that cannot be read."""
    folder = tmp_path_factory.mktemp("disk") / "disk"
    sound(folder / "a" / "20230412_053000.wav", 1.3)
    sound(folder / "b" / "20230412_053000.wav", 2.2)
    sound(folder / "events.wav", 0.7)
    sound(folder / os.fsdecode(b"caf\xe9 =1.wav"), 0.4)
    (folder / "empty.wav").touch()
    (folder / "none.wav").write_bytes(b"no sound")
    return folder


def predict(posterior, disk, out, **options):
    formats = [RECORDING_FORMATS[form] for form in options.pop("formats", FORMATS)]
    return predict_to(posterior, disk, out, draws=4, rules=LOW, formats=formats, **options)


@pytest.fixture(scope="module")
def whole(posterior, disk, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "results"
    return out, predict(posterior, disk, out)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_there(whole, disk):
    out, summary = whole
    results = ResultsFolder(out)
    entries = {entry.file: entry for entry in results.recordings()}
    assert list(entries) == [str(path) for path in sorted(disk.rglob("*.wav"))]
    assert {entry.file for entry in summary.skipped} == {str(disk / "empty.wav"), str(disk / "none.wav")}
    assert "the file is empty" in entries[str(disk / "empty.wav")].skipped
    names = {entry.name for entry in entries.values() if entry.skipped is None}
    # Not events, for events.csv is that of the folder; and those of one name are kept apart.
    assert names == {"a/20230412_053000", "b/20230412_053000", "events.wav", os.fsdecode(b"caf\xe9 =1")}
    for name in names:
        for ending in ("csv", "json", "raven.txt", "audacity.txt"):
            assert (out / f"{name}.{ending}").is_file()
    assert entries[str(disk / "a" / "20230412_053000.wav")].recorded_at == "2023-04-12T05:30:00"
    assert (summary.recordings, summary.totals.windows) == (4, 3 + 5 + 2 + 1)
    assert summary.hours == pytest.approx((1.3 + 2.2 + 0.7 + 0.4) / 3600)
    assert results.manifest["hop"] == 0.5
    table = json.loads((out / "summary.json").read_text())
    assert table["decided"] is None
    assert sum(each["events"] for each in table["labels"]) == sum(entry.events for entry in entries.values())
    assert "2 skipped" in (out / "summary.txt").read_text()
    assert not list(out.rglob(".*"))


def test_the_numbers_are_those_of_predict(whole, posterior, disk):
    """As far as float32 goes; recordings that are predicted together differ in their last digits."""
    results, file = ResultsFolder(whole[0]), disk / "b" / "20230412_053000.wav"
    [tags] = tag_each(posterior, file, 4, samples=True)
    entry = next(entry for entry in results.recordings() if entry.file == str(file))
    with results.record(entry) as record:
        windows, events = record.windows(), record.events()
    np.testing.assert_allclose(windows.probability, tags.uncertainty.probability, atol=1e-6)
    np.testing.assert_allclose(windows.low, np.quantile(tags.uncertainty.samples, 0.05, axis=1), atol=1e-6)
    expected = find_events(posterior.labels, [tags], EventRules(**LOW))
    assert [(each.label, each.onset, each.offset) for each in events] == [
        (each.label, each.onset, each.offset) for each in expected
    ]
    assert expected
    rows = list(csv.DictReader((whole[0] / "b" / "20230412_053000.csv").read_text().splitlines()))
    found = np.array([float(row["probability"]) for row in rows], dtype=np.float32).reshape(-1, 3)
    np.testing.assert_array_equal(found, windows.probability)


def test_events_have_times_of_day(whole, disk):
    rows = list(csv.DictReader((whole[0] / "events.csv").read_text().splitlines()))
    timed = [row for row in rows if "20230412" in row["file"]]
    assert timed
    for row in rows:
        expected = f"2023-04-12T05:30:{float(row['onset']):06.3f}" if row in timed else ""
        assert row["start_time"] == expected
        assert row["label"] in ("dog", "'=rain\\n", "c")
    raven = (whole[0] / "b" / "20230412_053000.raven.txt").read_text().splitlines()
    audacity = (whole[0] / "b" / "20230412_053000.audacity.txt").read_text().splitlines()
    assert len(raven) - 1 == len(audacity) == sum(str(disk / "b") in row["file"] for row in rows)
    assert len({len(line.split("\t")) for line in raven}) == 1


class StopError(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_interruption_changes_nothing(posterior, disk, whole, tmp_path, monkeypatch, after):
    """Stopped in the middle of writing a recording, and gone on with: the same bytes, and nothing is done twice."""
    finish, done = recording_results._Writing.finish, []

    def stop(self, notes):
        if len(done) == after:
            raise StopError
        done.append(self._planned.file)
        return finish(self, notes)

    monkeypatch.setattr(recording_results._Writing, "finish", stop)
    with pytest.raises(StopError):
        predict(posterior, disk, tmp_path / "r")
    assert not list((tmp_path / "r").rglob(".*"))
    before = set(done)
    assert len(ResultsFolder(tmp_path / "r").recordings()) >= after
    after = 99
    with pytest.raises(ResultsError, match="holds results already"):
        predict(posterior, disk, tmp_path / "r")
    predict(posterior, disk, tmp_path / "r", resume=True)
    assert len(done) == 4
    assert before.isdisjoint(done[len(before) :])
    assert contents(tmp_path / "r") == contents(whole[0])


def test_what_changed_is_done_again_and_what_is_new(posterior, disk, whole, tmp_path):
    here, out = tmp_path / "disk", tmp_path / "r"
    shutil.copytree(disk, here)
    predict(posterior, here, out)
    stays, changed = out / "records" / "events.wav.h5", out / "records" / "a" / "20230412_053000.h5"
    before = stays.stat().st_mtime_ns, changed.stat().st_mtime_ns
    (out / "events.wav.csv").unlink()
    sound(here / "a" / "20230412_053000.wav", 1.9)
    sound(here / "a" / "new.wav", 0.5)
    (here / "empty.wav").unlink()
    summary = predict(posterior, here, out, resume=True)
    assert stays.stat().st_mtime_ns == before[0]
    assert changed.stat().st_mtime_ns > before[1]
    # A file of a format that is missing is made from the record.
    assert (out / "events.wav.csv").read_bytes() == (whole[0] / "events.wav.csv").read_bytes().replace(
        str(disk).encode(), str(here).encode()
    )
    assert summary.recordings == 5
    assert len(summary.skipped) == 1


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"hop": 0.25}, "hop = 0.5, not 0.25"),
        ({"channel": "left"}, "channel = mix, not left"),
        ({"abstain_above": 0.5}, "decisions = None"),
    ],
)
def test_other_options_are_refused(posterior, disk, whole, options, difference):
    with pytest.raises(ResultsError, match=difference):
        predict(posterior, disk, whole[0], resume=True, **options)
    with pytest.raises(ResultsError, match=r"events.gap = 0.5, not 0.0"):
        predict_to(posterior, disk, whole[0], draws=4, rules={"threshold": 0.34}, resume=True)


def test_another_posterior_is_refused(disk, whole, tmp_path):
    other = Posterior.build(
        net="resnet14-narrow", labels=("dog", "=rain\n", "c"), task=Task.ONE_OF_K, sample_rate=RATE, clip_seconds=0.5
    )
    with pytest.raises(ResultsError, match="another posterior"):
        predict(other, disk, whole[0], resume=True)
    with pytest.raises(SettingError, match="on disk"):
        predict(other, disk, tmp_path / "r", jobs=2)


def test_decisions_and_windows_outside(posterior, disk, tmp_path, monkeypatch):
    usual = Usual(
        score="entropy", limit=0.0, level=0.05, quantiles=(0.0, 1.0), recordings=2, mean=0.5, deviation=0.1, clips=9
    )
    calibration = Calibration(
        temperature=1, threshold=0.1, coverage=0.9, draws=4, clips=(3, 3), data=("x",), usual=usual
    )
    monkeypatch.setattr(posterior, "calibration", calibration)
    summary = predict(posterior, disk / "a", tmp_path / "r", abstain_above=5.0)
    assert summary.totals.outside == summary.totals.left == summary.totals.windows == 3
    assert "out of distribution: 3 windows (100.0%)" in summary.text()
    results = ResultsFolder(tmp_path / "r")
    with results.record(results.recordings()[0]) as record:
        windows = record.windows()
        assert windows.outside.all()
        assert not windows.called.any()
        assert windows.in_set.shape == (3, 3)


def test_nothing_that_can_be_read(posterior, disk, tmp_path):
    with pytest.raises(AudioError, match="no file of 2 can be read"):
        predict(posterior, [disk / "empty.wav", disk / "none.wav"], tmp_path / "r")
    with pytest.raises(AudioError, match="no such file"):
        predict(posterior, tmp_path / "missing.wav", tmp_path / "r2")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(ResultsError, match=r"other files, such as thesis.txt"):
        predict(posterior, disk, tmp_path / "full")


def test_two_times_are_said(posterior, tmp_path, caplog):
    """By the name and by the metadata."""
    caplog.set_level(logging.INFO)
    sound(tmp_path / "20230412_053000.wav", 0.5)
    path = tmp_path / "20230412_053000.wav"
    guano = b"Timestamp: 2020-01-01T00:00:00Z\n"
    content = path.read_bytes() + b"guan" + len(guano).to_bytes(4, "little") + guano
    path.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])
    summary = predict(posterior, path, tmp_path / "r", formats=())
    assert "was recorded at 2020-01-01 00:00:00+00:00 by its GUANO metadata, which is taken" in caplog.text
    assert summary.notes == {"two-times": 1}


@settings(max_examples=30)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "A", "é", "a.wav", "events", "x" * 240]), min_size=1, max_size=3).map("/".join),
        max_size=12,
    )
)
def test_names_of_results_are_apart(tmp_path_factory, places):
    folder = tmp_path_factory.mktemp("names")
    for place in places:
        path = folder / f"{place}.wav"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError:  # A file of that name is a folder already.
            continue
    if not list(folder.rglob("*.wav")):
        return
    names = [each.name for each in plan([folder], [])]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(len(part.encode()) < 180 for name in names for part in name.split("/"))
    shutil.rmtree(folder)


@given(st.lists(st.integers(0, 20_000_000), max_size=200))
def test_groups_hold_all_in_order(sizes):
    planned = [Planned(None, str(index), str(index), size, 0.0) for index, size in enumerate(sizes)]
    groups = list(together(planned))
    assert [each for group in groups for each in group] == planned
    assert all(len(group) == 1 or sum(each.size for each in group) <= 1 << 24 for group in groups)
    assert all(len(group) <= 64 for group in groups)


@pytest.mark.long
def test_several_processes_write_the_same_bytes(posterior, disk, tmp_path, monkeypatch):
    monkeypatch.setattr("bayes_panns.jobs.planning._TOGETHER", 1)
    for jobs in (1, 2):
        predict(posterior, disk, tmp_path / str(jobs), jobs=jobs)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
