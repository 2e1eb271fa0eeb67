import numpy as np
import pytest

from bayes_panns.metrics import conformal_threshold, label_sets, set_quality


def test_one_of_k_by_hand():
    truth = np.array([0.9, 0.2, 0.7, 0.4])
    p, t = np.stack([truth, 1 - truth], axis=1), np.tile([True, False], (4, 1))
    # Of n + 1 = 5 clips, the new one counted as missed, 40 % is two: one of the four may be missed.
    assert conformal_threshold(p, t, 0.6) == 0.4
    assert conformal_threshold(p, t, 0.8) == 0.2
    np.testing.assert_array_equal(label_sets(p, 0.4)[:2], [[True, False], [False, True]])


def test_multi_label_by_hand():
    p = np.array([[0.9, 0.3, 0.1], [0.5, 0.6, 0.8], [0.2, 0.4, 0.7]])
    t = np.array([[True, True, False], [False, True, False], [False, False, True]])
    # The true labels have 0.9 and 0.3, 0.6, 0.7. Above 0.3 half of the first clip is missed, above 0.6 one clip more.
    # The new clip counts as missed: (loss + 1) / 4.
    assert conformal_threshold(p, t, 0.7) == 0.3
    assert conformal_threshold(p, t, 0.625) == 0.6
    assert conformal_threshold(p, t, 0.5) == 0.6
    assert conformal_threshold(p, t, 0.375) == 0.7


def test_clips_without_a_label_change_nothing():
    rng = np.random.default_rng(0)
    p, t = rng.random((40, 5)), rng.random((40, 5)) < 0.4
    t[:, 0] |= ~t.any(axis=1)
    more = np.concatenate([p, rng.random((30, 5))]), np.concatenate([t, np.zeros((30, 5), dtype=bool)])
    assert conformal_threshold(*more, 0.8) == conformal_threshold(p, t, 0.8)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("clips", [19, 20, 99, 100, 257])
def test_one_of_k_is_split_conformal(coverage, clips):
    rng = np.random.default_rng(clips)
    p = rng.dirichlet(np.ones(4), clips)
    label = rng.integers(0, 4, clips)
    score = np.sort(1 - p[np.arange(clips), label])
    rank = int(np.ceil(round((clips + 1) * coverage, 9)))
    assert conformal_threshold(p, np.eye(4, dtype=bool)[label], coverage) == pytest.approx(1 - score[rank - 1])


def test_equal_probabilities_are_missed_together():
    p, t = np.full((30, 2), 0.5), np.tile([True, False], (30, 1))
    assert conformal_threshold(p, t, 0.5) == 0.5
    assert label_sets(p, 0.5).all()


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_the_promise_holds_over_random_splits(task, coverage):
    rng = np.random.default_rng(0)
    if task == "one-of-k":
        p = rng.dirichlet(np.full(6, 0.3), 1000)
        # Far from calibrated: the promise asks for no more than exchangeable clips.
        label = (rng.random((1000, 1)) > (p**0.3 / (p**0.3).sum(axis=1, keepdims=True)).cumsum(axis=1)).sum(axis=1)
        t = np.eye(6, dtype=bool)[label.clip(max=5)]
    else:
        p = rng.random((1000, 6))
        t = rng.random(p.shape) < 0.6 * p
    found = []
    for _ in range(300):
        order = rng.permutation(1000)
        fit, check = order[:60], order[60:]
        sets = label_sets(p[check], conformal_threshold(p[fit], t[fit], coverage))
        found.append(set_quality(sets, t[check]).coverage)
    # The standard error of the mean is below 0.003; it exceeds the coverage by no more than 1 / (n + 1), here 0.017.
    assert coverage - 0.008 < np.mean(found) < coverage + 0.025


def test_too_few_clips_are_refused_and_just_enough_are_not():
    p, t = np.tile([0.6, 0.4], (9, 1)), np.tile([True, False], (9, 1))
    assert conformal_threshold(p, t, 0.9) == 0.6
    with pytest.raises(ValueError, match=r"8 clips with a label: a coverage of 0.9 needs at least 9"):
        conformal_threshold(p[:8], t[:8], 0.9)
    with pytest.raises(ValueError, match=r"0 clips with a label: .* at least 19"):
        conformal_threshold(p, np.zeros_like(t), 0.95)


@pytest.mark.parametrize("coverage", [0, 1, 90])
def test_a_coverage_that_is_no_share_is_refused(coverage):
    with pytest.raises(ValueError, match="share"):
        conformal_threshold(np.ones((5, 1)), np.ones((5, 1), dtype=bool), coverage)


def test_set_quality_by_hand():
    sets = np.array([[True, False, False], [True, True, False], [False, True, True], [False, False, False]])
    target = np.array([[True, False, False], [True, False, True], [False, False, False], [False, True, False]])
    quality = set_quality(sets, target)
    # Held: 1 of 1, 1 of 2, none to hold, 0 of 1.
    assert quality.coverage == pytest.approx((1 + 0.5 + 0) / 3)
    assert quality.size == 5 / 4
    np.testing.assert_array_equal(quality.share, [0.25, 0.25, 0.5, 0])
    np.testing.assert_array_equal(quality.coverage_by_size, [0, 1, 0.5, np.nan])


@pytest.mark.parametrize(
    ("sets", "target", "message"),
    [
        (np.ones((2, 3), dtype=bool), np.ones((2, 2), dtype=bool), "equal"),
        (np.ones((0, 3), dtype=bool), np.ones((0, 3), dtype=bool), "equal"),
        (np.ones((2, 3)), np.ones((2, 3), dtype=bool), "expected bool"),
    ],
)
def test_sets_that_do_not_fit_are_refused(sets, target, message):
    with pytest.raises(ValueError, match=message):
        set_quality(sets, target)
