"""Predictions beside the truth: what is measured of them, with intervals, in memory and on disk."""

from bayes_panns.evaluations.evaluation import Evaluation, is_evaluation
from bayes_panns.evaluations.measures import compare, evaluate, intervals

__all__ = [
    "Evaluation",
    "compare",
    "evaluate",
    "intervals",
    "is_evaluation",
]
