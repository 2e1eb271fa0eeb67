"""What is gained by handing the least certain clips to a person: the risk-coverage curve and its area."""

import numpy as np
from numpy.typing import NDArray


def risk_coverage(
    uncertainty: NDArray[np.floating], wrong: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of errors among the clips kept, the most certain first (Geifman and El-Yaniv, 2017, arXiv:1705.08500).

    Among clips of equal uncertainty it is the expectation over their order.

    Args:
        uncertainty: ``(N,)``, any score that is higher for a clip to be given up earlier, such as minus the
            probability of the most probable label, or the mutual information.
        wrong: ``(N,)``, whether the clip's prediction is wrong.

    Returns:
        Coverage k / N, and the risk at it, each ``(N,)``, for k = 1 to N.

    Raises:
        ValueError: the shapes differ, or a score is NaN.
    """
    if uncertainty.ndim != 1 or uncertainty.shape != wrong.shape:
        raise ValueError(f"uncertainty {uncertainty.shape} and wrong {wrong.shape}: expected two equal (N,)")
    if np.isnan(uncertainty).any():
        raise ValueError("uncertainty holds NaN")
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    rate = np.bincount(group, wrong, minlength=len(size)) / size
    kept = np.arange(1, len(wrong) + 1)
    return kept / len(wrong), np.cumsum(rate[np.sort(group)]) / kept


def aurc(uncertainty: NDArray[np.floating], wrong: NDArray[np.bool_]) -> float:
    """Area under the risk-coverage curve, the mean of the risk over k = 1 to N (Geifman et al., arXiv:1805.08206).

    Args:
        uncertainty: ``(N,)``, see :func:`risk_coverage`.
        wrong: ``(N,)``, whether the clip's prediction is wrong.

    Returns:
        In [0, 1], lower is better: 0 without errors, the error rate for a score that says nothing. NaN for no clips.
    """
    risk = risk_coverage(uncertainty, wrong)[1]
    return float(risk.mean()) if len(risk) else float("nan")
