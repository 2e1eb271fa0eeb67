"""The draws themselves, kept beside what was computed of them."""

import numpy as np
import pytest
import torch

from bayes_panns.predictions import UncertaintyAccumulator, concatenate, mixture


def accumulated(draws, task="one-of-k", power=None, samples=True):
    accumulator = UncertaintyAccumulator(task, power=power, samples=samples)
    for draw in draws:
        accumulator.update(draw)
    return accumulator.result()


def random_draws(task, clips=6, draws=8, labels=3):
    logits = torch.randn(draws, clips, labels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return logits.softmax(dim=2) if task == "one-of-k" else logits.sigmoid()


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
def test_the_samples_are_the_draws(task):
    draws = random_draws(task)
    found = accumulated(draws, task)
    assert found.samples.shape == (6, 8, 3)
    assert found.samples.dtype == np.float32
    np.testing.assert_allclose(found.samples, draws.transpose(0, 1).numpy(), rtol=1e-6)


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
def test_with_a_power_they_have_the_mean_and_variance_that_are_reported(task):
    found = accumulated(0.4 + 0.1 * random_draws(task), task, power=np.array([1.3]))
    np.testing.assert_allclose(found.samples.mean(axis=1), found.probability, atol=1e-6)
    np.testing.assert_allclose(found.samples.var(axis=1), found.epistemic, atol=1e-6)


def test_with_a_large_power_they_stay_probabilities():
    found = accumulated(random_draws("one-of-k"), power=np.array([20.0]))
    assert found.samples.min() >= 0
    assert found.samples.max() <= 1
    assert np.isfinite(found.samples).all()


def test_they_are_kept_only_if_asked_for_and_go_where_the_clips_go():
    assert accumulated(random_draws("one-of-k"), samples=False).samples is None
    found = accumulated(random_draws("one-of-k"))
    np.testing.assert_array_equal(found.take(np.array([4, 1])).samples, found.samples[[4, 1]])
    assert concatenate([found, found]).samples.shape == (12, 8, 3)
    with pytest.raises(ValueError, match="joined"):
        concatenate([found, accumulated(random_draws("one-of-k"), samples=False)])


def test_a_mixture_has_the_draws_of_all():
    found = accumulated(random_draws("one-of-k"))
    mixed = mixture([found, found])
    assert mixed.samples.shape == (6, 16, 3)
    np.testing.assert_allclose(mixed.samples.mean(axis=1), mixed.probability, atol=1e-6)
