"""A posterior: a fitted guide with the model, the labels and the front end that it needs to be used."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import (
    LIKELIHOODS,
    BayesianNet,
    MeanField,
    Strategy,
    draw_weights,
    gaussian_weights,
    head_logits,
    logits_under,
    mean_weights,
    mirrored_draws,
    moments_under,
)
from bayes_panns.clips import Task
from bayes_panns.core.errors import PosteriorError, RecipeError
from bayes_panns.nets import HEAD, ResNet, build


@dataclass(frozen=True)
class Inherited:
    """What a posterior took over from the one it started from: parameter names, BatchNorm's included.

    Attributes:
        taken: Started from the upstream posterior.
        new: Started afresh: not there upstream, or of another shape, such as the head for another label set.
    """

    taken: tuple[str, ...]
    new: tuple[str, ...]


class Calibration(BaseModel):
    """What was fitted on held-out clips so that probabilities and sets of labels mean what they say.

    Attributes:
        temperature: Divides every draw's logits (Guo et al., 2017, arXiv:1706.04599).
        threshold: A clip's label set is every label at least that probable.
        coverage: The share of true labels that such sets are to hold.
        draws: How many posterior draws it is for.
        clips: How many clips the temperature and the threshold were fitted on.
        data: The stores' names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    threshold: Annotated[float, Field(ge=0, le=1)]
    coverage: Annotated[float, Field(gt=0, lt=1)]
    draws: Annotated[int, Field(ge=0)]
    clips: tuple[int, int]
    data: tuple[str, ...]


@dataclass
class Posterior:
    """A guide over a network's weights, and all that is needed to use it.

    Make one with :meth:`build`, or with :func:`bayes_panns.posterior.load` from disk. ``model`` and ``guide`` are plain
    Pyro objects.

    Attributes:
        model: The Pyro model.
        guide: The Pyro guide.
        net: The network's name.
        labels: K label names.
        sample_rate: The front end's rate, in Hz.
        clip_seconds: The length of the clips it was fitted to.
        strategy: The guide recipe, unless the guide is a function of the user's.
        guide_function: ``module:function`` of a guide of the user's own.
        provenance: Where it comes from: data, steps, seed, kl_weight, versions.
        metrics: What was measured at the end of the fit.
        calibration: What was fitted on held-out clips afterwards, if anything.
        folder: Where it was loaded from.
    """

    model: BayesianNet
    guide: nn.Module
    net: str
    labels: tuple[str, ...]
    sample_rate: int
    clip_seconds: float
    strategy: Strategy
    guide_function: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    calibration: Calibration | None = None
    folder: Path | None = None

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
            sample_rate: The front end's rate: 32000, 16000 or 8000 Hz.
            clip_seconds: The length of the clips.
            strategy: The guide recipe.
            guide_function: Instead of a recipe's guide, ``module:function`` that makes one from the model; every weight
                then has the prior of ``strategy``, or a fan-in prior.
            upstream: The posterior that priors of kind ``upstream`` come from; see also :meth:`start_from`.
            clips: The size of the data set to fit.

        Raises:
            RecipeError: The net, the rate, the recipe or the function is not there or does not fit.
        """
        strategy = strategy or Strategy()
        network = build(net, len(labels))
        model = BayesianNet.from_strategy(
            network,
            strategy,
            LIKELIHOODS[task],
            upstream=None if upstream is None else upstream.gaussians(),
            clips=clips,
            front_end=LogMel(sample_rate),
        )
        if guide_function is None:
            guide: nn.Module = MeanField.from_strategy(model, strategy)
            # The guide has its own copy of every weight.
            model.initial.clear()
        else:
            guide = _imported(guide_function)(model)
        return cls(model, guide, net, labels, sample_rate, clip_seconds, strategy, guide_function)

    @property
    def task(self) -> Task:
        """What the labels mean."""
        return self.model.likelihood.task

    @property
    def front_end(self) -> LogMel:
        """Waveforms to log-mels, as the model takes them."""
        assert self.model.front_end is not None, "build() gives every model one"
        return self.model.front_end

    @property
    def stochastic(self) -> bool:
        """Whether two draws of a prediction can differ."""
        drawn = self.guide.drawn if isinstance(self.guide, MeanField) else self.model.sites
        return bool(drawn) or self.model.dropout == "always"

    def draws_made(self, draws: int | Literal["moments"]) -> int | Literal["moments"]:
        """How many draws :meth:`draws` makes when asked for ``draws``; 0 for a single pass at the posterior mean."""
        return draws if draws == "moments" or self.stochastic else 0

    def gaussians(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of each variational weight by parameter name: its own, whatever its factors.

        Empty for a guide of the user's own.
        """
        if not isinstance(self.guide, MeanField):
            return {}
        return {site.removeprefix("net."): pair for site, pair in self.guide.gaussians().items()}

    def points(self) -> dict[str, Tensor]:
        """Every weight that has no width, and BatchNorm's statistics, by name; where they are kept, not copies."""
        state = {name: value for name, value in self.model.state_dict().items() if name.startswith("net.")}
        if isinstance(self.guide, MeanField):
            state |= {site: self.guide.loc(site).detach() for site in self.guide.sites if site not in self.guide.drawn}
        return {name.removeprefix("net."): value for name, value in state.items()}

    def prior_widths(self) -> dict[str, Tensor]:
        """What the scale of each prior whose width is learned is multiplied by, 0-d, by parameter name."""
        return {
            site.removeprefix("net."): attrgetter(site)(self.model.prior_log_widths).detach().exp()
            for site in self.model.learned
        }

    @torch.no_grad()
    def start_from(self, upstream: "Posterior") -> Inherited:
        """Take over what ``upstream`` knows: each shared weight's loc and, where both are variational, its scale.

        The head is taken only where the label names are the same. Learned widths of priors are not taken over.

        Raises:
            PosteriorError: ``upstream`` is of another network or front end.
        """
        for what, mine, other in (
            ("net", self.net, upstream.net),
            ("sample_rate", self.sample_rate, upstream.sample_rate),
        ):
            if mine != other:
                raise PosteriorError(f"the upstream posterior's {what} is {other} and this run's is {mine}; use one")
        if not isinstance(self.guide, MeanField) or not isinstance(upstream.guide, MeanField):
            raise PosteriorError("only the guide of a recipe can start from a posterior, or be started from")
        known: dict[str, tuple[Tensor, Tensor | None]] = {**upstream.gaussians()}
        known |= {name: (value, None) for name, value in upstream.points().items()}
        if upstream.labels != self.labels:
            known = {name: pair for name, pair in known.items() if not name.startswith(f"{HEAD}.")}
        gaussians, points = self.gaussians(), self.points()
        taken = tuple(name for name in [*gaussians, *points] if name in known)
        self.guide.assign({f"net.{name}": known[name] for name in gaussians if name in known})
        for name, value in points.items():
            if name in known:
                value.copy_(known[name][0])
        return Inherited(taken, tuple(name for name in [*gaussians, *points] if name not in known))

    @torch.no_grad()
    def start_head(self, weight: Tensor, bias: Tensor) -> None:
        """Start the last layer at these means, ``(K, E)`` and ``(K,)``."""
        points = dict(self.model.net.named_parameters())
        for name, value in ((f"{HEAD}.weight", weight), (f"{HEAD}.bias", bias)):
            if name in points:
                points[name].copy_(value)
            else:
                cast(MeanField, self.guide).assign({f"net.{name}": (value, None)})

    @property
    def mirrored(self) -> bool:
        """Whether :meth:`draws` come in mirrored pairs, which are not independent draws."""
        return isinstance(self.guide, MeanField) and bool(self.guide.drawn) and self.model.dropout != "always"

    def probability(self, logits: Tensor) -> Tensor:
        """The labels' probabilities for a draw's logits ``(N, K)``, at the calibrated temperature."""
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

        The weights of draw t depend on ``seed`` and t only, so that sets of clips predicted one after the other are
        predicted by the same networks. Torch's global random state is left as it was. Those of a mean-field guide come
        in mirrored pairs: see :func:`~bayes_panns.bayes.mirrored_draws`. Where only the last layer is drawn, the rest
        of the network runs once.

        Args:
            clips: Waveforms, shape ``(N, samples)``, or several such groups of different lengths, N clips in all; their
                log-mels are computed once.
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
        """The logits behind :meth:`draws`, before any temperature: same arguments, same draws.

        Yields:
            Logits of each label, shape ``(N, K)``, on the CPU.
        """
        at_mean = draws == 0 or not self.stochastic
        self.model.eval()
        if at_mean:
            self.model.drop(False)
        batches = self._batches(clips, batch_size, memory)
        if at_mean:
            yield self._logits(mean_weights(self.guide, batches[0]), batches).cpu()
        elif self.mirrored and self.model.only_head:
            embedding = torch.cat([self.model.embed(batch) for batch in batches])
            for weights in islice(mirrored_draws(cast(MeanField, self.guide), seed), draws):
                yield head_logits(self.model, weights, embedding).cpu()
        elif self.mirrored:
            for weights in islice(mirrored_draws(cast(MeanField, self.guide), seed), draws):
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
            PosteriorError: The guide is no mean-field guide, its last layer is rotated or of low rank, or dropout is
                part of the posterior.
        """
        if not isinstance(self.guide, MeanField):
            raise PosteriorError("moments are known of mean-field and point guides only; take draws")
        if not self.guide.independent:
            raise PosteriorError("moments are known of independent weights, and the last layer's are not; take draws")
        if self.model.dropout == "always":
            raise PosteriorError("no moments are known of dropout; take draws")
        self.model.eval()
        weights = gaussian_weights(self.guide)
        batches = self._batches(clips, batch_size, memory // 4)
        parts = [moments_under(self.model, weights, batch) for batch in batches]
        return torch.cat([loc for loc, _ in parts]).cpu(), torch.cat([factor for _, factor in parts], dim=1).cpu()

    @torch.no_grad()
    def _batches(self, clips: Tensor | Sequence[Tensor], batch_size: int, memory: int) -> list[Tensor]:
        """Log-mels of the clips, in batches whose activations fit."""
        device = next(iter(self.model.net.buffers())).device
        batches = []
        for group in [clips] if isinstance(clips, Tensor) else clips:
            clip = cast(ResNet, self.model.net).activation_bytes(self.front_end.frames(group.shape[1]))
            for batch in group.split(max(1, min(batch_size, memory // clip))):
                batches.append(self.front_end(batch.to(device)))
        return batches

    def _logits(self, weights: Mapping[str, Tensor] | None, batches: list[Tensor], seed: int = 0) -> Tensor:
        """Logits ``(N, K)`` under ``weights``, or under a draw of the guide's."""
        # A model draws its labels as well, and dropout its masks.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            weights = draw_weights(self.guide, batches[0]) if weights is None else weights
            return torch.cat([logits_under(self.model, weights, batch) for batch in batches])


def _imported(function: str) -> Callable[[BayesianNet], nn.Module]:
    module, _, name = function.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"guide {function}: cannot be imported ({error}); write module:function") from error
