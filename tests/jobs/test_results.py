"""The folder of results: its entries, and its lock."""

import pytest

from bayes_panns.audio.notes import Note
from bayes_panns.core.choices import SoundNote
from bayes_panns.core.errors import ResultsError
from bayes_panns.jobs.results import Entry, ResultsFolder

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
