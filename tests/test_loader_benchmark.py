"""The benchmark of the loader runs and says what it has measured. No time is asserted."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def test_a_file_is_put_out_of_the_page_cache_and_read_into_it(tmp_path, monkeypatch):
    from benchmarks.loader import material
    from benchmarks.loader.material import forget, remember

    # A large file is looked at in parts.
    monkeypatch.setattr(material, "_VIEW", 1 << 20)
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(10_000_000))
    assert remember(path) == 1
    left = forget(path)
    assert left < 0.1 or left == 1, "a file system in memory keeps it"


def test_clips_that_were_read_leave_the_page_cache(tmp_path):
    from benchmarks.loader.material import Forgetting, forget, places_of, remember, resident, shards_of, store_of

    store = store_of(tmp_path / "clips.h5", 32, seconds=2.0)
    shards = shards_of(store, tmp_path / "shards")
    for path, places in ((store, places_of(store)), (shards[0], places_of(store, shards))):
        assert sorted(places) == list(range(32))
        if forget(path) == 1:
            pytest.skip("a file system in memory keeps its files")
        assert remember(path) == 1
        forgetting = Forgetting(places)
        forgetting.end()
        assert resident(path) == 1
        forgetting = Forgetting(places)
        for clip in places:
            forgetting.add([clip])
        forgetting.end()
        # The ends of the file, and what the system keeps in large pieces.
        assert resident(path) < 0.5


# WebDataset leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_contender_reads_the_same_clips(tmp_path):
    from benchmarks.loader.contenders import CONTENDERS
    from benchmarks.loader.material import shards_of, store_of

    store = store_of(tmp_path / "clips.h5", 16, seconds=0.01)
    shards_of(store, store.with_suffix(".shards"))
    read = {}
    for name in ("panns", "h5py", *(["webdataset"] if installed("webdataset") else [])):
        batches = list(CONTENDERS[name].make(store, 0, 4))
        clips = np.concatenate([clips for _, _, clips in batches])
        assert sorted(clips) == list(range(16))
        values = np.concatenate([each.numpy() for each, _, _ in batches])
        values = values * 32767 if values.dtype == np.float32 else values
        rows = np.hstack([np.rint(values), np.concatenate([target.numpy() for _, target, _ in batches])])
        read[name] = rows[np.argsort(clips)]
    assert (read["h5py"][:, :320] == h5py.File(store)["waveform"][:]).all()
    assert all((rows == read["h5py"]).all() for rows in read.values())


@pytest.mark.long
def test_the_reader_of_a_fit_says_which_clips_it_gives(tmp_path):
    from benchmarks.loader.contenders import CONTENDERS
    from benchmarks.loader.material import store_of

    store = store_of(tmp_path / "clips.h5", 16, seconds=0.01)
    sounds = h5py.File(store)["waveform"][:]
    read = [(values.numpy(), clips) for values, _, clips in CONTENDERS["random"].make(store, 1, 4)]
    assert sorted(clip for _, clips in read for clip in clips) == list(range(16))
    assert all((values == sounds[clip]).all() for each, clips in read for values, clip in zip(each, clips, strict=True))


def installed(package):
    from benchmarks.report import version

    return version(package) is not None


def test_the_table_and_the_picture(tmp_path):
    from benchmarks.loader.tables import table, write

    def turn(rate, cold=True, memory=()):
        there = {"resident": 0.0 if cold else 1.0, "left": 0.05}
        return {"rate": rate, "clips": 100, "first": 1.0, **there, "memory": list(memory)}

    run = {
        "note": "A loaded machine.",
        "settings": {
            "clips": 100,
            "seconds": 10.0,
            "gigabytes": 0.064,
            "batch": 4,
            "workers": [1],
            "read_seconds": 4.0,
            "watched_workers": 1,
        },
        "hardware": "CPU",
        "cores": 2,
        "versions": {"torch": "2", "h5py": "3"},
        "rounds": [
            {
                "panns 1 cold": turn(100.0),
                "random 1 cold": turn(rate),
                "panns 1 warm": turn(200.0, cold=False),
                "random 1 warm": turn(800.0, cold=False),
                "h5py 0 cold": turn(50.0),
                "h5py 0 warm": turn(60.0, cold=False),
            }
            for rate in (500.0, 700.0, 600.0)
        ],
        "memory": {"random": turn(1.0, memory=[(0.0, 100.0, 0), (1.0, 300.0, 30), (2.0, 310.0, 90)])},
    }
    text = table(run)
    assert text.startswith("A loaded machine.")
    assert "| `random` | 1 | 600 (500-700) | 6.00 (5.00-7.00) | 800 (800-800) | 4.00 (4.00-4.00) |" in text
    assert "| `h5py` | 0 | 50 (50-50) | - |" in text
    assert "| `random` | 1 | 300 | 310 |" in text
    assert "median and range of 3 rounds" in text
    assert "at its end at most 5.0%" in text
    assert "one round. Cold" in table({**run, "rounds": run["rounds"][:1]})
    write(run, tmp_path / "loader")
    assert (tmp_path / "loader.md").read_text() == text
    assert (tmp_path / "loader.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_a_tiny_run_leaves_its_record(tmp_path):
    from benchmarks.loader.command import main

    out = tmp_path / "tiny"
    result = CliRunner().invoke(main, ["--tiny", "--only", "random", "-o", str(out)])
    assert result.exit_code == 0, result.output
    record = json.loads(out.with_name("tiny.json").read_text())
    assert list(record["rounds"][0]) == ["random 1 cold", "random 1 warm"]
    assert all(turn["rate"] > 0 for turn in record["rounds"][0].values())
    assert list(record["memory"]) == ["random"]
