"""Priors, the Pyro model, guides and gradient estimators.

Everything here is an ordinary Pyro object: it works with ``pyro.infer.SVI``, ``poutine``, ``Predictive`` and Pyro's own
autoguides. Importing this package makes Pyro keep parameters in their modules instead of its global store
(``module_local_params``), so that two guides in one process do not collide.
"""

import pyro

# Must be set before any PyroModule is built.
pyro.settings.set(module_local_params=True)

from bayes_panns.bayes.draws import (  # noqa: E402
    draw_weights,
    embeddings_under,
    head_logits,
    logits_under,
    mean_weights,
    mirrored_draws,
)
from bayes_panns.bayes.estimators.estimators import ESTIMATORS, Estimator  # noqa: E402
from bayes_panns.bayes.guides.kronecker import HeadLaplace, fitted_head, head_laplace  # noqa: E402
from bayes_panns.bayes.guides.mean_field import MeanField  # noqa: E402
from bayes_panns.bayes.guides.rotated import RotatedNormal  # noqa: E402
from bayes_panns.bayes.likelihoods import (  # noqa: E402
    LIKELIHOODS,
    ExpectedCategorical,
    Likelihood,
    MultiLabel,
    OneOfK,
)
from bayes_panns.bayes.model import BayesianNet  # noqa: E402
from bayes_panns.bayes.priors import FanIn, FromPosterior, Laplace, Normal, Prior  # noqa: E402
from bayes_panns.bayes.propagation import gaussian_weights, moments_under  # noqa: E402
from bayes_panns.bayes.sites import Site, sites  # noqa: E402
from bayes_panns.bayes.strategy import Rule, Settings, Strategy  # noqa: E402

__all__ = [
    "ESTIMATORS",
    "LIKELIHOODS",
    "BayesianNet",
    "Estimator",
    "ExpectedCategorical",
    "FanIn",
    "FromPosterior",
    "HeadLaplace",
    "Laplace",
    "Likelihood",
    "MeanField",
    "MultiLabel",
    "Normal",
    "OneOfK",
    "Prior",
    "RotatedNormal",
    "Rule",
    "Settings",
    "Site",
    "Strategy",
    "draw_weights",
    "embeddings_under",
    "fitted_head",
    "gaussian_weights",
    "head_laplace",
    "head_logits",
    "logits_under",
    "mean_weights",
    "mirrored_draws",
    "moments_under",
    "sites",
]
