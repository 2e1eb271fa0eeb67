"""Priors over the weights: objects that make a Pyro distribution for a site.

A prior of your own is any callable that takes a :class:`~bayes_panns.bayes.sites.Site` and returns a distribution whose
event is the whole weight, ``batch_shape == ()`` and ``event_shape == site.shape``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import pyro.distributions as dist
import torch
from torch import Tensor

from bayes_panns.bayes.sites import Site


class Prior(Protocol):
    """Makes the prior distribution of a site."""

    def __call__(self, site: Site) -> dist.TorchDistribution:
        """The prior of ``site``, with ``event_shape == site.shape``."""


@dataclass(frozen=True)
class Normal:
    """Normal(0, ``scale``) for each weight, whatever the layer; the published VI-PANN has ``scale = 1``."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the scale.

        Raises:
            ValueError: It is not finite and positive.
        """
        _require_positive(self.scale)

    def __call__(self, site: Site) -> dist.TorchDistribution:
        """The prior of ``site``, with ``event_shape == site.shape``."""
        return _broadcast(dist.Normal(torch.tensor(0.0), torch.tensor(self.scale)), site)


@dataclass(frozen=True)
class FanIn:
    """Normal(0, ``scale`` / sqrt(fan-in)): each layer's output has a prior variance of ``scale``^2 times its input's.

    Neal, "Bayesian Learning for Neural Networks", 1996, chapter 2.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the scale.

        Raises:
            ValueError: It is not finite and positive.
        """
        _require_positive(self.scale)

    def __call__(self, site: Site) -> dist.TorchDistribution:
        """The prior of ``site``, with ``event_shape == site.shape``."""
        return Normal(self.scale / site.fan_in**0.5)(site)


@dataclass(frozen=True)
class Laplace:
    """Laplace with mean 0 and standard deviation ``scale`` / sqrt(fan-in): heavier tails, more weights near 0."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the scale.

        Raises:
            ValueError: It is not finite and positive.
        """
        _require_positive(self.scale)

    def __call__(self, site: Site) -> dist.TorchDistribution:
        """The prior of ``site``, with ``event_shape == site.shape``."""
        width = self.scale / site.fan_in**0.5 / 2**0.5
        return _broadcast(dist.Laplace(torch.tensor(0.0), torch.tensor(width)), site)


@dataclass(frozen=True)
class FromPosterior:
    """A fitted mean-field posterior as the prior: Normal(loc, ``widen`` * scale) at each site that it holds.

    Attributes:
        locs: Means by the name of the parameter.
        scales: Standard deviations by the name of the parameter.
        otherwise: The prior of sites that the posterior does not hold, such as a new head.
        widen: The factor on the standard deviations.
    """

    locs: Mapping[str, Tensor]
    scales: Mapping[str, Tensor]
    otherwise: Prior
    widen: float = 1.0

    def __post_init__(self) -> None:
        """Check the factor.

        Raises:
            ValueError: It is not finite and positive.
        """
        _require_positive(self.widen)

    def __call__(self, site: Site) -> dist.TorchDistribution:
        """The prior of ``site``, with ``event_shape == site.shape``.

        Raises:
            ValueError: The posterior holds a weight of that name and another shape.
        """
        if site.name not in self.scales:
            return self.otherwise(site)
        if self.scales[site.name].shape != site.shape:
            raise ValueError(
                f"prior of {site.name}: the posterior's is of shape {tuple(self.scales[site.name].shape)}, "
                f"the weight of shape {tuple(site.shape)}"
            )
        return dist.Normal(self.locs[site.name], self.widen * self.scales[site.name]).to_event(len(site.shape))


def stretched(prior: dist.TorchDistribution, factor: Tensor) -> dist.TorchDistribution:
    """A Normal or Laplace prior with its scale multiplied by ``factor``, 0-d; its mean stays.

    Raises:
        ValueError: It is another distribution.
    """
    base = prior.base_dist if isinstance(prior, dist.Independent) else prior
    if not isinstance(base, dist.Normal | dist.Laplace):
        raise ValueError(f"the width of a prior can be learned for Normal and Laplace, not for {type(base).__name__}")
    wider = type(base)(base.loc, base.scale * factor, validate_args=False)
    return wider.to_event(len(prior.event_shape))


def _broadcast(distribution: dist.TorchDistribution, site: Site) -> dist.TorchDistribution:
    return distribution.expand(site.shape).to_event(len(site.shape))


def _require_positive(scale: float) -> None:
    if not 0 < scale < math.inf:
        raise ValueError(f"the scale of a prior must be finite and positive, not {scale}")
