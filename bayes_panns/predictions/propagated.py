"""Uncertainty from the moments of logits, where there are no draws."""

from collections.abc import Callable
from dataclasses import replace

import torch
from scipy.special import ndtri
from scipy.stats import qmc
from torch import Tensor

from bayes_panns.predictions.uncertainty import Moments, Uncertainty

_POINTS = 128
"""Points of a Sobol sequence; each is taken with both signs."""


def from_moments(
    loc: Tensor,
    deviations: Tensor,
    probability: Callable[[Tensor], Tensor],
    task: str,
    *,
    covariance: bool = False,
) -> Uncertainty:
    """The uncertainty that Gaussian logits give probabilities.

    An integral over ``loc + sum_r z_r deviations_r`` with z standard Normal, by the same 256 quasi-random z for every
    clip; so the splits of :class:`Uncertainty` are exact here too. Its ``draws`` is ``"moments"``; its
    ``standard_error``, which draws would have, is NaN.

    Args:
        loc: means of the logits, ``(N, K)``.
        deviations: the factor of their covariance, ``(R, N, K)``.
        probability: what makes probabilities of logits.
        task: ``"one-of-k"`` or ``"multi-label"``.
        covariance: whether to keep the covariance between labels too.
    """
    uniform = qmc.Sobol(len(deviations), rng=0).random(_POINTS)
    moments = Moments(task, covariance=covariance)
    for point in torch.from_numpy(ndtri(uniform)).to(loc):
        deviation = torch.tensordot(point, deviations, dims=1)
        moments.update(probability(loc + deviation))
        moments.update(probability(loc - deviation))
    result = moments.result()
    return replace(result, draws="moments", standard_error=result.standard_error.unknown())
