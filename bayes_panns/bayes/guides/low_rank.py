"""A last layer with a covariance of low rank: Pyro's own guide over weight and bias together.

With d weights and rank r, all of them in one vector::

    w = m + s * (e + F z),    e ~ Normal(0, I_d),  z ~ Normal(0, I_r)

so the covariance is diag(s) (I + F F^T) diag(s).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, init_to_value
from torch import Tensor

from bayes_panns.bayes.guides.mean_field import log_of
from bayes_panns.bayes.guides.part import Part, take
from bayes_panns.bayes.guides.rotated import require_head
from bayes_panns.bayes.model import BayesianNet
from bayes_panns.bayes.strategy import Settings

_OWN, _SHARED = "low_rank.own", "low_rank.shared"


class LowRankHead(Part):
    """Pyro's ``AutoLowRankMultivariateNormal`` over weight and bias of the last layer, built at once; see the module.

    Args:
        model: The model; the mean starts at its initial weights.
        sites: Weight and bias of the last layer, which is the default.
        init_scale: The standard deviations at the start.

    Attributes:
        low_rank: Pyro's guide, with the parameters ``loc`` (m), ``scale`` (s) and ``cov_factor`` (F).
    """

    independent = False
    assigns_widths = False

    def __init__(self, model: BayesianNet, *, sites: Sequence[str] | None = None, init_scale: float = 0.01):
        super().__init__(model, model.head_sites if sites is None else sites)
        weight, _ = require_head(model, self.sites)
        log_of(init_scale, weight)
        self._shapes = {site: model.sites[site].shape for site in self.sites}
        # Not by attribute: Pyro would then ask this guide, as its master, for plates.
        self.add_module("low_rank", _built(model, self.sites, init_scale))

    @classmethod
    def for_sites(cls, model: BayesianNet, settings: Mapping[str, Settings]) -> Self:
        """The part that a guide recipe describes; the scale is that of the first site."""
        first = next(iter(settings))
        return cls(
            model, sites=tuple(settings), init_scale=settings[first].init_scale / model.sites[first].fan_in ** 0.5
        )

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draw weight and bias."""
        return self.low_rank(*args, **kwargs)

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(m, s) of the weights' own noise, and a standard Normal for z."""
        rank = self.low_rank.loc.new_zeros(self.low_rank.cov_factor.shape[1])
        return {_OWN: (self.low_rank.loc, self.low_rank.scale), _SHARED: (rank, rank + 1)}

    def weights(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weight and bias for values of m + s e and of z."""
        shared = self.low_rank.scale * (self.low_rank.cov_factor @ factors[_SHARED])
        return self._by_site(factors[_OWN] + shared)

    @torch.no_grad()
    def gaussians(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Marginal mean and standard deviation of each weight, by site name."""
        means, deviations = self.means(), self._by_site(self.low_rank.get_posterior().variance.sqrt())
        return {site: (means[site], deviations[site].detach()) for site in self.sites}

    @torch.no_grad()
    def assign(self, posterior: Mapping[str, tuple[Tensor, Tensor | None]]) -> None:
        """Set the means; the covariance stays, as standard deviations alone do not give one."""
        self._require(posterior)
        for site, (loc, _) in posterior.items():
            self._by_site(self.low_rank.loc)[site].copy_(loc)

    def tensors(self) -> dict[str, Tensor]:
        """The parameters of Pyro's guide, as ``guide/low_rank.*``."""
        return {f"guide/low_rank.{name}": value for name, value in self.low_rank.state_dict().items()}

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take the parameters of Pyro's guide out of ``tensors``."""
        for name, value in self.low_rank.state_dict().items():
            value.copy_(take(tensors, f"guide/low_rank.{name}", value))

    def freeze_site(self, site: str) -> None:
        """Stop training weight and bias, which are one vector."""
        self.low_rank.requires_grad_(False)

    def freeze_locs(self) -> None:
        """Stop training the mean."""
        self.low_rank.loc.requires_grad_(False)

    def _by_site(self, values: Tensor) -> dict[str, Tensor]:
        """A vector of all weights, as views by site."""
        parts = values.split([shape.numel() for shape in self._shapes.values()])
        return {site: part.view(shape) for part, (site, shape) in zip(parts, self._shapes.items(), strict=True)}


def _built(model: BayesianNet, sites: tuple[str, ...], init_scale: float) -> AutoLowRankMultivariateNormal:
    """Pyro's guide with its parameters, which it makes when it first runs the model, here on one embedding."""
    weight, _ = sites
    # A copy: the guide keeps its start, and must not keep the weights of the network.
    start = init_to_value(values={site: model.initial[site].clone() for site in sites})
    with torch.no_grad(), pyro.settings.context(module_local_params=True):
        guide = AutoLowRankMultivariateNormal(poutine.block(model, expose=list(sites)), start, init_scale)
        guide(model.initial[weight].new_zeros(1, model.sites[weight].shape[1]), embedded=True)
    return guide
