"""The checkpoint of a fit: all that a resumed fit needs to go on as if it had never stopped."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayes_panns.core.archives import check_zip
from bayes_panns.core.errors import FitError
from bayes_panns.devices import random_state, set_random_state

CHECKPOINT, PREVIOUS, BEST = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.best.pt"
"""The last checkpoint, the one before it, and the one of the best epoch."""

_RNG = {"cpu": "rng", "cuda": "cuda_rng", "mps": "mps_rng"}
"""What a checkpoint calls the random states of :func:`~bayes_panns.devices.random_state`."""

_PART = re.compile(r"^guide\.\d+\.(guide\.)?")
"""Older checkpoints name parameters without the guide's part: ``guide.locs.net.fc1.weight_unconstrained``."""


@dataclass
class RunningMean:
    """The mean NLL since the last line of metrics.

    Attributes:
        nll: The sum over steps, in nats a clip.
        steps: How many steps.
        seconds: How long they took, before the present process.
        norms: The sum of the gradients' norms, where they are clipped.
    """

    nll: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    norms: float = 0.0

    def add(self, nll: float) -> None:
        """Count one more step."""
        self.nll += nll
        self.steps += 1

    @property
    def mean(self) -> float:
        """The mean over the steps."""
        return self.nll / self.steps


@dataclass
class State:
    """Where a fit is.

    Attributes:
        step: Steps done.
        steps: Steps in all.
        metrics: The last line of metrics.
        running: The mean since then.
        backbone: The digest of the backbone whose embeddings are fitted, if any.
        start: Where the widths started: mean and standard deviation of log s, by the name of the parameter. None in the
            checkpoints of older versions.
        mixup_by_step: Whether mixup follows from seed and step; older versions drew it from torch's random state.
        best: The step with the lowest ``val/nll`` at the end of an epoch so far, the first of equals, and its value;
            None without validation clips.
        limits: The bounds of the widths: see :class:`~bayes_panns.svi.ScaleBounds`. None where there are none, and in
            the checkpoints of older versions.
        unscored: The line of metrics of an epoch whose last step is done, while its validation is not; None otherwise.
    """

    steps: int
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    running: RunningMean = field(default_factory=RunningMean)
    backbone: str | None = None
    start: dict[str, tuple[float, float]] | None = None
    mixup_by_step: bool = True
    best: tuple[int, float] | None = None
    limits: Mapping[str, tuple[float, float]] | None = None
    unscored: dict[str, float] | None = None

    def end_epoch(self, scores: Mapping[str, float]) -> None:
        """Complete the line of metrics of the epoch that has ended, and note whether it is the best so far."""
        assert self.unscored is not None, "no epoch has ended"
        self.metrics = {**self.unscored, "seconds": round(self.running.seconds, 3), **scores}
        self.unscored, self.running = None, RunningMean()
        nll = self.metrics.get("val/nll", math.nan)
        if math.isfinite(nll) and (self.best is None or nll < self.best[1]):
            self.best = (self.step, nll)

    @property
    def is_best(self) -> bool:
        """Whether the fit is where the best epoch ended."""
        return self.best is not None and self.best[0] == self.step


class DamagedCheckpointError(FitError):
    """A checkpoint that cannot be read, or whose content does not fit."""


def checkpoint_content(
    state: State,
    objective: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    *,
    fixed: Mapping[str, Tensor],
    device: torch.device,
) -> dict[str, Any]:
    """What a checkpoint holds. Its tensors are the fit's own: the next step changes them.

    Args:
        state: Where the fit is.
        objective: Model and guide.
        optimizers: The optimisers by the name that the checkpoint gives them; each is over parameters of ``objective``.
        fixed: Tensors of ``objective`` to leave out, by name.
        device: The device whose random state is kept beside the CPU's.
    """
    content: dict[str, Any] = {
        "objective": {name: value for name, value in objective.state_dict().items() if name not in fixed},
        **{name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        "trained": {name: _trained(objective, optimizer) for name, optimizer in optimizers.items()},
        "step": state.step,
        "steps": state.steps,
        "metrics": state.metrics,
        "running": asdict(state.running),
        "mixup_by_step": state.mixup_by_step,
        **{_RNG[name]: kept for name, kept in random_state(device).items()},
    }
    if state.backbone is not None:
        content["backbone"] = state.backbone
    if state.start is not None:
        content["start"] = state.start
    if state.best is not None:
        content["best"] = state.best
    if state.limits is not None:
        content["limits"] = dict(state.limits)
    if state.unscored is not None:
        content["unscored"] = state.unscored
    return content


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The content of a checkpoint, with its tensors on a device.

    Raises:
        DamagedCheckpointError: It is damaged.
    """
    try:
        # PyTorch keeps a CRC of each tensor and does not look at it.
        check_zip(path)
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # A damaged file can fail in any way.
        raise _damaged(path, error) from error


def load_checkpoint(
    path: Path,
    state: State,
    objective: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    *,
    fixed: Mapping[str, Tensor],
    device: torch.device,
) -> State:
    """Read a checkpoint into model, guide, optimiser and torch's random states.

    Args:
        path: The file.
        state: The state of this fit at its start, which the checkpoint must fit.
        objective: As for :func:`checkpoint_content`, like the other arguments.
        optimizers: The same.
        fixed: The same.
        device: The same.

    Returns:
        Where the fit was.

    Raises:
        DamagedCheckpointError: The file is damaged.
        FitError: It is missing, or belongs to another fit.
    """
    if not path.is_file():
        raise FitError(f"{path.parent}: there is no checkpoint to resume from")
    content = read_checkpoint(path, device)
    try:
        # A fit may be continued to more epochs.
        if content["steps"] > state.steps:
            raise FitError(f"{path}: belongs to a fit of {content['steps']} steps; this fit has {state.steps}")
        if content.get("backbone") != state.backbone:
            raise FitError(
                f"{path}: belongs to a fit on the embeddings of another backbone; the upstream posterior has changed "
                "since: start again in another folder"
            )
        found = load_objective(content, objective, fixed)
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(_reordered(content, name, found, _trained(objective, optimizer)))
        running = RunningMean(**content.get("running", {}))
    except FitError:
        raise
    except Exception as error:  # What a damaged file holds can be anything.
        raise _damaged(path, error) from error
    set_random_state(device, {name: content[key] for name, key in _RNG.items() if key in content})
    return State(
        steps=state.steps,
        step=content["step"],
        metrics=content["metrics"],
        running=running,
        backbone=state.backbone,
        start=content.get("start"),
        mixup_by_step=content.get("mixup_by_step", False),
        best=content.get("best"),
        limits=content.get("limits"),
        unscored=content.get("unscored"),
    )


def load_objective(content: Mapping[str, Any], objective: nn.Module, fixed: Mapping[str, Tensor]) -> list[str]:
    """Read the tensors of model and guide from a checkpoint's content.

    Returns:
        Their names, in the checkpoint's order.
    """
    names = {_PART.sub("guide.", name): name for name in objective.state_dict()}
    found = {names.get(name, name): value for name, value in content["objective"].items()}
    objective.load_state_dict({**fixed, **found})
    return list(found)


def _damaged(path: Path, error: Exception) -> DamagedCheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DamagedCheckpointError(f"{path}: cannot be resumed from ({reason}); delete it to start again")


def _trained(objective: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The names of the parameters that an optimiser holds, in its order."""
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _reordered(content: dict[str, Any], optimizer: str, found: list[str], trained: list[str]) -> dict[str, Any]:
    """The optimiser's state, which torch keeps by number, in the order of this fit's parameters.

    Older checkpoints have Adam alone, and ``trained`` is a list; still older ones have the order of their own
    ``objective``.
    """
    before = content.get("trained") or [name for name in found if name in set(trained)]
    before = before[optimizer] if isinstance(before, dict) else before
    state, numbers = content[optimizer], {name: number for number, name in enumerate(before)}
    if set(before) != set(trained):
        raise ValueError("other parameters are trained")
    moved = {new: state["state"][numbers[name]] for new, name in enumerate(trained) if numbers[name] in state["state"]}
    return {**state, "state": moved}
