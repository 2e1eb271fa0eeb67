"""The fit: the ELBO, its inputs, schedules, validation, checkpoints and resume."""

from bayes_panns.svi.checkpoint import BEST, CHECKPOINT, PREVIOUS
from bayes_panns.svi.elbo import MeanFieldELBO
from bayes_panns.svi.embeddings import Embeddings, require_fixed, require_single_embedding
from bayes_panns.svi.features import Features
from bayes_panns.svi.fisher import BATCH, fisher_information, require_fisher, start_from_fisher
from bayes_panns.svi.fit import Fit
from bayes_panns.svi.interrupts import Stop, last_stop
from bayes_panns.svi.last_layer import Earlier, HeadChoice, HeadFit
from bayes_panns.svi.metrics import AT_PRIOR, EFFECTIVE, METRICS, OF_PARAMETERS, SCALE, read_metrics
from bayes_panns.svi.natural_gradient import NaturalGradient, require_natural, require_normal_prior, trained_weights
from bayes_panns.svi.schedules import kl_warmup, learning_rate
from bayes_panns.svi.settings import FitSettings, Natural, Running, Selection
from bayes_panns.svi.widths import trained_log_scales

__all__ = [
    "AT_PRIOR",
    "BATCH",
    "BEST",
    "CHECKPOINT",
    "EFFECTIVE",
    "METRICS",
    "OF_PARAMETERS",
    "PREVIOUS",
    "SCALE",
    "Earlier",
    "Embeddings",
    "Features",
    "Fit",
    "FitSettings",
    "HeadChoice",
    "HeadFit",
    "MeanFieldELBO",
    "Natural",
    "NaturalGradient",
    "Running",
    "Selection",
    "Stop",
    "fisher_information",
    "kl_warmup",
    "last_stop",
    "learning_rate",
    "read_metrics",
    "require_fisher",
    "require_fixed",
    "require_natural",
    "require_normal_prior",
    "require_single_embedding",
    "start_from_fisher",
    "trained_log_scales",
    "trained_weights",
]
