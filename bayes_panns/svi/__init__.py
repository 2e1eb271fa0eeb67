"""The fit: the ELBO, its inputs, schedules, validation, checkpoints and resume."""

from bayes_panns.svi.checkpoint import CHECKPOINT
from bayes_panns.svi.elbo import MeanFieldELBO
from bayes_panns.svi.embeddings import Embeddings, require_fixed
from bayes_panns.svi.features import Features
from bayes_panns.svi.fit import Fit
from bayes_panns.svi.last_layer import HeadChoice, HeadFit
from bayes_panns.svi.metrics import METRICS, read_metrics
from bayes_panns.svi.schedules import kl_warmup, learning_rate
from bayes_panns.svi.settings import FitSettings, Selection

__all__ = [
    "CHECKPOINT",
    "METRICS",
    "Embeddings",
    "Features",
    "Fit",
    "FitSettings",
    "HeadChoice",
    "HeadFit",
    "MeanFieldELBO",
    "Selection",
    "kl_warmup",
    "learning_rate",
    "read_metrics",
    "require_fixed",
]
