"""How good the tags are: accuracy, mean average precision, AUC and d', and what a clip's tags cost."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from bayes_panns.metrics.checks import ONE_OF_K, check_one_hot, check_pair, check_task


def top_label(
    probability: NDArray[np.floating], target: NDArray[np.bool_]
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """The most probable label of each one-of-K clip; the first of equals.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot.

    Returns:
        Its probability ``(N,)``, and whether it is right ``(N,)``.
    """
    check_pair(probability, target)
    check_one_hot(target)
    clips = np.arange(len(probability))
    top = probability.argmax(axis=1)
    return probability[clips, top], target[clips, top]


def accuracy(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> float:
    """The share of one-of-K clips whose most probable label is right.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot.
    """
    return float(top_label(probability, target)[1].mean())


def average_precision(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average precision of each label: the mean, over its positive clips, of the precision down to that clip.

    It is the step-wise area sum_n (R_n - R_{n-1}) P_n under the precision-recall curve; clips of equal probability
    are one step.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        ``(K,)``, in [0, 1]; NaN for a label without a positive clip.
    """
    check_pair(probability, target)
    return _average_precision(probability, target)


def auc(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Area under the ROC curve of each label: how often a positive clip scores above a negative one, ties half.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        ``(K,)``, in [0, 1]; NaN for a label without a positive or without a negative clip.
    """
    check_pair(probability, target)
    return _auc(probability, target)


def mean_average_precision(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> float:
    """:func:`average_precision` averaged over the labels that have a positive clip, as PANNs does (arXiv:1912.10211).

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        In [0, 1]; NaN where no label has a positive clip.
    """
    return mean_defined(average_precision(probability, target))


def mean_auc(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> float:
    """:func:`auc` averaged over the labels that have both a positive and a negative clip.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        In [0, 1]; NaN where no label has both.
    """
    return mean_defined(auc(probability, target))


def d_prime(auc: float) -> float:
    """The separation of two unit Gaussians with this AUC, sqrt(2) Phi^-1(AUC), as PANNs takes it of the mean AUC.

    Args:
        auc: in [0, 1].

    Returns:
        0 at chance; infinite at 0 and 1; NaN for NaN.
    """
    return float(np.sqrt(2) * ndtri(auc))


def label_ranking_average_precision(
    probability: NDArray[np.floating], target: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Average precision of each clip's ranking of the labels (Schapire and Singer, 2000, BoosTexter).

    The mean, over a clip's labels, of the share of its labels among those at least as probable as this one.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        ``(N,)``, in (0, 1]; 1 for a clip that has no label, or all, since no ranking of it is wrong.
    """
    check_pair(probability, target)
    precision = _average_precision(probability.T, target.T)
    return np.where(np.isnan(precision), 1, precision)


def clip_loss(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> NDArray[np.float64]:
    """What each clip's tags cost, for :func:`~bayes_panns.metrics.risk_coverage`.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"``: 1 where the most probable label is wrong; or ``"multi-label"``: 1 minus the
            :func:`label_ranking_average_precision`.

    Returns:
        ``(N,)``, in [0, 1].
    """
    check_task(task)
    if task == ONE_OF_K:
        return (~top_label(probability, target)[1]).astype(np.float64)
    return 1 - label_ranking_average_precision(probability, target)


def mean_defined(values: NDArray[np.floating]) -> float:
    """The mean of those that are not NaN; NaN where all are.

    Args:
        values: ``(K,)``.
    """
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


# What follows ranks every column at once: a bootstrap asks for thousands of rankings, and a call a label is slow.


def _average_precision(score: NDArray[np.floating], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    positive, _, last = _ranked(score, target)
    hits = np.take_along_axis(positive.cumsum(axis=0), last, axis=0)
    count = positive.sum(axis=0)
    return (positive * hits / (last + 1)).sum(axis=0) / np.where(count, count, np.nan)


def _auc(score: NDArray[np.floating], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    positive, first, last = _ranked(score, target)
    above = np.concatenate([np.zeros((1, positive.shape[1]), dtype=int), (~positive).cumsum(axis=0)])
    # Negative clips that a clip scores below, and those that it is level with, which count half.
    lost = (np.take_along_axis(above, first, axis=0) + np.take_along_axis(above, last + 1, axis=0)) / 2
    pairs = positive.sum(axis=0) * above[-1]
    return 1 - (positive * lost).sum(axis=0) / np.where(pairs, pairs, np.nan)


def _ranked(
    score: NDArray[np.floating], target: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]]:
    """Each column's targets, highest score first, and the first and last rank of the scores equal to each."""
    order = np.argsort(-score, axis=0, kind="stable")
    ranked = np.take_along_axis(score, order, axis=0)
    new = np.ones(np.add(score.shape, (1, 0)), dtype=bool)
    new[1:-1] = ranked[1:] != ranked[:-1]
    rank = np.arange(len(score))[:, None]
    first = np.maximum.accumulate(np.where(new[:-1], rank, 0), axis=0)
    last = np.minimum.accumulate(np.where(new[1:], rank, len(score))[::-1], axis=0)[::-1]
    return np.take_along_axis(target, order, axis=0), first, last
