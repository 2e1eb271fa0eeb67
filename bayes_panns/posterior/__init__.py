"""Fitted posteriors: save, load, draw."""

from bayes_panns.posterior.disk import load, save
from bayes_panns.posterior.posterior import Inherited, Posterior

__all__ = ["Inherited", "Posterior", "load", "save"]
