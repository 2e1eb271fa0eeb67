"""The fit of a rotated last layer on embeddings: natural gradients on all clips at once, and its calibration."""

from bayes_panns.svi.last_layer.axes import HeadAxes
from bayes_panns.svi.last_layer.choice import Candidate, HeadChoice, choose_head
from bayes_panns.svi.last_layer.fit import HeadFit
from bayes_panns.svi.last_layer.inference import HeadPosterior, find_axes, infer_head

__all__ = [
    "Candidate",
    "HeadAxes",
    "HeadChoice",
    "HeadFit",
    "HeadPosterior",
    "choose_head",
    "find_axes",
    "infer_head",
]
