"""The calibration and the label sets that an evaluation was made with, which its posterior may no longer have."""

import numpy as np
from numpy.typing import NDArray

from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import label_sets
from bayes_panns.posterior import Calibration


def applied_calibration(evaluation: Evaluation) -> Calibration | None:
    """The calibration whose temperature is in the evaluation's probabilities; None where there was none."""
    return getattr(evaluation, "calibration", None)


def evaluated_sets(evaluation: Evaluation) -> NDArray[np.bool_] | None:
    """The label sets ``(N, K)`` that were made with the evaluation's calibration; None where there was none."""
    if hasattr(evaluation, "sets"):
        return evaluation.sets
    threshold = evaluation.provenance.get("threshold")
    return None if threshold is None else label_sets(evaluation.uncertainty.probability, threshold)
