import hashlib
import json
import os
import pickle

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.clips import ClipSet, Store, StoreWriter, Task, write
from bayes_panns.core.errors import StoreError

RATE, SAMPLES, LABELS = 100, 50, ("bark", "purr", "rain")


def waveforms(clips: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (clips, SAMPLES)).astype(np.float32)


def one_hot(clips: int) -> np.ndarray:
    return np.eye(len(LABELS), dtype=bool)[np.arange(clips) % len(LABELS)]


def store(path, clips=6, *, seed=0, labels=LABELS, rate=RATE, samples=SAMPLES, task=Task.ONE_OF_K, **columns):
    write(path, waveforms(clips, seed)[:, :samples], one_hot(clips), labels, task, rate, **columns)
    return path


def panns_pack(path, dtype, clips=4, classes=5, missing=()):
    """Writes a store as PANNs' ``pack_waveforms_to_hdf5`` does: a missing file leaves its row unwritten."""
    sound = waveforms(clips)
    with h5py.File(path, "w") as hf:
        hf.create_dataset("audio_name", shape=((clips,)), dtype="S20")
        hf.create_dataset("waveform", shape=((clips, SAMPLES)), dtype=dtype)
        hf.create_dataset("target", shape=((clips, classes)), dtype=bool)
        hf.attrs.create("sample_rate", data=RATE, dtype=np.int32)
        for n in range(clips):
            if n in missing:
                continue
            hf["audio_name"][n] = f"Y{n}.wav".encode()
            hf["waveform"][n] = sound[n] if dtype == np.float32 else (sound[n] * 32767.0).astype(np.int16)
            hf["target"][n] = np.arange(classes) <= n
    return sound


def test_digests_tell_clips_apart_by_their_samples_alone(tmp_path):
    first = Store(store(tmp_path / "a.h5"))
    again = Store(store(tmp_path / "b.h5", names=[f"other {n}" for n in range(6)], fold=np.arange(6)))
    digests = first.digests(range(6))
    assert digests == again.digests(range(6))
    assert len(set(digests)) == 6
    assert all(len(digest) == 32 for digest in digests)
    assert first.digests([4, 1, 4]) == [digests[4], digests[1], digests[4]]
    assert set(digests).isdisjoint(Store(store(tmp_path / "c.h5", seed=1)).digests(range(6)))
    with pytest.raises(IndexError):
        first.digests([6])


def test_round_trip(tmp_path):
    sound = waveforms(100)
    with StoreWriter(
        tmp_path / "a.h5", labels=LABELS, task="one-of-k", sample_rate=RATE, samples=SAMPLES, provenance={"by": "test"}
    ) as writer:
        for index, row in enumerate(sound):
            writer.add(f"{index}.wav", torch.from_numpy(row), [index % 3], fold=index % 5, source=f"rec{index // 2}")
    with Store(tmp_path / "a.h5") as got:
        assert len(got) == 100
        assert got.labels == LABELS
        assert got.task == "one-of-k"
        assert (got.sample_rate, got.samples, got.seconds_per_clip) == (RATE, SAMPLES, 0.5)
        assert got.names[99] == "99.wav"
        assert got.folds.tolist() == [index % 5 for index in range(100)]
        assert got.sources.tolist() == [f"rec{index // 2}" for index in range(100)]
        assert (got.target() == one_hot(100)).all()
        wave = got.waveform(range(100))
    assert wave.dtype == np.float32
    # Half a step of int16.
    assert np.abs(wave - sound).max() <= 0.5 / 32767 + 1e-7
    write(tmp_path / "b.h5", wave, one_hot(100), LABELS, "one-of-k", RATE)
    assert (Store(tmp_path / "b.h5").waveform(range(100)) == wave).all(), "packing again must change nothing"
    assert not list(tmp_path.glob(".*"))


def test_layout_is_panns(tmp_path):
    store(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["audio_name"].dtype.kind == "S"
        assert file["waveform"].dtype == np.int16
        assert file["target"].dtype == bool
        assert file.attrs["sample_rate"].dtype == np.int32
        assert file["audio_name"][1].decode() == "clip 1"
        assert "fold" not in file
        assert "source" not in file


def test_pads_cuts_clips_and_remembers_the_length(tmp_path):
    with StoreWriter(tmp_path / "a.h5", labels=LABELS, task="multi-label", sample_rate=RATE, samples=SAMPLES) as writer:
        writer.add("short", np.full(20, 0.5), [])
        writer.add("long", np.full(80, -3.0), [0, 2])
        writer.add("exact", np.zeros(SAMPLES), np.array([False, True, False]))
    got = Store(tmp_path / "a.h5")
    short, long = got.waveform([0, 1])
    assert short[:20] == pytest.approx(0.5, abs=1e-4)
    assert not short[20:].any()
    assert (long == -1).all()
    assert got.seconds == pytest.approx([0.2, 0.8, 0.5])
    assert got.target().tolist() == [[False] * 3, [True, False, True], [False, True, False]]
    summary = got.summary()
    assert (summary["padded"], summary["cut"], summary["clips_without_label"]) == (1, 1, 1)


def test_buffer_leaves_nothing_of_the_clip_before(tmp_path):
    with StoreWriter(tmp_path / "a.h5", labels=(), task="unlabelled", sample_rate=RATE, samples=SAMPLES) as writer:
        for index in range(130):
            writer.add(str(index), np.ones(SAMPLES if index < 64 else 1), [])
    got = Store(tmp_path / "a.h5")
    assert got.waveform([129]).sum() == 1
    assert got.target().shape == (130, 0)
    assert got.labels == ()


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_reads_panns_own_store(tmp_path, dtype):
    sound = panns_pack(tmp_path / "panns.h5", dtype)
    got = Store(tmp_path / "panns.h5")
    assert got.labels == tuple(f"label {index}" for index in range(5))
    assert got.task == Task.MULTI_LABEL
    assert got.folds is got.sources is got.seconds is None
    assert got.provenance == {}
    assert got.names == ["Y0.wav", "Y1.wav", "Y2.wav", "Y3.wav"]
    assert got.waveform([3, 0]) == pytest.approx(sound[[3, 0]], abs=1 / 32767)
    assert got.target().sum(axis=1).tolist() == [1, 2, 3, 4]
    named = Store(tmp_path / "panns.h5", labels=list("abcde"))
    assert named.labels == tuple("abcde")
    assert json.dumps(named.summary())
    with pytest.raises(StoreError, match="5 labels, but 2"):
        Store(tmp_path / "panns.h5", labels=["a", "b"])


def test_rows_that_panns_left_empty_are_no_clips(tmp_path):
    sound = panns_pack(tmp_path / "panns.h5", np.float32, missing=(1,))
    got = Store(tmp_path / "panns.h5")
    assert got.names == ["Y0.wav", "Y2.wav", "Y3.wav"]
    assert (got.waveform([1]) == sound[2]).all()
    assert got.target().sum(axis=1).tolist() == [1, 3, 4]
    assert got.summary()["nameless"] == 1


def test_summary_counts(tmp_path):
    store(tmp_path / "a.h5", 7, fold=[1, 1, 2, 2, 2, 3, 3], source=list("aabbccd"), provenance={"skipped": 2})
    summary = Store(tmp_path / "a.h5").summary()
    assert summary["labels"] == {"bark": 3, "purr": 2, "rain": 2}
    assert summary["folds"] == {1: 2, 2: 3, 3: 2}
    assert summary["sources"] == 4
    assert summary["total_seconds"] == 3.5
    assert summary["provenance"] == {"skipped": 2}
    assert summary["file"] == "a.h5"


def test_pickles_by_path_and_reopens_after_close(tmp_path):
    got = Store(store(tmp_path / "a.h5"))
    first = got.waveform([2])
    clone = pickle.loads(pickle.dumps(ClipSet([got]).select(indices=[2, 4])))
    assert (clone.waveform([0]) == first).all()
    got.close()
    assert (got.waveform([2]) == first).all()


@settings(max_examples=30)
@given(indices=st.lists(st.integers(0, 10)))
def test_waveform_takes_any_order_and_repeats(tmp_path_factory, indices):
    folder = tmp_path_factory.getbasetemp() / "order"
    if not folder.is_dir():
        folder.mkdir()
        store(folder / "a.h5", 4, seed=1)
        store(folder / "b.h5", 7, seed=2)
    sound = np.concatenate([waveforms(4, 1), waveforms(7, 2)])
    clips = ClipSet([folder / "a.h5", folder / "b.h5"])
    assert clips.waveform(indices).shape == (len(indices), SAMPLES)
    assert np.allclose(clips.waveform(indices), sound[indices], atol=1e-4)
    assert np.allclose(clips.select(indices=indices).waveform(range(len(indices))), sound[indices], atol=1e-4)


@pytest.mark.parametrize("indices", [[4], [-1], [True, False, True, False], [[0]], [0.5]])
def test_waveform_refuses_other_indices(tmp_path, indices):
    with pytest.raises(IndexError):
        Store(store(tmp_path / "a.h5", 4)).waveform(indices)


class TestDamage:
    def error(self, path, match):
        def read_all():
            with Store(path) as opened:
                opened.target()
                opened.waveform(range(len(opened)))

        with pytest.raises(StoreError, match=match) as caught:
            read_all()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_not_there(self, tmp_path):
        self.error(tmp_path / "none.h5", "no such file")
        self.error(tmp_path, "is a folder")

    def test_not_hdf5(self, tmp_path):
        for content in (b"", b"RIFF" * 100):
            (tmp_path / "a.h5").write_bytes(content)
            self.error(tmp_path / "a.h5", "not an HDF5 file")

    def test_truncated(self, tmp_path):
        content = store(tmp_path / "a.h5", 200).read_bytes()
        for share in (0.01, 0.5, 0.999):
            (tmp_path / "cut.h5").write_bytes(content[: int(len(content) * share)])
            self.error(tmp_path / "cut.h5", "truncated|damaged")

    @pytest.mark.parametrize("name", ["audio_name", "waveform", "target"])
    def test_missing_dataset(self, tmp_path, name):
        store(tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file[name]
        self.error(tmp_path / "a.h5", f"lacks the dataset '{name}'")

    @pytest.mark.parametrize(
        ("name", "data", "match"),
        [
            ("audio_name", np.array([b"a"] * 5), "'audio_name' has 5 rows, 'waveform' 6"),
            ("audio_name", np.arange(6), "not text"),
            ("audio_name", np.array([b""] * 6, dtype="S4"), "no clip has a name"),
            ("waveform", np.zeros(6, np.int16), "1 dimensions"),
            ("waveform", np.zeros((0, 5), np.int16), "no clips"),
            ("waveform", np.zeros((6, 5), np.int64), "not int16"),
            ("target", np.zeros((6, 3), complex), "not bool"),
            (
                "target",
                np.full((6, 3), 0.5, np.float32),
                "'clip 0' has the target 0.5 for the label 'bark'; targets are",
            ),
            ("target", np.full((6, 3), 2), "'clip 0' has the target 2 for the label 'bark'; targets are 0 or 1"),
            ("target", np.ones((6, 3), bool), "3 labels in a one-of-k store"),
            ("target", np.ones((6, 4), bool), "4 labels, but 3 label names"),
            ("fold", np.zeros(6, np.float32), "not int32"),
            ("seconds", np.zeros(7, np.float32), "'seconds' has 7 rows"),
            ("label_names", np.array([b"a", b"a", b"b"]), "'a' is there more than once"),
            ("seconds", np.array([1, 2, np.nan, 4, 5, 6], np.float32), "'seconds' holds numbers that are not lengths"),
            ("seconds", np.array([1, 2, -3, 4, 5, 6], np.float32), "'seconds' holds numbers that are not lengths"),
            ("seconds", np.array([b"a"] * 6), "'seconds' is \\|S1, not float32"),
            ("seconds", np.zeros((6, 2), np.float32), "'seconds' has 2 dimensions"),
            ("fold", np.full(6, 2**40), "'fold' holds numbers beyond int32"),
            ("fold", np.zeros(5, np.int32), "'fold' has 5 rows"),
            ("source", np.array([b"a"] * 7), "'source' has 7 rows"),
            ("digest", np.zeros((6, 16), np.uint8), r"'digest' is uint8 of shape \(6, 16\), not uint8"),
            ("digest", np.zeros((5, 32), np.uint8), "'digest' has 5 rows"),
            ("digest", np.zeros((6, 32), np.int16), "'digest' is int16"),
        ],
    )
    def test_dataset_that_does_not_fit(self, tmp_path, name, data, match):
        store(tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file.attrs["sha256"]
            file.pop(name, None)
            file[name] = data
        self.error(tmp_path / "a.h5", match)

    @pytest.mark.parametrize(
        ("name", "value", "match"),
        [
            ("sample_rate", -1, "sample rate -1"),
            ("sample_rate", 0, "sample rate 0"),
            ("sample_rate", 10**9, "sample rate 1000000000 Hz; a rate from 1 to 10000000 is possible"),
            ("sample_rate", 32000.5, "damaged .32000.5 is not a whole number"),
            ("sample_rate", np.nan, "damaged"),
            ("sample_rate", np.inf, "damaged"),
            ("sample_rate", [1, 2], "damaged"),
            ("task", "guess", "unknown task 'guess'"),
            ("task", "unlabelled", "does not fit the task"),
            ("task", 3, "damaged"),
            ("provenance", "{", "damaged"),
            ("provenance", "[[1, 2]]", "'provenance' is not a JSON object"),
            ("provenance", "3", "'provenance' is not a JSON object"),
            ("provenance", b"\xff", "damaged"),
            ("provenance", 3.0, "damaged"),
            ("format_version", 3, "upgrade"),
        ],
    )
    def test_attribute_that_does_not_fit(self, tmp_path, name, value, match):
        store(tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file.attrs["sha256"]
            file.attrs[name] = value
        self.error(tmp_path / "a.h5", match)

    def test_no_sample_rate(self, tmp_path):
        store(tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file.attrs["sample_rate"], file.attrs["sha256"]
        self.error(tmp_path / "a.h5", "lacks the attribute 'sample_rate'")

    def test_clips_of_absurd_length(self, tmp_path):
        store(tmp_path / "a.h5", 2)
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file["waveform"]
            file.create_dataset("waveform", shape=(2, 2**29), chunks=(1, 2**20), dtype=np.int16)
        self.error(tmp_path / "a.h5", r"'waveform' claims 2147483648 bytes in 2 rows, and the file has \d+")

    def test_a_store_that_shrinks_while_it_is_in_use(self, tmp_path):
        got = Store(store(tmp_path / "a.h5", 200))
        got.waveform([0])
        os.truncate(tmp_path / "a.h5", (tmp_path / "a.h5").stat().st_size // 2)
        for read in (lambda: got.waveform([199]), lambda: got.digests([199]), got.target):
            with pytest.raises(StoreError, match=r"a\.h5: was cut short while it was in use"):
                read()

    def test_a_store_that_is_replaced_between_two_reads(self, tmp_path):
        got = Store(store(tmp_path / "a.h5", 9))
        store(tmp_path / "a.h5", 3)
        with pytest.raises(StoreError, match=r"a\.h5: was replaced by another store"):
            got.waveform([0])
        with pytest.raises(StoreError, match="was replaced"):
            got.waveform([0])


def test_kept_digests_are_those_that_are_computed(tmp_path):
    path = store(tmp_path / "a.h5", 130)
    kept = Store(path).digests([129, 0, 64, 64])
    with h5py.File(path, "a") as file:
        assert file["digest"].dtype == np.uint8
        assert file["digest"].shape == (130, 32)
        samples = file["waveform"][129]
        del file["digest"], file.attrs["sha256"]
    assert Store(path).digests([129, 0, 64, 64]) == kept
    assert kept[0] == hashlib.sha256(b"int16" + samples.tobytes()).digest()


def test_kept_digests_are_read_and_not_computed(tmp_path):
    path = store(tmp_path / "a.h5", 3)
    with h5py.File(path, "a") as file:
        file["digest"][1] = 7
    with pytest.raises(StoreError, match="'digest' is not what was packed"):
        Store(path).digests([1])
    with h5py.File(path, "a") as file:
        del file.attrs["sha256"]
    assert Store(path).digests([1]) == [b"\7" * 32]


def test_digests_of_panns_own_stores_are_computed(tmp_path):
    panns_pack(tmp_path / "panns.h5", np.float32, missing=(1,))
    got = Store(tmp_path / "panns.h5")
    (digest,) = got.digests([1])
    assert digest == hashlib.sha256(b"float32" + got.waveform([1])[0].tobytes()).digest()


def test_float_samples_that_are_not_finite_are_named(tmp_path):
    sound = panns_pack(tmp_path / "panns.h5", np.float32, missing=(0,))
    with h5py.File(tmp_path / "panns.h5", "a") as file:
        file["waveform"][3, 5] = np.nan
    got = Store(tmp_path / "panns.h5")
    assert (got.waveform([0, 1]) == sound[[1, 2]]).all()
    with pytest.raises(StoreError, match=r"panns\.h5: clip 'Y3\.wav' holds samples that are not finite"):
        got.waveform([0, 2])


def test_text_attributes_of_fixed_length_are_read(tmp_path):
    """Other programs than h5py write them."""
    path = store(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file.attrs["sha256"]
        for name, value in (("task", b"one-of-k"), ("provenance", b'{"by": "hand"}')):
            file.attrs[name] = np.bytes_(value)
    got = Store(path)
    assert (got.task, got.provenance) == (Task.ONE_OF_K, {"by": "hand"})


def test_provenance_is_strict_json(tmp_path):
    path = store(tmp_path / "a.h5", provenance={"share": float("nan"), "skipped": {"caf\udce9.wav": "no such file"}})
    with h5py.File(path) as file:
        text = file.attrs["provenance"]
    assert b"NaN" not in text
    assert Store(path).provenance == {"share": None, "skipped": {"caf\udce9.wav": "no such file"}}
    with h5py.File(path, "a") as file:
        del file.attrs["sha256"]
        file.attrs["provenance"] = '{"share": NaN}'
    assert Store(path).provenance == {"share": None}, "stores of before may hold it"
