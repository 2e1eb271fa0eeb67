"""Gradient estimators: how a draw of a Normal weight reaches its layer.

An estimator draws with the same marginal distribution in another way, so that the expectations of the ELBO and of its
gradient are unchanged and only the variance differs:

| estimator | a clip sees | cost |
|---|---|---|
| ``weights`` | one weight for the whole batch | one layer |
| ``flipout`` | the noise under random signs of its own | two layers |
| ``mirrored`` | ``loc + noise`` in one half of the batch, ``loc - noise`` in the other | one layer |
| ``local`` | outputs of its own; for linear layers only | two layers |
"""

from bayes_panns.bayes.estimators.handler import ESTIMATORS, Estimator, LazyNormal, require_estimator
from bayes_panns.bayes.estimators.lazy_weight import LazyWeight
from bayes_panns.bayes.estimators.local import LOCAL_REFUSED

__all__ = ["ESTIMATORS", "LOCAL_REFUSED", "Estimator", "LazyNormal", "LazyWeight", "require_estimator"]
