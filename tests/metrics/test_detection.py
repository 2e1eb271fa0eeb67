import numpy as np
import pytest

from bayes_panns.metrics import aupr, auroc, detection, fpr95

METRICS = (auroc, aupr, fpr95)


def test_by_hand():
    inside, outside = np.array([0.1, 0.2, 0.6, 0.3]), np.array([0.5, 0.9])
    assert auroc(inside, outside) == 7 / 8
    # 0.9 is the first of the ranking, 0.5 the third.
    assert aupr(inside, outside) == pytest.approx((1 + 2 / 3) / 2)
    # Both must be flagged to reach 95 %, and 0.6 is with them.
    assert fpr95(inside, outside) == 0.25


def test_the_curve_by_hand():
    found = detection(np.array([0.1, 0.2, 0.6, 0.3]), np.array([0.5, 0.9, 0.2]))
    # Thresholds 0.9, 0.6, 0.5, 0.3, 0.2 (one of each) and 0.1.
    np.testing.assert_allclose(found.false_alarm, [0, 0, 1 / 4, 1 / 4, 2 / 4, 3 / 4, 1])
    np.testing.assert_allclose(found.detected, [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1])


def test_fpr95_may_miss_one_of_twenty():
    outside = np.r_[0.0, np.linspace(2, 3, 19)]
    inside = np.array([0.5, 1.0, 2.0])
    # The threshold at 2.0 flags 19 of 20, and 2.0 itself.
    assert fpr95(inside, outside) == pytest.approx(1 / 3)


def test_constant_scores_are_chance():
    inside, outside = np.zeros(6), np.zeros(2)
    assert [metric(inside, outside) for metric in METRICS] == [0.5, 0.25, 1]


def test_perfect_scores():
    assert [metric(np.zeros(3), np.ones(2)) for metric in METRICS] == [1, 1, 0]


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_to_tell_apart_is_nan(metric):
    assert np.isnan(metric(np.array([]), np.ones(2)))
    assert np.isnan(metric(np.ones(2), np.array([])))
    found = detection(np.array([]), np.ones(2))
    assert (found.false_alarm.tolist(), found.detected.tolist()) == ([0, 1], [0, 1])


def test_one_clip_of_each():
    found = detection(np.array([0.2]), np.array([0.3]))
    assert (found.auroc, found.aupr, found.fpr95) == (1, 1, 0)
    found = detection(np.array([0.3]), np.array([0.2]))
    assert (found.auroc, found.aupr, found.fpr95) == (0, 0.5, 1)


def test_scores_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="vectors"):
        auroc(np.ones((2, 1)), np.ones(2))
    with pytest.raises(ValueError, match="NaN"):
        auroc(np.ones(2), np.array([np.nan]))
