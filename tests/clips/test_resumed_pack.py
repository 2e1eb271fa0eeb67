"""Packs that are interrupted and go on, by several processes, and into several stores."""

import json
import logging
import os
import random
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from bayes_panns.clips import ClipSet, Store, pack, unfinished
from bayes_panns.clips.catalogs import Catalog, Clip
from bayes_panns.clips.pack_plan import stores
from bayes_panns.clips.unfinished import Unfinished
from bayes_panns.clips.written_again import WrittenAgain
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import BayesPannsError, OutputError, StoreError

CLIPS, RATE = 150, 8000
OPTIONS = {"sample_rate": RATE, "seconds": 0.1}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """150 clips of two labels, two of them unreadable, one missing, one silent, one beyond full scale."""
    root = tmp_path_factory.mktemp("farm")
    generator = np.random.default_rng(0)
    clips = []
    for index in range(CLIPS):
        path = root / f"{index:03d}.wav"
        level = 0 if index == 80 else 1.5 if index == 90 else 0.3
        soundfile.write(path, level * generator.uniform(-1, 1, 600 + 3 * index), RATE, subtype="FLOAT")
        clips.append(Clip(path, path.name, (index % 2,), fold=1 + index % 3, source=f"rec{index // 4}"))
    (root / "003.wav").write_bytes(b"not a sound")
    (root / "148.wav").write_bytes(b"not a sound")
    (root / "070.wav").unlink()
    return Catalog("folder", ("a", "b"), Task.ONE_OF_K, 0.1, tuple(clips), root)


@pytest.fixture(scope="module")
def whole(catalog, tmp_path_factory):
    """The bytes of a store that was packed at once."""
    path = tmp_path_factory.mktemp("whole") / "a.h5"
    pack(catalog, path, **OPTIONS)
    return path.read_bytes()


def snapshots(catalog, place, moments, monkeypatch, name="a.h5", **options):
    """Pack, and copy what a kill would leave just before each of some writes, the last of them half done."""
    write, append, count = WrittenAgain._write, Unfinished.append, 0

    def moment():
        nonlocal count
        count += 1
        return count in moments

    def copied():
        shutil.copytree(place / "now", place / f"at-{count}")
        return place / f"at-{count}" / f"{name}.part"

    def watched(file, view):
        if moment():
            part = copied()
            with (part / "store.unfinished").open("r+b") as copy:
                copy.seek(file._place)
                copy.write(view[: len(view) // 2])
        return write(file, view)

    def appended(part, entries):
        entries = list(entries)
        if moment():
            with (copied() / "journal.jsonl").open("ab") as copy:
                copy.write(json.dumps(entries[0] if entries else {})[:-9].encode())
        append(part, entries)

    with monkeypatch.context() as patched:
        patched.setattr(WrittenAgain, "_write", watched)
        patched.setattr(Unfinished, "append", appended)
        (place / "now").mkdir(exist_ok=True)
        pack(catalog, place / "now" / name, **OPTIONS, **options)
    return sorted(each for each in place.iterdir() if each.name != "now")


def counted(monkeypatch):
    """A list that has the name of each file that is decoded from now on."""
    names, recording = [], pack.__globals__["Recording"]

    def opened(path, *args, **options):
        names.append(path.name)
        return recording(path, *args, **options)

    monkeypatch.setitem(pack.__globals__, "Recording", opened)
    return names


def test_a_killed_pack_goes_on_to_the_same_bytes(catalog, whole, tmp_path, monkeypatch):
    places = snapshots(catalog, tmp_path, {40, 74, 142, 170}, monkeypatch)
    names, decoded = counted(monkeypatch), {}
    for place in places:
        names.clear()
        report = pack(catalog, place / "a.h5", resume=True, **OPTIONS)
        assert (place / "a.h5").read_bytes() == whole, place
        assert [each.name for each in place.iterdir()] == ["a.h5"]
        assert (report.packed, len(report.skipped), report.noted) == (147, 3, "1 silent, 1 clipped")
        decoded[place.name] = len(names)
    # 64 clips are written at a time; 65 and 130 clips had been taken then, with those that were skipped.
    assert set(decoded.values()) == {CLIPS, CLIPS - 65, CLIPS - 130}, decoded


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
def test_a_pack_that_is_killed_again_while_it_goes_on(catalog, whole, tmp_path, monkeypatch, seed):
    generator = random.Random(seed)
    (killed,) = snapshots(catalog, tmp_path, {generator.randint(75, 180)}, monkeypatch)
    (killed / "now").mkdir()
    (killed / "a.h5.part").rename(killed / "now" / "a.h5.part")
    for twice in snapshots(catalog, killed, {generator.randint(1, 170)}, monkeypatch, resume=True):
        pack(catalog, twice / "a.h5", resume=True, **OPTIONS)
        assert (twice / "a.h5").read_bytes() == whole
    assert (killed / "now" / "a.h5").read_bytes() == whole


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("moment", "error", "known"), [(20, FULL, True), (72, KeyboardInterrupt(), False), (100, FULL, True)]
)
def test_what_ends_a_pack_while_it_writes(catalog, whole, tmp_path, monkeypatch, caplog, error, known, moment):
    (tmp_path / "a.h5").write_bytes(b"what was there before")
    write, calls = WrittenAgain._write, iter(range(10**6))

    def failing(file, view):
        if next(calls) == moment:
            raise error
        return write(file, view)

    with monkeypatch.context() as patched:
        patched.setattr(WrittenAgain, "_write", failing)
        with pytest.raises(StoreError if known else type(error)) as raised:
            pack(catalog, tmp_path / "a.h5", **OPTIONS)
    if known:
        assert "a.h5: cannot be written (No space left on device)" in str(raised.value)
    assert (tmp_path / "a.h5").read_bytes() == b"what was there before"
    kept = "65 of 150 clips are kept in" in caplog.text and "go on with the same command and --resume" in caplog.text
    assert kept == (tmp_path / "a.h5.part").exists() == (moment > 70)
    pack(catalog, tmp_path / "a.h5", resume=True, **OPTIONS) if kept else pack(catalog, tmp_path / "a.h5", **OPTIONS)
    assert (tmp_path / "a.h5").read_bytes() == whole


@pytest.fixture(scope="module")
def interrupted(catalog, tmp_path_factory):
    """A folder with a pack that was killed after 65 clips."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        (place,) = snapshots(catalog, tmp_path_factory.mktemp("interrupted"), {100}, monkeypatch)
    return place


@pytest.fixture
def killed(interrupted, tmp_path):
    """A copy of it."""
    return shutil.copytree(interrupted, tmp_path / "killed")


def test_an_interrupted_pack_is_not_thrown_away_and_is_no_store(catalog, killed, monkeypatch):
    names = counted(monkeypatch)
    with pytest.raises(
        StoreError, match=r"a\.h5: an interrupted pack of it is there \(65 clips are done\); go on with"
    ):
        pack(catalog, killed / "a.h5", **OPTIONS)
    assert (killed / "a.h5.part" / "journal.jsonl").exists()
    assert not names
    for path in (killed / "a.h5.part", killed / "a.h5.part" / "store.unfinished"):
        with pytest.raises(BayesPannsError):
            Store(path)


@pytest.mark.parametrize(
    ("what", "options", "change"),
    [
        ("--sample-rate", {"sample_rate": 16000}, None),
        ("--seconds", {"seconds": 0.2}, None),
        ("--channel", {"channel": "left"}, None),
        ("--exclude", {"exclude": ["149.wav"]}, None),
        ("--clips-per-store", {"clips_per_store": 90}, None),
        ("the catalog", {}, lambda catalog: replace(catalog, labels=("a", "c"))),
        ("the clips", {}, lambda catalog: replace(catalog, clips=catalog.clips[::-1])),
        (
            "the clips",
            {},
            lambda catalog: replace(catalog, clips=(replace(catalog.clips[0], fold=9), *catalog.clips[1:])),
        ),
    ],
)
def test_a_pack_of_something_else_does_not_go_on(catalog, killed, what, options, change):
    with pytest.raises(StoreError, match=f"the interrupted pack of it had {what} other than now; give the same, or"):
        pack(change(catalog) if change else catalog, killed / "a.h5", resume=True, **{**OPTIONS, **options})
    assert (killed / "a.h5.part").is_dir()


def placed(catalog, root):
    """The catalog with its files in another folder."""
    clips = tuple(replace(each, path=root / each.path.name) for each in catalog.clips)
    return replace(catalog, root=root, clips=clips)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda root: os.utime(root / "010.wav", ns=(1, 1)), r"010\.wav has changed since it was packed; put it back"),
        (lambda root: (root / "010.wav").unlink(), r"010\.wav is gone since it was packed"),
    ],
)
def test_files_that_change_meanwhile(catalog, killed, tmp_path, whole, change, told):
    root = tmp_path / "copy"
    shutil.copytree(catalog.root, root)
    moved = replace(
        catalog, root=root, clips=tuple(replace(each, path=root / each.path.name) for each in catalog.clips)
    )
    change(root)
    with pytest.raises(StoreError, match=r"the interrupted pack of it had the source other than now"):
        pack(moved, killed / "a.h5", resume=True, **OPTIONS)
    # A data set that has moved, and kept its name, is the same.
    place = tmp_path / "elsewhere" / catalog.root.name
    place.parent.mkdir()
    root.rename(place)
    again = replace(
        catalog, root=place, clips=tuple(replace(each, path=place / each.path.name) for each in catalog.clips)
    )
    with pytest.raises(StoreError, match=told):
        pack(again, killed / "a.h5", resume=True, **OPTIONS)
    shutil.copy2(catalog.root / "010.wav", place / "010.wav")
    pack(again, killed / "a.h5", resume=True, **OPTIONS)
    assert (killed / "a.h5").read_bytes() == whole


@pytest.mark.parametrize("file", ["store.unfinished", "journal.jsonl"])
def test_what_is_damaged_is_packed_again(catalog, killed, whole, monkeypatch, file):
    path = killed / "a.h5.part" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    names = counted(monkeypatch)
    pack(catalog, killed / "a.h5", resume=True, **OPTIONS)
    assert CLIPS - 65 < len(names) < CLIPS
    assert (killed / "a.h5").read_bytes() == whole


def test_two_packs_at_once(catalog, killed, monkeypatch):
    write, tried = WrittenAgain._write, []

    def meanwhile(file, view):
        if not tried:
            tried.append(True)
            with pytest.raises(OutputError, match=r"a\.h5: another process is packing it"):
                pack(catalog, killed / "a.h5", resume=True, **OPTIONS)
        return write(file, view)

    monkeypatch.setattr(WrittenAgain, "_write", meanwhile)
    pack(catalog, killed / "a.h5", resume=True, **OPTIONS)
    assert tried
    assert [path.name for path in killed.iterdir()] == ["a.h5"]


def test_nothing_reaches_a_file_that_is_abandoned(tmp_path):
    path = tmp_path / "a.h5"
    with WrittenAgain(path) as file:
        hdf5 = h5py.File(file, "w", rdcc_nbytes=0)
        hdf5.create_dataset("waveform", (4, 100), chunks=(1, 100), dtype="i2")[0] = 7
        hdf5.flush()
        # HDF5 keeps some of this until it closes the file, and truncates it then.
        hdf5["waveform"][1], hdf5["late"] = 8, np.arange(9)
        there = path.read_bytes()
        file.abandon()
        hdf5.close()
    assert path.read_bytes() == there


def test_nothing_to_go_on_with(catalog, whole, tmp_path):
    pack(catalog, tmp_path / "a.h5", resume=True, **OPTIONS)
    assert (tmp_path / "a.h5").read_bytes() == whole
    with pytest.raises(StoreError, match=r"a\.h5: is packed already, and there is no interrupted pack to go on with"):
        pack(catalog, tmp_path / "a.h5", resume=True, **OPTIONS)
    assert (tmp_path / "a.h5").read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_the_number_of_threads_does_not_matter(catalog, whole, tmp_path):
    pack(catalog, tmp_path / "a.h5", jobs=1, **OPTIONS)
    assert (tmp_path / "a.h5").read_bytes() == whole


@pytest.mark.long
def test_processes_make_the_same_bytes(catalog, whole, tmp_path, monkeypatch):
    monkeypatch.setitem(pack.__globals__, "PROCESSES_FROM", 10)
    report = pack(catalog, tmp_path / "a.h5", jobs=2, **OPTIONS)
    assert (tmp_path / "a.h5").read_bytes() == whole
    assert report.noted == "1 silent, 1 clipped"


@pytest.fixture(scope="module")
def several(catalog, tmp_path_factory):
    """The bytes of each of three stores that were packed at once, by their names."""
    place = tmp_path_factory.mktemp("several")
    report = pack(catalog, place / "a.h5", clips_per_store=70, **OPTIONS)
    assert report.stores == tuple(place / f"a-0{number}.h5" for number in range(3))
    return {path.name: path.read_bytes() for path in report.stores}


def test_several_stores_are_one_data_set(catalog, several, whole, tmp_path):
    (tmp_path / "whole.h5").write_bytes(whole)
    for name, content in several.items():
        (tmp_path / name).write_bytes(content)
    together, one = ClipSet([tmp_path / name for name in several]), ClipSet(tmp_path / "whole.h5")
    every = np.arange(len(one))
    assert (together.names, together.labels) == (one.names, one.labels)
    np.testing.assert_array_equal(together.waveform(every), one.waveform(every))
    assert Store(tmp_path / "a-01.h5").provenance["store"] == [2, 3]
    counts = [Store(tmp_path / name).provenance["packed"] for name in several]
    # 72 clips were listed for the first: the 18 recordings that begin in its 70 stay whole.
    assert counts == [70, 72, 5]
    assert len(Store(tmp_path / "a-02.h5").labels) == 2


def test_several_stores_that_are_killed_go_on(catalog, several, tmp_path, monkeypatch):
    moments = {80, 101, 102, 103, 200, 230}
    places = snapshots(catalog, tmp_path, moments, monkeypatch, clips_per_store=70)
    kept = 0
    for place in places:
        finished = {path.name: path.stat().st_ino for path in place.glob("*.h5")}
        kept += len(finished)
        for name in several:
            if (tmp_path / "now" / name).exists() and name in finished:
                assert (place / name).read_bytes() == several[name]
        pack(catalog, place / "a.h5", clips_per_store=70, resume=True, **OPTIONS)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == several, place
        assert {name: (place / name).stat().st_ino for name in finished} == finished
    assert kept > 2


@pytest.mark.parametrize("number", [1, 3])
def test_a_store_that_is_finished_and_not_in_its_place(catalog, several, tmp_path, monkeypatch, number):
    put, calls = unfinished.put_in_place, []

    def killed(fresh, path):
        calls.append(path)
        if len(calls) == number:
            raise KeyboardInterrupt
        put(fresh, path)

    with monkeypatch.context() as patched:
        patched.setattr(unfinished, "put_in_place", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(catalog, tmp_path / "a.h5", clips_per_store=70, **OPTIONS)
    names = counted(monkeypatch)
    pack(catalog, tmp_path / "a.h5", clips_per_store=70, resume=True, **OPTIONS)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == several
    assert len(names) == {1: CLIPS - 72, 3: 0}[number]


def test_a_finished_store_that_is_gone(catalog, tmp_path, monkeypatch):
    (place,) = snapshots(catalog, tmp_path, {200}, monkeypatch, clips_per_store=70)
    (place / "a-00.h5").unlink()
    with pytest.raises(StoreError, match=r"a-00\.h5: was finished, and is not there any more; put it back, or remove"):
        pack(catalog, place / "a.h5", clips_per_store=70, resume=True, **OPTIONS)


def test_a_store_of_which_no_clip_can_be_read(catalog, tmp_path, caplog):
    gone = tuple(replace(each, path=each.path.with_suffix(".gone")) for each in catalog.clips[8:16])
    partly = replace(catalog, clips=(*catalog.clips[:8], *gone, *catalog.clips[16:24]))
    (tmp_path / "a-07.h5").touch()
    with caplog.at_level(logging.INFO, "bayes_panns"):
        report = pack(partly, tmp_path / "a.h5", clips_per_store=8, **OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-00.h5", "a-02.h5", "a-07.h5"]
    assert [path.name for path in report.stores] == ["a-00.h5", "a-02.h5"]
    assert "a-01.h5: is not written, since none of its 8 clips can be read" in caplog.text
    assert "a.h5: a-07.h5 was not written by this pack, nor 0 more that are named so" in caplog.text
    with pytest.raises(StoreError, match=r"none of its 8 clips can be read; the first, 008\.wav: no such file"):
        pack(replace(catalog, clips=gone), tmp_path / "b.h5", clips_per_store=4, **OPTIONS)
    assert not (tmp_path / "b.h5.part").exists()


@given(recordings=st.lists(st.integers(1, 7), min_size=1, max_size=40), per_store=st.integers(1, 20))
def test_stores_share_out_the_clips_and_keep_recordings_whole(recordings, per_store):
    sources = [f"rec{index}" for index, clips in enumerate(recordings) for _ in range(clips)]
    clips = [Clip(Path(f"{index}"), f"{index}", source=source) for index, source in enumerate(sources)]
    planned = stores(Path("x/a.h5"), clips, per_store)
    assert [index for _, span in planned for index in span] == list(range(len(clips)))
    assert len({path for path, _ in planned}) == len(planned)
    for (_, span), (_, after) in pairwise(planned):
        assert per_store <= len(span) < per_store + max(recordings)
        assert sources[span[-1]] != sources[after[0]]


def test_missing_files_are_counted_without_looking_for_each(catalog, tmp_path, monkeypatch):
    looked = []
    monkeypatch.setitem(pack.__globals__, "similar", lambda path: looked.append(path) or [])
    gone = tuple(replace(each, path=each.path.with_suffix(".gone")) for each in catalog.clips[:100])
    report = pack(replace(catalog, clips=(*gone, *catalog.clips[100:])), tmp_path / "a.h5", **OPTIONS)
    assert len(report.skipped) == 101
    assert len(looked) == 20


def test_hdf5_may_close_a_file_that_was_interrupted_while_it_was_opened(tmp_path):
    """What has not become an ``h5py.File`` is closed by HDF5 when it is forgotten, after the file itself."""
    file = WrittenAgain(tmp_path / "part")
    hdf5 = h5py.File(file, "w")
    hdf5["waveform"] = np.arange(9)
    written = (tmp_path / "part").read_bytes()
    file.abandon()
    file.close()
    hdf5.close()
    assert (tmp_path / "part").read_bytes() == written
