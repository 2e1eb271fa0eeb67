"""Posteriors and predictions as people use them in a notebook: they print, show themselves, convert and plot.

:func:`load` gives a :class:`Tagger`, a posterior that tags sounds itself; its :class:`Predictions` are tags.
"""

from bayes_panns.notebook.predictions import Predictions, Top
from bayes_panns.notebook.tagger import Tagger, TaggerEnsemble, load, predict

__all__ = ["Predictions", "Tagger", "TaggerEnsemble", "Top", "load", "predict"]
