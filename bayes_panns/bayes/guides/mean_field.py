"""The mean-field guide: an independent Normal for each weight."""

import math
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Self, TypeVar

import pyro
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn import PyroModule, PyroParam
from torch import Tensor

from bayes_panns.bayes.estimators import LazyNormal, require_estimator
from bayes_panns.bayes.guides.part import Part, parameter_name, take
from bayes_panns.bayes.model import BayesianNet
from bayes_panns.bayes.strategy import Settings

_Value = TypeVar("_Value", float, str)


class MeanField(Part):
    """An eager mean-field guide: q(w) = prod_i Normal(w_i | loc_i, scale_i).

    Unlike Pyro's ``AutoNormal`` it samples the Normal at the site itself, so that ``TraceMeanField_ELBO`` uses the
    closed-form KL. Its parameters exist from construction, so that it loads a ``state_dict`` at once and never runs the
    model to find its sites. They are ``locs.<site>`` and ``log_scales.<site>``.

    Usage::

        guide = MeanField(model)
        svi = SVI(model, guide, ClippedAdam({"lr": 1e-3}), TraceMeanField_ELBO())

    Args:
        model: The model; the locs start at its initial weights.
        sites: The sites; by default all of the model's.
        init_scale: The standard deviations at the start: one for all, or by site name.
        estimator: One of :data:`~bayes_panns.bayes.ESTIMATORS`: one for all, or by site name.

    Raises:
        ValueError: A site, an estimator or a scale is unknown, missing or not positive.
    """

    def __init__(
        self,
        model: BayesianNet,
        *,
        sites: Sequence[str] | None = None,
        init_scale: float | Mapping[str, float] = 0.01,
        estimator: str | Mapping[str, str] = "flipout",
    ):
        super().__init__(model, tuple(model.initial) if sites is None else sites)
        self.locs = PyroModule()
        self.log_scales = PyroModule()
        scales, self._estimators = by_site(init_scale, self.sites), by_site(estimator, self.sites)
        for each in self._estimators.values():
            require_estimator(each)
        for site in self.sites:
            value = model.initial[site]
            # Cloning keeps a channels-last weight channels-last, for both parameters.
            deep_setattr(self.locs, site, PyroParam(value.clone(), constraints.real, value.dim()))
            log_scale = torch.full_like(value, log_of(scales[site], site))
            deep_setattr(self.log_scales, site, PyroParam(log_scale, constraints.real, value.dim()))

    @classmethod
    def for_sites(cls, model: BayesianNet, settings: Mapping[str, Settings]) -> Self:
        """The part that a guide recipe describes, over the sites that ``settings`` names."""
        return cls(
            model,
            sites=tuple(settings),
            init_scale={site: each.init_scale / model.sites[site].fan_in ** 0.5 for site, each in settings.items()},
            estimator={site: each.estimator for site, each in settings.items()},
        )

    def loc(self, site: str) -> Tensor:
        """The mean of ``site``: the parameter itself, shape of the weight."""
        return attrgetter(site)(self.locs)

    def scale(self, site: str) -> Tensor:
        """The standard deviation of ``site``, shape of the weight: exp of the parameter."""
        return attrgetter(site)(self.log_scales).exp()

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draw every site; takes the model's arguments, and ignores them."""
        drawn = {}
        for site in self.sites:
            loc, log_scale = self.loc(site), attrgetter(site)(self.log_scales)
            normal = LazyNormal(loc, log_scale, self._estimators[site])
            drawn[site] = pyro.sample(site, normal.to_event(loc.dim()))
        return drawn

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(loc, scale) by site name: the weights are the factors."""
        return {site: (self.loc(site), self.scale(site)) for site in self.sites}

    def weights(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The factors themselves."""
        return {site: factors[site] for site in self.sites}

    @torch.no_grad()
    def gaussians(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of each weight by site name; the mean is the parameter itself."""
        return {site: (self.loc(site).detach(), self.scale(site).detach()) for site in self.sites}

    @torch.no_grad()
    def assign(self, posterior: Mapping[str, tuple[Tensor, Tensor | None]]) -> None:
        """Set locs and scales by site name; a scale of ``None`` stays."""
        self._require(posterior)
        for site, (loc, scale) in posterior.items():
            self.loc(site).copy_(loc)
            if scale is not None:
                attrgetter(site)(self.log_scales).copy_(scale.log())

    def tensors(self) -> dict[str, Tensor]:
        """``<parameter>.loc`` and ``<parameter>.scale`` of each site."""
        found: dict[str, Tensor] = {}
        for site in self.sites:
            name = parameter_name(site)
            found |= {f"{name}.loc": self.loc(site), f"{name}.scale": self.scale(site)}
        return found

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take the locs and scales out of ``tensors``."""
        for site in self.sites:
            name, loc = parameter_name(site), self.loc(site)
            MeanField.assign(self, {site: (take(tensors, f"{name}.loc", loc), take(tensors, f"{name}.scale", loc))})

    def freeze_site(self, site: str) -> None:
        """Stop training the loc and the scale of a site."""
        for group in (self.locs, self.log_scales):
            attrgetter(f"{site}_unconstrained")(group).requires_grad_(False)

    def freeze_locs(self) -> None:
        """Stop training every loc."""
        self.locs.requires_grad_(False)


def by_site(value: _Value | Mapping[str, _Value], sites: Sequence[str]) -> dict[str, _Value]:
    """A setting for each of ``sites``, from one for all or a mapping.

    Raises:
        ValueError: A site is missing from the mapping.
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(sites, value)
    missing = [site for site in sites if site not in value]
    if missing:
        raise ValueError(f"no value is given for the site {missing[0]}")
    return {site: value[site] for site in sites}


def log_of(scale: float, site: str) -> float:
    """The logarithm of a standard deviation.

    Raises:
        ValueError: It is not finite and positive.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"site {site}: init_scale {scale} must be finite and positive")
    return math.log(scale)
