import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.clips.splits import prefix_split, recording_folds, sample, stratified_split


@st.composite
def labelled(draw, most=12):
    """Recordings of several clips each, and labels: one a recording, or any number a clip."""
    sizes = draw(st.lists(st.integers(1, draw(st.sampled_from([1, 3, 30]))), min_size=2, max_size=most))
    recording = np.repeat(np.arange(len(sizes)), sizes)
    labels = draw(st.integers(0, 4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()) and labels:
        target = np.eye(labels, dtype=bool)[generator.integers(0, labels, len(sizes))[recording]]
    else:
        target = generator.random((len(recording), labels)) < 0.3
    return generator.permutation(len(sizes))[recording], target


def holders(recording, target):
    """Which recordings have which label, bool ``(R, K)``."""
    return np.stack([target[recording == each].any(axis=0) for each in range(recording.max() + 1)])


def one_of_k(counts):
    """Clips that are each a recording of their own, ``counts`` of each label."""
    label = np.repeat(np.arange(len(counts)), counts)
    return np.arange(len(label)), np.eye(len(counts), dtype=bool)[label]


@settings(max_examples=200)
@given(clips=labelled(), fraction=st.floats(0.02, 0.98), seed=st.integers(0, 2**32 - 1))
def test_a_split_keeps_recordings_whole_and_labels_on_the_fitted_side(clips, fraction, seed):
    recording, target = clips
    held = stratified_split(recording, target, fraction, seed)
    assert held.dtype == bool
    assert 0 < held.sum() < len(held)
    assert not set(recording[held]) & set(recording[~held])
    repeated = holders(recording, target).sum(axis=0) >= 2
    assert target[~held].any(axis=0)[repeated].all()
    assert (stratified_split(recording, target, fraction, seed) == held).all()


@settings(max_examples=200)
@given(clips=labelled(), fraction=st.floats(0.02, 0.98), seed=st.integers(0, 2**32 - 1))
def test_the_share_is_never_further_than_that_of_a_prefix_that_keeps_the_labels(clips, fraction, seed):
    recording, target = clips
    size, has = np.bincount(recording), holders(recording, target)
    wanted = fraction * len(recording)
    distance = abs(stratified_split(recording, target, fraction, seed).sum() - wanted)
    order = np.random.default_rng(seed).permutation(len(size))
    for count in range(1, len(size)):
        if (has[order[count:]].any(axis=0) == has.any(axis=0)).all():
            assert distance <= abs(size[order[:count]].sum() - wanted) + 1e-6


@settings(max_examples=60)
@given(clips=labelled(most=8), fraction=st.floats(0.02, 0.98), seed=st.integers(0, 2**32 - 1))
def test_a_small_set_gets_the_nearest_share_of_all_splits_that_keep_the_labels(clips, fraction, seed):
    recording, target = clips
    size, has = np.bincount(recording), holders(recording, target)
    wanted = fraction * len(recording)
    best = min(
        (
            abs(size[list(held)].sum() - wanted)
            for count in range(1, len(size))
            for held in itertools.combinations(range(len(size)), count)
            if (np.delete(has, held, axis=0).any(axis=0) == has.any(axis=0)).all()
        ),
        default=np.inf,
    )
    assert abs(stratified_split(recording, target, fraction, seed).sum() - wanted) <= best + 1e-6


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=12),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_label_gets_its_share_to_within_a_clip(counts, fraction, seed):
    recording, target = one_of_k(counts)
    held = stratified_split(recording, target, fraction, seed)
    assert abs(held.sum() - fraction * len(held)) <= max(0.5, 1 - fraction * len(held)) + 1e-6
    assert (np.abs(target[held].sum(axis=0) - fraction * np.array(counts)) <= 1.5).all()


def test_equal_labels_get_equal_shares():
    recording, target = one_of_k([40] * 50)
    for seed in range(5):
        assert set(target[stratified_split(recording, target, 0.1, seed)].sum(axis=0)) == {4}


def test_each_of_many_labels_is_held_out_about_equally_often():
    """Each of 10 labels with 4 clips deserves 0.4 of a clip: 4 labels get one, other ones for each seed."""
    recording, target = one_of_k([4] * 10)
    times = sum(target[stratified_split(recording, target, 0.1, seed)].sum(axis=0) for seed in range(300))
    # 5 standard deviations of a share of 0.4 in 300 draws.
    assert times.sum() == 1200
    assert (np.abs(times - 120) < 5 * (300 * 0.4 * 0.6) ** 0.5).all()


def test_several_labels_a_clip_keep_their_shares():
    generator = np.random.default_rng(0)
    recording = np.repeat(np.arange(500), 4)
    target = np.repeat(generator.random((500, 6)) < np.logspace(-0.3, -2, 6), 4, axis=0)
    worst = {"stratified": 0.0, "prefix": 0.0}
    for seed in range(5):
        for rule, held in (
            ("stratified", stratified_split(recording, target, 0.2, seed)),
            ("prefix", prefix_split(recording, 0.2, seed)),
        ):
            share = target[held].sum(axis=0) / target.sum(axis=0)
            worst[rule] = max(worst[rule], np.abs(share - 0.2).max())
    assert worst["stratified"] < 0.1 < worst["prefix"]


@pytest.mark.parametrize("seed", range(20))
def test_recordings_of_90_and_10_clips_hold_out_10(seed):
    recording = np.repeat([0, 1], [90, 10])
    for target in (np.zeros((100, 0), bool), np.ones((100, 1), bool), np.eye(2, dtype=bool)[recording]):
        assert stratified_split(recording, target, 0.1, seed).sum() == 10
    assert {int(prefix_split(recording, 0.1, each).sum()) for each in range(20)} == {10, 90}, "the fault of old runs"


def test_a_label_with_one_recording_stays_on_the_fitted_side_if_it_can():
    recording, target = one_of_k([20, 1, 1])
    for seed in range(20):
        held = stratified_split(recording, target, 0.3, seed)
        assert target[~held].any(axis=0).all()
        assert held.sum() == 7
        # In proportion, the two rare labels would be held out.
        assert target[~stratified_split(recording, target, 0.7, seed)].any(axis=0).all()
    # A share that is missed by half of itself is still near enough.
    recording = np.array([0, 0, 0, 0, 1, 2])
    held = stratified_split(recording, np.eye(2, dtype=bool)[[0, 0, 0, 0, 0, 1]], 1 / 3, 0)
    assert held.tolist() == [False, False, False, False, True, False]
    # It cannot where every label has one recording, or where the share would be far off.
    recording, target = one_of_k([1, 1, 1, 1])
    assert stratified_split(recording, target, 0.25, 0).sum() == 1
    recording = np.repeat([0, 1], [90, 10])
    target = np.stack([np.ones(100, bool), recording == 1], axis=1)
    assert stratified_split(recording, target, 0.1, 0).sum() == 10


def test_different_seeds_give_different_splits():
    recording, target = one_of_k([10] * 3)
    splits = {tuple(np.flatnonzero(stratified_split(recording, target, 0.2, seed))) for seed in range(20)}
    assert len(splits) == 20


def test_large_sets_are_split_in_seconds():
    target = np.random.default_rng(0).random((200_000, 3)) < 0.1
    assert stratified_split(np.arange(200_000), target, 0.01, 0).sum() == 2000
    # 105 clips cannot be met by recordings of 10; 100 and 110 are equally near.
    assert stratified_split(np.repeat(np.arange(20_000), 10), target, 105 / 200_000, 0).sum() in (100, 110)


@pytest.mark.parametrize("seed", range(3))
def test_a_large_set_exchanges_recordings_to_meet_the_share(seed):
    """Recordings of 7 and 10 clips: adding or removing one leaves up to 3.5 clips, an exchange at most 1.5.

    Of a set this large only one random order is tried.
    """
    recording = np.repeat(np.arange(60_000), np.random.default_rng(0).choice([7, 10], 60_000))
    held = stratified_split(recording, np.zeros((len(recording), 0), bool), 0.123, seed)
    assert abs(held.sum() - 0.123 * len(recording)) <= 1.5


@given(recordings=st.integers(2, 20), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
def test_the_prefix_rule_is_that_of_old_runs(recordings, fraction, seed):
    size = np.random.default_rng(1).integers(1, 9, recordings)
    group = np.repeat(np.arange(recordings), size)
    order = np.random.default_rng(seed).permutation(recordings)
    sums = np.cumsum(np.bincount(group)[order])[:-1]
    first = order[: 1 + np.abs(sums - fraction * len(group)).argmin()]
    assert (prefix_split(group, fraction, seed) == np.isin(group, first)).all()


@given(clips=st.integers(1, 60), share=st.floats(0.01, 1), more=st.floats(0.01, 1), seed=st.integers(0, 2**32 - 1))
def test_samples_are_nested_and_keep_every_label(clips, share, more, seed):
    target = np.random.default_rng(clips).random((clips, 4)) < 0.1
    small, large = (sample(None, target, each, seed) for each in sorted((share, more)))
    assert set(small) <= set(large)
    assert (np.diff(small) > 0).all()
    assert (target[small].any(axis=0) == target.any(axis=0)).all()
    least = max(1, round(min(share, more) * clips))
    assert least <= len(small) <= least + 4


def test_a_sample_that_holds_every_label_is_the_first_of_the_random_order():
    target = np.ones((50, 2), bool)
    expected = np.sort(np.random.default_rng(3).permutation(50)[:10])
    assert sample(None, target, 0.2, 3).tolist() == expected.tolist()


@settings(max_examples=100)
@given(clips=labelled(), folds=st.integers(2, 7), seed=st.integers(0, 99))
def test_folds_keep_recordings_whole(clips, folds, seed):
    recording, target = clips
    label = target.argmax(axis=1) if target.shape[1] and (target.sum(axis=1) == 1).all() else None
    found = recording_folds(recording, label, folds, seed)
    assert found.shape == recording.shape
    count = found.max() + 1
    assert set(found) == set(range(count))
    assert count <= min(folds, len(np.unique(recording)))
    for each in np.unique(recording):
        assert len(set(found[recording == each])) == 1
    np.testing.assert_array_equal(found, recording_folds(recording, label, folds, seed))


def test_folds_are_stratified_and_as_many_as_the_median_label_has_recordings():
    recording, target = one_of_k([20, 20, 20])
    found = recording_folds(recording, target.argmax(axis=1), 5, 0)
    for label in range(3):
        assert np.bincount(found[target[:, label]], minlength=5).tolist() == [4] * 5
    # A rare label does not make them fewer, and few recordings of most labels do.
    for counts, folds in (([20, 20, 2], 5), ([3, 3, 20], 3), ([1, 1, 1], 2), ([20, 1, 1], 2)):
        recording, target = one_of_k(counts)
        assert recording_folds(recording, target.argmax(axis=1), 5, 0).max() + 1 == folds
    assert recording_folds(np.zeros(6, int), np.arange(6) % 2, 5, 0).max() == 0
