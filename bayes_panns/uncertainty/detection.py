"""Telling sounds that the model was not made for: AUROC, AUPR and the false alarms at 95 % detection.

Out of distribution is the positive class, and a score is higher for it (Hendrycks and Gimpel, 2017, arXiv:1610.02136).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

DETECTED = 0.95


def auroc(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> float:
    """Area under the ROC curve: the probability that a clip from outside scores above one from inside, ties half.

    Args:
        inside: ``(N,)``, scores of in-distribution clips.
        outside: ``(M,)``, scores of out-of-distribution clips.

    Returns:
        In [0, 1], 0.5 at chance; NaN where either is empty.
    """
    return _score(roc_auc_score, inside, outside)


def aupr(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> float:
    """Area under the precision-recall curve, as average precision.

    Args:
        inside: ``(N,)``, scores of in-distribution clips.
        outside: ``(M,)``, scores of out-of-distribution clips.

    Returns:
        In [0, 1], M / (N + M) at chance; NaN where either is empty.
    """
    return _score(average_precision_score, inside, outside)


def fpr95(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> float:
    """The share of in-distribution clips flagged at the highest threshold that flags 95 % of those from outside.

    Args:
        inside: ``(N,)``, scores of in-distribution clips.
        outside: ``(M,)``, scores of out-of-distribution clips.

    Returns:
        In [0, 1], lower is better; NaN where either is empty.
    """
    return _score(_false_alarms, inside, outside)


def _false_alarms(target: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    false_positive, true_positive, _ = roc_curve(target, score, drop_intermediate=False)
    return false_positive[np.searchsorted(true_positive, DETECTED)]


def _score(
    metric: Callable[[NDArray[np.bool_], NDArray[np.floating]], float],
    inside: NDArray[np.floating],
    outside: NDArray[np.floating],
) -> float:
    if not len(inside) or not len(outside):
        return float("nan")
    target = np.repeat([False, True], [len(inside), len(outside)])
    return float(metric(target, np.concatenate([inside, outside])))
