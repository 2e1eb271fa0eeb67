"""Priors, the Pyro model, guides and gradient estimators.

Everything here is an ordinary Pyro object: it works with ``pyro.infer.SVI``, ``poutine``, ``Predictive`` and Pyro's own
autoguides. Parameters of models and guides stay in their modules and never enter Pyro's global store; your own modules
keep the Pyro setting that you chose (:mod:`.local_parameters`).

| file | what | to swap it |
|---|---|---|
| ``sites`` | the weights that can have a prior | |
| ``priors`` | the prior of a site | any function from a :class:`Site` to a distribution |
| ``likelihoods`` | the distribution of the labels | an object with the methods of :class:`Likelihood` |
| ``model`` | network, priors and likelihood as a Pyro model | |
| ``guides/`` | the posterior, a family a file | a :class:`Part`; any Pyro guide in a :class:`CustomGuide` |
| ``estimators/`` | how a draw reaches the layers | a ``LazyWeight`` in :data:`ESTIMATORS` |
| ``strategy`` | a guide recipe: which of these for which weight | a TOML file |
| ``draws``, ``propagation`` | predictions by draws, and by propagated moments | |
| ``effective`` | how many weights the data have determined | |
"""

from bayes_panns.bayes.draws import (
    draw_weights,
    embeddings_under,
    head_logits,
    logits_under,
    mean_weights,
    mirrored_draws,
)
from bayes_panns.bayes.effective import Effective, EffectiveParameters, effective_parameters
from bayes_panns.bayes.estimators import ESTIMATORS, Estimator
from bayes_panns.bayes.guides import (
    ComposedGuide,
    CustomGuide,
    KroneckerGaussian,
    LowRankHead,
    MeanField,
    Part,
    Point,
    RotatedHead,
    RotatedNormal,
    UserGuide,
    guide_from_strategy,
    kronecker_gaussian,
)
from bayes_panns.bayes.likelihoods import (
    LIKELIHOODS,
    ExpectedCategorical,
    Likelihood,
    MultiLabel,
    OneOfK,
)
from bayes_panns.bayes.logistic import logistic_regression
from bayes_panns.bayes.model import BayesianNet
from bayes_panns.bayes.priors import FanIn, FromPosterior, Laplace, Normal, Prior
from bayes_panns.bayes.propagation import gaussian_weights, moments_under
from bayes_panns.bayes.sites import Site, sites
from bayes_panns.bayes.strategy import Rule, Settings, Strategy

__all__ = [
    "ESTIMATORS",
    "LIKELIHOODS",
    "BayesianNet",
    "ComposedGuide",
    "CustomGuide",
    "Effective",
    "EffectiveParameters",
    "Estimator",
    "ExpectedCategorical",
    "FanIn",
    "FromPosterior",
    "KroneckerGaussian",
    "Laplace",
    "Likelihood",
    "LowRankHead",
    "MeanField",
    "MultiLabel",
    "Normal",
    "OneOfK",
    "Part",
    "Point",
    "Prior",
    "RotatedHead",
    "RotatedNormal",
    "Rule",
    "Settings",
    "Site",
    "Strategy",
    "UserGuide",
    "draw_weights",
    "effective_parameters",
    "embeddings_under",
    "gaussian_weights",
    "guide_from_strategy",
    "head_logits",
    "kronecker_gaussian",
    "logistic_regression",
    "logits_under",
    "mean_weights",
    "mirrored_draws",
    "moments_under",
    "sites",
]
