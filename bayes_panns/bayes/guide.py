"""The mean-field guide: an independent Normal for each weight."""

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoGuide
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn import PyroModule, PyroParam
from torch import Tensor

from bayes_panns.bayes.estimators import DrawnNormal
from bayes_panns.bayes.model import BayesianNet
from bayes_panns.bayes.strategy import Strategy


class MeanField(AutoGuide):
    """An eager mean-field guide: q(w) = prod_i Normal(w_i | loc_i, scale_i) over every site of a model.

    Unlike Pyro's ``AutoNormal`` it samples the Normal at the site itself, so that ``TraceMeanField_ELBO`` finds the
    closed-form KL; and its parameters exist from construction, so that it loads a ``state_dict`` at once and never runs
    the model to find its sites. They are ``locs.<site>`` and ``log_scales.<site>``.

    Usage::

        guide = MeanField(model)
        svi = SVI(model, guide, ClippedAdam({"lr": 1e-3}), TraceMeanField_ELBO())

    Args:
        model: The model, whose weights as built are where the locs start.
        init_scale: The standard deviations at the start: one for all, or by site name.
        estimator: How sites are drawn, one of :data:`ESTIMATORS`; one for all, or by site name.
    """

    def __init__(
        self,
        model: BayesianNet,
        *,
        init_scale: float | Mapping[str, float] = 0.01,
        estimator: str | Mapping[str, str] = "flipout",
    ):
        super().__init__(model)
        self.sites = tuple(model.initial)
        self.locs = PyroModule()
        self.log_scales = PyroModule()
        self._estimators = {}
        for name, value in model.initial.items():
            scale = init_scale if isinstance(init_scale, float) else init_scale[name]
            # Cloning keeps a channels-last weight channels-last, for both parameters.
            deep_setattr(self.locs, name, PyroParam(value.clone(), constraints.real, value.dim()))
            log_scale = PyroParam(torch.full_like(value, math.log(scale)), constraints.real, value.dim())
            deep_setattr(self.log_scales, name, log_scale)
            self._estimators[name] = estimator if isinstance(estimator, str) else estimator[name]

    @classmethod
    def from_strategy(cls, model: BayesianNet, strategy: Strategy) -> "MeanField":
        """The guide that a guide recipe describes, for a model made from the same recipe."""
        settings = {name: strategy.settings(site.name) for name, site in model.sites.items()}
        return cls(
            model,
            init_scale={name: settings[name].init_scale / site.fan_in**0.5 for name, site in model.sites.items()},
            estimator={name: chosen.estimator for name, chosen in settings.items()},
        )

    def loc(self, site: str) -> Tensor:
        """The mean of ``site``: the parameter itself, shape of the weight."""
        return attrgetter(site)(self.locs)

    def scale(self, site: str) -> Tensor:
        """The standard deviation of ``site``, shape of the weight: exp of the parameter."""
        return attrgetter(site)(self.log_scales).exp()

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draw every site; takes and ignores the model's arguments.

        Returns:
            The drawn weights by site name.
        """
        drawn = {}
        for site in self.sites:
            loc, log_scale = self.loc(site), attrgetter(site)(self.log_scales)
            normal = DrawnNormal(loc, log_scale, self._estimators[site])
            drawn[site] = pyro.sample(site, normal.to_event(loc.dim()))
        return drawn

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The posterior medians by site name, which are the means."""
        return {site: self.loc(site).detach().clone() for site in self.sites}

    @torch.no_grad()
    def quantiles(self, quantiles: list[float], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Posterior quantiles by site name, each of shape ``(len(quantiles), *weight shape)``."""
        return {
            site: torch.stack([dist.Normal(self.loc(site), self.scale(site)).icdf(torch.tensor(q)) for q in quantiles])
            for site in self.sites
        }

    @torch.no_grad()
    def assign(self, posterior: Mapping[str, tuple[Tensor, Tensor | None]]) -> None:
        """Set sites to given locs and scales, by site name; a scale of ``None`` leaves the scale as it is."""
        for site, (loc, scale) in posterior.items():
            self.loc(site).copy_(loc)
            if scale is not None:
                attrgetter(site)(self.log_scales).copy_(scale.log())

    def freeze(self, *parts: str) -> None:
        """Stop training the posterior of every site inside these modules of the network."""
        for site in self.sites:
            if site.startswith(tuple(f"net.{part}." for part in parts)):
                for group in (self.locs, self.log_scales):
                    attrgetter(f"{site}_unconstrained")(group).requires_grad_(False)
