"""The Pyro model: a network whose weights have priors, and a likelihood of the labels."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn import PyroModule, PyroSample
from pyro.nn.module import to_pyro_module_
from torch import Tensor, nn

from bayes_panns.audio.front_end import FrontEnd
from bayes_panns.bayes.likelihoods import Likelihood
from bayes_panns.bayes.local_parameters import LocalParameters
from bayes_panns.bayes.priors import stretched
from bayes_panns.bayes.sites import Site, sites
from bayes_panns.bayes.strategy import Strategy
from bayes_panns.clips.samples import as_floats
from bayes_panns.core.choices import Dropout, PosteriorKind, Precision
from bayes_panns.nets import Network, head_of, segmentwise
from bayes_panns.ranks import shard


class BayesianNet(LocalParameters):
    """A network with priors on some of its weights, as a Pyro model.

    Each weight with a prior becomes the sample site ``net.<parameter name>``; the others stay parameters. The sites are
    sampled first, in the order of ``priors``. Then the labels are observed at site ``label`` inside the plate
    ``clips``, scaled to the size of the data set. Parameters stay in the module, not in Pyro's global store.

    Usage::

        net = build("resnet14-narrow", classes=10)
        priors = {name: FanIn()(site) for name, site in sites(net).items()}
        model = BayesianNet(net, priors, OneOfK(), clips=320)
        svi = SVI(model, MeanField(model), ClippedAdam({"lr": 1e-3}), TraceMeanField_ELBO())
        svi.step(logmel, target)

    Args:
        net: The network; it is changed in place. Any module will do for what needs no
            :class:`~bayes_panns.nets.Network`.
        priors: A distribution for each Bayesian parameter by name, with the parameter's shape as its event.
        learned: Names of parameters whose prior's width is learned: its scale is multiplied by the exponential of a
            parameter of the model, ``prior_log_widths.<site>``, at first 0.
        likelihood: The likelihood of the labels, given the logits.
        clips: The size of the data set; ``None`` takes each batch for the whole of it.
        front_end: Makes features of waveforms; without one the model takes features only.
        dropout: When the network's dropouts are on: one of :class:`~bayes_panns.core.choices.Dropout`.

    Raises:
        ValueError: ``priors`` or ``learned`` names something other than a weight or bias of a convolution or linear
            layer of ``net``, a prior's event is not the weight, or ``dropout`` is unknown.
    """

    def __init__(
        self,
        net: nn.Module,
        priors: Mapping[str, dist.TorchDistribution],
        likelihood: Likelihood,
        *,
        learned: Collection[str] = (),
        clips: int | None = None,
        front_end: FrontEnd | None = None,
        dropout: str = Dropout.OFF,
    ):
        super().__init__()
        parameters, found = dict(net.named_parameters()), sites(net)
        for name, prior in priors.items():
            if name not in found:
                raise ValueError(f"prior of {name}: the network has no such weight; it has {', '.join(found)}")
            if (prior.batch_shape, prior.event_shape) != ((), found[name].shape):
                raise ValueError(
                    f"prior of {name}: its event is of shape {tuple(prior.event_shape)} and its batch of shape "
                    f"{tuple(prior.batch_shape)}; the weight is of shape {tuple(found[name].shape)}"
                )
        for name in learned:
            if name not in priors:
                raise ValueError(f"{name} has no prior whose width could be learned")
        self.sites: dict[str, Site] = {f"net.{name}": found[name] for name in priors}
        """The Bayesian weights by the name of their Pyro site."""
        self.initial = {f"net.{name}": parameters[name].detach() for name in priors}
        """Their values as the network had them, by site: where a guide may start."""
        to_pyro_module_(net)
        self._sampled = []
        self.prior_log_widths = PyroModule()
        for name, prior in priors.items():
            layer_name, _, attribute = name.rpartition(".")
            layer = net.get_submodule(layer_name)
            if name in learned:
                width = nn.Parameter(self.initial[f"net.{name}"].new_zeros(()))
                deep_setattr(self.prior_log_widths, f"net.{name}", width)
                setattr(layer, attribute, PyroSample(_LearnedPrior(prior, self.prior_log_widths, f"net.{name}")))
            else:
                setattr(layer, attribute, PyroSample(prior))
            self._sampled.append((layer, attribute))
        self.net = net
        self.likelihood = likelihood
        self.clips = clips
        self.front_end = front_end
        self.dropout = Dropout(dropout)
        self.precision = Precision.FLOAT32
        self._frozen: tuple[str, ...] = ()

    @classmethod
    def from_strategy(
        cls,
        net: nn.Module,
        strategy: Strategy,
        likelihood: Likelihood,
        *,
        upstream: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        clips: int | None = None,
        front_end: FrontEnd | None = None,
    ) -> "BayesianNet":
        """The model that a guide recipe describes; ``upstream`` maps parameter names to (loc, scale).

        Raises:
            RecipeError: The recipe does not fit the network, or wants an upstream posterior that is not given.
        """
        strategy = strategy.started(net)
        chosen = {site: each for site, each in strategy.resolve(net).items() if each.posterior != PosteriorKind.POINT}
        priors = {site.name: settings.make_prior(upstream)(site) for site, settings in chosen.items()}
        learned = [site.name for site, settings in chosen.items() if settings.learn_prior]
        return cls(net, priors, likelihood, learned=learned, clips=clips, front_end=front_end, dropout=strategy.dropout)

    @property
    def head(self) -> str:
        """The name of the network's last layer.

        Raises:
            ValueError: The network is no :class:`~bayes_panns.nets.Network`, and does not say.
        """
        head = head_of(self.net)
        if head is None:
            raise ValueError("the network does not say which layer is its last; make it a bayes_panns.nets.Network")
        return head

    @property
    def head_sites(self) -> tuple[str, str]:
        """The names that weight and bias of the last layer have as Pyro sites, whether they are sites or not."""
        return f"net.{self.head}.weight", f"net.{self.head}.bias"

    @property
    def only_head(self) -> bool:
        """Whether a draw of the weights changes the last layer alone: then :meth:`embed` need run once only."""
        return self.dropout != Dropout.ALWAYS and all(site in self.head_sites for site in self.sites)

    @property
    def single_embedding(self) -> bool:
        """Whether a clip has one embedding, rather than one for each of its segments."""
        return head_of(self.net) not in segmentwise(self.net)

    @property
    def learned(self) -> tuple[str, ...]:
        """The sites whose prior's width is learned."""
        return tuple(name for name in self.sites if isinstance(self._kept(name), _LearnedPrior))

    def prior(self, site: str) -> dist.TorchDistribution:
        """The prior of ``site``, at its present width."""
        kept = self._kept(site)
        return kept(self) if isinstance(kept, _LearnedPrior) else kept

    @torch.no_grad()
    def set_prior_scale(self, site: str, scale: float) -> None:
        """Set the width of the learned prior of ``site``: the root of its mean variance."""
        now = self.prior(site).variance.mean().sqrt()
        attrgetter(site)(self.prior_log_widths).add_((scale / now).log())

    def _kept(self, site: str) -> "dist.TorchDistribution | _LearnedPrior":
        layer_name, _, attribute = site.rpartition(".")
        return cast(dict, self.get_submodule(layer_name)._pyro_samples)[attribute]

    def embed(self, clips: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Embeddings ``(batch, E)``, or of segments ``(batch, segments, E)``, of clips as in :meth:`forward`.

        By the weights that the network holds. Under a variational backbone use
        :func:`~bayes_panns.bayes.embeddings_under` with the weights of a draw or of the mean.
        """
        features = self._features(clips)
        with self._layers(features.device):
            embedding = cast(Network, self.net).embed(features, augment)
        return _at_least_float32(embedding)

    def forward(
        self,
        clips: Tensor,
        target: Tensor | None = None,
        *,
        augment: Callable[[Tensor], Tensor] | None = None,
        embedded: bool = False,
    ) -> Tensor:
        """Run the model; by itself, as any Pyro model, it draws its weights from the prior.

        Args:
            clips: Waveforms, shape ``(batch, samples)``, of floats or of int16 as a store has them; or features as the
                front end makes them, of three dimensions.
            target: The observed labels, as the likelihood takes them; without them they are sampled.
            augment: Applied to the normalised spectrogram inside the network.
            embedded: ``clips`` are embeddings, as :meth:`embed` makes them, and only the last layer runs.

        Returns:
            Logits, shape ``(batch, K)``.
        """
        # In a fixed order, and outside the plate: the first access samples.
        for layer, attribute in self._sampled:
            getattr(layer, attribute)
        net = cast(Network, self.net)
        inputs = clips if embedded else self._features(clips)
        with self._layers(inputs.device):
            logits = net.classify(inputs) if embedded else net(inputs, augment)
        logits = _at_least_float32(logits)
        self._check_names()
        # Of fewer clips than came in, where mixup has taken clips of other processes in.
        batch = len(logits)
        total = shard(batch).total
        with pyro.plate("clips", batch), poutine.scale(scale=(self.clips or total) / total):
            pyro.sample("label", self.likelihood(logits, target), obs=target)
        return logits

    def _check_names(self) -> None:
        """Check that the network sampled its own sites: a slice of a ``Sequential`` is a module of another name."""
        for site, (layer, attribute) in zip(self.sites, self._sampled, strict=True):
            if not f"{layer._pyro_name}.{attribute}".endswith(site):
                raise RuntimeError(
                    f"site {site}: the network put this layer into another module while it ran, so Pyro sampled "
                    "another site; do not slice a Sequential in forward or embed"
                )

    def _features(self, clips: Tensor) -> Tensor:
        if clips.dim() != 2:
            return clips
        if self.front_end is None:
            raise ValueError("the model has no front end: give it features, such as log-mels (batch, frames, mels)")
        # The power of a spectrum has a range that numbers of 16 bits do not.
        with torch.autocast(clips.device.type, enabled=False):
            return self.front_end(as_floats(clips))

    @contextmanager
    def computing_in(self, precision: Precision | str) -> Iterator[None]:
        """A block in which the network computes with numbers of :class:`~bayes_panns.core.choices.Precision`.

        With ``bf16`` layers take and give bfloat16, as ``torch.autocast`` has it. Draws, their KL and the likelihood
        stay in float32, and so do parameters, their gradients and BatchNorm's statistics.
        """
        before, self.precision = self.precision, Precision(precision)
        try:
            yield
        finally:
            self.precision = before

    def _layers(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context of the network's layers."""
        if self.precision == Precision.FLOAT32:
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def deterministic(self) -> dict[str, Tensor]:
        """Weights without a prior and BatchNorm's statistics, by name in the network: the tensors, not copies."""
        return {
            name.removeprefix("net."): value for name, value in self.state_dict().items() if name.startswith("net.")
        }

    def freeze(self, *parts: str) -> None:
        """Stop training these modules of the network, by name: no gradients, and always in eval mode.

        This holds parameters of the network and learned widths of priors; a guide's are held by its own ``freeze``.

        Raises:
            AttributeError: The network has no module of that name.
        """
        for part in parts:
            self.net.get_submodule(part).requires_grad_(False)
            for site in self.learned:
                if site.startswith(f"net.{part}."):
                    attrgetter(site)(self.prior_log_widths).requires_grad_(False)
        self._frozen += parts
        self.train(self.training)

    def freeze_points(self) -> None:
        """Stop training every weight that has no prior, and stay in eval mode; widths of priors are still learned."""
        self.net.requires_grad_(False)
        self._frozen += tuple(name for name, _ in self.net.named_children())
        self.train(self.training)

    def train(self, mode: bool = True) -> "BayesianNet":
        """Switch between fitting and predicting; frozen parts stay in eval mode, dropouts follow ``dropout``."""
        super().train(mode)
        self.drop(self.dropout == Dropout.FIT and mode)
        for part in self._frozen:
            self.net.get_submodule(part).eval()
        if self.dropout == Dropout.ALWAYS:
            # In frozen parts too: a loaded posterior does not know which parts were frozen.
            self.drop(True)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "BayesianNet":
        # Priors are distributions, not modules: torch would leave them behind on the old device.
        super()._apply(fn, recurse)
        self.initial = {name: fn(value) for name, value in self.initial.items()}
        for layer, attribute in self._sampled:
            priors = cast(dict, layer._pyro_samples)
            kept = priors[attribute]
            priors[attribute] = kept.moved(fn) if isinstance(kept, _LearnedPrior) else _moved(kept, fn)
        return self

    def drop(self, on: bool) -> None:
        """Switch the network's dropouts on or off, in any mode."""
        for module in self.net.modules():
            if isinstance(module, nn.Dropout):
                module.train(on)


@dataclass(frozen=True)
class _LearnedPrior:
    """A prior whose width is a parameter, as Pyro asks for it when it samples the site."""

    start: dist.TorchDistribution
    log_widths: PyroModule
    site: str

    def __call__(self, module: nn.Module) -> dist.TorchDistribution:
        # Through the module, so that Pyro registers the parameter.
        return stretched(self.start, attrgetter(self.site)(self.log_widths).exp())

    def moved(self, fn: Callable[[Tensor], Tensor]) -> "_LearnedPrior":
        """The same, moved with its model, which moves the parameter itself."""
        return _LearnedPrior(_moved(self.start, fn), self.log_widths, self.site)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype == torch.bfloat16 else values


def _moved(distribution: dist.TorchDistribution, fn: Callable[[Tensor], Tensor]) -> dist.TorchDistribution:
    """A copy of ``distribution`` with ``fn`` applied to each tensor that it holds."""
    moved = copy.copy(distribution)
    for key, value in vars(distribution).items():
        if isinstance(value, Tensor):
            moved.__dict__[key] = fn(value)
        elif isinstance(value, torch.distributions.Distribution):
            moved.__dict__[key] = _moved(value, fn)
    return moved
