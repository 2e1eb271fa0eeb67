"""Gradient estimators: how a guide's draw reaches the layers."""

from bayes_panns.bayes.estimators.estimators import ESTIMATORS, LOCAL_REFUSED, DrawnNormal, DrawnWeight, Estimator

__all__ = ["ESTIMATORS", "LOCAL_REFUSED", "DrawnNormal", "DrawnWeight", "Estimator"]
