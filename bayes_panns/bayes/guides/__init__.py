"""Guides: the variational posteriors."""

from bayes_panns.bayes.guides.kronecker import HeadLaplace, fitted_head, head_laplace
from bayes_panns.bayes.guides.mean_field import MeanField
from bayes_panns.bayes.guides.rotated import RotatedNormal

__all__ = ["HeadLaplace", "MeanField", "RotatedNormal", "fitted_head", "head_laplace"]
