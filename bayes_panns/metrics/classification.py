"""Classification: accuracy, mean average precision, AUC and d', and the loss of each clip."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from bayes_panns.core.choices import Task
from bayes_panns.metrics.checks import check_one_hot, check_pair, check_task


def top_label(
    probability: NDArray[np.floating], target: NDArray[np.bool_]
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """The most probable label of each one-of-K clip; of equally probable ones, the first.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot.

    Returns:
        Its probability ``(N,)``, and whether it is correct ``(N,)``.
    """
    check_pair(probability, target)
    check_one_hot(target)
    clips = np.arange(len(probability))
    top = probability.argmax(axis=1)
    return probability[clips, top], target[clips, top]


def accuracy(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> float:
    """The share of one-of-K clips whose most probable label is correct.

    Example:
        >>> accuracy(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[True, False], [False, True]]))
        0.5

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot.
    """
    return float(top_label(probability, target)[1].mean())


def average_precision(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average precision of each label: the area under its precision-recall curve, as a step function.

    With P_n the precision and R_n the recall when the n highest distinct probabilities count as positive::

        AP = sum_n (R_n - R_{n-1}) P_n

    Example:
        >>> average_precision(np.array([[0.9], [0.8], [0.7]]), np.array([[True], [False], [True]])).round(3)
        array([0.833])

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        ``(K,)``, in [0, 1]; NaN for a label without a positive clip.
    """
    check_pair(probability, target)
    return _average_precision(probability, target)


def auc(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Area under the ROC curve of each label: P(positive above negative) + P(equal) / 2, over pairs of clips.

    Example:
        >>> auc(np.array([[0.9], [0.8], [0.8]]), np.array([[True], [False], [True]]))
        array([0.75])

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
        In [0, 1]; NaN if no label has a positive clip.
    """
    return mean_defined(average_precision(probability, target))


def mean_auc(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> float:
    """:func:`auc` averaged over the labels that have both a positive and a negative clip.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        In [0, 1]; NaN if no label has both.
    """
    return mean_defined(auc(probability, target))


def d_prime(auc: float) -> float:
    """d', the separation of two unit Gaussians with this AUC: sqrt(2) Phi^-1(AUC).

    PANNs reports it for the mean AUC.

    Example:
        >>> round(d_prime(0.9), 4)
        1.8124

    Args:
        auc: In [0, 1].

    Returns:
        0 at chance; infinite at 0 and 1; NaN for NaN.
    """
    return float(np.sqrt(2) * ndtri(auc))


def label_ranking_average_precision(
    probability: NDArray[np.floating], target: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Average precision of each clip's ranking of the labels (LRAP; Schapire and Singer, 2000, BoosTexter).

    For each true label of a clip: Of the labels that are at least as probable, the share that is true. The average
    precision is the mean over the clip's true labels.

    Example:
        >>> label_ranking_average_precision(np.array([[0.9, 0.8, 0.1]]), np.array([[True, False, True]])).round(3)
        array([0.833])

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        ``(N,)``, in (0, 1]; 1 for a clip that has no label or all labels, since no ranking is wrong.
    """
    check_pair(probability, target)
    precision = _average_precision(probability.T, target.T)
    return np.where(np.isnan(precision), 1, precision)


def clip_loss(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> NDArray[np.float64]:
    """The loss of each clip, for :func:`~bayes_panns.metrics.risk_coverage`.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"``: 1 if the most probable label is wrong, else 0; or ``"multi-label"``: 1 minus the
            :func:`label_ranking_average_precision`.

    Returns:
        ``(N,)``, in [0, 1].
    """
    check_task(task)
    if task == Task.ONE_OF_K:
        return (~top_label(probability, target)[1]).astype(np.float64)
    return 1 - label_ranking_average_precision(probability, target)


def mean_defined(values: NDArray[np.floating]) -> float:
    """The mean of the values that are not NaN; NaN if all are.

    Args:
        values: ``(K,)``.
    """
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


# These rank all columns at once: a bootstrap needs thousands of rankings, and one call per label would be slow.


def _average_precision(score: NDArray[np.floating], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    positive, _, last = _ranked(score, target)
    hits = np.take_along_axis(positive.cumsum(axis=0), last, axis=0)
    count = positive.sum(axis=0)
    return (positive * hits / (last + 1)).sum(axis=0) / np.where(count, count, np.nan)


def _auc(score: NDArray[np.floating], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    positive, first, last = _ranked(score, target)
    above = np.concatenate([np.zeros((1, positive.shape[1]), dtype=int), (~positive).cumsum(axis=0)])
    # Negative clips with a higher score than this one, and half of those with the same score.
    lost = (np.take_along_axis(above, first, axis=0) + np.take_along_axis(above, last + 1, axis=0)) / 2
    pairs = positive.sum(axis=0) * above[-1]
    return 1 - (positive * lost).sum(axis=0) / np.where(pairs, pairs, np.nan)


def _ranked(
    score: NDArray[np.floating], target: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]]:
    """Each column's targets, highest score first; and for each, the first and last rank among equal scores."""
    order = np.argsort(-score, axis=0, kind="stable")
    ranked = np.take_along_axis(score, order, axis=0)
    new = np.ones(np.add(score.shape, (1, 0)), dtype=bool)
    new[1:-1] = ranked[1:] != ranked[:-1]
    rank = np.arange(len(score))[:, None]
    first = np.maximum.accumulate(np.where(new[:-1], rank, 0), axis=0)
    last = np.minimum.accumulate(np.where(new[1:], rank, len(score))[::-1], axis=0)[::-1]
    return np.take_along_axis(target, order, axis=0), first, last
