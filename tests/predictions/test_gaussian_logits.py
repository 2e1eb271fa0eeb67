"""Moments of logits become the same uncertainty that endless draws of those logits would give."""

import numpy as np
import pytest
import torch

from bayes_panns.bayes import Settings, Strategy
from bayes_panns.clips import Task
from bayes_panns.core.errors import PosteriorError
from bayes_panns.posterior import Posterior
from bayes_panns.predictions import decompose, from_moments

PROBABILITY = {"one-of-k": lambda logits: logits.softmax(dim=-1), "multi-label": torch.sigmoid}


@pytest.mark.parametrize("task", PROBABILITY)
def test_it_is_what_endless_draws_of_the_logits_give(task):
    torch.manual_seed(0)
    loc, deviations = 2 * torch.randn(6, 4), 0.4 * torch.randn(8, 6, 4)
    ours = from_moments(loc, deviations, PROBABILITY[task], task)
    logits = loc + torch.tensordot(torch.randn(6_000, 8), deviations, dims=1)
    draws = decompose(PROBABILITY[task](logits), task)
    for name, tolerance in (
        ("probability", 0.01),
        ("aleatoric", 0.01),
        ("epistemic", 0.01),
        ("mutual_information", 0.02),
    ):
        np.testing.assert_allclose(getattr(ours, name), getattr(draws, name), atol=tolerance)
    np.testing.assert_allclose(ours.total, ours.aleatoric + ours.epistemic, atol=1e-15)
    np.testing.assert_allclose(ours.entropy, ours.expected_entropy + ours.mutual_information, atol=1e-14)
    assert ours.draws == "moments"
    assert np.isnan(ours.standard_error.probability).all()


def test_without_deviations_nothing_is_epistemic():
    loc = torch.randn(3, 5)
    u = from_moments(loc, torch.zeros(32, 3, 5), PROBABILITY["one-of-k"], "one-of-k")
    np.testing.assert_allclose(u.probability, loc.softmax(dim=1), atol=1e-6)
    assert u.epistemic.max() < 1e-12


def test_dropout_has_no_moments():
    posterior = Posterior.build(
        net="resnet14-narrow",
        labels=("a", "b"),
        task=Task.ONE_OF_K,
        sample_rate=8000,
        clip_seconds=0.5,
        strategy=Strategy(dropout="always", default=Settings(posterior="point")),
    )
    with pytest.raises(PosteriorError, match="use draws"):
        posterior.moments(torch.randn(1, 4000))
