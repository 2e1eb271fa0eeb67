"""A power of the averaged predictive: calibration of a posterior from its own training clips.

With pbar the mean of the draws' probabilities, and g the power::

    one-of-K:     p(k) = pbar_k^g / sum_j pbar_j^g
    multi-label:  p(k) = pbar_k^g / (pbar_k^g + (1 - pbar_k)^g)

Above 1 it sharpens, below 1 it softens; the order of the labels stays. Rahaman and Thiery, 2021, "Uncertainty
Quantification and Deep Ensembles" (arXiv:2007.08792): pool first, then calibrate. A temperature
(:func:`~bayes_panns.metrics.fit_temperature`) acts on the logits of each draw instead, before the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, log_softmax, softmax

from bayes_panns.core.choices import Task
from bayes_panns.metrics.checks import check_labelled, check_task

BOUNDS = (0.1, 50.0)
"""The range of powers that is searched."""

_SMALLEST = float(np.finfo(np.float32).tiny)


def logits_of(probability: NDArray[np.floating], task: str) -> NDArray[np.float64]:
    """Logits that have these probabilities; they are finite even at 0 and 1.

    ::

        one-of-K:     log p
        multi-label:  log p - log(1 - p)

    Example:
        >>> logits_of(np.array([[0.5, 0.5]]), "multi-label")
        array([[0., 0.]])

    Args:
        probability: ``(N, K)``, of a single draw: a mean over draws is not the probability of any one draw's logits.
        task: ``"one-of-k"`` or ``"multi-label"``.

    Raises:
        ValueError: ``task`` is neither.
    """
    check_task(task)
    p = probability.astype(np.float64)
    # A probability that is 0 in single precision was below its smallest number.
    log_p = np.log(np.maximum(p, _SMALLEST))
    return log_p if task == Task.ONE_OF_K else log_p - np.log(np.maximum(1 - p, _SMALLEST))


def apply_power(
    probability: NDArray[np.floating], power: float | NDArray[np.floating], task: str
) -> NDArray[np.float64]:
    """The probabilities at a power; see the module.

    Example:
        >>> apply_power(np.array([[0.6, 0.2, 0.2]]), 2.0, "one-of-k").round(3)
        array([[0.818, 0.091, 0.091]])

    Args:
        probability: ``(N, K)``, the mean over draws.
        power: One for all labels; or, for multi-label, one for each, ``(K,)``.
        task: ``"one-of-k"`` or ``"multi-label"``.

    Raises:
        ValueError: ``task`` is neither, or one-of-K has several powers.
    """
    _check_power(power, task)
    scaled = logits_of(probability, task) * power
    return softmax(scaled, axis=-1) if task == Task.ONE_OF_K else expit(scaled)


def power_losses(
    probability: NDArray[np.floating],
    target: NDArray[np.bool_],
    power: float | NDArray[np.floating],
    task: str,
    *,
    smoothing: float = 0.0,
    mask: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """The smoothed negative log-likelihood of each clip at a power, in nats.

    With e the smoothing, N clips and K labels, that of clip i is::

        one-of-K:     -log p(y_i) - (e / NK) sum_k log p(k)
        multi-label:  sum_k [-log p(y_ik) - (e / 2N) (log p(k) + log(1 - p(k)))]

    The second term counts as ``smoothing`` clips of evenly spread labels. It bounds the power where every clip is
    classified correctly.

    Args:
        probability: ``(N, K)``, the mean over draws.
        target: ``(N, K)``.
        power: As in :func:`apply_power`.
        task: ``"one-of-k"`` or ``"multi-label"``.
        smoothing: e, in clips.
        mask: ``(N, K)``, for multi-label: which labels of which clips count; the losses of the others are 0.

    Returns:
        ``(N,)``, or for multi-label ``(N, K)``, before the sum over the labels.

    Raises:
        ValueError: As in :func:`apply_power`.
    """
    _check_power(power, task)
    scaled = logits_of(probability, task) * power
    share = smoothing / len(target)
    if task == Task.ONE_OF_K:
        log_p = log_softmax(scaled, axis=-1)
        return -log_p[target] - share * log_p.mean(axis=1)
    log_p, log_not = log_expit(scaled), log_expit(-scaled)
    losses = -np.where(target, log_p, log_not) - share / 2 * (log_p + log_not)
    return losses if mask is None else losses * mask


def fit_power(
    probability: NDArray[np.floating],
    target: NDArray[np.bool_],
    task: str,
    *,
    smoothing: float = 0.3,
    by_label: bool = False,
    mask: NDArray[np.bool_] | None = None,
) -> float | NDArray[np.float64]:
    """The power of the least smoothed negative log-likelihood, by Brent's search between :data:`BOUNDS`.

    Example:
        >>> probability = np.array([[0.6, 0.4]] * 4)
        >>> target = np.array([[True, False]] * 3 + [[False, True]])
        >>> round(fit_power(probability, target, "one-of-k", smoothing=0), 2)  # log(3) / log(0.6 / 0.4)
        2.71

    Args:
        probability: ``(N, K)``: the mean over draws for clips that were not used in the fit.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
        smoothing: See :func:`power_losses`.
        by_label: For multi-label: a power for each label, ``(K,)``.
        mask: As in :func:`power_losses`.

    Raises:
        ValueError: The shapes, types or values do not fit, or one-of-K is to have a power for each label.
    """
    check_labelled(probability, target, task)
    if by_label and task == Task.ONE_OF_K:
        raise ValueError("one-of-k has one power: its labels share the sum of 1")
    if by_label:
        columns = [slice(label, label + 1) for label in range(target.shape[1])]
        masks = [None if mask is None else mask[:, one] for one in columns]
        return np.array(
            [
                _search(probability[:, one], target[:, one], task, smoothing, known)
                for one, known in zip(columns, masks, strict=True)
            ]
        )
    return _search(probability, target, task, smoothing, mask)


def _search(
    probability: NDArray[np.floating],
    target: NDArray[np.bool_],
    task: str,
    smoothing: float,
    mask: NDArray[np.bool_] | None,
) -> float:
    # It takes longer to import than the rest of these metrics together.
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_power: float(
            power_losses(probability, target, float(np.exp(log_power)), task, smoothing=smoothing, mask=mask).sum()
        ),
        bounds=np.log(BOUNDS),
        method="bounded",
    )
    return float(np.exp(found.x))


def _check_power(power: float | NDArray[np.floating], task: str) -> None:
    check_task(task)
    if task == Task.ONE_OF_K and np.size(power) != 1:
        raise ValueError("one-of-k has one power: its labels share the sum of 1")
