"""A page on this computer to look through the results of ``predict``, hear them, and label them."""

from bayes_panns.report.view.server import ViewServer

__all__ = ["ViewServer"]
