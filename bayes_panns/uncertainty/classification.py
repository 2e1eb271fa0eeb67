"""How good the tags are: accuracy, mean average precision, AUC and d'."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from sklearn.metrics import average_precision_score, roc_auc_score

from bayes_panns.uncertainty.checks import check_one_hot, check_pair


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


def mean_average_precision(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> float:
    """Average precision, averaged over the labels that have a positive clip, as PANNs does (arXiv:1912.10211).

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        In [0, 1]; NaN where no label has a positive clip.
    """
    return _macro(average_precision_score, probability, target, target.sum(axis=0) > 0)


def mean_auc(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, averaged over the labels that have both a positive and a negative clip.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        In [0, 1]; NaN where no label has both.
    """
    positives = target.sum(axis=0)
    return _macro(roc_auc_score, probability, target, (positives > 0) & (positives < len(target)))


def d_prime(auc: float) -> float:
    """The separation of two unit Gaussians with this AUC, sqrt(2) Phi^-1(AUC), as PANNs takes it of the mean AUC.

    Args:
        auc: in [0, 1].

    Returns:
        0 at chance; infinite at 0 and 1; NaN for NaN.
    """
    return float(np.sqrt(2) * ndtri(auc))


def _macro(
    score: Callable[[NDArray, NDArray], float],
    probability: NDArray[np.floating],
    target: NDArray[np.bool_],
    defined: NDArray[np.bool_],
) -> float:
    check_pair(probability, target)
    scores = [score(target[:, k], probability[:, k]) for k in np.flatnonzero(defined)]
    return float(np.mean(scores)) if scores else float("nan")
