"""How many of its weights a mean-field posterior has determined from data.

| symbol | what |
|---|---|
| s, s0 | the standard deviations of a weight under the posterior and under its prior |
| gamma | the effective number of parameters: the sum over the weights of 1 - s^2 / s0^2 |

The measure is MacKay's ("Bayesian interpolation", Neural Computation 4, 1992, eq. 4.10). A weight counts 0 where its
width is the prior's, and 1 where the posterior is much narrower. It compares precisions: at the optimum of the ELBO
1 / s^2 is 1 / s0^2 plus what the data add, and under a tempered posterior plus that over the weight of the KL. It does
so whatever put the width where it is: a width that no fit has moved from a narrow start counts as if data had made it
narrow.

A width above the prior's counts below 0, and so can a sum. No data make a weight less certain than its prior under a
log-concave likelihood; a fit that started too wide, or that is noisy, can. Nothing is cut off, so that noise around
the prior's width cancels.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from bayes_panns.bayes.estimators.blocks import count_blocks, each_block
from bayes_panns.bayes.estimators.draw_and_kl import NormalPrior, flat, flat_prior
from bayes_panns.bayes.estimators.lazy_weight import normal_prior, prior_deviation
from bayes_panns.bayes.guides import ComposedGuide, MeanField, Part, RotatedHead
from bayes_panns.bayes.guides.part import parameter_name
from bayes_panns.bayes.model import BayesianNet
from bayes_panns.devices import widest_float


@dataclass(frozen=True)
class Effective:
    """How many of some weights the data have determined; see the module.

    Attributes:
        weights: How many weights there are.
        gamma: The effective number of parameters, at most ``weights``; it can be below 0.
        at_prior: How many weights are at the prior's width: the data add less to their precision than the prior has,
            s^2 > s0^2 / 2.
    """

    weights: int = 0
    gamma: float = 0.0
    at_prior: int = 0

    def __add__(self, other: "Effective") -> "Effective":
        """Of both."""
        return Effective(self.weights + other.weights, self.gamma + other.gamma, self.at_prior + other.at_prior)

    @property
    def share(self) -> float:
        """Gamma as a share of the weights; 0 of none."""
        return self.gamma / max(1, self.weights)

    @property
    def at_prior_share(self) -> float:
        """The share of the weights at the prior's width; 0 of none."""
        return self.at_prior / max(1, self.weights)

    def __str__(self) -> str:
        """In words.

        Example:
            >>> print(Effective(weights=2000, gamma=12.5, at_prior=1980))
            by their widths, the data determine 12.5 of 2,000 weights (0.62 %); 99 % are at the prior's width
        """
        gamma = f"{self.gamma:,.0f}" if abs(self.gamma) >= 100 else f"{self.gamma:.3g}"
        return (
            f"by their widths, the data determine {gamma} of {self.weights:,} weights ({_percent(self.share)}); "
            f"{_percent(self.at_prior_share)} are at the prior's width"
        )


@dataclass(frozen=True)
class EffectiveParameters:
    """The effective parameters of a posterior, weight by weight.

    Attributes:
        by_parameter: Those of each weight tensor, by the name of the parameter; those that are left out are not there.
    """

    by_parameter: Mapping[str, Effective]

    @property
    def by_layer(self) -> dict[str, Effective]:
        """Those of each layer's weight and bias, by the name of the module."""
        found: dict[str, Effective] = defaultdict(Effective)
        for name, each in self.by_parameter.items():
            found[name.rpartition(".")[0]] += each
        return dict(found)

    @property
    def total(self) -> Effective:
        """Those of all."""
        return sum(self.by_parameter.values(), Effective())


@torch.no_grad()
def effective_parameters(model: BayesianNet, guide: Part) -> EffectiveParameters:
    """The effective parameters of the mean-field Normals of a guide that are under Normal priors; see the module.

    A rotated last layer counts along its own axes, where its factors are independent, if its weight's prior is the same
    for all its elements: then the prior is the same along any axes. Its bias is left out, since along these axes its
    prior depends on the weight. All other families and priors are left out.

    It takes one pass over the weights, in blocks, and beside these at most the memory of one weight's prior.

    Args:
        model: The model; a learned prior counts at its present width.
        guide: Its guide.
    """
    found = {}
    for site, log_scale in independent_widths(model, guide):
        prior = normal_prior(model.prior(site), log_scale)
        if prior is not None:
            found[parameter_name(site)] = _effective(log_scale, prior)
    return EffectiveParameters(found)


def independent_widths(model: BayesianNet, guide: Part) -> Iterator[tuple[str, Tensor]]:
    """Site and log s of each weight whose elements, or factors, are independent under posterior and prior alike.

    These are the weights of mean-field Normals; of a rotated last layer that of :func:`effective_parameters`.
    """
    for part in guide.parts if isinstance(guide, ComposedGuide) else (guide,):
        for site in part.sites if isinstance(part, MeanField) else ():
            if isinstance(part, RotatedHead) and not _along_any_axes(model, site):
                continue
            yield site, attrgetter(f"{site}_unconstrained")(part.log_scales)


def _along_any_axes(model: BayesianNet, site: str) -> bool:
    """Whether the factors of a rotated last layer have the prior of its weight."""
    if site != model.head_sites[0]:
        return False
    deviation = prior_deviation(model.prior(site))
    return deviation is not None and bool((deviation == deviation.flatten()[0]).all())


def _effective(log_scale: Tensor, prior: NormalPrior) -> Effective:
    """The effective parameters of a weight."""
    like = log_scale.detach()
    log_scales, priors = flat(like, like), flat_prior(NormalPrior(None, prior.scale), like)
    sums: list[Any] = [None] * count_blocks(like)

    def work(index: int, span: slice, scratch: list[Tensor], generator: torch.Generator | None) -> None:
        ratio = torch.exp(log_scales[span], out=scratch[0]).div_(priors.at(span).scale).square_()
        sums[index] = (ratio.sum(dtype=widest_float(like.device)).item(), int((ratio > 0.5).sum()))

    each_block(like, work)
    total = like.numel()
    return Effective(total, total - sum(squares for squares, _ in sums), sum(wide for _, wide in sums))


def _percent(share: float) -> str:
    """A share of 1 as a percentage, with two digits where it is small."""
    return f"{100 * share:.0f} %" if abs(share) >= 0.095 or not share else f"{100 * share:.2g} %"
