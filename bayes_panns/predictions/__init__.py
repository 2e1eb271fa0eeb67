"""What a posterior predicts, with its uncertainty: for clip sets and for sound files."""

from bayes_panns.predictions.accumulate import UncertaintyAccumulator, decompose
from bayes_panns.predictions.clip_sets import predict, predict_logits
from bayes_panns.predictions.combine import concatenate, mixture
from bayes_panns.predictions.deciding import Decided, decide
from bayes_panns.predictions.embedding import Embedded, embed_clips, embed_each, embed_files
from bayes_panns.predictions.events import Event, EventFinder, EventRules, find_events
from bayes_panns.predictions.gaussian_logits import from_moments
from bayes_panns.predictions.recordings import Piece, Skipped, none_read
from bayes_panns.predictions.tagging import FileTags, Tagger, Tags, tag, tag_each
from bayes_panns.predictions.tally import LabelCount, Tally, Totals
from bayes_panns.predictions.uncertainty import Draws, StandardError, Uncertainty, scores
from bayes_panns.predictions.windows import Window

__all__ = [
    "Decided",
    "Draws",
    "Embedded",
    "Event",
    "EventFinder",
    "EventRules",
    "FileTags",
    "LabelCount",
    "Piece",
    "Skipped",
    "StandardError",
    "Tagger",
    "Tags",
    "Tally",
    "Totals",
    "Uncertainty",
    "UncertaintyAccumulator",
    "Window",
    "concatenate",
    "decide",
    "decompose",
    "embed_clips",
    "embed_each",
    "embed_files",
    "find_events",
    "from_moments",
    "mixture",
    "none_read",
    "predict",
    "predict_logits",
    "scores",
    "tag",
    "tag_each",
]
