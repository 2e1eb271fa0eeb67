"""Several predictions as one: batches of clips joined, and posteriors mixed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from bayes_panns.predictions.accumulate import entropy
from bayes_panns.predictions.uncertainty import Uncertainty, joined


def concatenate(parts: Sequence[Uncertainty]) -> Uncertainty:
    """Join batches of clips, in order.

    Args:
        parts: At least one, all of the same task, labels and number of draws, and all with the covariance or none, and
            all with the samples or none.

    Raises:
        ValueError: There are none, or they differ.
    """
    forms = {
        (part.task, part.draws, part.probability.shape[1], part.covariance is None, part.samples is None)
        for part in parts
    }
    if len(forms) != 1:
        raise ValueError("predictions can be joined if they have the same task, labels and number of draws")
    errors = joined([part.standard_error for part in parts], np.concatenate)
    return replace(joined(parts, np.concatenate), standard_error=errors)


def mixture(parts: Sequence[Uncertainty]) -> Uncertainty:
    """The predictions of the equal-weight mixture of several posteriors, for the same clips.

    The law of total variance over M posteriors and their draws::

        p = mean_m p_m
        aleatoric = mean_m aleatoric_m
        expected_entropy = mean_m expected_entropy_m
        epistemic = mean_m [epistemic_m + (p_m - p)^2]

    and likewise for the covariance. If all have equally many draws, it equals :func:`decompose` of all draws
    together. Posteriors of a single draw make the deep ensemble of Lakshminarayanan et al., 2017 (arXiv:1612.01474).

    Members may have a power: then p_m is the member's probability at its power, and the entropies are those of all
    draws before it.

    Standard errors are NaN: the posteriors' draws may come from the same random numbers, and errors that took them for
    independent would be too small.

    Args:
        parts: At least one, of the same task and of N clips and K labels in the same order, and all with the covariance
            or none. The mixture's ``draws`` is the sum of theirs, or ``"moments"`` if all are of moments.

    Raises:
        ValueError: There are none, or they differ.
    """
    forms = {(part.task, part.draws == "moments", part.probability.shape, part.covariance is None) for part in parts}
    if len(forms) != 1:
        raise ValueError(
            "predictions can be mixed if they have the same task, clips and labels, and all come from draws or all "
            "from moments"
        )
    first = parts[0]
    # A mean may leave [0, 1] by rounding.
    p = np.mean([part.probability for part in parts], axis=0).clip(0, 1)
    away = [part.probability - p for part in parts]
    mean = np.mean([part.mean_of_draws for part in parts], axis=0).clip(0, 1)
    total = p * (1 - p)
    epistemic = np.mean([part.epistemic + each**2 for part, each in zip(parts, away, strict=True)], axis=0)
    mixed_entropy = entropy(torch.from_numpy(mean), first.task).numpy()
    expected = np.mean([part.expected_entropy for part in parts], axis=0)
    covariance = (
        None
        if first.covariance is None
        else np.mean(
            [part.covariance + each[:, :, None] * each[:, None, :] for part, each in zip(parts, away, strict=True)],
            axis=0,
        )
    )
    return Uncertainty(
        probability=p,
        aleatoric=np.mean([part.aleatoric for part in parts], axis=0),
        epistemic=epistemic,
        total=total,
        entropy=mixed_entropy,
        expected_entropy=expected,
        mutual_information=np.maximum(mixed_entropy - expected, 0),
        standard_error=first.standard_error.unknown(),
        draws="moments" if first.draws == "moments" else sum(int(part.draws) for part in parts),
        task=first.task,
        covariance=covariance,
        mean=None if all(part.mean is None for part in parts) else mean,
        samples=None if any(part.samples is None for part in parts) else _all_samples(parts),
    )


def _all_samples(parts: Sequence[Uncertainty]) -> NDArray[np.float32]:
    """The draws of all members, ``(N, T, K)``."""
    return np.concatenate([part.samples for part in parts if part.samples is not None], axis=1)
