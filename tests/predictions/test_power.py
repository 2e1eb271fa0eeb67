"""Predictions at the power of a posterior."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.metrics import apply_power
from bayes_panns.predictions import UncertaintyAccumulator, concatenate, decompose, from_moments, mixture

TASKS = ("one-of-k", "multi-label")


def drawn(task, *, draws=40, clips=3, labels=4, seed=0, width=1.0):
    logits = width * torch.randn(draws, clips, labels, generator=torch.Generator().manual_seed(seed)).double()
    return logits.softmax(-1) if task == "one-of-k" else logits.sigmoid()


def powered(draws, task, power, **options):
    accumulator = UncertaintyAccumulator(task, power=np.atleast_1d(power), **options)
    for each in draws:
        accumulator.update(each)
    return accumulator.result()


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=30)
@given(power=st.floats(0.2, 12), seed=st.integers(0, 30))
def test_the_probability_is_the_mean_at_the_power_and_its_variance_is_split_as_the_draws_split_theirs(
    task, power, seed
):
    draws = drawn(task, seed=seed)
    plain, got = decompose(draws, task), powered(draws, task, power)
    np.testing.assert_allclose(got.probability, apply_power(plain.probability, power, task), atol=1e-12)
    np.testing.assert_allclose(got.total, got.probability * (1 - got.probability), atol=1e-12)
    np.testing.assert_allclose(got.total, got.aleatoric + got.epistemic, atol=1e-15)
    np.testing.assert_allclose(got.epistemic * plain.total, plain.epistemic * got.total, atol=1e-12)
    assert (got.aleatoric >= 0).all()
    np.testing.assert_array_equal(got.mean, plain.probability)
    for name in ("entropy", "expected_entropy", "mutual_information"):
        np.testing.assert_array_equal(getattr(got, name), getattr(plain, name))


@pytest.mark.parametrize("task", TASKS)
def test_a_power_of_one_changes_nothing(task):
    draws = drawn(task)
    plain, got = decompose(draws, task, covariance=True), powered(draws, task, 1.0, covariance=True)
    for name in ("probability", "aleatoric", "epistemic", "total", "covariance"):
        np.testing.assert_allclose(getattr(got, name), getattr(plain, name), atol=1e-12)


def test_the_covariance_keeps_its_correlations():
    draws = drawn("multi-label")
    plain = decompose(draws, "multi-label", covariance=True)
    got = powered(draws, "multi-label", [0.5, 1.0, 2.0, 6.0], covariance=True)
    np.testing.assert_allclose(got.correlation(), plain.correlation(), atol=1e-9)
    np.testing.assert_allclose(np.diagonal(got.covariance, axis1=1, axis2=2), got.epistemic, atol=1e-12)


def test_the_standard_error_is_that_of_the_powered_probability():
    # Over repeated predictions the probability at the power scatters by its standard error.
    power, repeats = 3.0, 200
    found = [
        powered(drawn("one-of-k", clips=1, labels=2, draws=20, seed=seed), "one-of-k", power) for seed in range(repeats)
    ]
    scatter = np.std([each.probability[0, 0] for each in found])
    told = np.sqrt(np.mean([each.standard_error.probability[0, 0] ** 2 for each in found]))
    assert told == pytest.approx(scatter, rel=0.2)


def test_moments_take_the_power_too():
    loc, deviations = torch.tensor([[1.0, 0.0, -1.0]]), torch.full((1, 1, 3), 0.5)
    plain = from_moments(loc, deviations, lambda logits: logits.softmax(-1), "one-of-k")
    got = from_moments(loc, deviations, lambda logits: logits.softmax(-1), "one-of-k", power=np.array([2.0]))
    np.testing.assert_allclose(got.probability, apply_power(plain.probability, 2.0, "one-of-k"))
    assert got.draws == "moments"


def test_batches_with_and_without_a_power_are_joined():
    one, two = powered(drawn("one-of-k"), "one-of-k", 2.0), decompose(drawn("one-of-k", seed=1), "one-of-k")
    for parts in ([one, two], [two, one]):
        both = concatenate(parts)
        np.testing.assert_array_equal(both.mean, np.concatenate([part.mean_of_draws for part in parts]))
        np.testing.assert_array_equal(both.take(np.array([4, 0])).mean, both.mean[[4, 0]])
    assert concatenate([two, two]).mean is None


def test_a_mixture_mixes_powered_probabilities_and_entropies_of_draws():
    first, second = drawn("one-of-k"), drawn("one-of-k", seed=1)
    got = mixture([powered(first, "one-of-k", 2.0), powered(second, "one-of-k", 3.0)])
    plain = decompose(torch.cat([first, second]), "one-of-k")
    np.testing.assert_allclose(got.mean, plain.probability, atol=1e-12)
    np.testing.assert_allclose(got.entropy, plain.entropy, atol=1e-12)
    np.testing.assert_allclose(got.mutual_information, plain.mutual_information, atol=1e-12)
    wanted = [apply_power(decompose(each, "one-of-k").probability, power, "one-of-k") for each, power in
              ((first, 2.0), (second, 3.0))]  # fmt: skip
    np.testing.assert_allclose(got.probability, np.mean(wanted, axis=0), atol=1e-12)
    np.testing.assert_allclose(got.total, got.aleatoric + got.epistemic, atol=1e-12)
