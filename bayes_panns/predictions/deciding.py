"""Decisions: which labels of a window are called, and which windows are left to a person."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import FittedTo, Task
from bayes_panns.core.errors import PredictionError
from bayes_panns.metrics.conformal import label_sets
from bayes_panns.posterior import Calibration, Predictor, Usual
from bayes_panns.predictions.uncertainty import Uncertainty, score_of

MIDDLE = 0.5
"""The threshold of the labels of a multi-label posterior without decisions of its own."""


@dataclass(frozen=True)
class Decided:
    """What was decided for N windows and K labels.

    Attributes:
        called: bool ``(N, K)``, whether the label is said to be there. At most one a window for one-of-K.
        left: bool ``(N,)``, whether the window is left to a person: nothing is called, though something may be there.
        outside: bool ``(N,)``, whether the window is unlike the held-out clips; nothing is called there.
    """

    called: NDArray[np.bool_]
    left: NDArray[np.bool_]
    outside: NDArray[np.bool_]


def decide(posterior: Predictor, uncertainty: Uncertainty, *, abstain_above: float | None = None) -> Decided:
    """Decide what can be decided, by the thresholds that ``calibrate`` stored with a posterior.

    For one-of-K the most probable label is called if its probability reaches its threshold, and every other window is
    left to a person. For multi-label each label that reaches its threshold is called; a window without a call is left
    to a person if its label set is not empty, and otherwise nothing is there. A window that is outside, or whose
    entropy is above ``abstain_above``, is left to a person whatever its probabilities.

    Args:
        posterior: A posterior that ``calibrate`` gave decisions; or, with ``abstain_above``, any. Without decisions
            the most probable label is called, or each label of probability 0.5 or more.
        uncertainty: Its predictions for N windows.
        abstain_above: A predictive entropy in nats, as ``predict`` prints it.

    Raises:
        PredictionError: The posterior has no decisions, and there is no limit; or the limit is not a number from 0.
    """
    return decided(posterior.calibration, uncertainty, abstain_above=abstain_above)


def decided(
    calibration: Calibration | None, uncertainty: Uncertainty, *, abstain_above: float | None = None
) -> Decided:
    """:func:`decide`, by a calibration.

    Raises:
        PredictionError: As :func:`decide`.
    """
    if abstain_above is not None and not abstain_above >= 0:
        raise PredictionError(f"--abstain-above {abstain_above}: expected an entropy in nats, from 0 up")
    decisions = None if calibration is None else calibration.decisions
    if decisions is None and abstain_above is None:
        raise PredictionError(
            "the posterior has no decisions; run calibrate with --precision, --risk or --false-alarms, or give an "
            "entropy with --abstain-above"
        )
    p = uncertainty.probability
    called: NDArray[np.bool_] = most_probable(p) if uncertainty.task == Task.ONE_OF_K else np.ones(p.shape, dtype=bool)
    if decisions is not None:
        called &= p >= np.array(decisions.threshold)
        called[:, [fitted == FittedTo.NEVER for fitted in decisions.fitted]] = False
    elif uncertainty.task == Task.MULTI_LABEL:
        called &= p >= MIDDLE
    outside = outside_of(calibration, uncertainty)
    refused = outside.copy()
    if abstain_above is not None:
        refused |= uncertainty.entropy > abstain_above
    called[refused] = False
    left = np.logical_not(called.any(axis=1))
    if uncertainty.task == Task.MULTI_LABEL:
        possible = refused.copy()
        if calibration is not None:
            possible |= label_sets(p, calibration.threshold).any(axis=1)
        left &= possible
    return Decided(called, left, outside)


def most_probable(probability: NDArray[np.floating]) -> NDArray[np.bool_]:
    """The most probable label of each window, bool ``(N, K)``; the first of equal ones."""
    return np.eye(probability.shape[1], dtype=bool)[probability.argmax(axis=1)]


def outside_of(calibration: Calibration | None, uncertainty: Uncertainty) -> NDArray[np.bool_]:
    """Which windows are outside, bool ``(N,)``; none where the posterior does not know the usual scores."""
    usual = None if calibration is None else calibration.usual
    if usual is None:
        return np.zeros(len(uncertainty.probability), dtype=bool)
    return above(usual, uncertainty)


def above(usual: Usual, uncertainty: Uncertainty) -> NDArray[np.bool_]:
    """Which windows have a score above the limit of what is usual, bool ``(N,)``."""
    return score_of(uncertainty, usual.score) > usual.limit
