"""Predictions beside the truth: their metrics, with intervals, in memory and on disk."""

from bayes_panns.evaluations.disk import is_evaluation, require_place
from bayes_panns.evaluations.evaluation import Evaluation
from bayes_panns.evaluations.measures import compare, evaluate, intervals

__all__ = [
    "Evaluation",
    "compare",
    "evaluate",
    "intervals",
    "is_evaluation",
    "require_place",
]
