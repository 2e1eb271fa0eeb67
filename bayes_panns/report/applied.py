"""The calibration that an evaluation was made with, which may not be the one that its posterior has now."""

import numpy as np
from numpy.typing import NDArray

from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import label_sets
from bayes_panns.posterior import Calibration


def applied_calibration(evaluation: Evaluation, present: Calibration | None = None) -> Calibration | None:
    """The calibration whose temperature is in the evaluation's probabilities.

    Args:
        evaluation: The evaluation.
        present: The posterior's calibration now. An old evaluation knows only its threshold: it was made with
            ``present`` if the thresholds are equal.

    Returns:
        None where there was no calibration, or where it is unknown.
    """
    kept = getattr(evaluation, "calibration", None)
    if kept is None and present is not None and evaluation.provenance.get("threshold") == present.threshold:
        return present
    return kept


def evaluated_sets(evaluation: Evaluation) -> NDArray[np.bool_] | None:
    """The label sets ``(N, K)`` that were made with the evaluation's calibration; None where there was none."""
    if hasattr(evaluation, "sets"):
        return evaluation.sets
    threshold = evaluation.provenance.get("threshold")
    return None if threshold is None else label_sets(evaluation.uncertainty.probability, threshold)
