import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import bayes_panns.clips.writer as writer_module
from bayes_panns.clips import Store, StoreWriter, Task, write
from bayes_panns.core.errors import OutputError, StoreError

RATE, SAMPLES, LABELS = 100, 50, ("bark", "purr", "rain")


def store(path, clips=6, *, seed=0, labels=LABELS, rate=RATE, samples=SAMPLES, task=Task.ONE_OF_K, **columns):
    waveform = np.random.default_rng(seed).uniform(-1, 1, (clips, samples)).astype(np.float32)
    target = np.eye(len(LABELS), dtype=bool)[np.arange(clips) % len(LABELS)]
    write(path, waveform, target, labels, task, rate, **columns)
    return path


class TestWriter:
    def writer(self, path, **options):
        return StoreWriter(
            path, **{"labels": LABELS, "task": "one-of-k", "sample_rate": RATE, "samples": SAMPLES} | options
        )

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
    def test_an_interrupted_block_leaves_nothing_and_keeps_the_old_store(self, tmp_path, error):
        path = store(tmp_path / "a.h5", 3)
        before = path.read_bytes()

        def interrupted(path):
            with self.writer(path) as writer:
                for index in range(70):
                    writer.add(str(index), np.zeros(5), [0])
                raise error

        for target in (path, tmp_path / "new.h5"):
            with pytest.raises(error):
                interrupted(target)
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]

    def test_an_empty_store_is_refused(self, tmp_path):
        with pytest.raises(StoreError, match="no clip to write"), self.writer(tmp_path / "a.h5"):
            pass
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("name", "waveform", "target", "options", "match"),
        [
            ("", np.zeros(3), [0], {}, "no name"),
            ("x", np.zeros(0), [0], {}, "empty"),
            ("x", np.array([0.0, np.nan]), [0], {}, "finite"),
            ("x", np.zeros((2, 3)), [0], {}, "mono"),
            ("x", np.zeros(3, np.int16), [0], {}, "mono float"),
            ("x", np.zeros(3), [0, 1], {}, "2 labels"),
            ("x", np.zeros(3), [], {}, "0 labels"),
            ("x", np.zeros(3), [3], {}, "label indices below 3"),
            ("x", np.zeros(3), [-1], {}, "label indices below 3"),
            ("x", np.zeros(3), [0, 0, 1], {}, "distinct label indices"),
            ("x", np.zeros(3), np.array([0.0, 1.0]), {}, "neither 3 bools"),
            ("x", np.zeros(3), np.array([True]), {}, r"shape \(1,\)"),
            ("x", np.zeros(3), [0], {"fold": None}, "has no fold and earlier clips have one"),
            ("x", np.zeros(3), [0], {"fold": 2**31}, "has fold"),
        ],
    )
    def test_clips_that_do_not_fit(self, tmp_path, name, waveform, target, options, match):
        with self.writer(tmp_path / "a.h5") as writer:
            writer.add("first", np.zeros(5), [0], fold=1)
            with pytest.raises(StoreError, match=match):
                writer.add(name, waveform, target, **{"fold": 1} | options)
        assert Store(tmp_path / "a.h5").names == ["first"], "a clip that is refused leaves no trace"

    def test_an_error_in_the_block_removes_the_temporary(self, tmp_path):
        with pytest.raises(StoreError), self.writer(tmp_path / "a.h5") as writer:
            writer.add("", np.zeros(5), [0])
        assert not list(tmp_path.iterdir())

    def test_places_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="is a folder"), self.writer(tmp_path):
            pass
        with pytest.raises(StoreError, match="cannot be written"), self.writer(tmp_path / "file" / "a.h5"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_missing_folders_are_made(self, tmp_path):
        assert Store(store(tmp_path / "deep" / "er" / "a.h5")).path.is_file()

    def test_a_folder_without_permission(self, tmp_path, monkeypatch):
        def refused(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", refused)
        with pytest.raises(StoreError, match="Permission denied"), self.writer(tmp_path / "a.h5"):
            pass

    def test_a_full_disk(self, tmp_path, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
        with pytest.raises(StoreError, match="the disk is full after 6 clips"):
            store(tmp_path / "a.h5")
        assert not list(tmp_path.iterdir())

    def test_bad_arguments(self, tmp_path):
        with pytest.raises(StoreError, match="more than once"):
            self.writer(tmp_path / "a.h5", labels=["a", "a"])
        with pytest.raises(StoreError, match="unknown task"):
            self.writer(tmp_path / "a.h5", task="regression")
        with pytest.raises(StoreError, match="0 samples"):
            self.writer(tmp_path / "a.h5", samples=0)
        with pytest.raises(StoreError, match="6 waveforms, but 2 rows of fold"):
            store(tmp_path / "a.h5", fold=[1, 2])

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"sample_rate": 0}, "sample rate 0 Hz; a rate from 1 to 10000000"),
            ({"sample_rate": 10**12}, "sample rate 1000000000000 Hz"),
            ({"samples": 0}, "clips of 0 samples"),
            ({"samples": -5}, "clips of -5 samples"),
            ({"samples": 2**28 + 1}, f"from 1 to {2**28} are possible"),
        ],
    )
    def test_absurd_sizes(self, tmp_path, options, match):
        with pytest.raises(StoreError, match=match):
            self.writer(tmp_path / "a.h5", **options)

    def test_long_clips_are_buffered_one_by_one(self, tmp_path):
        """A clip of 35 minutes at 32 kHz."""
        writer = self.writer(tmp_path / "a.h5", samples=2**26)
        assert writer._waveform.shape == (1, 2**26)
        assert self.writer(tmp_path / "a.h5", samples=320000)._waveform.shape == (64, 320000)

    def test_parts_of_any_size_give_one_store(self, tmp_path, monkeypatch):
        monkeypatch.setattr(writer_module, "BUFFER_BYTES", 2 * 2 * SAMPLES)
        in_twos = store(tmp_path / "a.h5", 7, fold=range(7), source=list("abcdefg"))
        monkeypatch.undo()
        whole = store(tmp_path / "b.h5", 7, fold=range(7), source=list("abcdefg"))
        first, second = Store(in_twos), Store(whole)
        assert (first.waveform(range(7)) == second.waveform(range(7))).all()
        assert (first.target() == second.target()).all()
        assert first.digests(range(7)) == second.digests(range(7))

    def test_two_writers_of_one_place_do_not_disturb_each_other(self, tmp_path):
        with self.writer(tmp_path / "a.h5") as first, self.writer(tmp_path / "a.h5") as second:
            first.add("first", np.zeros(5), [0])
            second.add("second", np.zeros(5), [0])
        assert Store(tmp_path / "a.h5").names == ["first"], "the one that ends last"
        assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]

    def test_a_block_that_cannot_be_entered_leaves_nothing(self, tmp_path, monkeypatch):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(h5py, "File", full)
        with pytest.raises(StoreError, match="No space left on device"), self.writer(tmp_path / "a.h5"):
            pass
        assert not list(tmp_path.iterdir())

    def test_adding_outside_the_block(self, tmp_path):
        writer = self.writer(tmp_path / "a.h5")
        with pytest.raises(RuntimeError, match="inside a `with` block"):
            writer.add("x", np.zeros(5), [0])
        with writer:
            writer.add("x", np.zeros(5), [0])
        with pytest.raises(RuntimeError, match="inside a `with` block"):
            writer.add("y", np.zeros(5), [0])

    def test_arrays_that_do_not_fit(self, tmp_path):
        for options, match in (
            ({"names": ["a"]}, "2 waveforms, but 1 rows of names"),
            ({"source": list("abc")}, "2 waveforms, but 3 rows of source"),
        ):
            with pytest.raises(StoreError, match=match):
                store(tmp_path / "a.h5", 2, **options)
        with pytest.raises(StoreError, match=r"shape \(2,\), not \(clips, samples\)"):
            write(tmp_path / "a.h5", np.zeros(2), np.eye(2, dtype=bool), ("a", "b"), "one-of-k", RATE)

    def test_names_that_are_not_utf8(self, tmp_path):
        store(tmp_path / "a.h5", 2, names=["caf\udce9.wav", "日本.wav"])
        assert Store(tmp_path / "a.h5").names == ["caf\\xe9.wav", "日本.wav"]
