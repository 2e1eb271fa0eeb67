import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from bayes_panns.metrics import (
    ace,
    brier,
    brier_split,
    classwise_ece,
    classwise_reliability,
    ece,
    ece_if_calibrated,
    nll,
    reliability,
)
from bayes_panns.metrics.scoring import EPSILON

P = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.45, 0.55]])
T = np.eye(2, dtype=bool)[[0, 1, 1, 0]]


def test_ece_by_hand():
    # Three bins: 0.9 twice, right half the time; 0.7, right; 0.55, wrong.
    assert ece(P, T, "one-of-k") == pytest.approx((2 * 0.4 + 0.3 + 0.55) / 4)
    # Pooled pairs: 0.9 (1 of 2), 0.1 (1 of 2), 0.3 (0), 0.7 (1), 0.45 (1), 0.55 (0).
    pooled = (2 * 0.4 + 2 * 0.4 + 0.3 + 0.3 + 0.55 + 0.55) / 8
    assert ece(P, T, "multi-label") == pytest.approx(pooled)


def test_ace_by_hand():
    # 30 clips, quantile edges at every second one; each bin's mean confidence 0.5 + 0.01 (2b + 0.5).
    confidence = 0.5 + 0.01 * np.arange(30)
    p = np.stack([confidence, 1 - confidence], axis=1)
    t = np.tile([True, False], (30, 1))
    bins = reliability(p, t, "one-of-k", equal_mass=True)
    np.testing.assert_array_equal(bins.count, np.full(15, 2))
    np.testing.assert_allclose(bins.confidence, 0.505 + 0.02 * np.arange(15))
    assert ace(p, t, "one-of-k") == pytest.approx(1 - confidence.mean())


def test_equal_confidences_share_a_bin_whatever_their_order():
    p, t = np.full((40, 1), 0.5), np.repeat([[True], [False]], 20, axis=0)
    assert ece(p, t, "multi-label") == 0
    assert ace(p, t, "multi-label") == 0


def test_confidences_of_exactly_0_and_1_fall_in_the_outer_bins():
    bins = reliability(np.array([[0.0, 1.0]]), np.array([[False, True]]), "multi-label")
    assert bins.count[[0, -1]].tolist() == [1, 1]
    assert bins.error == 0
    assert np.isnan(bins.frequency[1:-1]).all()


def test_a_confidence_on_an_edge_is_in_the_bin_that_begins_there():
    edges = reliability(P, T, "multi-label").edges
    np.testing.assert_allclose(edges, np.arange(16) / 15)
    bins = reliability(edges[[[3], [7]]], np.ones((2, 1), dtype=bool), "multi-label")
    assert np.flatnonzero(bins.count).tolist() == [3, 7]


@pytest.mark.parametrize("metric", [ece, ace])
def test_calibrated_predictions_have_hardly_any_error(metric):
    rng = np.random.default_rng(0)
    p = rng.random((20_000, 2))
    assert metric(p, rng.random(p.shape) < p, "multi-label") < 0.01
    p = rng.dirichlet(np.ones(4), 40_000)
    label = (rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=3)
    t = np.eye(4, dtype=bool)[label]
    assert metric(p, t, "one-of-k") < 0.01
    sharpened = p**3 / (p**3).sum(axis=1, keepdims=True)
    assert metric(sharpened, t, "one-of-k") > 0.1


def test_classwise_ece_by_hand():
    # Label 0: 0.9 twice, present once; 0.3, absent; 0.45, present. Label 1 mirrors it.
    each = (2 * 0.4 + 0.3 + 0.55) / 4
    np.testing.assert_allclose(classwise_ece(P, T), [each, each])
    # With one label more that is never there and hardly thought to be.
    more = np.c_[P, np.full(4, 0.02)], np.c_[T, np.zeros(4, dtype=bool)]
    np.testing.assert_allclose(classwise_ece(*more), [each, each, 0.02])


@pytest.mark.parametrize("equal_mass", [False, True])
def test_each_labels_reliability_is_that_of_its_column_alone(equal_mass):
    rng = np.random.default_rng(0)
    p = rng.random((60, 3))
    t = rng.random(p.shape) < p
    bins = classwise_reliability(p, t, equal_mass=equal_mass)
    assert len(bins) == 3
    for k, label in enumerate(bins):
        alone = reliability(p[:, [k]], t[:, [k]], "multi-label", equal_mass=equal_mass)
        for name in ("confidence", "frequency", "count", "edges"):
            np.testing.assert_array_equal(getattr(label, name), getattr(alone, name))
        assert not label.top_label
        assert label.equal_mass == equal_mass
    if not equal_mass:
        np.testing.assert_allclose(classwise_ece(p, t), [label.error for label in bins])


def test_bins_lie_between_their_edges():
    rng = np.random.default_rng(0)
    p = rng.random((200, 1)) ** 2
    for equal_mass in (False, True):
        bins = reliability(p, p > 0.5, "multi-label", equal_mass=equal_mass)
        assert (bins.edges[0], bins.edges[-1], len(bins.edges)) == (0, 1, 16)
        assert (bins.edges[:-1] <= bins.confidence).all()
        assert (bins.confidence < bins.edges[1:]).all()


def test_nll_and_brier_by_hand():
    assert nll(P, T, "one-of-k") == pytest.approx(-np.log([0.9, 0.1, 0.7, 0.45]).mean())
    # With two labels that mirror each other, each counts once.
    assert nll(P, T, "multi-label") == pytest.approx(2 * nll(P, T, "one-of-k"))
    assert brier(P, T, "one-of-k") == pytest.approx(2 * np.mean([0.01, 0.81, 0.09, 0.3025]))
    assert brier(P, T, "multi-label") == pytest.approx(np.mean([0.01, 0.81, 0.09, 0.3025]))


def test_the_parts_of_the_brier_score_by_hand():
    p, t = np.array([[0.2], [0.4], [0.6], [0.8]]), np.array([[False], [True], [False], [True]])
    # Isotonic regression pools the two in the middle: 0, 1/2, 1/2, 1; the label's frequency is 1/2.
    split = brier_split(p, t, "multi-label")
    assert split.uncertainty == 0.25
    assert split.resolution == pytest.approx((0.25 + 0 + 0 + 0.25) / 4)
    # The squared errors are 0.04, 0.36, 0.36, 0.04, and after calibration 0, 0.25, 0.25, 0.
    assert split.reliability == pytest.approx(0.2 - 0.125)
    both = brier_split(np.c_[p, 1 - p], np.c_[t, ~t], "one-of-k")
    assert both.reliability == pytest.approx(2 * split.reliability)
    np.testing.assert_allclose(both.label_resolution, [0.125, 0.125])


def test_the_parts_of_extreme_forecasts():
    t = np.eye(2, dtype=bool)[[0, 1, 1, 0, 1]]
    right = brier_split(t.astype(float), t, "one-of-k")
    assert (right.reliability, right.resolution) == (0, pytest.approx(right.uncertainty))
    wrong = brier_split(1.0 - t, t, "one-of-k")
    # No rising map makes anything of it but a constant.
    assert (wrong.reliability, wrong.resolution) == pytest.approx((2 - wrong.uncertainty, 0))
    constant = brier_split(np.full(t.shape, 0.5), t, "one-of-k")
    assert constant.resolution == pytest.approx(0)
    assert constant.reliability == pytest.approx(2 * 0.1**2)
    # A rounding error away from calibrated, where the difference of the errors comes out below 0.
    nearly = np.array([[0.5], [0.6]])[[0, 0, 1, 1, 1, 1, 1]] * (1 + 2e-16)
    rounded = brier_split(nearly, np.array([[0], [1], [0], [1], [1], [0], [1]], dtype=bool), "multi-label")
    assert rounded.reliability == 0
    absent = brier_split(np.array([[0.3], [0.1]]), np.zeros((2, 1), dtype=bool), "multi-label")
    assert (absent.uncertainty, absent.resolution, absent.reliability) == (0, 0, pytest.approx(0.05))


@given(
    st.integers(0, 9999),
    st.integers(1, 30),
    st.integers(2, 5),
    st.sampled_from([1, 3, 10**6]),
    st.sampled_from(["one-of-k", "multi-label"]),
)
@settings(max_examples=100)
def test_the_brier_score_is_the_sum_of_its_parts(seed, clips, labels, steps, task):
    rng = np.random.default_rng(seed)
    p = rng.integers(0, steps + 1, (clips, labels)) / steps
    t = (
        rng.random(p.shape) < 0.5
        if task == "multi-label"
        else np.eye(labels, dtype=bool)[rng.integers(0, labels, clips)]
    )
    split = brier_split(p, t, task)
    parts = split.reliability, split.resolution, split.uncertainty
    assert min(parts) >= 0
    assert min(*split.label_reliability, *split.label_resolution, *split.label_uncertainty) >= 0
    assert parts[0] - parts[1] + parts[2] == pytest.approx(brier(p, t, task), abs=1e-12)


def test_agreement_with_scikit_learn():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3), 30)
    label = np.r_[[0, 1, 2], rng.integers(0, 3, 27)]
    t = np.eye(3, dtype=bool)[label]
    assert nll(p, t, "one-of-k") == pytest.approx(log_loss(label, p))
    per_label = [log_loss(t[:, k], p[:, k]) for k in range(3)]
    assert nll(p, t, "multi-label") == pytest.approx(sum(per_label))
    assert brier(p, t, "multi-label") == pytest.approx(np.mean([brier_score_loss(t[:, k], p[:, k]) for k in range(3)]))
    assert brier(p, t, "one-of-k") == pytest.approx(3 * brier(p, t, "multi-label"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certain_and_wrong_is_costly_but_finite(dtype):
    p, t = np.array([[1, 0]], dtype=dtype), np.array([[False, True]])
    assert nll(p, t, "one-of-k") == pytest.approx(-np.log(EPSILON))
    assert nll(p, t, "multi-label") == pytest.approx(-2 * np.log(EPSILON))
    assert nll(p, ~t, "multi-label") == 0


def test_one_clip():
    p, t = np.array([[0.8, 0.2]]), np.array([[True, False]])
    for metric in (ece, ace):
        assert metric(p, t, "one-of-k") == pytest.approx(0.2)
    np.testing.assert_allclose(classwise_ece(p, t), [0.2, 0.2])
    split = brier_split(p, t, "one-of-k")
    assert (split.reliability, split.resolution, split.uncertainty) == (pytest.approx(0.08), 0, 0)


@pytest.mark.parametrize("metric", [ece, ace, nll, brier, brier_split])
def test_an_unknown_task_is_refused(metric):
    with pytest.raises(ValueError, match="task 'both'"):
        metric(P, T, "both")


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
def test_the_ece_of_a_calibrated_model_is_what_labels_drawn_from_it_show(task):
    random = np.random.default_rng(3)
    p = random.dirichlet(np.full(4, 0.3), 300) if task == "one-of-k" else random.random((300, 4))
    expected = ece_if_calibrated(p, task)
    assert expected.shape == (200,)
    shown = []
    for _ in range(200):
        drawn = random.random(p.shape) < p
        if task == "one-of-k":
            drawn = np.eye(4, dtype=bool)[[random.choice(4, p=each) for each in p]]
        shown.append(ece(p, drawn, task))
    # Two means of 200: their difference is good to a few standard errors.
    error = np.hypot(expected.std(), np.std(shown)) / 200**0.5
    assert abs(expected.mean() - np.mean(shown)) < 4 * error
    np.testing.assert_array_equal(expected, ece_if_calibrated(p, task))


def test_a_sure_and_calibrated_model_has_no_ece():
    p = np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(ece_if_calibrated(p, "one-of-k", repeats=5), np.zeros(5))
    np.testing.assert_array_equal(ece_if_calibrated(p, "multi-label", repeats=5), np.zeros(5))


def test_every_bin_of_a_label_counts_for_itself():
    """Neighbours that are off in opposite directions do not make up for each other, at either end."""
    # Bins 0 and 1, then 13 and 14, of 15: each off by 0.3 or more, on both sides.
    p = np.array([[0.05], [0.1], [0.9], [0.95]])
    t = np.array([[True], [False], [False], [True]])
    expected = (0.95 + 0.1 + 0.9 + 0.05) / 4
    np.testing.assert_allclose(classwise_ece(p, t), [expected])
    np.testing.assert_allclose(ece(p, t, "multi-label"), expected)


def test_bins_have_equal_width_unless_asked():
    p = np.array([[0.1], [0.11], [0.9]])
    (label,) = classwise_reliability(p, p > 0.5)
    assert not label.equal_mass
    np.testing.assert_allclose(label.edges, np.arange(16) / 15)
    assert not reliability(p, p > 0.5, "multi-label").equal_mass


def test_labels_are_drawn_in_proportion_and_by_the_seed():
    # Probabilities in single precision need not add up to 1, nor do these: each label is drawn half of the time.
    p = np.full((4000, 2), 0.25)
    assert ece_if_calibrated(p, "one-of-k", repeats=3).mean() == pytest.approx(0.25, abs=0.02)
    p = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    first, again, other = (ece_if_calibrated(p, "one-of-k", repeats=4, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, ece_if_calibrated(p, "one-of-k", repeats=4))
    assert (first != other).any()
