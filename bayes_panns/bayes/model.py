"""The Pyro model: a network whose weights have priors, and a likelihood of the labels."""

import copy
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn import PyroModule, PyroSample
from pyro.nn.module import to_pyro_module_
from torch import Tensor, nn

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes.likelihoods import Likelihood
from bayes_panns.bayes.priors import stretched
from bayes_panns.bayes.sites import Site, sites
from bayes_panns.bayes.strategy import Strategy
from bayes_panns.nets import HEAD, ResNet


class BayesianNet(PyroModule):
    """A network with priors on some of its weights, as a Pyro model.

    Each weight with a prior becomes the sample site ``net.<parameter name>``; the others stay parameters. The sites are
    sampled first, in the order of ``priors``; then the labels are observed at site ``label`` inside the plate
    ``clips``, scaled to the size of the data set.

    Usage::

        net = build("resnet14-narrow", classes=10)
        priors = {name: FanIn()(site) for name, site in sites(net).items()}
        model = BayesianNet(net, priors, OneOfK(), clips=320)
        svi = SVI(model, MeanField(model), ClippedAdam({"lr": 1e-3}), TraceMeanField_ELBO())
        svi.step(logmel, target)

    Args:
        net: The network; it is taken over and changed in place.
        priors: A distribution for each Bayesian parameter by name, with the parameter's shape as its event.
        learned: Names of parameters whose prior's width is learned: its scale is multiplied by the exponential of a
            parameter of the model, ``prior_log_widths.<site>``, at first 0.
        likelihood: What the labels are, given the logits.
        clips: The size of the data set; ``None`` takes each batch for the whole of it.
        front_end: Waveform to log-mel; without one the model takes log-mels only.
        dropout: When the network's dropouts are on: never, in training mode, or always (Monte Carlo dropout).

    Raises:
        KeyError: ``priors`` names what is no weight or bias of a convolution or linear layer of ``net``.
    """

    def __init__(
        self,
        net: nn.Module,
        priors: Mapping[str, dist.TorchDistribution],
        likelihood: Likelihood,
        *,
        learned: Collection[str] = (),
        clips: int | None = None,
        front_end: LogMel | None = None,
        dropout: Literal["off", "fit", "always"] = "off",
    ):
        super().__init__()
        parameters, found = dict(net.named_parameters()), sites(net)
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
        self.dropout = dropout
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
        front_end: LogMel | None = None,
    ) -> "BayesianNet":
        """The model that a guide recipe describes; ``upstream`` maps parameter names to (loc, scale).

        Raises:
            RecipeError: The recipe does not fit the network, or wants an upstream posterior that is not given.
        """
        chosen = {site: each for site, each in strategy.resolve(net).items() if each.posterior != "point"}
        priors = {site.name: settings.make_prior(upstream)(site) for site, settings in chosen.items()}
        learned = [site.name for site, settings in chosen.items() if settings.learn_prior]
        return cls(net, priors, likelihood, learned=learned, clips=clips, front_end=front_end, dropout=strategy.dropout)

    @property
    def only_head(self) -> bool:
        """Whether all that a draw of the weights changes is the last layer: then :meth:`embed` need run once only."""
        return self.dropout != "always" and all(site.name.startswith(f"{HEAD}.") for site in self.sites.values())

    @property
    def learned(self) -> tuple[str, ...]:
        """The sites whose prior's width is learned."""
        return tuple(name for name in self.sites if isinstance(self._kept(name), _LearnedPrior))

    def prior(self, site: str) -> dist.TorchDistribution:
        """The prior of ``site``, as wide as it is now."""
        kept = self._kept(site)
        return kept(self) if isinstance(kept, _LearnedPrior) else kept

    @torch.no_grad()
    def set_prior_scale(self, site: str, scale: float) -> None:
        """Make the learned prior of ``site`` that wide: the root of its mean variance."""
        now = self.prior(site).variance.mean().sqrt()
        attrgetter(site)(self.prior_log_widths).add_((scale / now).log())

    def _kept(self, site: str) -> "dist.TorchDistribution | _LearnedPrior":
        layer_name, _, attribute = site.rpartition(".")
        return cast(dict, self.get_submodule(layer_name)._pyro_samples)[attribute]

    def embed(self, clips: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """What the last layer sees of clips, both taken as :meth:`forward` takes them: shape ``(batch, embedding)``.

        By the weights that the network holds: a variational backbone's mean something under a guide's draw only, as
        :func:`~bayes_panns.bayes.draw_weights` and :func:`~bayes_panns.bayes.mean_weights` give them.
        """
        return cast(ResNet, self.net).embed(self._logmel(clips), augment)

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
            clips: Waveforms, shape ``(batch, samples)``, or log-mels in dB, shape ``(batch, frames, mels)``.
            target: The labels observed, as the likelihood takes them; without them they are sampled.
            augment: Applied to the normalised spectrogram inside the network.
            embedded: ``clips`` are embeddings, as :meth:`embed` makes them, and only the last layer is run.

        Returns:
            Logits, shape ``(batch, K)``.
        """
        for parameter in self.parameters():
            # SVI asks each parameter for this; Pyro gives it to local PyroParams but not to plain parameters.
            parameter.unconstrained = weakref.ref(parameter)
        # In a fixed order, and outside the plate: the first access is what samples.
        for layer, attribute in self._sampled:
            getattr(layer, attribute)
        logits = self.net.get_submodule(HEAD)(clips) if embedded else self.net(self._logmel(clips), augment)
        batch = len(clips)
        with pyro.plate("clips", batch), poutine.scale(scale=(self.clips or batch) / batch):
            pyro.sample("label", self.likelihood(logits, target), obs=target)
        return logits

    def _logmel(self, clips: Tensor) -> Tensor:
        if clips.dim() != 2:
            return clips
        if self.front_end is None:
            raise ValueError("the model has no front end: give it log-mels, shape (batch, frames, mels)")
        return self.front_end(clips)

    def freeze(self, *parts: str) -> None:
        """Stop training these parts, by the name of a module: no gradients, and eval mode always.

        Parameters of the network and learned widths of priors are held here; a guide's by :meth:`MeanField.freeze`.

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
        """Stop training every weight that has no prior, and stay in eval mode; learned widths of priors go on."""
        self.net.requires_grad_(False)
        self._frozen += tuple(name for name, _ in self.net.named_children())
        self.train(self.training)

    def train(self, mode: bool = True) -> "BayesianNet":
        """Switch between fitting and predicting; frozen parts stay in eval mode, dropouts follow ``dropout``."""
        super().train(mode)
        self.drop(self.dropout == "fit" and mode)
        for part in self._frozen:
            self.net.get_submodule(part).eval()
        if self.dropout == "always":
            # In frozen parts too: a posterior that is loaded knows nothing of them.
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
        """Switch the network's dropouts on or off, whatever the mode."""
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
        # Through the module, so that Pyro knows of the parameter.
        return stretched(self.start, attrgetter(self.site)(self.log_widths).exp())

    def moved(self, fn: Callable[[Tensor], Tensor]) -> "_LearnedPrior":
        """The same, moved with its model, which moves the parameter itself."""
        return _LearnedPrior(_moved(self.start, fn), self.log_widths, self.site)


def _moved(distribution: dist.TorchDistribution, fn: Callable[[Tensor], Tensor]) -> dist.TorchDistribution:
    """A copy of ``distribution`` with ``fn`` applied to each tensor that it holds."""
    moved = copy.copy(distribution)
    for key, value in vars(distribution).items():
        if isinstance(value, Tensor):
            moved.__dict__[key] = fn(value)
        elif isinstance(value, torch.distributions.Distribution):
            moved.__dict__[key] = _moved(value, fn)
    return moved
