"""Damage to a store is noticed, whatever bit it is; and changes while it is in use."""

import os
import random
import shutil

import h5py
import numpy as np
import pytest

from bayes_panns.clips import Store, StoreWriter, write_embeddings
from bayes_panns.core.errors import StoreError

LABELS = ("bark", "purr", "rain")


def sound(path, clips=12, seed=0):
    values = np.random.default_rng(seed).uniform(-1, 1, (clips, 40))
    with StoreWriter(
        path, labels=LABELS, task="one-of-k", sample_rate=100, samples=40, provenance={"by": "x" * 50}
    ) as writer:
        for index, value in enumerate(values):
            writer.add(f"clip {index}", value, [index % 3], fold=index % 4, source=f"recording {index // 2}")
    return path


def embedded(path):
    vectors = np.random.default_rng(0).normal(size=(12, 8))
    target = np.eye(3, dtype=bool)[np.arange(12) % 3]
    write_embeddings(path, vectors, target, LABELS, "one-of-k", model="BirdNET", fold=np.arange(12) % 4)
    return path


def content(path):
    """All that a store gives."""
    with Store(path) as store:
        arrays = (store.target(), store.inputs(range(len(store))), store.folds, store.sources, store.seconds)
        whole = (store.summary() | {"file": ""}, store.names, store.digests(range(len(store))), store.sample_rate)
    return [*whole, *(None if each is None else each.tolist() for each in arrays)]


@pytest.mark.parametrize("make", [sound, embedded])
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path, make):
    path = make(tmp_path / "a.h5")
    before, whole, chosen, refusals = content(path), path.read_bytes(), random.Random(2), 0
    for _ in range(150):
        changed = bytearray(whole)
        changed[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        path.write_bytes(changed)
        try:
            found = content(path)
        except StoreError:
            refusals += 1
            continue
        assert found == before
    assert refusals > 10


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("audio_name", lambda each: each[::-1]),
        ("target", lambda each: np.roll(each, 1, axis=1)),
        ("label_names", lambda each: each[[1, 0, 2]]),
        ("fold", lambda each: each + 1),
        ("source", lambda each: each[::-1]),
        ("seconds", lambda each: each * 2),
        ("digest", lambda each: each[::-1]),
    ],
)
def test_what_a_store_says_is_sealed(tmp_path, name, change):
    path = sound(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file[name][:] = change(file[name][:])
    with pytest.raises(StoreError, match=f"is damaged .'{name}' is not what was packed"):
        content(path)


@pytest.mark.parametrize("name", ["fold", "source", "seconds", "label_names", "digest"])
def test_what_is_taken_out_is_missed(tmp_path, name):
    path = sound(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file[name]
    with pytest.raises(StoreError, match="what it says of its clips is not what was packed"):
        content(path)


@pytest.mark.parametrize(("name", "value"), [("sample_rate", 200), ("task", "multi-label"), ("provenance", "{}")])
def test_attributes_are_sealed(tmp_path, name, value):
    path = sound(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file.attrs[name] = np.bytes_(value) if isinstance(value, str) else value
    with pytest.raises(StoreError, match="what it says of its clips is not what was packed"):
        content(path)


def test_a_clip_that_was_changed_is_named(tmp_path):
    path = sound(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["waveform"][7, 3] += 1
    store = Store(path)
    assert len(store.waveform(range(7))) == 7
    with pytest.raises(StoreError, match=r"clip 'clip 7' is not what was packed.*inspect --verify"):
        store.waveform([2, 7])
    assert list(store.damaged()) == ["clip 7"]


def test_a_copy_that_is_compressed_is_still_what_was_packed(tmp_path):
    before = content(sound(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5") as old, h5py.File(tmp_path / "b.h5", "w") as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        for name, dataset in old.items():
            new.create_dataset(name, data=dataset[:], compression="gzip")
    assert content(tmp_path / "b.h5") == before


def test_a_long_provenance_is_kept(tmp_path):
    long = {"skipped": ["a" * 100] * 1000}
    with StoreWriter(
        tmp_path / "a.h5", labels=LABELS, task="multi-label", sample_rate=100, samples=4, provenance=long
    ) as writer:
        writer.add("x", np.zeros(4), [])
    assert Store(tmp_path / "a.h5").provenance == long


def test_stores_of_earlier_versions_have_no_seal(tmp_path):
    path = sound(tmp_path / "a.h5")
    before = content(path)
    with h5py.File(path, "r+") as file:
        del file.attrs["sha256"]
    store = Store(path)
    assert (store.sealed, store.verifiable) == (False, True)
    assert content(path) == before


class TestInUse:
    """A fit must not read zeros, or the clips of another store."""

    def reads(self, store):
        return [lambda: store.waveform([0]), lambda: store.digests([0]), store.target, lambda: list(store.damaged())]

    def test_a_store_that_is_written_to(self, tmp_path):
        store = Store(sound(tmp_path / "a.h5"))
        store.waveform([0])
        with (tmp_path / "a.h5").open("r+b") as file:
            file.seek(0, 2)
            file.write(b"more")
        for read in self.reads(store):
            with pytest.raises(StoreError, match="was changed while it was in use; start again"):
                read()

    def test_a_store_of_the_same_size_takes_its_place(self, tmp_path):
        store = Store(sound(tmp_path / "a.h5"))
        store.waveform([0])
        sound(tmp_path / "a.h5", seed=1)
        for read in self.reads(store):
            with pytest.raises(StoreError, match="was replaced by another store while it was in use"):
                read()

    def test_one_that_is_closed_in_between(self, tmp_path):
        store = Store(sound(tmp_path / "a.h5"))
        sound(tmp_path / "a.h5", seed=1)
        for read in self.reads(store):
            with pytest.raises(StoreError, match="was replaced by another store"):
                read()

    def test_one_that_shrinks_during_a_read(self, tmp_path, monkeypatch):
        from bayes_panns.clips import clip_file as module

        store = Store(sound(tmp_path / "a.h5"))
        read_rows = module.read_rows

        def shrinking(dataset, rows):
            os.truncate(tmp_path / "a.h5", 5000)
            return read_rows(dataset, rows)

        monkeypatch.setattr(module, "read_rows", shrinking)
        with pytest.raises(StoreError, match=r"was cut short while it was in use|is damaged|is truncated"):
            store.waveform([11])

    def test_one_that_is_copied_or_removed_goes_on(self, tmp_path):
        store = Store(sound(tmp_path / "a.h5"))
        first = store.waveform([0])
        shutil.copy2(tmp_path / "a.h5", tmp_path / "b.h5")
        (tmp_path / "a.h5").unlink()
        assert (store.waveform([0]) == first).all()
