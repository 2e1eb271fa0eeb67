"""The checkpoints of one fit: when they are written, what they hold, and where the fit goes on."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayes_panns.bayes import BayesianNet
from bayes_panns.core.errors import FitError, reason
from bayes_panns.core.files import same_file
from bayes_panns.ranks import group
from bayes_panns.svi.checkpoint import (
    BEST,
    CHECKPOINT,
    PREVIOUS,
    State,
    checkpoint_content,
    load_checkpoint,
    load_objective,
    read_checkpoint,
)
from bayes_panns.svi.checkpoint_writer import CheckpointWriter, load_last

logger = logging.getLogger(__name__)


class FitCheckpoints:
    """Writes and reads the checkpoints of a fit; of several processes the first one writes.

    Args:
        folder: Where they are.
        objective: Model and guide.
        optimizers: The optimisers, by the name that a checkpoint gives them.
        fixed: The names of tensors of ``objective`` to leave out.
        device: Where the fit computes.
        minutes: The longest time from one to the next.

    Attributes:
        writer: What writes them; the fit runs in its block.
    """

    def __init__(
        self,
        folder: Path,
        objective: nn.Module,
        optimizers: Mapping[str, torch.optim.Optimizer],
        *,
        fixed: frozenset[str],
        device: torch.device,
        minutes: float,
    ) -> None:
        self._folder, self._objective, self._optimizers = folder, objective, optimizers
        self._left_out, self._device = fixed, device
        self.writer = CheckpointWriter(folder, minutes)
        self._saved: tuple[int, bool] | None = None

    @property
    def last(self) -> Path:
        """Where the last one is, if there is one."""
        return self._folder / CHECKPOINT

    @property
    def exist(self) -> bool:
        """Whether there is one to resume from."""
        self.writer.settle()
        return any((self._folder / name).is_file() for name in (CHECKPOINT, PREVIOUS))

    def wanted(self, state: State) -> bool:
        """Whether to write one at the end of an epoch: the best and the last always, others if that takes little."""
        return state.is_best or state.step == state.steps or self.writer.worthwhile

    def save(self, state: State, *, wait: bool) -> None:
        """Write one in place of the last one, whole or not at all.

        Args:
            state: Where the fit is.
            wait: Whether to wait until it is written.

        Raises:
            OSError: This one, or the one before, could not be written.
        """
        if not group().first:
            return
        # A fit that ends where an epoch ended has one.
        now = state.step, state.unscored is None
        if self._saved != now:
            content = checkpoint_content(
                state, self._objective, self._optimizers, fixed=self._fixed(), device=self._device
            )
            self.writer.save(content, best=state.is_best)
            self._saved = now
        if wait:
            self.writer.wait()

    def load(self, state: State) -> State:
        """Read the last one into model, guide, optimisers and random states.

        If it is damaged or gone, the one before is read.

        Args:
            state: The state of the fit at its start.

        Returns:
            Where the fit was.

        Raises:
            FitError: There is none, it is damaged, or it belongs to another fit.
        """

        def load(path: Path) -> State:
            return load_checkpoint(
                path, state, self._objective, self._optimizers, fixed=self._fixed(), device=self._device
            )

        found = load_last(self._folder, load)
        if found.is_best and group().first:
            # A kill may have come before it had its second name.
            same_file(self.last, self._folder / BEST)
        return found

    @contextmanager
    def best(self, state: State) -> Iterator[State | None]:
        """Model and guide as they were at the end of the best epoch, in this block.

        Args:
            state: The state at the end of the fit.

        Yields:
            The state at the end of the best epoch. None, and the weights stay, if that is the end of the fit, there are
            no validation clips, or its checkpoint is lost, which is logged.
        """
        content = None if state.best is None or state.is_best else self._best_content(state)
        if content is None:
            yield None
            return
        last = {name: value.to("cpu", copy=True) for name, value in self._objective.state_dict().items()}
        load_objective(content, self._objective, self._fixed())
        try:
            yield replace(state, step=content["step"], metrics=content["metrics"])
        finally:
            self._objective.load_state_dict(last)

    def _fixed(self) -> dict[str, Tensor]:
        return {name: value for name, value in self._objective.state_dict().items() if name in self._left_out}

    def _best_content(self, state: State) -> dict[str, Any] | None:
        path = self._folder / BEST
        try:
            content = read_checkpoint(path)
            if state.best is None or content["step"] != state.best[0]:
                raise ValueError(f"it is of step {content['step']}")
        except (FitError, ValueError) as error:
            logger.warning(f"{path}: is not the checkpoint of the best epoch any more ({reason(error)})")
            return None
        return content


def backbone_names(objective: nn.Module, model: BayesianNet) -> frozenset[str]:
    """The names of the tensors of model and guide that are the network's before its last layer."""
    backbone, head = "model.net.", f"model.net.{model.head}."
    return frozenset(name for name in objective.state_dict() if name.startswith(backbone) and not name.startswith(head))
