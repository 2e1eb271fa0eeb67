"""Fitted posteriors: build, start from another, save, load, draw."""

from bayes_panns.posterior.calibration import Calibration, Confusion, Decisions, Power, Usual
from bayes_panns.posterior.devices import choose_device, choose_precision
from bayes_panns.posterior.disk import load, read_header, save, save_calibration
from bayes_panns.posterior.ensemble import Ensemble, Predictor, load_all
from bayes_panns.posterior.fitted_clips import FittedClips
from bayes_panns.posterior.freezing import BACKBONE, LOCS
from bayes_panns.posterior.inputs import require_inputs, require_sound
from bayes_panns.posterior.posterior import Posterior
from bayes_panns.posterior.transfer import Inherited, shared_weights

__all__ = [
    "BACKBONE",
    "LOCS",
    "Calibration",
    "Confusion",
    "Decisions",
    "Ensemble",
    "FittedClips",
    "Inherited",
    "Posterior",
    "Power",
    "Predictor",
    "Usual",
    "choose_device",
    "choose_precision",
    "load",
    "load_all",
    "read_header",
    "require_inputs",
    "require_sound",
    "save",
    "save_calibration",
    "shared_weights",
]
