"""Posteriors and predictions as people use them in a notebook: they print, show themselves, convert and plot.

:func:`load` gives a :class:`PosteriorTagger`, a posterior that tags sounds itself; its :class:`Predictions` are tags.
"""

from bayes_panns.notebook.predictions import Predictions, Top
from bayes_panns.notebook.tagger import EnsembleTagger, PosteriorTagger, load, predict

__all__ = ["EnsembleTagger", "PosteriorTagger", "Predictions", "Top", "load", "predict"]
