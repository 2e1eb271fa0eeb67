"""The power of the averaged predictive."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, softmax

from bayes_panns.metrics import apply_power, fit_power, fit_temperature, nll, power_losses

TASKS = ("one-of-k", "multi-label")


def predictions(task: str, *, clips: int = 400, labels: int = 4, power: float = 1.0, seed: int = 0):
    """Probabilities of which targets are drawn, at ``power``."""
    rng = np.random.default_rng(seed)
    if task == "one-of-k":
        p = rng.dirichlet(np.ones(labels), clips)
        true = apply_power(p, power, task)
        label = np.array([rng.choice(labels, p=each) for each in true])
        return p, np.eye(labels, dtype=bool)[label]
    p = rng.uniform(0.02, 0.98, (clips, labels))
    return p, rng.random((clips, labels)) < apply_power(p, power, task)


def test_a_power_multiplies_log_probabilities_and_normalises():
    p = np.array([[0.5, 0.3, 0.2]])
    wanted = np.array([[0.125, 0.027, 0.008]])
    np.testing.assert_allclose(apply_power(p, 3.0, "one-of-k"), wanted / wanted.sum())
    np.testing.assert_allclose(
        apply_power(np.array([[0.8, 0.5]]), np.array([2.0, 9.0]), "multi-label"), [[0.64 / 0.68, 0.5]]
    )


@given(power=st.floats(0.2, 20), seed=st.integers(0, 50), task=st.sampled_from(TASKS))
def test_a_power_keeps_the_order_of_labels(power, seed, task):
    p, _ = predictions(task, clips=5, seed=seed)
    powered = apply_power(p, power, task)
    assert np.isfinite(powered).all()
    # Probabilities near 1 may round to one.
    ordered = np.take_along_axis(powered, np.argsort(p, axis=1), axis=1)
    assert (np.diff(ordered, axis=1) >= 0).all()
    np.testing.assert_allclose(apply_power(p, 1.0, task), p, atol=1e-12)


@pytest.mark.parametrize("task", TASKS)
def test_certain_probabilities_stay_finite(task):
    p, target = np.array([[1.0, 0.0]]), np.array([[False, True]])
    assert np.isfinite(apply_power(p, 20.0, task)).all()
    assert np.isfinite(power_losses(p, target, 20.0, task)).all()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("power", [0.5, 3.0])
def test_the_power_that_labels_were_drawn_at_is_found(task, power):
    p, target = predictions(task, clips=5000, power=power)
    # The standard error of the estimate, from the curvature of the NLL, is 1 to 3 %.
    assert fit_power(p, target, task, smoothing=0) == pytest.approx(power, rel=0.08)


def test_each_label_has_its_own_power():
    rng = np.random.default_rng(1)
    p, powers = rng.uniform(0.02, 0.98, (8000, 3)), np.array([0.5, 1.0, 4.0])
    target = rng.random(p.shape) < apply_power(p, powers, "multi-label")
    np.testing.assert_allclose(fit_power(p, target, "multi-label", by_label=True), powers, rtol=0.12)


def test_without_smoothing_the_losses_are_the_nll():
    for task in TASKS:
        p, target = predictions(task)
        each = power_losses(p, target, 1.0, task)
        assert each.sum() / len(p) == pytest.approx(nll(p, target, task), rel=1e-9)


def test_smoothing_bounds_the_power_where_all_clips_are_classified_correctly():
    # n clips with logit z for the right one of two labels: the slope of the smoothed loss is 0 at g with
    # n z (1 - s) + e z / 2 (1 - 2 s) = 0, s = sigmoid(g z); the smoothed NLL of the module, differentiated.
    clips, z, e = 20, np.log(0.7 / 0.3), 0.3
    p = np.tile([0.7, 0.3], (clips, 1))
    target = np.tile([True, False], (clips, 1))

    def slope(g: float) -> float:
        s = 1 / (1 + np.exp(-g * z))
        return clips * z * (1 - s) + e * z / 2 * (1 - 2 * s)

    assert fit_power(p, target, "one-of-k", smoothing=e) == pytest.approx(brentq(slope, 0.1, 50), rel=1e-3)
    assert fit_power(p, target, "one-of-k", smoothing=0) > 40


def test_the_order_of_clips_and_labels_does_not_matter():
    p, target = predictions("one-of-k", clips=60)
    order, labels = np.random.default_rng(0).permutation(60), [2, 0, 3, 1]
    one = fit_power(p, target, "one-of-k")
    assert fit_power(p[order][:, labels], target[order][:, labels], "one-of-k") == pytest.approx(one, rel=1e-6)


def test_what_does_not_fit_is_refused():
    p, target = predictions("one-of-k", clips=6)
    with pytest.raises(ValueError, match="one power"):
        apply_power(p, np.ones(4), "one-of-k")
    with pytest.raises(ValueError, match="one power"):
        fit_power(p, target, "one-of-k", by_label=True)
    with pytest.raises(ValueError, match="expected two equal"):
        fit_power(p[:3], target, "one-of-k")
    with pytest.raises(ValueError, match="exactly one label"):
        fit_power(p, np.zeros_like(target), "one-of-k")
    with pytest.raises(ValueError, match="task"):
        fit_power(p, target, "regression")


@pytest.mark.parametrize("task", TASKS)
def test_a_temperature_is_fitted_under_a_power(task):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(1, 3000, 3)) * 2
    p = softmax(logits[0], axis=1) if task == "one-of-k" else expit(logits[0])
    if task == "one-of-k":
        target = np.eye(3, dtype=bool)[[rng.choice(3, p=each) for each in p]]
    else:
        target = rng.random(p.shape) < p
    # Of a single draw, a power and a temperature cancel.
    assert fit_temperature(logits, target, task, power=np.array([2.0])) == pytest.approx(2.0, rel=0.1)
