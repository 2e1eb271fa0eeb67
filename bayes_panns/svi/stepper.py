"""One gradient step of a fit: loss, gradients, optimisers."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_panns.bayes import BayesianNet, Part
from bayes_panns.core.choices import Optimizer, WidthStart
from bayes_panns.core.errors import FitError
from bayes_panns.svi.elbo import MeanFieldELBO
from bayes_panns.svi.guards import GradientClip, ScaleBounds
from bayes_panns.svi.natural_gradient import NaturalGradient, trained_weights
from bayes_panns.svi.settings import FitSettings


@dataclass(frozen=True)
class Batch:
    """What a step is made from.

    Attributes:
        clips: Features, waveforms or embeddings, on the device.
        target: Their targets, as the likelihood takes them.
        augment: Applied to the normalised spectrograms.
    """

    clips: Tensor
    target: Tensor
    augment: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.clips)


class Stepper:
    """Makes the steps of a fit.

    Args:
        model: The model.
        guide: Its guide, built.
        settings: How.
        clips: The size of the data set.
        embedded: Whether batches are embeddings, for the last layer.

    Attributes:
        objective: Model and guide: what is fitted.
        optimizers: The optimisers, by the name that a checkpoint gives them.
        natural: The optimiser of the mean-field Normals, if natural gradients fit them.
        bounds: What holds the widths in bounds that Adam fits.
        clip: What shortens Adam's gradient, if something does.

    Raises:
        FitError: No parameter requires a gradient.
    """

    def __init__(self, model: BayesianNet, guide: Part, settings: FitSettings, *, clips: int, embedded: bool):
        self._model, self._guide, self._settings = model, guide, settings
        self._clips, self._embedded = clips, embedded
        self._elbo = MeanFieldELBO()
        self.objective = self._elbo(model, guide)
        natural_gradient = settings.optimizer == Optimizer.NATURAL_GRADIENT and trained_weights(guide)
        self.natural = self._natural_gradient() if natural_gradient else None
        self._elbo.without_kl = frozenset() if self.natural is None else self.natural.without_kl
        natural = set() if self.natural is None else self.natural.handles
        rest = [each for each in self.objective.parameters() if each.requires_grad and id(each) not in natural]
        if not rest and not natural:
            raise FitError("there is nothing to train: every part of the network is frozen")
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        if rest:
            self.optimizers["optimizer"] = torch.optim.Adam(rest, lr=settings.learning_rate, fused=True)
        if self.natural is not None:
            self.optimizers["natural_gradient"] = self.natural
        self.bounds = ScaleBounds(model, guide, settings.scale_bounds, others=natural)
        self.clip = None if settings.clip_gradient is None else GradientClip(rest, settings.clip_gradient)
        self._rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}

    def _natural_gradient(self) -> NaturalGradient:
        """The optimiser of the mean-field Normals."""
        return NaturalGradient(
            self._model,
            self._guide,
            clips=self._clips,
            kl_weight=self._settings.kl_weight,
            adds_kl=True,
            trusts_start=self._settings.start == WidthStart.FISHER,
            **self._settings.natural.model_dump(),
        )

    @property
    def rate(self) -> float:
        """The learning rate of the last step, of the first optimiser."""
        return next(iter(self.optimizers.values())).param_groups[0]["lr"]

    @property
    def kl_weight(self) -> float:
        """The weight of the KL in the last step."""
        return self._elbo.kl_weight

    @property
    def step_kl(self) -> float:
        """The KL in the loss of the last step, in nats; NaN where the optimiser adds most of it, or before a step."""
        return math.nan if self.natural is not None else float(self._elbo.kl)

    def kl(self) -> float:
        """The KL now, in nats."""
        return float(self._elbo.kl) + (0.0 if self.natural is None else self.natural.kl())

    def step(self, batch: Batch, *, rate: float, kl_weight: float) -> Tensor:
        """Make a step.

        Args:
            batch: The clips.
            rate: The factor on the learning rates.
            kl_weight: The weight of the KL.

        Returns:
            The NLL in nats a clip, 0-d.

        Raises:
            FloatingPointError: The loss, or the norm of the gradient that is to be clipped, is not finite; nothing has
                changed.
        """
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self._rates[name] * rate
            optimizer.zero_grad(set_to_none=True)
        self._elbo.kl_weight = kl_weight
        loss = self.objective(batch.clips, batch.target, augment=batch.augment, embedded=self._embedded) / self._clips
        nll = torch.as_tensor(self._elbo.nll) / self._clips
        if not math.isfinite(loss.item()):
            kl = "" if math.isnan(self.step_kl) else f", KL {self.step_kl} nats"
            raise FloatingPointError(f"the loss is {loss.item()} (NLL {nll.item()} a clip{kl})")
        natural = self.natural
        loss.backward(retain_graph=natural is not None and natural.samples_labels)
        if self.clip is not None:
            self.clip()
        if natural is not None:
            sampled = self._sampled_gradients(natural.locs) if natural.samples_labels else None
            natural.step(len(batch), sampled)
        if "optimizer" in self.optimizers:
            self.optimizers["optimizer"].step()
            self.bounds.apply()
        return nll

    def _sampled_gradients(self, parameters: list[Tensor]) -> tuple[Tensor | None, ...]:
        """Gradients of the NLL a clip at labels drawn from the model, which are never used for a step."""
        return torch.autograd.grad(self._elbo.sampled_nll() / self._clips, parameters, allow_unused=True)
