"""One number that makes a posterior's probabilities softer or sharper."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax, logsumexp

from bayes_panns.metrics.checks import ONE_OF_K, check_one_hot, check_task

BOUNDS = (0.01, 100.0)
"""Where a temperature is looked for. Clips that are all tagged right have no best one: the colder the better."""

_SMALLEST = float(np.finfo(np.float32).tiny)


def cross_fitted_temperatures(
    logits: NDArray[np.floating], target: NDArray[np.bool_], task: str, folds: NDArray[np.integer]
) -> dict[int, float]:
    """A temperature for each fold of a cross-validation, from the other folds' predictions.

    Fold k's is :func:`fit_temperature` of the pooled predictions of all other folds, each made by the posterior that
    was fitted without the clip's fold. The temperature is not wholly blind to fold k: those posteriors were fitted to
    its clips, among others. One number is all that is taken from them.

    Args:
        logits: ``(T, N, K)``, each clip's by the posterior that was fitted without its fold.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
        folds: ``(N,)``, the fold of each clip; two or more.

    Returns:
        Fold to temperature.

    Raises:
        ValueError: as :func:`fit_temperature`; or there are not two folds.
    """
    known = np.unique(folds)
    if folds.shape != target.shape[:1] or len(known) < 2:
        raise ValueError(f"folds {folds.shape} with {len(known)} different: expected ({len(target)},) with two or more")
    found = {}
    for fold in known.tolist():
        others = folds != fold
        found[fold] = fit_temperature(logits[:, others], target[others], task)
    return found


def logits_of(probability: NDArray[np.floating], task: str) -> NDArray[np.float64]:
    """Logits that have these probabilities: log p, or log p / (1 - p) for multi-label, finite at 0 and 1.

    Args:
        probability: ``(N, K)``, of a single draw: the logits of a mean over draws are no draw's.
        task: ``"one-of-k"`` or ``"multi-label"``.
    """
    check_task(task)
    p = probability.astype(np.float64)
    # What single precision rounds to 0 was below its smallest number.
    log_p = np.log(np.maximum(p, _SMALLEST))
    return log_p if task == ONE_OF_K else log_p - np.log(np.maximum(1 - p, _SMALLEST))


def fit_temperature(logits: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> float:
    """The temperature that divides the logits of every draw and minimises the NLL of the draws' mean probability.

    Temperature scaling (Guo et al., 2017, arXiv:1706.04599), with the tempered draws averaged as predictions are. Above
    1 it softens, below 1 it sharpens; it changes no draw's order of the labels. The search is Brent's, on the log of
    the temperature between :data:`BOUNDS`. The mean of several draws may have more than one minimum: what is found is
    never worse than 1.

    Args:
        logits: ``(T, N, K)``, T draws for N clips that were not used in the fit, before softmax or sigmoid.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.

    Raises:
        ValueError: the shapes, types or values do not fit.
    """
    check_task(task)
    if logits.ndim != 3 or logits.shape[1:] != target.shape or not logits.size:
        raise ValueError(f"logits {logits.shape} and target {target.shape}: expected (T, N, K) and (N, K)")
    if target.dtype != np.bool_:
        raise ValueError(f"target is {target.dtype}: expected bool")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold values that are not finite")
    if task == ONE_OF_K:
        check_one_hot(target)
    z = logits.astype(np.float64)
    sign = np.where(target, 1, -1)

    def nll(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        # The log-likelihood of a clip's label, or of each label's presence or absence, under every draw.
        each = log_softmax(scaled, axis=2)[:, target] if task == ONE_OF_K else log_expit(sign * scaled)
        return float(-logsumexp(each, axis=0).sum())

    found = minimize_scalar(nll, bounds=np.log(BOUNDS), method="bounded")
    return float(np.exp(found.x)) if found.fun < nll(0.0) else 1.0
