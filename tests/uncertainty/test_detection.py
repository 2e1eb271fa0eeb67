import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from bayes_panns.uncertainty import aupr, auroc, fpr95

METRICS = (auroc, aupr, fpr95)


def test_by_hand():
    inside, outside = np.array([0.1, 0.2, 0.6, 0.3]), np.array([0.5, 0.9])
    assert auroc(inside, outside) == 7 / 8
    # 0.9 is the first of the ranking, 0.5 the third.
    assert aupr(inside, outside) == pytest.approx((1 + 2 / 3) / 2)
    # Both must be flagged to reach 95 %, and 0.6 is with them.
    assert fpr95(inside, outside) == 0.25


def test_fpr95_may_miss_one_of_twenty():
    outside = np.r_[0.0, np.linspace(2, 3, 19)]
    inside = np.array([0.5, 1.0, 2.0])
    # The threshold at 2.0 flags 19 of 20, and 2.0 itself.
    assert fpr95(inside, outside) == pytest.approx(1 / 3)


def test_agreement_with_scikit_learn():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=30), rng.normal(1, size=20)
    target, score = np.r_[np.zeros(30), np.ones(20)], np.r_[inside, outside]
    assert auroc(inside, outside) == pytest.approx(roc_auc_score(target, score))
    assert aupr(inside, outside) == pytest.approx(average_precision_score(target, score))


def test_constant_scores_are_chance():
    inside, outside = np.zeros(6), np.zeros(2)
    assert [metric(inside, outside) for metric in METRICS] == [0.5, 0.25, 1]


def test_perfect_scores():
    assert [metric(np.zeros(3), np.ones(2)) for metric in METRICS] == [1, 1, 0]


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_to_tell_apart_is_nan(metric):
    assert np.isnan(metric(np.array([]), np.ones(2)))
    assert np.isnan(metric(np.ones(2), np.array([])))
