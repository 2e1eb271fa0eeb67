import json
import os
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from bayes_panns.audio.recording import Recording
from bayes_panns.clips import ClipSet, Store, esc50, folder, pack
from bayes_panns.clips.catalogs import Catalog, Clip
from bayes_panns.clips.catalogs.catalog import SoundFiles
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import OutputError, SettingError, StoreError


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


def test_notes_are_counted_and_said_once_a_kind(recordings, tmp_path, caplog):
    wave = 0.3 * np.sin(np.arange(8000))
    for name in ("a", "b"):
        path = recordings / "cow" / f"{name}.wav"
        soundfile.write(path, np.stack([wave, -wave], axis=1), 8000)
    content = (recordings / "cow" / "05.wav").read_bytes()
    (recordings / "cow" / "05.wav").write_bytes(content[: len(content) // 2])
    report = pack(folder(recordings), tmp_path / "a.h5", sample_rate=8000, seconds=1)
    assert [(name, str(note.kind)) for name, note in report.notes] == [
        ("cow/05.wav", "truncated"),
        ("cow/a.wav", "cancelled"),
        ("cow/b.wav", "cancelled"),
        ("hen/00.wav", "clipped"),
    ]
    assert report.noted == "1 truncated, 2 cancelled, 1 clipped"
    provenance = Store(tmp_path / "a.h5").provenance
    assert provenance["notes"] == {"truncated": 1, "cancelled": 2, "clipped": 1}
    assert provenance["note_examples"]["truncated"]["cow/05.wav"].startswith("is truncated: it promises 0.16 s")
    told = [record.message for record in caplog.records if "cancelled" in record.message]
    assert len(told) == 1
    assert "2 of 13 clips" in told[0]
    left = pack(folder(recordings), tmp_path / "b.h5", sample_rate=8000, seconds=1, channel="left")
    assert [str(note.kind) for _, note in left.notes] == ["truncated", "clipped"]
    store = Store(tmp_path / "b.h5")
    assert store.provenance["channel"] == "left"
    assert np.abs(store.waveform([store.names.index("cow/a.wav")])).max() > 0.29
    with pytest.raises(SettingError, match="channel 'middle'"):
        pack(folder(recordings), tmp_path / "c.h5", channel="middle")


def test_parts_of_a_file(tmp_path):
    wave = np.linspace(-0.5, 0.5, 8000 * 10)
    soundfile.write(tmp_path / "long.wav", wave, 8000, subtype="FLOAT")
    clips = tuple(
        Clip(tmp_path / "long.wav", f"{start}", start=start, seconds=seconds)
        for start, seconds in ((0, 1), (4.5, 1), (9.5, 1), (11, 1), (2, 0.5))
    )
    catalog = Catalog("folder", (), Task.UNLABELLED, 1.0, clips, tmp_path)
    report = pack(catalog, tmp_path / "a.h5", sample_rate=8000)
    assert report.skipped == (("11", "ends before 11 s"),)
    waveform = Store(tmp_path / "a.h5").waveform(range(4))
    for index, (start, seconds) in enumerate(((0, 1), (4.5, 1), (9.5, 0.5), (2, 0.5))):
        first, last = round(start * 8000), round((start + seconds) * 8000)
        np.testing.assert_allclose(waveform[index][: last - first], wave[first:last], atol=1e-4)
        assert (waveform[index][last - first :] == 0).all()


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "Input/output error"), RuntimeError("odd\nword"), KeyError()]
)
def test_no_error_of_one_file_costs_the_others(recordings, tmp_path, monkeypatch, error):
    def failing(path, rate, **options):
        if path.name == "04.wav":
            raise error
        return Recording(path, rate, **options)

    monkeypatch.setitem(pack.__globals__, "Recording", failing)
    report = pack(folder(recordings), tmp_path / "a.h5", sample_rate=8000, seconds=0.1)
    assert report.packed == 10
    reason = dict(report.skipped)["hen/04.wav"]
    assert reason
    assert "\n" not in reason


def test_a_class_that_cannot_be_read_does_not_vanish(recordings, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("bayes_panns.audio.ffmpeg.program", lambda: None)
    for path in (recordings / "cow").iterdir():
        path.unlink()
    (recordings / "cow" / "a.m4a").write_bytes(b"\0\0\0 ftypM4A " + bytes(999))
    report = pack(folder(recordings), tmp_path / "a.h5")
    assert Store(tmp_path / "a.h5").labels == ("cow", "hen")
    assert "install ffmpeg" in dict(report.skipped)["cow/a.m4a"]
    (recordings / "cow" / "a.m4a").rename(recordings / "cow" / "a.txt")
    caplog.clear()
    assert folder(recordings).labels == ()
    assert "1 folder (cow) without sound, so the recordings have no labels" in caplog.text


def test_names_that_are_not_utf8(recordings, tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    (recordings / "cow" / "01.wav").rename(recordings / "cow" / name)
    pack(folder(recordings), tmp_path / "a.h5")
    assert "cow/caf\\xe9.wav" in Store(tmp_path / "a.h5").names


def test_a_missing_file_names_those_that_are_similar(recordings, tmp_path):
    (recordings / "hen" / "02.wav").rename(recordings / "hen" / "A.wav")
    (recordings / "hen" / "04.wav").rename(recordings / "hen" / "a.WAV")
    clips = (Clip(recordings / "hen" / "a.wav", "a"), Clip(recordings / "hen" / "00.wav", "b"))
    report = pack(Catalog("folder", (), Task.UNLABELLED, 1.0, clips, recordings), tmp_path / "a.h5")
    assert report.skipped == (("a", "no such file; there are A.wav and a.WAV"),)


def test_files_are_found_by_names_that_differ_in_case_or_form(tmp_path):
    there = tmp_path / "Audio" / unicodedata.normalize("NFD", "Café.WAV")
    there.parent.mkdir()
    there.touch()
    assert SoundFiles().locate(tmp_path / "audio" / "café.wav") == there
    assert SoundFiles().locate(tmp_path / "Audio" / "CAFÉ.mp3") == there
    (tmp_path / "Audio" / "cafÉ.wav").touch()
    assert SoundFiles().locate(tmp_path / "audio" / "café.wav") == tmp_path / "audio" / "café.wav"
    assert SoundFiles().locate(tmp_path / "no" / "x.wav") == tmp_path / "no" / "x.wav"
