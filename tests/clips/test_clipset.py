import h5py
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
        with pytest.raises(StoreError, match=r"a\.h5: is given twice; name each store once"):
            ClipSet([path, path])
        assert len(ClipSet(path)) == 6

    @settings(max_examples=40)
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
        for fraction in (0.0, 1.0, -0.1, float("nan")):
            with pytest.raises(StoreError, match="between 0 and 1"):
                clips.split(fraction, 0)

    def test_split_of_views(self, tmp_path):
        """A clip that is there twice is one recording; the first view is the smaller share."""
        clips = ClipSet(store(tmp_path / "a.h5", 12, fold=[1, 2] * 6))
        twice = clips.select(indices=[3, 3, 3, 3, 0, 6])
        held, fitted = twice.split(1 / 3, 0)
        assert (len(held), len(fitted)) == (2, 4)
        assert sorted(held.names) == ["clip 0", "clip 6"]
        odd = clips.select(folds=[2]).split(0.5, 0)
        assert sorted(odd[0].names + odd[1].names) == sorted(clips.select(folds=[2]).names)
        with pytest.raises(StoreError, match="its 2 clips are of 1 recording; a split needs two or more"):
            clips.select(indices=[5, 5]).split(0.5, 0)
        with pytest.raises(StoreError, match=r"a\.h5: its 0 clips are of 0 recordings"):
            clips.select(indices=[]).split(0.5, 0)

    def test_a_source_in_two_stores_is_one_recording(self, tmp_path):
        first = store(tmp_path / "a.h5", 3, source=["x", "y", "z"])
        second = store(tmp_path / "b.h5", 3, source=["x", "y", ""])
        held, fitted = ClipSet([first, second]).split(0.3, 0)
        assert not set(held.sources.tolist()) & set(fitted.sources.tolist()) - {""}

    def test_a_share_that_is_missed_is_told(self, tmp_path, caplog):
        clips = ClipSet(store(tmp_path / "a.h5", 100, task="multi-label", source=["x"] * 60 + ["y"] * 40))
        assert len(clips.split(0.1, 0)[0]) == 40
        (told,) = caplog.records
        assert told.levelname == "WARNING"
        assert "40 of 100 clips (0.4) are held out, not the share 0.1 that was asked for" in told.message
        assert "a.h5" in told.message

    def test_a_share_that_is_met_is_not(self, tmp_path, caplog):
        ClipSet(store(tmp_path / "a.h5", 97)).split(0.1, 0)
        ClipSet(store(tmp_path / "b.h5", 7)).split(0.1, 0)
        ClipSet(store(tmp_path / "c.h5", 400, source=[str(n // 4) for n in range(400)])).split(0.1, 0)
        assert not caplog.records

    def test_a_label_that_is_lost_is_named(self, tmp_path, caplog):
        write(tmp_path / "a.h5", np.zeros((3, 5)), np.eye(3, dtype=bool), LABELS, "one-of-k", RATE)
        clips = ClipSet(tmp_path / "a.h5")
        held = clips.split(0.4, 0)[0]
        (lost,) = np.flatnonzero(held.target()[0])
        assert f"every clip with the label '{LABELS[lost]}' is held out" in caplog.records[0].message

    def test_the_split_of_an_old_run_is_found_again(self, tmp_path):
        clips = ClipSet(store(tmp_path / "a.h5", 9, source=list("aabbbcdde")))
        held, fitted = clips.split(0.3, 5, rule="prefix")
        order = np.random.default_rng(5).permutation(5)
        sizes = np.cumsum(np.array([2, 3, 1, 2, 1])[order])[:-1]
        first = order[: 1 + np.abs(sizes - 2.7).argmin()]
        assert set(held.sources.tolist()) == {"abcde"[number] for number in first}
        assert len(held) + len(fitted) == 9
        with pytest.raises(ValueError, match="guess"):
            clips.split(0.3, 5, rule="guess")

    def test_empty_views(self, tmp_path):
        clips = ClipSet(store(tmp_path / "a.h5", fold=[1, 2, 1, 2, 1, 2], source=list("aabbcc")))
        empty = clips.select(indices=[])
        assert (len(empty), empty.names, empty.folds.tolist(), empty.sources.tolist()) == (0, [], [], [])
        assert empty.target().shape == (0, 3)
        assert empty.waveform([]).shape == (0, SAMPLES)
        assert list(empty.by_store()) == []
        assert len(clips.select(folds=[1], indices=[1, 3])) == 0
        with pytest.raises(StoreError, match=r"a\.h5: no clip is in fold 1; there are none"):
            empty.select(folds=[1])
        with pytest.raises(StoreError, match="no clip is selected"):
            empty.sample(0.5, 0)
        with pytest.raises(IndexError, match="there is no clip 0; there are 0"):
            empty.waveform([0])

    def test_a_clip_selected_twice_is_there_twice(self, tmp_path):
        clips = ClipSet(
            [store(tmp_path / "a.h5", 3, fold=[1, 2, 1]), store(tmp_path / "b.h5", 3, seed=1, fold=[1, 2, 3])]
        )
        twice = clips.select(indices=[4, 0, 4, 0])
        assert twice.names == ["clip 1", "clip 0", "clip 1", "clip 0"]
        assert (twice.waveform(range(4)) == clips.waveform([4, 0, 4, 0])).all()
        assert (twice.target() == clips.target()[[4, 0, 4, 0]]).all()
        assert twice.select(folds=[1]).names == ["clip 0", "clip 0"]
        assert twice.select(indices=[3, 2, 2]).names == ["clip 0", "clip 1", "clip 1"]
        assert [
            (store.path.name, positions.tolist(), rows.tolist()) for store, positions, rows in twice.by_store()
        ] == [
            ("a.h5", [1, 3], [0, 0]),
            ("b.h5", [0, 2], [1, 1]),
        ]

    @pytest.mark.parametrize("folds", [3, "12", [1.5], ["1"], [None], [[1]]])
    def test_folds_are_whole_numbers(self, tmp_path, folds):
        path = store(tmp_path / "a.h5", fold=[1, 2, 1, 2, 1, 2])
        with pytest.raises(StoreError, match=r"folds are a list of whole numbers, not .*; there are 1, 2"):
            ClipSet(path, folds=folds)

    def test_fold_lists_of_other_types_and_with_repeats(self, tmp_path):
        clips = ClipSet(store(tmp_path / "a.h5", fold=[1, 2, 3, 2, 1, 2]))
        expected = ["clip 0", "clip 1", "clip 3", "clip 4", "clip 5"]
        for folds in ([1, 2], (2, 1, 1), {1, 2}, np.array([1, 2], np.int64), range(1, 3)):
            assert clips.select(folds=folds).names == expected
        with pytest.raises(StoreError, match="no clip is in fold -1, 0, 9; there are 1, 2, 3"):
            clips.select(folds=[9, 0, 1, -1])
        with pytest.raises(StoreError, match="no clip is in fold 3; there are 1, 2"):
            clips.select(folds=[1, 2]).select(folds=[3])

    def test_names_labels_and_sources_of_several_stores(self, tmp_path):
        first = store(tmp_path / "a.h5", 2, source=["x", ""])
        second = store(tmp_path / "b.h5", 2)
        clips = ClipSet([first, second])
        assert clips.sources.tolist() == ["x", "", "", ""]
        assert clips.folds is None
        assert ClipSet(second).sources is None
        for each in (clips, ClipSet(second)):
            assert (each.labels, each.task) == (LABELS, "one-of-k")
            assert (each.sample_rate, each.samples, each.seconds_per_clip) == (RATE, SAMPLES, 0.5)

    def test_label_names_for_stores_without(self, tmp_path):
        for name in "ab":
            store(tmp_path / f"{name}.h5")
            with h5py.File(tmp_path / f"{name}.h5", "a") as file:
                del file["label_names"], file.attrs["sha256"]
        paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
        assert ClipSet(paths).labels == ("label 0", "label 1", "label 2")
        assert ClipSet([Store(paths[0]), paths[1]], labels=list("xyz")).labels == ("x", "y", "z")
        with pytest.raises(StoreError, match="differ in labels: label 0 is 'x' and 'label 0'"):
            ClipSet([Store(paths[0], labels=list("xyz")), paths[1]])

    def test_stores_with_another_number_of_labels(self, tmp_path):
        write(tmp_path / "b.h5", np.zeros((2, SAMPLES)), np.eye(2, dtype=bool), LABELS[:2], "one-of-k", RATE)
        with pytest.raises(StoreError, match="differ in labels: 3 and 2 of them; pack both the same way"):
            ClipSet([store(tmp_path / "a.h5"), tmp_path / "b.h5"])


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


def test_a_sample_of_clips_with_several_labels_keeps_one_of_each(tmp_path):
    target = np.zeros((100, 3), bool)
    target[:, 0], target[7, 1], target[50, 2] = True, True, True
    write(tmp_path / "s.h5", np.zeros((100, 10)), target, ("a", "b", "c"), Task.MULTI_LABEL, 8000)
    clips = ClipSet(tmp_path / "s.h5")
    for seed in range(10):
        part = clips.sample(0.1, seed=seed)
        assert part.target().any(axis=0).all()
        assert 10 <= len(part) <= 12


def test_a_sample_that_is_larger_than_asked_is_told(tmp_path, caplog):
    target = np.eye(20, dtype=bool)[np.arange(60) % 20]
    write(tmp_path / "s.h5", np.zeros((60, 10)), target, [str(n) for n in range(20)], Task.ONE_OF_K, 8000)
    assert len(ClipSet(tmp_path / "s.h5").sample(0.1, seed=0)) == 20
    assert "the sample is 20 of 60 clips (0.333 of them), not 0.1" in caplog.records[0].message


def test_an_unlabelled_sample(tmp_path):
    write(tmp_path / "s.h5", np.zeros((40, 10)), np.zeros((40, 0), bool), (), Task.UNLABELLED, 8000)
    clips = ClipSet(tmp_path / "s.h5")
    assert len(clips.sample(0.25, seed=0)) == 10
    assert len(clips.split(0.25, seed=0)[0]) == 10
