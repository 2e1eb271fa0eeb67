import shutil
from pathlib import Path

import numpy as np
import pytest

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
        for missing in (tmp_path / "file" / "a.h5", tmp_path / "none" / "a.h5"):
            with pytest.raises(OutputError, match="does not exist"), self.writer(missing):
                pass
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

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
