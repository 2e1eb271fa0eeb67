import numpy as np
import pytest
from scipy.special import expit, softmax

from bayes_panns.metrics import cross_fitted_temperatures, fit_temperature, logits_of, nll
from bayes_panns.metrics.temperature import BOUNDS, PRIOR_SD


def example(task, clips=6000, draws=4, seed=0):
    """Draws of logits, and targets from the mean of the probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(clips, 3)) + rng.normal(size=(draws, clips, 3))
    p = probability(logits, task)
    if task == "multi-label":
        return logits, rng.random(p.shape) < p
    return logits, np.eye(3, dtype=bool)[(rng.random((clips, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=2)]


def probability(logits, task):
    return (softmax(logits, axis=2) if task == "one-of-k" else expit(logits)).mean(axis=0)


both = pytest.mark.parametrize("task", ["one-of-k", "multi-label"])


@both
def test_a_known_temperature_is_found(task):
    logits, target = example(task)
    for temperature in (0.4, 1, 3):
        # 6000 clips tell it to 2 %, one standard error.
        assert fit_temperature(temperature * logits, target, task) == pytest.approx(temperature, rel=0.06)


@both
def test_no_temperature_near_it_is_better(task):
    logits, target = example(task, clips=50)
    found = fit_temperature(logits, target, task, prior_sd=np.inf)
    best = nll(probability(logits / found, task), target, task)
    for other in (0.5, 0.98, 1.02, 2):
        assert best < nll(probability(logits / (found * other), task), target, task)


@both
@pytest.mark.parametrize("seed", range(8))
def test_it_never_does_worse_than_none(task, seed):
    rng = np.random.default_rng(seed)
    logits = 10 ** rng.uniform(-2, 2) * rng.normal(size=(3, 4, 5))
    target = np.eye(5, dtype=bool)[rng.integers(0, 5, 4)]
    found = fit_temperature(logits, target, task)
    assert nll(probability(logits / found, task), target, task) <= nll(probability(logits, task), target, task) + 1e-9


@both
def test_clips_that_are_all_right_go_to_the_bound_without_a_prior(task):
    target = np.eye(3, dtype=bool)
    found = fit_temperature(np.where(target, 1.0, -1.0)[None].repeat(2, axis=0), target, task, prior_sd=np.inf)
    assert BOUNDS[0] <= found < 0.1


@pytest.mark.parametrize("margin", [0.5, 1, 2, 4, 8, 30])
@pytest.mark.parametrize("labels", [2, 5, 10])
def test_a_few_clips_that_are_all_right_leave_a_sensible_temperature(margin, labels):
    target = np.eye(labels, dtype=bool)[np.arange(6) % labels]
    found = fit_temperature(np.where(target, margin, 0.0)[None], target, "one-of-k")
    assert 0.15 < found <= 1.0 + 1e-9
    if labels == 2:
        assert found > 0.3


def test_the_prior_is_a_normal_of_the_log():
    # Two clips of a margin m and two labels: the loss is 2 log(1 + exp(-m/tau)) + log(tau)^2 / (2 sd^2).
    target, margin = np.eye(2, dtype=bool), 1.5
    tau = np.exp(np.linspace(-3, 3, 60001))
    for sd in (PRIOR_SD, 2.0):
        loss = 2 * np.log1p(np.exp(-margin / tau)) + np.log(tau) ** 2 / (2 * sd**2)
        found = fit_temperature(np.where(target, margin, 0.0)[None], target, "one-of-k", prior_sd=sd)
        assert found == pytest.approx(tau[loss.argmin()], rel=1e-3)
    with pytest.raises(ValueError, match="prior_sd is 0"):
        fit_temperature(np.zeros((1, 2, 2)), target, "one-of-k", prior_sd=0)


@both
def test_the_prior_does_not_matter_with_many_clips(task):
    logits, target = example(task, clips=2000)
    for temperature in (0.5, 1.0, 2.5):
        with_prior = fit_temperature(temperature * logits, target, task)
        assert with_prior == pytest.approx(
            fit_temperature(temperature * logits, target, task, prior_sd=np.inf), rel=0.01
        )


@both
def test_logits_that_say_nothing_are_left_alone(task):
    assert fit_temperature(np.zeros((2, 4, 3)), np.eye(3, dtype=bool)[[0, 1, 2, 0]], task) == 1


@both
def test_all_wrong_is_softened_as_far_as_it_goes(task):
    target = np.eye(2, dtype=bool)
    found = fit_temperature(np.where(target, -1.0, 1.0)[None], target, task, prior_sd=np.inf)
    assert 50 < found <= BOUNDS[1]


def test_huge_logits_and_one_clip():
    logits = np.array([[[1e4, 0.0]], [[0.0, 1e4]]])
    assert BOUNDS[0] <= fit_temperature(logits, np.array([[True, False]]), "one-of-k") <= BOUNDS[1]


def test_single_precision_is_enough():
    logits, target = example("one-of-k", clips=100)
    found = fit_temperature(logits.astype(np.float32), target, "one-of-k")
    assert found == pytest.approx(fit_temperature(logits, target, "one-of-k"), rel=1e-4)


TARGET = np.array([[True, False]])


@pytest.mark.parametrize(
    ("logits", "target", "task", "message"),
    [
        (np.zeros((1, 2)), TARGET, "one-of-k", "expected \\(T, N, K\\)"),
        (np.zeros((1, 1, 3)), TARGET, "one-of-k", "expected \\(T, N, K\\)"),
        (np.zeros((0, 1, 2)), TARGET, "one-of-k", "expected \\(T, N, K\\)"),
        (np.zeros((1, 1, 2)), TARGET.astype(float), "one-of-k", "expected bool"),
        (np.array([[[0, np.inf]]]), TARGET, "one-of-k", "not finite"),
        (np.zeros((1, 1, 2)), ~TARGET & TARGET, "one-of-k", "exactly one label"),
        (np.zeros((1, 1, 2)), TARGET, "either", "task 'either'"),
    ],
)
def test_what_does_not_fit_is_refused(logits, target, task, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, target, task)


@both
def test_a_folds_temperature_is_that_of_the_others(task):
    logits, target = example(task, clips=300)
    folds = np.arange(300) % 3 + 1
    # Fold 1 asks for another temperature than the rest do.
    logits[:, folds == 1] *= 5
    found = cross_fitted_temperatures(logits, target, task, folds)
    assert list(found) == [1, 2, 3]
    for fold, temperature in found.items():
        others = folds != fold
        assert temperature == fit_temperature(logits[:, others], target[others], task)
    assert found[1] < min(found[2], found[3])
    changed = target.copy()
    changed[folds == 1] = target[folds == 1][::-1]
    assert cross_fitted_temperatures(logits, changed, task, folds)[1] == found[1]


@pytest.mark.parametrize("folds", [np.ones(4, int), np.arange(3)])
def test_a_cross_fitted_temperature_needs_two_folds_of_the_clips(folds):
    with pytest.raises(ValueError, match="two or more"):
        cross_fitted_temperatures(np.zeros((1, 4, 2)), np.eye(2, dtype=bool)[[0, 1, 0, 1]], "one-of-k", folds)


@both
def test_logits_have_their_probabilities(task):
    p = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    logits = logits_of(p, task)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(probability(logits[None], task), p, atol=1e-12)


@both
def test_the_search_ends_at_a_hundredth_and_at_a_hundred(task):
    target = np.eye(3, dtype=bool)
    sign = np.where(target, 1.0, -1.0)[None]
    assert fit_temperature(0.01 * sign, target, task, prior_sd=np.inf) == pytest.approx(0.01, rel=1e-3)
    assert fit_temperature(-100 * sign, target, task, prior_sd=np.inf) == pytest.approx(100, rel=1e-3)
