"""One number that makes a posterior's probabilities softer or sharper."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax, logsumexp

from bayes_panns.uncertainty.checks import ONE_OF_K, check_one_hot, check_task

BOUNDS = (0.01, 100.0)
"""Where a temperature is looked for. Clips that are all tagged right have no best one: the colder the better."""


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
