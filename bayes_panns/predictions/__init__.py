"""What a posterior predicts, with its uncertainty: for stores of clips and for sound files."""

from bayes_panns.predictions.predictive import Draws, Tags, Window, predict, predict_logits, tag
from bayes_panns.predictions.propagated import from_moments
from bayes_panns.predictions.uncertainty import (
    Moments,
    StandardError,
    Uncertainty,
    concatenate,
    decompose,
    mixture,
    scores,
)

__all__ = [
    "Draws",
    "Moments",
    "StandardError",
    "Tags",
    "Uncertainty",
    "Window",
    "concatenate",
    "decompose",
    "from_moments",
    "mixture",
    "predict",
    "predict_logits",
    "scores",
    "tag",
]
