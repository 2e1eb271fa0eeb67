"""One gradient step of a fit: loss, gradients, optimisers."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bayes_panns.bayes import BayesianNet, Part
from bayes_panns.core.choices import Optimizer, WidthStart
from bayes_panns.core.errors import FitError
from bayes_panns.devices import random_state, set_random_state
from bayes_panns.ranks import Group, group, sharded
from bayes_panns.svi.batches import Batch
from bayes_panns.svi.elbo import MeanFieldELBO
from bayes_panns.svi.guards import GradientClip, ScaleBounds
from bayes_panns.svi.natural_gradient import NaturalGradient, trained_weights
from bayes_panns.svi.reading import BEHIND, Reading, Readings
from bayes_panns.svi.settings import FitSettings


class Stepper:
    """Makes the steps of a fit.

    In several processes each has a part of a step's clips. Gradients are averaged by
    :class:`torch.nn.parallel.DistributedDataParallel` around the objective, once :meth:`join` was called.

    With ``settings.accumulate`` a step is made in so many parts, one after the other. All have the same weights, since
    each starts from the same random state; what is drawn for each clip, a part draws for all clips of the step, and
    keeps its own. Their gradients are summed. So the parts are one step of all clips, within rounding, but for
    BatchNorm's statistics, which are of each part, and for dropouts' masks.

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
        self._group: Group = group()
        self._elbo = MeanFieldELBO()
        self.objective = self._elbo(model, guide)
        self._module: nn.Module = self.objective
        self._readings, self._arrived = Readings(BEHIND if self._group.size > 1 else 0), list[Reading]()
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
        self._kl_weight = self._elbo.kl_weight
        self.bounds = ScaleBounds(model, guide, settings.scale_bounds, others=natural)
        self.clip = None if settings.clip_gradient is None else GradientClip(rest, settings.clip_gradient)
        self._own_loss = torch.zeros(())
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

    def join(self) -> None:
        """Start as the first process does, and average gradients with the others from here on."""
        if self._group.size == 1:
            return
        on_cpu = next(self.objective.parameters()).device.type == "cpu"
        # DistributedDataParallel changes the order of its sums after the first step, unless it searches for unused
        # parameters. Of three numbers and more the order changes the last bit, also of a fit that was resumed.
        # A guide of the user's own may have parameters that a step does not use; all others use all in each step.
        self._module = DistributedDataParallel(
            self.objective,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=not self._guide.explicit or (on_cpu and self._group.size > 2),
        )

    def part(self) -> None:
        """Average gradients no more. What did so must not outlive the group: to destroy it may wait for ever."""
        self._module = self.objective

    @property
    def rate(self) -> float:
        """The learning rate of the last step, of the first optimiser."""
        return next(iter(self.optimizers.values())).param_groups[0]["lr"]

    @property
    def kl_weight(self) -> float:
        """The weight of the KL in the last step."""
        return self._kl_weight

    @property
    def finite_here(self) -> bool:
        """Whether the loss of this process's clips was finite in the last step."""
        return math.isfinite(self._own_loss.item())

    def kl(self) -> float:
        """The KL now, in nats."""
        return float(self._elbo.kl) + (0.0 if self.natural is None else self.natural.kl())

    def read(self, *, wait: bool = False) -> list[Reading]:
        """What is known by now of the steps made, and was not read before: on a GPU of one or a few steps ago.

        Args:
            wait: Whether to wait for all.

        Raises:
            NotFiniteError: The loss of a step is not finite.
        """
        self._arrived += self._readings.arrived(wait=wait)
        found, self._arrived = self._arrived, []
        return found

    def step(self, batch: Batch, *, rate: float, kl_weight: float, number: int = 0) -> None:
        """Make a step; :meth:`read` has its loss.

        Args:
            batch: The clips; this process's.
            rate: The factor on the learning rates.
            kl_weight: The weight of the KL.
            number: The number of the step, for its :class:`~bayes_panns.svi.reading.Reading`.

        Raises:
            NotFiniteError: The loss is not finite. On a CPU no weight has changed; on a GPU it is the loss of a step
                before, and those made since are lost with it.
            FloatingPointError: On a CPU: the norm of the gradient that is to be clipped is not finite. No weight has
                changed.
        """
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self._rates[name] * rate
            optimizer.zero_grad(set_to_none=True)
        parts = min(self._settings.accumulate, len(batch))
        self._kl_weight = kl_weight
        self._elbo.kl_weight, self._elbo.nll_weight = kl_weight / parts, float(self._group.size)
        loss, nll, sampled = self._backward(batch.parts(parts))
        self._own_loss = loss
        found = self._of_all(loss, nll)
        kl = math.nan if self.natural is not None else self._elbo.kl
        self._readings.send(number, loss=found[0], nll=found[1], kl=kl)
        self._arrived += self._readings.arrived()
        averaged = None if sampled is None else self._averaged(sampled)
        # From here on the step needs no other process.
        if self.clip is not None:
            self.clip()
        if self.natural is not None:
            self.natural.step(batch.shard.total, averaged)
        if "optimizer" in self.optimizers:
            self.optimizers["optimizer"].step()
            self.bounds.apply()

    def _backward(self, parts: list[Batch]) -> tuple[Tensor, Tensor, list[Tensor | None] | None]:
        """Sum up the gradients of a step's parts.

        Returns:
            Loss and NLL a clip, of this process's clips; with ``gauss-newton`` the gradients at labels drawn from the
            model.
        """
        device = parts[0].clips.device
        start = random_state(device) if len(parts) > 1 else None
        losses, nlls = [], []
        sampled: list[Tensor | None] | None = None
        for number, part in enumerate(parts):
            if start is not None:
                set_random_state(device, start)
            with (
                self._summed_up(last=number == len(parts) - 1),
                self._model.computing_in(self._settings.precision),
                sharded(part.shard),
            ):
                loss = self._module(part.clips, part.target, augment=part.augment, embedded=self._embedded)
                loss = loss / self._clips
                losses.append(loss.detach())
                nlls.append(self._elbo.nll / self._clips)
                natural = self.natural
                loss.backward(retain_graph=natural is not None and natural.samples_labels)
                if natural is not None and natural.samples_labels:
                    sampled = _added(sampled, self._sampled_gradients(natural.locs))
        return sum(losses[1:], losses[0]), torch.as_tensor(sum(nlls[1:], nlls[0])), sampled

    def _summed_up(self, *, last: bool) -> AbstractContextManager[None]:
        """The context of a part of a step: processes exchange gradients after the last one only."""
        return (
            nullcontext() if last or not isinstance(self._module, DistributedDataParallel) else self._module.no_sync()
        )

    def _of_all(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The means of numbers over the processes, which thus agree on them."""
        if self._group.size == 1:
            return values
        return tuple((self._group.total(torch.stack(values)) / self._group.size).unbind())

    def _sampled_gradients(self, parameters: list[Tensor]) -> tuple[Tensor | None, ...]:
        """Gradients of the NLL a clip at labels drawn from the model, which are never used for a step."""
        return torch.autograd.grad(self._elbo.sampled_nll() / self._clips, parameters, allow_unused=True)

    def _averaged(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        """Gradients averaged over the processes: DistributedDataParallel averages what a backward pass leaves."""
        if self._group.size == 1:
            return gradients
        used = [grad for grad in gradients if grad is not None]
        mean = self._group.total(torch.cat([grad.reshape(-1) for grad in used])).div_(self._group.size)
        means = iter(mean.split([grad.numel() for grad in used]))
        return [None if grad is None else next(means).view(grad.shape) for grad in gradients]


def _added(gradients: list[Tensor | None] | None, more: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    if gradients is None:
        return list(more)
    return [
        one if other is None else other if one is None else one + other
        for one, other in zip(gradients, more, strict=True)
    ]
