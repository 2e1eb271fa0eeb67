"""A posterior: a fitted guide with the model, the labels and the front end that it needs to be used."""

import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bayes_panns.bayes import (
    LIKELIHOODS,
    BayesianNet,
    ComposedGuide,
    CustomGuide,
    Strategy,
    guide_from_strategy,
)
from bayes_panns.core.choices import HeadStart, Holds, ShortClips, Task
from bayes_panns.core.errors import PosteriorError, RecipeError
from bayes_panns.nets import EmbeddingNet, Network, build
from bayes_panns.posterior import freezing
from bayes_panns.posterior.calibration import Calibration, Power
from bayes_panns.posterior.fitted_clips import FittedClips
from bayes_panns.posterior.passes import Passes
from bayes_panns.posterior.probe import probed_head
from bayes_panns.posterior.transfer import Inherited, shared_weights
from bayes_panns.svi import Embeddings, Features

logger = logging.getLogger(__name__)


@dataclass
class Posterior(Passes):
    """A guide over a network's weights, and all that is needed to use it.

    Make one with :meth:`build`, or with :func:`bayes_panns.posterior.load` from disk. ``model`` and ``guide`` are plain
    Pyro objects.

    Attributes:
        model: The Pyro model.
        guide: The Pyro guide; one of the user's own is its only part, a :class:`~bayes_panns.bayes.CustomGuide`.
        net: The network's name.
        labels: K label names.
        sample_rate: The front end's rate, in Hz; 0 if it takes embeddings of another model.
        clip_seconds: The length of the clips it was fitted to; 0 for embeddings.
        strategy: The guide recipe. With a guide of the user's own only its priors count.
        guide_function: ``module:function`` of a guide of the user's own.
        short_clips: How it was shown clips shorter than ``clip_seconds`` while fitting, and shows them when predicting.
        provenance: Where it comes from: data, steps, seed, kl_weight, versions.
        metrics: What was measured at the end of the fit.
        power: The power of its mean probabilities, from a cross-validation inside its training clips, if it has one.
        calibration: What was fitted on held-out clips afterwards, if anything.
        fitted_clips: The clips that it and its upstream posteriors were fitted to; empty where that is not known.
        folder: Where it was loaded from.
        embeddings_of: The model whose embeddings it takes; empty where that is unknown, and if it takes sound.
    """

    model: BayesianNet
    guide: ComposedGuide
    net: str
    labels: tuple[str, ...]
    sample_rate: int
    clip_seconds: float
    strategy: Strategy
    guide_function: str | None = None
    short_clips: ShortClips = ShortClips.PAD
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    power: Power | None = None
    calibration: Calibration | None = None
    fitted_clips: FittedClips = field(default_factory=FittedClips)
    folder: Path | None = None
    embeddings_of: str = ""

    @classmethod
    def build(
        cls,
        *,
        net: str,
        labels: tuple[str, ...],
        task: Task,
        sample_rate: int,
        clip_seconds: float,
        strategy: Strategy | None = None,
        guide_function: str | None = None,
        upstream: "Posterior | None" = None,
        clips: int | None = None,
        freeze: Sequence[str] = (),
    ) -> "Posterior":
        """A posterior not yet fitted, at its initial values.

        Args:
            net: One of :data:`bayes_panns.nets.NETS`.
            labels: K label names.
            task: What the labels mean.
            sample_rate: The front end's rate: 32000 Hz, for PANNs' networks also 16000 or 8000 Hz; 0 for embeddings.
            clip_seconds: The length of the clips; 0 for embeddings.
            strategy: The guide recipe.
            guide_function: Instead of a recipe's guide, ``module:function`` that makes one from the model (see
                :class:`~bayes_panns.bayes.UserGuide`); every weight then has the prior of ``strategy``, or a fan-in
                prior.
            upstream: The posterior that the prior ``upstream`` comes from; see also :meth:`start_from`.
            clips: The size of the data set to fit.
            freeze: What a fit leaves as it is, as for :meth:`freeze`. Of these weights only those with a width in
                ``upstream`` are drawn; the others become points, and the posterior's ``strategy`` says so
                (:func:`~bayes_panns.posterior.freezing.with_points`).

        Raises:
            RecipeError: The net, the rate, the recipe, the function or a module to freeze does not exist or does not
                fit.
            PosteriorError: ``upstream`` is of another network or front end, or has a custom guide.
        """
        strategy = strategy or Strategy()
        network = build(net, len(labels))
        shared: dict[str, tuple[Tensor, Tensor | None]] = {}
        if upstream is not None:
            shapes = {name: value.shape for name, value in network.state_dict().items()}
            shared = shared_weights(upstream, net=net, sample_rate=sample_rate, labels=labels, shapes=shapes)
        gaussians = {name: (loc, scale) for name, (loc, scale) in shared.items() if scale is not None}
        if freeze and guide_function is None:
            strategy = freezing.with_points(strategy, network, freeze, gaussians)
        strategy = strategy.started(
            network, {name: loc for name, (loc, _) in shared.items()} if upstream is not None else None
        )
        model = BayesianNet.from_strategy(
            network,
            strategy,
            LIKELIHOODS[task],
            upstream=None if upstream is None else gaussians,
            clips=clips,
            front_end=network.front_end(sample_rate),
        )
        if guide_function is None:
            guide = guide_from_strategy(model, strategy)
            # The guide has its own copy of every weight.
            model.initial.clear()
        else:
            guide = ComposedGuide(model, [CustomGuide(model, _made(guide_function, model))])
        posterior = cls(model, guide, net, labels, sample_rate, clip_seconds, strategy, guide_function)
        posterior.freeze(freeze)
        return posterior

    @property
    def task(self) -> Task:
        """What the labels mean."""
        return self.model.likelihood.task

    @property
    def takes(self) -> Holds:
        """What a clip is to it: sound, or an embedding of another model."""
        return cast(Network, self.model.net).takes

    @property
    def width(self) -> int:
        """How many numbers a clip has: its samples, or those of its embedding."""
        net = self.model.net
        return net.width if isinstance(net, EmbeddingNet) else round(self.clip_seconds * self.sample_rate)

    def gaussians(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Marginal mean and standard deviation of each weight with a width, by parameter name.

        Empty for a custom guide.
        """
        return {site.removeprefix("net."): pair for site, pair in self.guide.gaussians().items()}

    def points(self) -> dict[str, Tensor]:
        """Every weight without a width, and BatchNorm's statistics, by name: the tensors themselves, not copies."""
        points = {site.removeprefix("net."): value for site, value in self.guide.points().items()}
        return self.model.deterministic() | points

    def prior_widths(self) -> dict[str, Tensor]:
        """The learned factor on the scale of each prior whose width is learned, 0-d, by parameter name."""
        return {
            site.removeprefix("net."): attrgetter(site)(self.model.prior_log_widths).detach().exp()
            for site in self.model.learned
        }

    @torch.no_grad()
    def start_from(self, upstream: "Posterior") -> Inherited:
        """Take over what ``upstream`` knows: each shared weight's mean and, where both have a width, its width.

        :func:`~bayes_panns.posterior.shared_weights` says what is shared. Learned widths of priors are not taken over.

        Raises:
            PosteriorError: ``upstream`` is of another network or front end, or one of the two has a custom guide.
        """
        if not self.guide.explicit:
            raise PosteriorError("starting from a posterior is not supported with a custom guide")
        gaussians, points = self.gaussians(), self.points()
        shapes = {name: value.shape for name, value in points.items()}
        shapes |= {name: loc.shape for name, (loc, _) in gaussians.items()}
        known = shared_weights(upstream, net=self.net, sample_rate=self.sample_rate, labels=self.labels, shapes=shapes)
        self.guide.assign({f"net.{name}": known[name] for name in gaussians if name in known})
        for name, value in points.items():
            if name in known:
                value.copy_(known[name][0])
        names = (*gaussians, *points)
        return Inherited(
            tuple(name for name in names if name in known), tuple(name for name in names if name not in known)
        )

    def freeze(self, parts: Sequence[str]) -> None:
        """Stop training parts of the posterior.

        Args:
            parts: Names of the network's modules, such as ``resnet``; ``backbone`` for all but the last layer; ``locs``
                for every mean and point weight, so that a fit trains the widths alone.

        Raises:
            RecipeError: The network has no such module, or the guide is a custom one.
        """
        freezing.freeze(self.model, self.guide, parts)

    def prepare(
        self,
        data: Features | Embeddings,
        *,
        new_head: bool,
        head: str = HeadStart.RANDOM,
        spec_augment: bool = False,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        """Start from the clips, once before the first step of a fit; a resumed fit needs none of it.

        A rotated last layer takes its axes from the embeddings. A new head starts as the most probable one if ``head``
        is ``probe``.

        Args:
            data: The clips to fit.
            new_head: Whether the last layer is new, rather than the upstream posterior's.
            head: Where a new head starts: one of :class:`~bayes_panns.core.choices.HeadStart`.
            spec_augment: Whether a probe also sees the clips under SpecAugment.
            seed: Seeds that.
            workers: How many processes read clips ahead for a probe.

        Raises:
            ValueError: The guide needs embeddings, and ``data`` are none.
        """
        self.guide.prepare(data.views if isinstance(data, Embeddings) else None, data.target if new_head else None)
        if head == HeadStart.PROBE and new_head and not self.guide.needs_embeddings:
            weight, bias = probed_head(
                self.model, self.guide, data, len(self.labels), spec_augment=spec_augment, seed=seed, workers=workers
            )
            self._set_head(weight, bias)
            logger.info("last layer: starts as the most probable one on the clips' embeddings")

    @torch.no_grad()
    def _set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Set the means of the last layer, ``(K, E)`` and ``(K,)``."""
        points = {f"net.{name}": value for name, value in self.points().items()}
        for site, value in zip(self.model.head_sites, (weight, bias), strict=True):
            if site in points:
                points[site].copy_(value)
            else:
                self.guide.assign({site: (value, None)})


def _made(function: str, model: BayesianNet) -> nn.Module:
    """The guide that a function of the user's makes of a model."""
    module, _, name = function.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"guide {function}: cannot be imported ({error}); write module:function") from error
    try:
        guide = make(model)
    except TypeError as error:
        raise RecipeError(f"guide {function}: cannot be called with the model ({error})") from error
    if not isinstance(guide, nn.Module):
        raise RecipeError(f"guide {function}: returns {type(guide).__name__}, not a Pyro guide that is a module")
    return guide
