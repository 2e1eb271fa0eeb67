"""The folder of results: its entries, and its lock."""

from dataclasses import replace

import pytest

from bayes_panns.audio.notes import Note
from bayes_panns.core.choices import SoundNote
from bayes_panns.core.errors import ResultsError
from bayes_panns.jobs.results import Entry, ResultsFolder
from bayes_panns.predictions.records import RecordWriter
from tests.report.view.made import windows as made

ENTRIES = [
    Entry(
        "a\udcff\n.wav",
        "records/a.h5",
        "/x/a\udcff\n.wav",
        1.5,
        3,
        "2023-04-12T05:30:00",
        (Note(SoundNote.SILENT, "is silent"),),
        2,
    ),
    Entry("b.wav", skipped="b.wav: no such file", size=3, mtime=1700000000.123456),
]


def test_entries_are_read_back(tmp_path):
    results = ResultsFolder(tmp_path / "results")
    assert not results.exists
    with results.claimed():
        results.begin({"labels": ["dog"]})
        results.append(ENTRIES[0])
        results.append(ENTRIES[1])
    assert results.exists
    assert results.labels == ("dog",)
    assert ResultsFolder(results.path).recordings() == ENTRIES
    with pytest.raises(ResultsError, match="was skipped"):
        results.record(ENTRIES[1])


def test_a_line_that_was_cut_off_does_not_count(tmp_path):
    results = ResultsFolder(tmp_path)
    results.write_recordings(ENTRIES)
    place = tmp_path / "recordings.jsonl"
    whole = place.read_bytes()
    for end in range(1, len(ENTRIES[1].line()), 23):
        place.write_bytes(whole[:-end])
        assert results.recordings() == ENTRIES[:1]
    place.write_bytes(b"x\n" + whole)
    with pytest.raises(ResultsError, match="damaged"):
        results.recordings()


def test_two_writers_do_not_mix(tmp_path):
    with (
        ResultsFolder(tmp_path).claimed(),
        pytest.raises(ResultsError, match="another process"),
        ResultsFolder(tmp_path).claimed(),
    ):
        pass


def test_what_holds_no_results(tmp_path):
    with pytest.raises(ResultsError, match="no such folder"):
        _ = ResultsFolder(tmp_path / "x").manifest
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ResultsError, match="damaged"):
        _ = ResultsFolder(tmp_path).manifest
    ResultsFolder(tmp_path).begin({"format_version": 99})
    with pytest.raises(ResultsError, match="newer"):
        _ = ResultsFolder(tmp_path).manifest


def kept(folder, **changed):
    """A folder with one recording whose line says something else."""
    results = ResultsFolder(folder)
    results.begin({"labels": ["dog"]})
    results.write_recordings([replace(ENTRIES[0], **changed)])
    return results


@pytest.mark.parametrize(
    "changed",
    [
        {"record": "/etc/passwd"},
        {"record": "records/../../a.h5"},
        {"record": "../records/a.h5"},
        {"record": "a.h5"},
        {"record": ""},
        {"file": 5},
        {"path": None},
        {"windows": "3"},
        {"events": -1},
        {"seconds": "long"},
        {"recorded_at": 1},
    ],
)
def test_a_line_of_a_stranger_says_nothing_else(tmp_path, changed):
    with pytest.raises(ResultsError, match=r"recordings\.jsonl: is damaged"):
        kept(tmp_path, **changed).recordings()


def test_bytes_that_are_no_text_are_damage(tmp_path):
    results = kept(tmp_path)
    place = tmp_path / "recordings.jsonl"
    place.write_bytes(place.read_bytes().replace(b"wav", b"w\xe9v"))
    with pytest.raises(ResultsError, match=r"recordings\.jsonl: is damaged"):
        results.recordings()


@pytest.mark.parametrize(
    "changed",
    [{"labels": None}, {"labels": ["dog", True]}, {"labels": []}, {"window": "x"}, {"hop": -1}, {"channel": 2}],
)
def test_a_manifest_of_a_stranger_says_nothing_else(tmp_path, changed):
    ResultsFolder(tmp_path).begin({"labels": ["dog"], **changed})
    with pytest.raises(ResultsError, match=r"results\.json: is damaged"):
        _ = ResultsFolder(tmp_path).labels


def test_a_record_of_other_labels_is_told_of(tmp_path):
    results = kept(tmp_path)
    (tmp_path / "records").mkdir()
    with RecordWriter(tmp_path / "records" / "a.h5", labels=["cat"], file="a", source=tmp_path / "a") as writer:
        writer.add(made(2, labels=1))
    with pytest.raises(ResultsError, match="other labels"), results.record(ENTRIES[0]):
        pass
