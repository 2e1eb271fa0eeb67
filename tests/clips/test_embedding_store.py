"""Stores of embeddings: what is written is read, and what does not fit is refused."""

import pickle

import h5py
import numpy as np
import pytest

from bayes_panns.clips import ClipSet, Store, write_embeddings
from bayes_panns.clips.store_format import digest
from bayes_panns.core.errors import StoreError

VECTORS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
TARGET = np.eye(2, dtype=bool)[[0, 1, 0, 1, 0, 1]]


def made(path, vectors=VECTORS, target=TARGET, **given):
    write_embeddings(path, vectors, target, ["a", "b"], given.pop("task", "one-of-k"), **given)
    return path


def test_what_is_written_is_read(tmp_path):
    given = {"names": list("uvwxyz"), "fold": [1, 2, 3, 1, 2, 3], "source": ["r"] * 6, "provenance": {"by": "me"}}
    store = Store(made(tmp_path / "x.h5", model="CLAP", **given))
    np.testing.assert_array_equal(store.embedding([5, 0, 0]), VECTORS[[5, 0, 0]])
    np.testing.assert_array_equal(store.inputs([2]), VECTORS[[2]])
    np.testing.assert_array_equal(store.target(), TARGET)
    assert (store.names, store.folds.tolist(), store.sources.tolist()) == (list("uvwxyz"), given["fold"], ["r"] * 6)
    assert (store.holds, store.width, store.model, store.contents) == (
        "embeddings",
        5,
        "CLAP",
        "embeddings of 5 numbers (CLAP)",
    )
    assert store.provenance == {"by": "me"}
    assert store.digests([1, 3]) == [digest(VECTORS[1]), digest(VECTORS[3])]
    summary = store.summary()
    assert (summary["model"], summary["width"], "sample_rate" in summary) == ("CLAP", 5, False)
    assert len(pickle.loads(pickle.dumps(store)).names) == 6


def test_many_rows_of_several_stores_are_one_set(tmp_path):
    vectors = np.random.default_rng(1).normal(size=(9_000, 3))
    target = np.eye(2, dtype=bool)[np.arange(9_000) % 2]
    clips = ClipSet([made(tmp_path / "a.h5", vectors, target), made(tmp_path / "b.h5", -vectors, target)])
    order = np.random.default_rng(2).permutation(18_000)
    expected = np.concatenate([vectors, -vectors]).astype(np.float32)[order]
    np.testing.assert_array_equal(clips.embedding(order), expected)
    held, fitted = clips.split(0.25, seed=0)
    assert (len(held), len(fitted)) == (4_500, 13_500)
    np.testing.assert_array_equal(clips.sample(0.1, seed=0).target().sum(axis=0), [900, 900])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vectors": VECTORS[:3]}, "3 embeddings, but 6 rows of target"),
        ({"names": ["a"]}, "6 embeddings, but 1 rows of names"),
        ({"names": ["a", "", *"bcde"]}, "clip 1 has no name"),
        ({"target": TARGET[:, :1]}, r"not bool \(clips, K\)"),
        ({"target": TARGET.astype(int)}, r"not bool \(clips, K\)"),
        ({"target": np.ones_like(TARGET)}, "'clip 0' has 2 labels; one-of-k takes exactly one"),
        ({"fold": [0.5] * 6}, "folds are not whole numbers"),
        ({"vectors": np.full((6, 5), np.inf)}, "row 0, counted from 0, holds numbers that are not finite"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_left(tmp_path, given, message):
    with pytest.raises(StoreError, match=message):
        made(tmp_path / "x.h5", **given)
    assert not list(tmp_path.iterdir())


def test_stores_of_different_models_or_widths_are_no_set(tmp_path):
    one = made(tmp_path / "a.h5", model="A")
    with pytest.raises(StoreError, match="differ in model: A and B"):
        ClipSet([one, made(tmp_path / "b.h5", model="B")])
    with pytest.raises(StoreError, match="differ in width: 5 and 4"):
        ClipSet([one, made(tmp_path / "c.h5", VECTORS[:, :4], model="A")])


def test_a_store_that_was_changed_by_hand_is_told(tmp_path):
    path = made(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        file["embedding"][2, 1] = np.nan
    with pytest.raises(StoreError, match="clip 'clip 2' is not what was packed"):
        Store(path).embedding([1, 2])
    with h5py.File(path, "r+") as file:
        del file["digest"], file.attrs["sha256"]
    with pytest.raises(StoreError, match="clip 'clip 2' holds values that are not finite"):
        Store(path).embedding([1, 2])
    with h5py.File(path, "r+") as file:
        del file["embedding"]
        file["embedding"] = np.zeros((6, 5), dtype=np.int16)
    with pytest.raises(StoreError, match="'embedding' is int16, not float32"):
        Store(path)
