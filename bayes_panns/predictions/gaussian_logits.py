"""The uncertainty of Gaussian logits, whose moments were propagated: no draws."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.predictions.accumulate import UncertaintyAccumulator
from bayes_panns.predictions.uncertainty import Uncertainty

_POINTS = 128
"""Points of a Sobol sequence; each is used with both signs."""


def from_moments(
    loc: Tensor,
    deviations: Tensor,
    probability: Callable[[Tensor], Tensor],
    task: str,
    *,
    covariance: bool = False,
    power: NDArray[np.floating] | None = None,
) -> Uncertainty:
    """The uncertainty of the probabilities that Gaussian logits give.

    The logits of clip n are::

        loc[n] + sum_r z_r deviations[r, n],    z_r ~ Normal(0, 1)

    They are integrated over 256 fixed quasi-random z (128 scrambled Sobol points and their negatives), the same ones
    for every clip. Both splits of :class:`Uncertainty` are therefore exact. ``draws`` is ``"moments"``, and the
    ``standard_error`` is NaN.

    Args:
        loc: Means of the logits, ``(N, K)``.
        deviations: A factor of their covariance, ``(R, N, K)``.
        probability: Turns logits into probabilities.
        task: ``"one-of-k"`` or ``"multi-label"``.
        covariance: Whether to keep the covariance between labels too.
        power: As in :class:`~bayes_panns.predictions.UncertaintyAccumulator`.
    """
    # Slow to import, and draws need none.
    from scipy.special import ndtri
    from scipy.stats import qmc

    uniform = qmc.Sobol(len(deviations), rng=0).random(_POINTS)
    accumulator = UncertaintyAccumulator(task, covariance=covariance, power=power)
    for point in torch.from_numpy(ndtri(uniform)).to(loc):
        deviation = torch.tensordot(point, deviations, dims=1)
        accumulator.update(probability(loc + deviation))
        accumulator.update(probability(loc - deviation))
    result = accumulator.result()
    return replace(result, draws="moments", standard_error=result.standard_error.unknown())
