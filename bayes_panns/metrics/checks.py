"""Checks of the arrays that metrics take."""

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import Task


def check_task(task: str) -> None:
    """Check that ``task`` is one that metrics know.

    Raises:
        ValueError: It is neither ``"one-of-k"`` nor ``"multi-label"``.
    """
    if task not in (Task.ONE_OF_K, Task.MULTI_LABEL):
        raise ValueError(f"task {str(task)!r}: expected {str(Task.ONE_OF_K)!r} or {str(Task.MULTI_LABEL)!r}")


def check_pair(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> None:
    """Check that the arrays are probabilities in [0, 1], ``(N, K)``, and bool targets of the same shape.

    Raises:
        ValueError: A shape, a type or a value does not fit.
    """
    if probability.ndim != 2 or probability.shape != target.shape or not probability.size:
        raise ValueError(f"probability {probability.shape} and target {target.shape}: expected two equal (N, K)")
    if target.dtype != np.bool_:
        # Soft labels would otherwise all count as positives.
        raise ValueError(f"target is {target.dtype}: expected bool")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probability holds values outside [0, 1] or NaN")


def check_one_hot(target: NDArray[np.bool_]) -> None:
    """Check that every clip of a one-of-K target ``(N, K)`` has exactly one label.

    Raises:
        ValueError: A clip has no label, or several.
    """
    if (target.sum(axis=1) != 1).any():
        raise ValueError("a one-of-K target needs exactly one label a clip")


def check_labelled(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> None:
    """All of the checks above.

    Raises:
        ValueError: As they do.
    """
    check_task(task)
    check_pair(probability, target)
    if task == Task.ONE_OF_K:
        check_one_hot(target)
