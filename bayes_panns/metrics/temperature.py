"""Temperature scaling: one number that softens or sharpens a posterior's probabilities."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax

from bayes_panns.core.choices import Task
from bayes_panns.metrics.checks import check_one_hot, check_task
from bayes_panns.metrics.power import power_losses

BOUNDS = (0.01, 100.0)
"""The range that is searched."""

PRIOR_SD = 0.5
"""Standard deviation of the prior of log tau, a Normal around 0: 95 % of the prior lies between 0.38 and 2.7.

The networks of Guo et al. (2017) have temperatures of 1 to 3. The prior counts as much as about ten clips: the NLL of
one has a curvature of some 0.3 to 0.5 in log tau. It decides where a handful of clips say nothing, as when all are
classified correctly, moves the temperature of hundreds by about 1 %, and that of 2000 by about 0.2 %.
"""


def cross_fitted_temperatures(
    logits: NDArray[np.floating], target: NDArray[np.bool_], task: str, folds: NDArray[np.integer]
) -> dict[int, float]:
    """A temperature for each fold of a cross-validation, from the other folds' predictions.

    Fold k's temperature is :func:`fit_temperature` of the pooled predictions for all other folds, where each clip is
    predicted by the posterior that was fitted without the clip's fold. It is not entirely independent of fold k: those
    posteriors were fitted to clips of fold k, among others. But a single number is all that it takes from them.

    Args:
        logits: ``(T, N, K)``, before softmax or sigmoid, of the posterior that was fitted without the clip's fold.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
        folds: ``(N,)``, the fold of each clip; two or more.

    Returns:
        Fold to temperature.

    Raises:
        ValueError: As :func:`fit_temperature`; or there are fewer than two folds.
    """
    known = np.unique(folds)
    if folds.shape != target.shape[:1] or len(known) < 2:
        raise ValueError(f"folds {folds.shape} with {len(known)} different: expected ({len(target)},) with two or more")
    found = {}
    for fold in known.tolist():
        others = folds != fold
        found[fold] = fit_temperature(logits[:, others], target[others], task)
    return found


def fit_temperature(
    logits: NDArray[np.floating],
    target: NDArray[np.bool_],
    task: str,
    *,
    power: NDArray[np.floating] | None = None,
    prior_sd: float = PRIOR_SD,
) -> float:
    """The most probable temperature, which divides every draw's logits, under the mean probability over draws.

    Temperature scaling (Guo et al., 2017, arXiv:1706.04599) of a posterior predictive, with a weak prior. With z_t the
    logits under draw t, and ``link`` the softmax or sigmoid, tau minimises::

        NLL(mean_t link(z_t / tau)) + log(tau)^2 / (2 prior_sd^2)

    with the NLL summed over clips. Above 1 it softens, below 1 it sharpens; the order of a draw's labels stays. The
    prior keeps it near 1 where the clips do not determine it: if all are classified correctly the NLL alone falls for
    ever as tau does. The search is Brent's, on log tau between :data:`BOUNDS`. With several draws there may be more
    than one minimum; the temperature found never has a higher NLL than 1 has.

    Example:
        >>> logits = np.array([[[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]])
        >>> target = np.array([[True, False], [True, False], [True, False], [False, True]])
        >>> round(fit_temperature(logits, target, "one-of-k", prior_sd=np.inf), 2)  # 3 of 4: 2 / log(3)
        1.82
        >>> round(fit_temperature(logits, target, "one-of-k"), 2)  # Four clips do not outweigh the prior.
        1.18

    Args:
        logits: ``(T, N, K)``, before softmax or sigmoid: T draws for N clips that were not used in the fit.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
        power: A power of p, shape ``(1,)`` or ``(K,)``, which the posterior has already: see
            :func:`~bayes_panns.metrics.apply_power`. The NLL is that of p at the power.
        prior_sd: Standard deviation of log tau under the prior, positive; infinite for none.

    Raises:
        ValueError: The shapes, types or values do not fit.
    """
    # It takes longer to import than the rest of these metrics together.
    from scipy.optimize import minimize_scalar

    check_task(task)
    if not prior_sd > 0:
        raise ValueError(f"prior_sd is {prior_sd}: expected a positive number")
    if logits.ndim != 3 or logits.shape[1:] != target.shape or not logits.size:
        raise ValueError(f"logits {logits.shape} and target {target.shape}: expected (T, N, K) and (N, K)")
    if target.dtype != np.bool_:
        raise ValueError(f"target is {target.dtype}: expected bool")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold values that are not finite")
    if task == Task.ONE_OF_K:
        check_one_hot(target)
    z = logits.astype(np.float64)
    sign = np.where(target, 1, -1)

    def nll(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        if power is not None:
            mean = (softmax(scaled, axis=2) if task == Task.ONE_OF_K else expit(scaled)).mean(axis=0)
            return float(power_losses(mean, target, power, task).sum())
        # Under every draw: the log-likelihood of a clip's label, or of the presence or absence of each label.
        each = log_softmax(scaled, axis=2)[:, target] if task == Task.ONE_OF_K else log_expit(sign * scaled)
        return float(-logsumexp(each, axis=0).sum())

    def loss(log_temperature: float) -> float:
        return nll(log_temperature) + 0.5 * (log_temperature / prior_sd) ** 2

    found = minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded")
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0
