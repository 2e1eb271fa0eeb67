"""A posterior: a fitted guide with the model, the labels and the front end that it needs to be used."""

import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bayes_panns.audio.front_end import FrontEnd
from bayes_panns.audio.length import fit_length
from bayes_panns.bayes import (
    LIKELIHOODS,
    BayesianNet,
    ComposedGuide,
    CustomGuide,
    Strategy,
    draw_weights,
    embeddings_under,
    gaussian_weights,
    guide_from_strategy,
    head_logits,
    logits_under,
    mean_weights,
    mirrored_draws,
    moments_under,
)
from bayes_panns.core.choices import Dropout, HeadStart, Holds, ShortClips, Task
from bayes_panns.core.errors import PosteriorError, RecipeError
from bayes_panns.nets import EmbeddingNet, Network, build
from bayes_panns.posterior.calibration import Calibration, Power
from bayes_panns.posterior.fitted_clips import FittedClips
from bayes_panns.posterior.freezing import freeze
from bayes_panns.posterior.probe import probed_head
from bayes_panns.posterior.transfer import Inherited, shared_weights
from bayes_panns.svi import Embeddings, Features

logger = logging.getLogger(__name__)

NETWORK_DRAWS, HEAD_DRAWS = 20, 200
"""How many draws are made by default: of the network's weights, and of its last layer alone."""

_FEW_CLIPS, _FEW_BYTES = 4, 48 << 20
"""On a CPU, the clips that a pass takes for each thread: so many, or as many as have activations of so many bytes.

Above some 50 MiB the maps leave the cache and glibc gives their memory back after each layer: mn04 takes 1.3 times as
long with 32 clips as with 16, mn10 1.6 times as long as with 8.
"""


@dataclass
class Posterior:
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

        Raises:
            RecipeError: The net, the rate, the recipe or the function does not exist or does not fit.
            PosteriorError: ``upstream`` is of another network or front end, or has a custom guide.
        """
        strategy = strategy or Strategy()
        network = build(net, len(labels))
        shared: dict[str, tuple[Tensor, Tensor | None]] = {}
        if upstream is not None:
            shapes = {name: value.shape for name, value in network.state_dict().items()}
            shared = shared_weights(upstream, net=net, sample_rate=sample_rate, labels=labels, shapes=shapes)
        model = BayesianNet.from_strategy(
            network,
            strategy,
            LIKELIHOODS[task],
            upstream=None
            if upstream is None
            else {name: (loc, scale) for name, (loc, scale) in shared.items() if scale is not None},
            clips=clips,
            front_end=network.front_end(sample_rate),
        )
        if guide_function is None:
            guide = guide_from_strategy(model, strategy)
            # The guide has its own copy of every weight.
            model.initial.clear()
        else:
            guide = ComposedGuide(model, [CustomGuide(model, _made(guide_function, model))])
        return cls(model, guide, net, labels, sample_rate, clip_seconds, strategy, guide_function)

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

    @property
    def front_end(self) -> FrontEnd:
        """Waveforms to log-mels, as the model takes them."""
        assert self.model.front_end is not None, "build() gives every model one"
        return self.model.front_end

    @property
    def stochastic(self) -> bool:
        """Whether two draws of a prediction can differ."""
        return self.guide.stochastic or self.model.dropout == Dropout.ALWAYS

    @property
    def mirrored(self) -> bool:
        """Whether :meth:`draws` come in mirrored pairs, which are not independent draws."""
        return self.guide.explicit and self.guide.stochastic and self.model.dropout != Dropout.ALWAYS

    def draws_for(self, draws: int | Literal["moments"] | None) -> int | Literal["moments"]:
        """``draws``, or if it is None the default: 20; where only the last layer is drawn, 200, which cost little."""
        if draws is not None:
            return draws
        return HEAD_DRAWS if self.mirrored and self.model.only_head else NETWORK_DRAWS

    def draws_made(self, draws: int | Literal["moments"]) -> int | Literal["moments"]:
        """How many draws :meth:`draws` makes when asked for ``draws``; 0 for a single pass at the posterior mean."""
        return draws if draws == "moments" or self.stochastic else 0

    def exponent(self, draws: int | Literal["moments"]) -> NDArray[np.float64] | None:
        """The power for the mean of ``draws`` draws, shape ``(1,)`` or ``(K,)``; None if there is none to apply.

        It belongs to the mean over draws: a single pass at the posterior mean has none.
        """
        return None if self.power is None or self.draws_made(draws) == 0 else np.array(self.power.exponent)

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
        freeze(self.model, self.guide, parts)

    def prepare(
        self,
        data: Features | Embeddings,
        *,
        new_head: bool,
        head: str = HeadStart.RANDOM,
        spec_augment: bool = False,
        seed: int = 0,
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

        Raises:
            ValueError: The guide needs embeddings, and ``data`` are none.
        """
        self.guide.prepare(data.views if isinstance(data, Embeddings) else None, data.target if new_head else None)
        if head == HeadStart.PROBE and new_head and not self.guide.needs_embeddings:
            weight, bias = probed_head(
                self.model, self.guide, data, len(self.labels), spec_augment=spec_augment, seed=seed
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

    def probability(self, logits: Tensor) -> Tensor:
        """The labels' probabilities for a draw's logits ``(N, K)``, at the calibrated temperature; without the power.

        The power is of the mean over draws: :func:`bayes_panns.predictions.predict` applies it.
        """
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        return self.model.likelihood.probability(logits / temperature)

    def draws(
        self,
        clips: Tensor | Sequence[Tensor],
        draws: int = 20,
        *,
        seed: int = 0,
        batch_size: int = 32,
        memory: int = 1 << 30,
    ) -> Iterator[Tensor]:
        """Draw from the posterior predictive, one draw of the weights at a time.

        The weights of draw t depend on ``seed`` and t only, so sets of clips that are predicted one after the other are
        predicted by the same networks. Torch's global random state is left as it was. Draws of an explicit guide come
        in mirrored pairs: see :func:`~bayes_panns.bayes.mirrored_draws`. Where only the last layer is drawn, the rest
        of the network runs once. Clips shorter than ``clip_seconds`` are treated as ``short_clips`` says.

        Args:
            clips: Waveforms, shape ``(N, samples)``, or several such groups of different lengths, N clips in all; their
                features are computed once.
            draws: How many; 0 for a single pass at the posterior mean, with dropout off. A posterior that is not
                stochastic always makes that single pass.
            seed: Seeds the draws.
            batch_size: The most clips a pass.
            memory: Bytes that the activations of a pass may take: long clips go through in smaller batches, down to
                one at a time.

        Yields:
            Probabilities of each label, shape ``(N, K)``, on the CPU.
        """
        for logits in self.logits(clips, draws, seed=seed, batch_size=batch_size, memory=memory):
            yield self.probability(logits)

    @torch.no_grad()
    def logits(
        self,
        clips: Tensor | Sequence[Tensor],
        draws: int = 20,
        *,
        seed: int = 0,
        batch_size: int = 32,
        memory: int = 1 << 30,
    ) -> Iterator[Tensor]:
        """The logits of :meth:`draws`, before any temperature: same arguments, same draws.

        Yields:
            Logits of each label, shape ``(N, K)``, on the CPU.
        """
        if draws < 0:
            raise PosteriorError(f"{draws} draws: give 0 or more")
        at_mean = draws == 0 or not self.stochastic
        self.model.eval()
        if at_mean:
            self.model.drop(False)
        # Dropout's masks depend on the size of the batches.
        fast = at_mean or self.mirrored
        found = self._batches(clips, batch_size, memory, fast=fast)
        if self.mirrored and self.model.only_head and not at_mean:
            # Clips of other lengths may have another number of segments.
            embeddings = [self.model.embed(batch) for batch in found]
            if self.model.single_embedding:
                embeddings = [torch.cat(embeddings)]
            for weights in islice(mirrored_draws(self.guide, seed), draws):
                yield torch.cat([head_logits(self.model, weights, each) for each in embeddings]).cpu()
            return
        batches = list(found)
        if at_mean:
            yield self._logits(mean_weights(self.guide, batches[0]), batches).cpu()
        elif self.mirrored:
            for weights in islice(mirrored_draws(self.guide, seed), draws):
                yield self._logits(weights, batches).cpu()
        else:
            for index in range(draws):
                yield self._logits(None, batches, seed * 1_000_003 + index).cpu()

    def moments(
        self, clips: Tensor | Sequence[Tensor], *, batch_size: int = 32, memory: int = 1 << 30
    ) -> tuple[Tensor, Tensor]:
        """The moments of the logits under the posterior, from one pass and without a draw.

        Args:
            clips: Waveforms, as :meth:`draws` takes them.
            batch_size: The most clips a pass.
            memory: Bytes that the activations of a pass may take, as in :meth:`draws`.

        Returns:
            Means ``(N, K)`` and deviations ``(R, N, K)``, on the CPU: the covariance of a clip's logits i and j is the
            sum over R of the products of their deviations. See :mod:`bayes_panns.bayes.propagation`.

        Raises:
            PosteriorError: The guide is a custom one, its last layer is rotated or of low rank, dropout is part of the
                posterior, or moments cannot be propagated through one of the network's layers.
        """
        if not self.guide.explicit:
            raise PosteriorError("moments cannot be propagated with a custom guide; use draws")
        if not self.guide.independent:
            raise PosteriorError("moments need independent weights, and the last layer's are not; use draws")
        if self.model.dropout == Dropout.ALWAYS:
            raise PosteriorError("moments cannot be propagated through dropout; use draws")
        self.model.eval()
        weights = gaussian_weights(self.guide)
        batches = self._batches(clips, batch_size, memory // 4)
        try:
            parts = [moments_under(self.model, weights, batch) for batch in batches]
        except NotImplementedError as error:
            raise PosteriorError(f"net {self.net}: {error}") from error
        return torch.cat([loc for loc, _ in parts]).cpu(), torch.cat([factor for _, factor in parts], dim=1).cpu()

    @torch.no_grad()
    def embed(self, clips: Tensor | Sequence[Tensor], *, batch_size: int = 32, memory: int = 1 << 30) -> Tensor:
        """The embeddings of clips under the posterior's mean: what the last layer takes.

        Args:
            clips: Waveforms, as :meth:`draws` takes them.
            batch_size: The most clips a pass.
            memory: Bytes that the activations of a pass may take, as in :meth:`draws`.

        Returns:
            Shape ``(N, E)``, on the CPU.
        """
        self.model.eval()
        self.model.drop(False)
        batches = list(self._batches(clips, batch_size, memory, fast=True))
        weights = mean_weights(self.guide, batches[0])
        return torch.cat([embeddings_under(self.model, weights, batch).cpu() for batch in batches])

    @torch.no_grad()
    def _batches(
        self, clips: Tensor | Sequence[Tensor], batch_size: int, memory: int, *, fast: bool = False
    ) -> Iterator[Tensor]:
        """Features of the clips, in batches whose activations fit; ``fast``: in smaller ones where that is faster."""
        device, samples = next(self.model.buffers()).device, round(self.clip_seconds * self.sample_rate)
        for group in [clips] if isinstance(clips, Tensor) else clips:
            if self.short_clips == ShortClips.PAD and group.shape[1] < samples:
                group = fit_length(group, samples)
            clip = cast(Network, self.model.net).activation_bytes(self.front_end.frames(group.shape[1]))
            size = min(batch_size, memory // clip)
            if fast and device.type == "cpu":
                size = min(size, torch.get_num_threads() * max(_FEW_CLIPS, _FEW_BYTES // clip))
            for batch in group.split(max(1, size)):
                yield self.front_end(batch.to(device))

    def _logits(self, weights: Mapping[str, Tensor] | None, batches: list[Tensor], seed: int = 0) -> Tensor:
        """Logits ``(N, K)`` under ``weights``, or under a draw of the guide."""
        device = batches[0].device
        # A model draws its labels as well, and dropout its masks.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            weights = draw_weights(self.guide, batches[0]) if weights is None else weights
            return torch.cat([logits_under(self.model, weights, batch) for batch in batches])


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
