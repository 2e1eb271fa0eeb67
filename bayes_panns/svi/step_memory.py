"""How much memory a step of a fit needs: counted before it starts, instead of an error some minutes into it.

A step holds the parameters, their gradients and what the optimisers keep; of each weight what the backward pass needs,
such as its draw; and of each clip the activations that the backward pass needs, by far the most. The last two are
counted in two forward passes, of 2 and of 4 clips: what autograd keeps in them, each storage once. Their difference is
that of 2 clips. Not counted are the workspace of convolutions, what a GPU's driver takes, and what lives for the moment
of one layer only. On a CPU the count was 0.88 to 1.05 of the peak that was measured: Cnn10, MobileNetV2, ResNet-54 and
a narrow ResNet, in float32 and bfloat16. On a GPU it has not been measured.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from pyro.infer.elbo import ELBOModule
from torch import Tensor

from bayes_panns.bayes import BayesianNet
from bayes_panns.core.choices import Dropout, Precision
from bayes_panns.devices import forked
from bayes_panns.nets import Network
from bayes_panns.svi.elbo import MeanFieldELBO
from bayes_panns.svi.natural_gradient import NaturalGradient
from bayes_panns.svi.settings import FitSettings

logger = logging.getLogger(__name__)

_MARGIN = 1.1
"""How much more than it is counted to need a step may need."""


class Inputs(Protocol):
    """Clips by index, such as :class:`~bayes_panns.svi.Features`."""

    @property
    def embedded(self) -> bool:
        """Whether they are embeddings, for the last layer."""

    def batch(self, index: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the clips at ``index``."""


@dataclass(frozen=True)
class StepMemory:
    """What a step needs, in bytes.

    Attributes:
        weights: Parameters and buffers.
        optimizers: Gradients, and what the optimisers keep.
        draws: What the backward pass needs of the weights, whatever the number of clips.
        clip: What it needs of a clip.
        clips: How many clips go through at once.
    """

    weights: int
    optimizers: int
    draws: int
    clip: int
    clips: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.optimizers + self.draws + self.clips * self.clip

    def __str__(self) -> str:
        return (
            f"a step needs about {_gib(self.total)} GiB: weights {_gib(self.weights)}, their draws {_gib(self.draws)}, "
            f"gradients and optimiser {_gib(self.optimizers)}, activations of {self.clips} clips "
            f"{_gib(self.clips * self.clip)}"
        )


def step_memory(
    objective: ELBOModule,
    optimizers: Iterable[torch.optim.Optimizer],
    data: Inputs,
    *,
    clips: int,
    precision: Precision = Precision.FLOAT32,
    device: torch.device | str,
) -> StepMemory:
    """Count what a step needs. The random states stay as they are; model and guide are left in eval mode.

    Args:
        objective: Model and guide.
        optimizers: Those of their parameters.
        data: The clips of the fit.
        clips: How many go through at once.
        precision: What the network computes with.
        device: Where.
    """
    inputs, target = data.batch(torch.arange(1), device)
    model = cast(BayesianNet, objective.model)
    # BatchNorm must not move; it keeps as much as in training.
    objective.eval()
    model.drop(model.dropout != Dropout.OFF)
    with forked(device), model.computing_in(precision):
        two, four = (
            _kept(objective, inputs.repeat_interleave(count, 0), target.repeat_interleave(count, 0), data.embedded)
            for count in (2, 4)
        )
    model.drop(model.dropout == Dropout.ALWAYS)
    clip = max(0, four - two) // 2
    trained = [each.nbytes for each in objective.parameters() if each.requires_grad]
    kept = 0
    for optimizer in optimizers:
        # The momentum of natural gradients, and Adam's two moments.
        moments = 1 if isinstance(optimizer, NaturalGradient) else 2
        kept += moments * sum(each.nbytes for group in optimizer.param_groups for each in group["params"])
    weights = sum(each.nbytes for each in (*objective.parameters(), *objective.buffers()))
    return StepMemory(weights, sum(trained) + kept, max(0, two - 2 * clip), clip, clips)


def _kept(objective: ELBOModule, clips: Tensor, target: Tensor, embedded: bool) -> int:
    """The bytes that autograd keeps for a backward pass, without parameters and buffers."""
    own = {each.untyped_storage().data_ptr() for each in (*objective.parameters(), *objective.buffers())}
    found: dict[int, int] = {}

    def pack(values: Tensor) -> Tensor:
        storage = values.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        # Not itself: an output that its own graph holds would never be freed.
        return values.detach()

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda values: values):
        # What is kept lives as long as the loss, so that no two have the same address.
        loss = objective(clips, target, embedded=embedded)
    kept = sum(found.values())
    cast(MeanFieldELBO, objective.elbo).forget()
    del loss
    return kept


def state_memory(
    objective: ELBOModule,
    optimizers: Mapping[str, torch.optim.Optimizer],
    data: Inputs,
    settings: FitSettings,
    *,
    processes: int,
    device: torch.device,
) -> None:
    """Say what a step needs: on a GPU always, with a warning if it will not fit; on a CPU only that warning.

    Args:
        objective: Model and guide.
        optimizers: Those of their parameters.
        data: The clips of the fit.
        settings: Those of the fit.
        processes: Among how many a step's clips are shared out.
        device: Where it runs.
    """
    clips = -(-settings.batch_size // (processes * settings.accumulate))
    free = _free(device)
    if data.embedded or free is None:
        return
    weights = sum(each.nbytes for each in objective.parameters())
    if device.type == "cpu" and 6 * weights + clips * _most(objective, data, device) < free:
        return
    needed = step_memory(objective, optimizers.values(), data, clips=clips, precision=settings.precision, device=device)
    # The weights are there already.
    fits = _MARGIN * (needed.total - needed.weights) < free
    where = f"{_gib(free)} GiB are free on {device}"
    if device.type != "cpu":
        logger.info(f"{needed}; {where}")
    if not fits:
        half = "" if settings.precision == Precision.BF16 else ', fit.precision = "bf16"'
        parts = f"fit.accumulate = {min(2 * settings.accumulate, settings.batch_size)} (it is {settings.accumulate})"
        logger.warning(
            f"{needed}, and {where}: it may not fit; {parts}, a smaller fit.batch_size ({settings.batch_size}){half} "
            "need less"
        )


def _most(objective: ELBOModule, data: Inputs, device: torch.device) -> int:
    """More than a clip's activations are, without a pass: a network's widest maps, in each of its layers.

    0 for a network that does not say how large they are.
    """
    model = cast(BayesianNet, objective.model)
    if not isinstance(model.net, Network):
        return 0
    clips, _ = data.batch(torch.arange(1), device)
    frames = clips.shape[1]
    if clips.dim() == 2 and model.front_end is not None:
        frames = model.front_end.frames(frames)
    layers = sum(isinstance(each, torch.nn.Conv2d | torch.nn.Linear) for each in model.net.modules())
    try:
        return layers * model.net.activation_bytes(frames)
    except NotImplementedError:
        return 0


def _free(device: torch.device) -> int | None:
    """Bytes that are free on a device, with those that torch holds and does not use; None where that is not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    table = Path("/proc/meminfo")
    if device.type != "cpu" or not table.is_file():
        return None
    rows = (line.split() for line in table.read_text(encoding="utf-8").splitlines())
    return next((1024 * int(row[1]) for row in rows if row[0] == "MemAvailable:"), None)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"
