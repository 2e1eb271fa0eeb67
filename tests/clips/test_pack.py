import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from bayes_panns.audio.recording import Recording
from bayes_panns.clips import ClipSet, Store, esc50, folder, pack
from bayes_panns.core.errors import OutputError, StoreError


@pytest.fixture
def recordings(tmp_path):
    """Twelve recordings of two classes, one of them unreadable."""
    root = tmp_path / "farm"
    for index in range(12):
        path = root / ("cow" if index % 2 else "hen") / f"{index:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        level = 0.5 if index else 1.4
        soundfile.write(path, np.full(800 + 100 * index, level), 8000, subtype="FLOAT")
    (root / "cow" / "03.wav").write_bytes(b"not a sound")
    return root


def test_pack(recordings, tmp_path):
    report = pack(folder(recordings), tmp_path / "out" / "farm.h5", sample_rate=8000, seconds=0.15)
    assert (report.packed, report.excluded) == (11, 0)
    assert [name for name, _ in report.skipped] == ["cow/03.wav"]
    store = Store(tmp_path / "out" / "farm.h5")
    assert store.names == [clip.name for clip in folder(recordings).clips if clip.name != "cow/03.wav"]
    assert (store.labels, store.samples) == (("cow", "hen"), 1200)
    assert store.target()[:, 0].tolist() == [name.startswith("cow") for name in store.names]
    assert store.seconds[store.names.index("hen/10.wav")] == pytest.approx(0.225)
    assert store.waveform([store.names.index("hen/00.wav")])[0, [0, 799, 800]].tolist() == [1, 1, 0]
    provenance = store.provenance
    assert (provenance["catalog"], provenance["source"]) == ("folder", "farm")
    assert (provenance["packed"], provenance["skipped"], provenance["clipped_to_full_scale"]) == (11, 1, 1)
    assert "cow/03.wav" in provenance["skip_reasons"]
    assert str(tmp_path) not in json.dumps(provenance)


def test_exclude_by_name_path_and_source(recordings, tmp_path):
    table = recordings / "list.csv"
    table.write_text("file,labels,source\n" + "".join(f"hen/{n:02d}.wav,hen,rec{n}\n" for n in range(0, 12, 2)))
    output = tmp_path / "a.h5"
    options = {"sample_rate": 8000, "seconds": 0.1}
    report = pack(folder(table), output, exclude=["02.*", "hen/0[46].wav", "rec8"], **options)
    assert (report.packed, report.excluded) == (2, 4)
    assert Store(output).names == ["hen/00.wav", "hen/10.wav"]
    assert Store(output).provenance["exclude"] == ["02.*", "hen/0[46].wav", "rec8"]
    with pytest.raises(StoreError, match="no clip matches the pattern to exclude 'rec99'"):
        pack(folder(table), output, exclude=["rec8", "rec99"], **options)
    with pytest.raises(StoreError, match="every clip is excluded"):
        pack(folder(table), output, exclude=["hen/*"], **options)


def test_missing_files_are_skipped(recordings, tmp_path):
    table = recordings / "list.csv"
    table.write_text("file,labels\nhen/00.wav,a\ngone.wav,b\n")
    report = pack(folder(table), tmp_path / "a.h5")
    assert report.skipped == (("gone.wav", "no such file"),)


def test_nothing_readable_leaves_no_store(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.wav").write_bytes(b"junk")
    with pytest.raises(StoreError, match=r"none of its 2 clips can be read; the first, a\.wav"):
        pack(folder(tmp_path / "in"), tmp_path / "a.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_place_is_checked_before_anything_is_decoded(recordings, tmp_path, monkeypatch):
    monkeypatch.setitem(pack.__globals__, "Recording", lambda *_, **__: pytest.fail("a recording was decoded"))
    with pytest.raises(OutputError, match="is a folder"):
        pack(folder(recordings), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        pack(folder(recordings), tmp_path / "file" / "a.h5")


def test_a_label_whose_files_are_all_skipped_is_named(recordings, tmp_path, caplog):
    for path in (recordings / "hen").iterdir():
        path.write_bytes(b"not a sound")
    pack(folder(recordings), tmp_path / "a.h5")
    (told,) = caplog.records
    assert told.levelname == "WARNING"
    assert "a.h5: 1 of 2 labels ('hen') have no clip, because none of their files could be read" in told.message


def test_a_label_whose_files_are_excluded_is_not(recordings, tmp_path, caplog):
    pack(folder(recordings), tmp_path / "a.h5", exclude=["hen/*"])
    assert not caplog.records


def test_a_single_label_is_warned_of(recordings, tmp_path, caplog):
    table = recordings / "list.csv"
    table.write_text("file,labels\nhen/04.wav,hen\nhen/02.wav,hen\n")
    pack(folder(table), tmp_path / "a.h5")
    (told,) = caplog.records
    assert "every clip has the label 'hen'" in told.message
    caplog.clear()
    table.write_text("file,labels\nhen/04.wav,hen\nhen/02.wav,\n")
    pack(folder(table), tmp_path / "a.h5")
    assert not caplog.records, "clips without the label are the other answer"


def test_interrupted_pack_leaves_nothing(recordings, tmp_path, monkeypatch):
    def interrupted(path, rate, **options):
        if path.name == "09.wav":
            raise KeyboardInterrupt
        return Recording(path, rate, **options)

    monkeypatch.setitem(pack.__globals__, "Recording", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(folder(recordings), tmp_path / "a.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["farm"]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e-9])
def test_lengths_that_hold_nothing(recordings, tmp_path, seconds):
    with pytest.raises(StoreError, match="have no samples"):
        pack(folder(recordings), tmp_path / "a.h5", seconds=seconds)


def test_real_clips(real_data, tmp_path):
    catalog = esc50(real_data / "esc10")
    few = replace(catalog, clips=catalog.clips[::20])
    report = pack(few, tmp_path / "esc.h5", exclude=[few.clips[0].source])
    assert report.packed + report.excluded == len(few.clips) == 20
    assert report.skipped == ()
    clips = ClipSet(tmp_path / "esc.h5")
    assert clips.waveform(range(len(clips))).shape == (report.packed, 160000)
    assert few.clips[0].source not in clips.sources
    held_out = clips.select(folds=[5])
    assert set(held_out.folds.tolist()) == {5}
    assert clips.task == "one-of-k"
