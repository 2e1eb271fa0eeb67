"""The fit of a rotated last layer on embeddings: natural gradients on all clips at once, and its calibration."""

from bayes_panns.svi.last_layer.axes import HeadAxes, realigned
from bayes_panns.svi.last_layer.choice import Candidate, HeadChoice, choose_head
from bayes_panns.svi.last_layer.fit import Earlier, HeadFit
from bayes_panns.svi.last_layer.inference import HeadPosterior, HeadPrior, find_axes, infer_head

__all__ = [
    "Candidate",
    "Earlier",
    "HeadAxes",
    "HeadChoice",
    "HeadFit",
    "HeadPosterior",
    "HeadPrior",
    "choose_head",
    "find_axes",
    "infer_head",
    "realigned",
]
