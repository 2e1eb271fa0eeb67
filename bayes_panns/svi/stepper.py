"""One gradient step of a fit: loss, gradients, optimisers."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bayes_panns.audio.augment import Mixup, SpecAugment
from bayes_panns.bayes import BayesianNet, Part
from bayes_panns.core.choices import Optimizer, WidthStart
from bayes_panns.core.errors import FitError
from bayes_panns.ranks import Group, Shard, group, sharded
from bayes_panns.svi.elbo import MeanFieldELBO
from bayes_panns.svi.natural_gradient import NaturalGradient, trained_weights
from bayes_panns.svi.settings import FitSettings


@dataclass(frozen=True)
class Batch:
    """What a process makes a step from.

    Attributes:
        clips: Features, waveforms or embeddings, on the device; behind the process's own the partners of mixup.
        target: Targets of its own clips, as the likelihood takes them; mixed already.
        part: Which clips of the step they are; by default all of them.
        spec_augment: What is applied to the normalised spectrograms first.
        mixup: How the step's clips are mixed, after that.
    """

    clips: Tensor
    target: Tensor
    part: Shard | None = None
    spec_augment: SpecAugment | None = None
    mixup: Mixup | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    def shard(self) -> Shard:
        """Which clips of the step they are."""
        return self.part or Shard(0, len(self), len(self))

    @property
    def augment(self) -> Callable[[Tensor], Tensor] | None:
        """The augmentation of normalised spectrograms ``(batch, 1, frames, mels)``."""
        steps: list[Callable[[Tensor], Tensor]] = [] if self.spec_augment is None else [self.spec_augment]
        if self.mixup is not None:
            steps.append(self.mixup.of(self.shard))
        return (lambda values: reduce(lambda before, each: each(before), steps, values)) if steps else None

    def between(self, start: int, stop: int) -> "Batch":
        """Its clips from ``start`` to before ``stop``, with the partners that they need."""
        ours = self.shard
        part = replace(ours, start=ours.start + start, stop=ours.start + stop, partners=())
        part = part if self.mixup is None else self.mixup.with_partners(part)
        place = {place: row for row, place in enumerate(ours.rows.tolist())}
        rows = torch.tensor([place[each] for each in part.rows.tolist()], device=self.clips.device)
        return replace(self, clips=self.clips[rows], target=self.target[start:stop], part=part)


class Stepper:
    """Makes the steps of a fit.

    In several processes each has a part of a step's clips. Gradients are averaged by
    :class:`torch.nn.parallel.DistributedDataParallel` around the objective, once :meth:`join` was called.

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
        self._module = DistributedDataParallel(
            self.objective,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=on_cpu and self._group.size > 2,
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
            batch: The clips; this process's.
            rate: The factor on the learning rates.
            kl_weight: The weight of the KL.

        Returns:
            The NLL in nats a clip, 0-d; of the clips of all processes.

        Raises:
            FloatingPointError: The loss is not finite; nothing has changed.
        """
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self._rates[name] * rate
            optimizer.zero_grad(set_to_none=True)
        part = batch.shard
        self._elbo.kl_weight = kl_weight
        self._elbo.nll_weight = float(self._group.size)
        with sharded(part):
            loss = self._module(batch.clips, batch.target, augment=batch.augment, embedded=self._embedded) / self._clips
            found, nll = self._of_all(loss.detach(), torch.as_tensor(self._elbo.nll) / self._clips)
            if not math.isfinite(found.item()):
                kl = "" if math.isnan(self.step_kl) else f", KL {self.step_kl} nats"
                raise FloatingPointError(f"the loss is {found.item()} (NLL {nll.item()} a clip{kl})")
            natural = self.natural
            loss.backward(retain_graph=natural is not None and natural.samples_labels)
            if natural is not None:
                sampled = self._sampled_gradients(natural.locs) if natural.samples_labels else None
                natural.step(part.total, sampled)
        if "optimizer" in self.optimizers:
            self.optimizers["optimizer"].step()
        return nll

    def _of_all(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The means of numbers over the processes, which thus agree on them."""
        if self._group.size == 1:
            return values
        return tuple((self._group.total(torch.stack(values)) / self._group.size).unbind())

    def _sampled_gradients(self, parameters: list[Tensor]) -> tuple[Tensor | None, ...]:
        """Gradients of the NLL a clip at labels drawn from the model, which are never used for a step."""
        found = torch.autograd.grad(self._elbo.sampled_nll() / self._clips, parameters, allow_unused=True)
        if self._group.size == 1:
            return found
        # DistributedDataParallel averages what a backward pass leaves, and nothing else.
        used = [grad for grad in found if grad is not None]
        mean = self._group.total(torch.cat([grad.reshape(-1) for grad in used])).div_(self._group.size)
        means = iter(mean.split([grad.numel() for grad in used]))
        return tuple(None if grad is None else next(means).view(grad.shape) for grad in found)
