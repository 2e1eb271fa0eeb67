"""Which clips are of one recording, by their sources, sub-folders, names and content."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayes_panns.clips import Catalog, Clip, Task
from bayes_panns.clips.lengths import LENGTHS, PARTS, choose_seconds, cut_long
from bayes_panns.clips.recordings import recording_in, same_files, with_recordings
from bayes_panns.core.choices import RecordingsBy
from bayes_panns.core.errors import StoreError


def catalog(tmp_path, names, *, seconds=5.0, **options):
    """One of class folders; the files are not there."""
    labels = sorted({name.split("/")[0] for name in names})
    clips = [Clip(tmp_path / name, name, (labels.index(name.split("/")[0]),)) for name in names]
    return Catalog("folder", tuple(labels), Task.ONE_OF_K, seconds, tuple(clips), tmp_path, options)


def sources(found):
    return [clip.source for clip in found.catalog.clips]


@pytest.mark.parametrize(
    ("stem", "recording"),
    [
        ("100263-2-0-117", "100263"),
        ("1-100032-A-0", "1-100032"),
        ("0_george_12", "0_george"),
        ("owl 2 (3)", "owl"),
        ("tape4_12.5-15.5", "tape4"),
        ("20240501_053000_3", "20240501_053000"),
        ("20240501_053000", None),
        ("SITE7_20240501_0530", None),
        ("XC417921", None),
        ("12", None),
        ("1-977-A-39", "1-977-A"),
    ],
)
def test_a_name_begins_with_its_recording(stem, recording):
    assert recording_in(stem) == recording


@given(st.text(min_size=1, max_size=30))
def test_any_name_begins_with_what_is_taken_for_its_recording(stem):
    found = recording_in(stem)
    assert found is None or (stem.startswith(found) and 0 < len(found) < len(stem))


def test_parts_of_recordings_are_found_by_their_names(tmp_path):
    names = [f"{kind}/walk{walk}_{part}.wav" for kind in ("dog", "owl") for walk in "5678" for part in (1, 2)]
    found = with_recordings(catalog(tmp_path, names))
    assert found.by is RecordingsBy.NAMES
    # A recording in which both are heard is one.
    assert found.recordings == 4
    assert sources(found)[:3] == ["walk5", "walk5", "walk6"]
    assert found.example == ("walk5", 4)
    assert not found.doubtful


def test_a_number_that_counts_the_clips_of_a_class_is_no_part(tmp_path):
    found = with_recordings(catalog(tmp_path, [f"{kind}/{kind}_{n}.wav" for kind in ("dog", "owl") for n in range(9)]))
    assert (found.by, found.recordings, found.doubtful) == (RecordingsBy.FILES, 18, True)
    assert set(sources(found)) == {None}
    asked = with_recordings(found.catalog, "names")
    assert asked.recordings == 2


def test_sub_folders_come_before_names(tmp_path):
    names = [f"{kind}/site{site}/a_{n}.wav" for kind in ("dog", "owl") for site in range(3) for n in range(2)]
    found = with_recordings(catalog(tmp_path, names))
    assert (found.by, found.recordings) == (RecordingsBy.FOLDERS, 3)
    # One folder in each class says nothing of recordings.
    flat = with_recordings(catalog(tmp_path, [f"{kind}/audio/{n}.wav" for kind in ("dog", "owl") for n in "abcd"]))
    assert flat.by is RecordingsBy.FILES


def test_a_source_is_taken_as_it_is(tmp_path):
    plain = catalog(tmp_path, ["dog/a_1.wav", "dog/a_2.wav", "owl/b_1.wav"])
    with pytest.raises(StoreError, match="add a column source"):
        with_recordings(plain, "sources")
    clips = (Clip(tmp_path / "x", "x", (0,), source="tape"), *plain.clips)
    found = with_recordings(Catalog("folder", plain.labels, plain.task, 5.0, clips, tmp_path))
    assert (found.by, found.recordings) == (RecordingsBy.SOURCES, 4)


def test_the_same_file_twice_is_one_recording(tmp_path):
    names = ["dog/a.wav", "dog/b.wav", "owl/c.wav", "owl/d.wav"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"same" if name in ("dog/b.wav", "owl/c.wav") else name.encode())
    found = with_recordings(catalog(tmp_path, names))
    assert found.twice == ((1, 2),)
    assert found.recordings == 3
    assert sources(found) == [None, "dog/b.wav", "dog/b.wav", None]
    assert same_files([tmp_path / "gone.wav", tmp_path / names[0]]) == []


@given(st.lists(st.floats(0.05, 900), min_size=1, max_size=40))
def test_the_length_holds_nine_of_ten_or_is_the_one_for_long_recordings(lengths):
    lengths = np.array(lengths)
    seconds, why = choose_seconds(lengths)
    assert seconds in LENGTHS
    assert "s long" in why
    if np.median(lengths) > 10:
        assert seconds == 5
    elif seconds < LENGTHS[-1]:
        assert (lengths <= seconds + 0.05).mean() >= 0.9
    shorter = [each for each in LENGTHS if each < seconds]
    if shorter and np.median(lengths) <= 10:
        assert (lengths <= shorter[-1] + 0.05).mean() < 0.9


@given(st.lists(st.floats(0.1, 2000), min_size=1, max_size=8), st.sampled_from([1.0, 3.0, 5.0]))
def test_long_recordings_are_cut_all_over_and_stay_one_recording(tmp_path_factory, lengths, seconds):
    folder = tmp_path_factory.getbasetemp()
    found = cut_long(catalog(folder, [f"dog/{n}.wav" for n in range(len(lengths))]), lengths, seconds)
    assert found.catalog.seconds == seconds
    for index, length in enumerate(lengths):
        parts = [clip for clip in found.catalog.clips if clip.path.name == f"{index}.wav"]
        if length < 1.5 * seconds:
            assert [(part.start, part.seconds, part.source) for part in parts] == [(0.0, None, None)]
            continue
        assert 2 <= len(parts) <= PARTS
        assert {part.source for part in parts} == {f"dog/{index}.wav"}
        assert len({part.name for part in parts}) == len(parts)
        assert parts[0].start == 0
        assert parts[-1].start + seconds == pytest.approx(length, abs=1e-3)
    assert found.clips == sum(clip.seconds is not None for clip in found.catalog.clips)
