import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.clips import ClipSet, Store, Task, write
from bayes_panns.core.errors import StoreError

RATE, SAMPLES, LABELS = 100, 50, ("bark", "purr", "rain")


def store(path, clips=6, *, seed=0, labels=LABELS, rate=RATE, samples=SAMPLES, task=Task.ONE_OF_K, **columns):
    waveform = np.random.default_rng(seed).uniform(-1, 1, (clips, samples)).astype(np.float32)
    target = np.eye(len(LABELS), dtype=bool)[np.arange(clips) % len(LABELS)]
    write(path, waveform, target, labels, task, rate, **columns)
    return path


class TestClipSet:
    def test_joins_stores_and_selects_folds(self, tmp_path):
        store(tmp_path / "a.h5", 4, seed=1, fold=[1, 2, 1, 2], names=list("abcd"))
        store(tmp_path / "b.h5", 2, seed=2, fold=[2, 3], names=list("ef"))
        clips = ClipSet([tmp_path / "a.h5", Store(tmp_path / "b.h5")])
        assert (len(clips), clips.names) == (6, list("abcdef"))
        assert clips.folds.tolist() == [1, 2, 1, 2, 2, 3]
        second = ClipSet([tmp_path / "a.h5", tmp_path / "b.h5"], folds=[2])
        assert second.names == clips.select(folds={2}).names == list("bde")
        assert (second.target() == clips.target()[[1, 3, 4]]).all()
        assert (second.waveform([2]) == clips.waveform([4])).all()
        assert clips.select(folds=[2], indices=[4, 0, 1]).names == ["e", "b"]
        with pytest.raises(StoreError, match=r"in fold 7; there are 1, 2, 3"):
            clips.select(folds=[1, 7])
        with pytest.raises(StoreError, match="no fold is chosen"):
            clips.select(folds=[])

    def test_folds_of_a_store_without(self, tmp_path):
        store(tmp_path / "a.h5", fold=range(6))
        store(tmp_path / "b.h5")
        with pytest.raises(StoreError, match=r"b\.h5: has no folds"):
            ClipSet([tmp_path / "a.h5", tmp_path / "b.h5"], folds=[1])

    @pytest.mark.parametrize(
        ("other", "match"),
        [
            ({"rate": 200}, "differ in sample rate: 100 and 200"),
            ({"samples": 40}, "differ in samples: 50 and 40"),
            ({"task": "multi-label"}, "differ in task: one-of-k and multi-label"),
            ({"labels": ("bark", "hiss", "snow")}, "label 1 is 'purr' and 'hiss'"),
        ],
    )
    def test_stores_that_do_not_agree(self, tmp_path, other, match):
        with pytest.raises(StoreError, match=match) as caught:
            ClipSet([store(tmp_path / "a.h5"), store(tmp_path / "b.h5", **other)])
        assert "a.h5" in str(caught.value)
        assert "b.h5" in str(caught.value)

    def test_no_store_and_the_same_twice(self, tmp_path):
        with pytest.raises(StoreError, match="no clip store"):
            ClipSet([])
        path = store(tmp_path / "a.h5")
        with pytest.raises(StoreError, match="given twice"):
            ClipSet([path, path])
        assert len(ClipSet(path)) == 6

    @settings(max_examples=40, deadline=None)
    @given(
        sources=st.lists(st.sampled_from(["", "x", "y", "z", "w"]), min_size=2, max_size=30),
        fraction=st.floats(0.01, 0.99),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_split_never_leaks_a_source(self, tmp_path_factory, sources, fraction, seed):
        path = tmp_path_factory.getbasetemp() / "split.h5"
        store(path, len(sources), source=sources, names=[str(index) for index in range(len(sources))])
        clips = ClipSet([path])
        if len(set(sources)) == 1 and sources[0]:
            with pytest.raises(StoreError, match="are of 1 recording"):
                clips.split(fraction, seed)
            return
        first, second = clips.split(fraction, seed)
        assert sorted(first.names + second.names, key=int) == clips.names
        assert first.names
        assert second.names
        assert not {sources[int(name)] for name in first.names} & {sources[int(name)] for name in second.names} - {""}
        again = clips.split(fraction, seed)
        assert again[0].names == first.names

    def test_split_meets_the_fraction(self, tmp_path):
        clips = ClipSet(store(tmp_path / "a.h5", 40))
        assert len(clips.split(0.25, 0)[0]) == 10
        assert clips.split(0.25, 0)[0].names != clips.split(0.25, 1)[0].names
        with pytest.raises(StoreError, match="between 0 and 1"):
            clips.split(1.0, 0)


def test_a_sample_keeps_the_share_of_each_label_and_grows_with_the_share(tmp_path):
    label = np.repeat([0, 1, 2], [40, 20, 3])
    write(tmp_path / "s.h5", np.zeros((63, 10)), np.eye(3, dtype=bool)[label], ("a", "b", "c"), Task.ONE_OF_K, 8000)
    clips = ClipSet(tmp_path / "s.h5")
    quarter, tenth = clips.sample(0.25, seed=3), clips.sample(0.1, seed=3)
    assert quarter.target().sum(axis=0).tolist() == [10, 5, 1]
    assert tenth.target().sum(axis=0).tolist() == [4, 2, 1]
    assert set(tenth.names) <= set(quarter.names)
    assert quarter.names == clips.sample(0.25, seed=3).names
    assert quarter.names != clips.sample(0.25, seed=4).names
    assert clips.sample(1.0, seed=0).names == clips.names
    for share in (0, 1.5):
        with pytest.raises(StoreError, match="above 0 and up to 1"):
            clips.sample(share, seed=0)


def test_a_sample_of_clips_with_several_labels_is_of_all_of_them(tmp_path):
    target = np.random.default_rng(0).random((20, 3)) < 0.4
    write(tmp_path / "s.h5", np.zeros((20, 10)), target, ("a", "b", "c"), Task.MULTI_LABEL, 8000)
    assert len(ClipSet(tmp_path / "s.h5").sample(0.25, seed=0)) == 5
