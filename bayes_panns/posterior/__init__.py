"""Fitted posteriors: save, load, draw."""

from bayes_panns.posterior.disk import load, save, save_calibration
from bayes_panns.posterior.ensemble import Ensemble, Predictor, load_all
from bayes_panns.posterior.posterior import Calibration, Inherited, Posterior

__all__ = [
    "Calibration",
    "Ensemble",
    "Inherited",
    "Posterior",
    "Predictor",
    "load",
    "load_all",
    "save",
    "save_calibration",
]
