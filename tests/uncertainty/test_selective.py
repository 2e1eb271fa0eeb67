import numpy as np
import pytest

from bayes_panns.uncertainty import aurc, risk_coverage


def test_by_hand():
    uncertainty = np.array([0.4, 0.1, 0.3, 0.2])
    wrong = np.array([True, False, False, True])
    curve = risk_coverage(uncertainty, wrong)
    np.testing.assert_array_equal(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 2 / 4])
    assert aurc(uncertainty, wrong) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_only_the_order_of_the_scores_counts():
    rng = np.random.default_rng(0)
    score, wrong = rng.random(50), rng.random(50) < 0.3
    assert aurc(np.log(score), wrong) == aurc(score, wrong)


def test_ties_take_the_expectation_over_their_order():
    rng = np.random.default_rng(0)
    uncertainty = np.array([0, 1, 1, 1, 2])
    wrong = np.array([False, True, False, True, False])
    risk = risk_coverage(uncertainty, wrong).risk
    shuffled = []
    for _ in range(4000):
        order = np.r_[0, 1 + rng.permutation(3), 4]
        shuffled.append(np.cumsum(wrong[order]) / np.arange(1, 6))
    np.testing.assert_allclose(risk, np.mean(shuffled, axis=0), atol=0.02)


def test_edges():
    wrong = np.array([True, False, False, False])
    assert aurc(np.ones(4), wrong) == 0.25
    assert aurc(np.arange(4.0), np.zeros(4, dtype=bool)) == 0
    assert aurc(np.array([0.3]), np.array([True])) == 1
    assert np.isnan(aurc(np.array([]), np.array([], dtype=bool)))
    with pytest.raises(ValueError, match="NaN"):
        aurc(np.array([np.nan]), np.array([True]))
    with pytest.raises(ValueError, match="equal"):
        aurc(np.ones(3), wrong)
