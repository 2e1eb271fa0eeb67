"""What every metric asks of its arrays, said once."""

import numpy as np
from numpy.typing import NDArray

ONE_OF_K = "one-of-k"
MULTI_LABEL = "multi-label"


def check_task(task: str) -> None:
    """Refuses a task that is neither ``"one-of-k"`` nor ``"multi-label"``.

    Raises:
        ValueError: it is neither.
    """
    if task not in (ONE_OF_K, MULTI_LABEL):
        raise ValueError(f"task {task!r}: expected {ONE_OF_K!r} or {MULTI_LABEL!r}")


def check_pair(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> None:
    """Refuses arrays that are not probabilities ``(N, K)`` in [0, 1] beside bool targets of the same shape.

    Raises:
        ValueError: a shape, a type or a value does not fit.
    """
    if probability.ndim != 2 or probability.shape != target.shape or not probability.size:
        raise ValueError(f"probability {probability.shape} and target {target.shape}: expected two equal (N, K)")
    if target.dtype != np.bool_:
        # Soft labels would otherwise all count as positives.
        raise ValueError(f"target is {target.dtype}: expected bool")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probability holds values outside [0, 1] or NaN")


def check_one_hot(target: NDArray[np.bool_]) -> None:
    """Refuses a one-of-K target without exactly one label a clip.

    Raises:
        ValueError: a clip has no label, or several.
    """
    if (target.sum(axis=1) != 1).any():
        raise ValueError("a one-of-K target needs exactly one label a clip")
