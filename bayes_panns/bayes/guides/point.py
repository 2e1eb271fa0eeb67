"""Points under a prior: maximum a posteriori."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn import PyroModule, PyroParam
from torch import Tensor

from bayes_panns.bayes.guides.part import Part, parameter_name, take
from bayes_panns.bayes.model import BayesianNet
from bayes_panns.bayes.strategy import Settings


class Point(Part):
    """A point at each site, under its prior: q(w) = Delta(w - loc). Its KL is -log prior(loc).

    Its parameters are ``locs.<site>``; they exist from construction.

    Args:
        model: The model; the points start at its initial weights.
        sites: The sites; by default all of the model's.
    """

    stochastic = False
    assigns_widths = False

    def __init__(self, model: BayesianNet, *, sites: Sequence[str] | None = None):
        super().__init__(model, tuple(model.initial) if sites is None else sites)
        self.locs = PyroModule()
        for site in self.sites:
            value = model.initial[site]
            deep_setattr(self.locs, site, PyroParam(value.clone(), constraints.real, value.dim()))

    @classmethod
    def for_sites(cls, model: BayesianNet, settings: Mapping[str, Settings]) -> Self:
        """The part that a guide recipe describes, over the sites that ``settings`` names."""
        return cls(model, sites=tuple(settings))

    def loc(self, site: str) -> Tensor:
        """The point of ``site``: the parameter itself, shape of the weight."""
        return attrgetter(site)(self.locs)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the point of every site; takes the model's arguments, and ignores them."""
        return {
            site: pyro.sample(site, dist.Delta(self.loc(site), event_dim=self.loc(site).dim())) for site in self.sites
        }

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """None: a point has no randomness."""
        return {}

    def weights(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The points."""
        return {site: self.loc(site) for site in self.sites}

    def gaussians(self) -> dict[str, tuple[Tensor, Tensor]]:
        """None: a point has no width."""
        return {}

    @torch.no_grad()
    def points(self) -> dict[str, Tensor]:
        """The points by site name: the parameters themselves."""
        return {site: self.loc(site).detach() for site in self.sites}

    @torch.no_grad()
    def assign(self, posterior: Mapping[str, tuple[Tensor, Tensor | None]]) -> None:
        """Set the points to the means; standard deviations are ignored."""
        self._require(posterior)
        for site, (loc, _) in posterior.items():
            self.loc(site).copy_(loc)

    def tensors(self) -> dict[str, Tensor]:
        """``<parameter>`` of each site."""
        return {parameter_name(site): self.loc(site) for site in self.sites}

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take the points out of ``tensors``."""
        for site in self.sites:
            self.loc(site).copy_(take(tensors, parameter_name(site), self.loc(site)))

    def freeze_site(self, site: str) -> None:
        """Stop training the point of a site."""
        attrgetter(f"{site}_unconstrained")(self.locs).requires_grad_(False)

    def freeze_locs(self) -> None:
        """Stop training every point."""
        self.locs.requires_grad_(False)
