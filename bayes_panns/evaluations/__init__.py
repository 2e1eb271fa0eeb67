"""Predictions beside the truth: their metrics, with intervals, in memory and on disk."""

from bayes_panns.evaluations.disk import is_evaluation, require_place
from bayes_panns.evaluations.evaluation import Evaluation
from bayes_panns.evaluations.event_scores import EventScores, Matching, score_events
from bayes_panns.evaluations.measures import compare, evaluate, intervals

__all__ = [
    "Evaluation",
    "EventScores",
    "Matching",
    "compare",
    "evaluate",
    "intervals",
    "is_evaluation",
    "require_place",
    "score_events",
]
