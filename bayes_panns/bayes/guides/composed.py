"""The guide of a posterior: parts that share out the sites of a model."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor

from bayes_panns.bayes.guides.low_rank import LowRankHead
from bayes_panns.bayes.guides.mean_field import MeanField
from bayes_panns.bayes.guides.part import Part
from bayes_panns.bayes.guides.point import Point
from bayes_panns.bayes.guides.rotated import RotatedHead
from bayes_panns.bayes.model import BayesianNet
from bayes_panns.bayes.strategy import Strategy
from bayes_panns.core.choices import PosteriorKind
from bayes_panns.nets import head_of

FAMILIES: dict[str, type[Part]] = {
    PosteriorKind.NORMAL: MeanField,
    PosteriorKind.MAP: Point,
    PosteriorKind.ROTATED: RotatedHead,
    PosteriorKind.LOW_RANK: LowRankHead,
}
"""The posterior families by the name that recipes give them. ``point`` is none: such a weight has no site."""


class ComposedGuide(Part):
    """A guide made of parts, each over its own sites, as Pyro's ``AutoGuideList`` composes guides.

    It is a part itself: each method asks the parts. No parts make the guide of a model without sites.

    Args:
        model: The model.
        parts: The parts; together they cover every site of the model once, in its order.

    Raises:
        ValueError: They do not.
    """

    def __init__(self, model: BayesianNet, parts: Sequence[Part]):
        super().__init__(model, [site for part in parts for site in part.sites])
        if sorted(self.sites) != sorted(model.initial):
            raise ValueError("the parts of a guide must cover every site of the model once")
        for index, part in enumerate(parts):
            # Not by attribute: Pyro would then ask this guide, as its master, for plates.
            self.add_module(str(index), part)
        self.explicit = all(part.explicit for part in parts)
        self.independent = all(part.independent for part in parts)
        self.stochastic = any(part.stochastic for part in parts)
        self.needs_embeddings = any(part.needs_embeddings for part in parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts, in order."""
        return tuple(cast(Part, part) for part in self._modules.values())

    def part_of(self, site: str) -> Part:
        """The part that a site belongs to.

        Raises:
            ValueError: There is no such site.
        """
        for part in self.parts:
            if site in part.sites:
                return part
        raise ValueError(f"the guide has no site {site}")

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site; takes the model's arguments."""
        return {site: value for part in self.parts for site, value in part(*args, **kwargs).items()}

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Those of all parts."""
        return {name: pair for part in self.parts for name, pair in part.factors().items()}

    def weights(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of all parts."""
        return {site: value for part in self.parts for site, value in part.weights(factors).items()}

    def gaussians(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Those of all parts."""
        return {site: pair for part in self.parts for site, pair in part.gaussians().items()}

    def points(self) -> dict[str, Tensor]:
        """Those of all parts."""
        return {site: value for part in self.parts for site, value in part.points().items()}

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Those of all parts."""
        return {site: value for part in self.parts for site, value in part.median(*args, **kwargs).items()}

    def quantiles(self, quantiles: list[float], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Those of all parts."""
        return {
            site: value for part in self.parts for site, value in part.quantiles(quantiles, *args, **kwargs).items()
        }

    def assign(self, posterior: Mapping[str, tuple[Tensor, Tensor | None]]) -> None:
        """Each part takes its own sites."""
        self._require(posterior)
        for part in self.parts:
            if own := {site: posterior[site] for site in part.sites if site in posterior}:
                part.assign(own)

    def tensors(self) -> dict[str, Tensor]:
        """Those of all parts."""
        return {name: value for part in self.parts for name, value in part.tensors().items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Each part takes its own."""
        for part in self.parts:
            part.load_tensors(tensors)

    def freeze(self, *modules: str) -> None:
        """Stop training every site inside these modules of the network."""
        for part in self.parts:
            part.freeze(*modules)

    def freeze_locs(self) -> None:
        """Stop training every mean; the widths are still trained."""
        for part in self.parts:
            part.freeze_locs()

    def prepare(self, embeddings: Tensor | None, target: Tensor | None) -> None:
        """Prepare each part."""
        for part in self.parts:
            part.prepare(embeddings, target)


def guide_from_strategy(model: BayesianNet, strategy: Strategy) -> ComposedGuide:
    """The guide that a guide recipe describes, for a model made from the same recipe."""
    settings = {site: strategy.settings(each.name, head_of(model.net)) for site, each in model.sites.items()}
    parts = []
    # Neighbours of one family make a part, so that sites are sampled in the model's order, as TraceMeanField_ELBO
    # checks.
    for family, sites in groupby(settings, key=lambda site: FAMILIES[settings[site].posterior]):
        parts.append(family.for_sites(model, {site: settings[site] for site in sites}))
    return ComposedGuide(model, parts)
