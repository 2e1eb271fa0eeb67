import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from bayes_panns.metrics import augrc, aurc, coverage_at_risk, pavpu, risk_coverage
from bayes_panns.predictions import decompose, scores


def test_by_hand():
    uncertainty = np.array([0.4, 0.1, 0.3, 0.2])
    wrong = np.array([True, False, False, True])
    curve = risk_coverage(uncertainty, wrong)
    np.testing.assert_array_equal(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 2 / 4])
    assert aurc(uncertainty, wrong) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_augrc_by_hand():
    # Wrong and kept, of all four: 0, 1, 1, 2 quarters; between coverages 0, 1/4, ... the mean of neighbours.
    uncertainty, wrong = np.array([0.4, 0.1, 0.3, 0.2]), np.array([True, False, False, True])
    assert augrc(uncertainty, wrong) == pytest.approx((0 + 1 / 8 + 1 / 4 + 3 / 8) / 4)


@given(st.integers(0, 9999), st.integers(2, 60), st.sampled_from([2, 5, 10**6]))
@settings(max_examples=80)
def test_augrc_is_the_papers_function_of_accuracy_and_failure_auroc(seed, clips, levels):
    rng = np.random.default_rng(seed)
    score, wrong = rng.integers(0, levels, clips) / levels, rng.random(clips) < 0.4
    if wrong.all() or not wrong.any():
        return
    accuracy, area = 1 - wrong.mean(), roc_auc_score(wrong, score)
    expected = (1 - area) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert augrc(score, wrong) == pytest.approx(expected, abs=1e-12)


def test_a_loss_may_be_anything_between_0_and_1():
    uncertainty, loss = np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.5, 0.25])
    curve = risk_coverage(uncertainty, loss)
    np.testing.assert_allclose(curve.risk, [0, 0.25, 0.25])
    assert curve.aurc == pytest.approx(0.5 / 3)
    # The losses kept, over three clips: 0, 0.5, 0.75; halves of neighbours 0, 0.25, 0.625.
    assert curve.augrc == pytest.approx((0 + 0.25 + 0.625) / 3 / 3)
    for wrong in (loss - 1, loss + 1, loss * np.nan):
        with pytest.raises(ValueError, match="outside"):
            risk_coverage(uncertainty, wrong)


def test_coverage_at_risk_by_hand():
    uncertainty, wrong = np.arange(10.0), np.arange(10) % 4 == 3
    # Risks: 0, 0, 0, 1/4, 1/5, 1/6, 1/7, 2/8, 2/9, 2/10.
    assert coverage_at_risk(uncertainty, wrong, 0) == 0.3
    assert coverage_at_risk(uncertainty, wrong, 0.1) == 0.3
    assert coverage_at_risk(uncertainty, wrong, 1 / 7) == 0.7
    assert coverage_at_risk(uncertainty, wrong, 0.2) == 1
    assert coverage_at_risk(uncertainty, ~wrong, 0.5) == 0
    assert coverage_at_risk(np.zeros(20), np.arange(20) < 1, 0.05) == 1


def test_pavpu_by_hand():
    found = pavpu(np.array([0.1, 0.2, 0.2, 0.9, 0.5]), np.array([False, False, True, True, False]))
    np.testing.assert_allclose(found.threshold, [0.1, 0.2, 0.5, 0.9])
    # Certain and right 1, 2, 3, 3; uncertain and wrong 2, 1, 1, 0.
    np.testing.assert_allclose(found.value, [3 / 5, 3 / 5, 4 / 5, 3 / 5])
    assert found.error == 0.4
    assert [found.at(threshold) for threshold in (0, 0.1, 0.49, 0.5, 7)] == pytest.approx([0.4, 0.6, 0.6, 0.8, 0.6])
    assert found.middle == 0.5


def test_pavpu_at_its_edges():
    uncertainty = np.arange(4.0)
    right = pavpu(uncertainty, np.zeros(4, dtype=bool))
    assert (right.at(-1), right.at(1), right.at(3)) == (0, 0.5, 1)
    wrong = pavpu(uncertainty, np.ones(4, dtype=bool))
    assert (wrong.at(-1), wrong.at(1), wrong.at(3)) == (1, 0.5, 0)
    one = pavpu(np.array([0.3]), np.array([False]))
    assert (one.at(0.2), one.at(one.middle)) == (0, 1)
    constant = pavpu(np.ones(4), np.array([True, False, False, False]))
    assert (constant.threshold.tolist(), constant.value.tolist()) == ([1], [0.75])
    for score, outcome, message in (
        (np.ones(2), np.ones(2), "expected bool"),
        (np.ones(0), np.ones(0, dtype=bool), "at least one"),
        (np.ones(2), np.ones(3, dtype=bool), "equal"),
        (np.array([np.nan]), np.ones(1, dtype=bool), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            pavpu(score, outcome)


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
def test_scores_are_higher_for_the_less_certain(task):
    sure, open_, torn = [[0.98, 0.02]] * 2, [[0.5, 0.5]] * 2, [[0.95, 0.05], [0.05, 0.95]]
    found = scores(decompose(torch.tensor([sure, open_, torn], dtype=torch.float64).transpose(0, 1), task))
    names = ["entropy", "mutual_information", "expected_entropy", "total", "aleatoric", "epistemic"]
    assert list(found) == (["confidence", *names] if task == "one-of-k" else names)
    assert all(values.shape == (3,) for values in found.values())
    for name in ("entropy", "total", "expected_entropy", "aleatoric"):
        assert found[name][1] > found[name][0]
    for name in ("mutual_information", "epistemic"):
        assert found[name][2] > found[name][1]
    if task == "one-of-k":
        np.testing.assert_allclose(found["confidence"], [-0.98, -0.5, -0.5])


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
    assert np.isnan(augrc(np.array([]), np.array([], dtype=bool)))
    assert augrc(np.ones(4), wrong) == 0.125
    assert augrc(np.arange(4.0), np.ones(4, dtype=bool)) == 0.5
    assert augrc(np.arange(4.0), np.zeros(4, dtype=bool)) == 0
    with pytest.raises(ValueError, match="NaN"):
        aurc(np.array([np.nan]), np.array([True]))
    with pytest.raises(ValueError, match="equal"):
        aurc(np.ones(3), wrong)
