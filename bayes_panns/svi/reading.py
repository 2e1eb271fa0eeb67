"""Numbers of a fit's steps, read without waiting for the device that computes them.

A GPU works behind the process that tells it what to do. To read a number of the step that was just begun is to wait
until the GPU has done it, and then the GPU waits for the process. So the numbers are copied to the CPU when the GPU has
them, and read when they have arrived: a step or a few later. On other devices they are read at once.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BEHIND = 4
"""How many steps behind several processes read: a GPU that has not done a step by then has enough to do."""


class Arrival(Protocol):
    """When a copy has arrived, such as ``torch.cuda.Event``."""

    def query(self) -> bool:
        """Whether it has."""

    def synchronize(self) -> None:
        """Wait until it has."""


@dataclass(frozen=True)
class Reading:
    """What is read of a step.

    Attributes:
        step: The number of the step, from 0.
        loss: The loss, in nats a clip.
        nll: The NLL, in nats a clip.
        kl: The KL in the loss, in nats; NaN where the optimiser adds most of it.
    """

    step: int
    loss: float
    nll: float
    kl: float

    def __str__(self) -> str:
        kl = "" if math.isnan(self.kl) else f", KL {self.kl} nats"
        return f"the loss is {self.loss} (NLL {self.nll} a clip{kl})"


class NotFiniteError(FloatingPointError):
    """The loss of a step is not finite.

    Attributes:
        step: The number of the step, from 0.
    """

    def __init__(self, reading: Reading):
        super().__init__(str(reading))
        self.step = reading.step


class Readings:
    """The readings of steps that are still on their way.

    Args:
        behind: After how many more steps a reading that is copied is read: then all processes of a fit read it before
            the same step, and a loss that is not finite ends all of them there. 0 for as soon as it has arrived.

    Example:
        >>> readings = Readings()
        >>> readings.send(0, loss=torch.tensor(3.5), nll=torch.tensor(2.5), kl=10.0)
        >>> readings.arrived()
        [Reading(step=0, loss=3.5, nll=2.5, kl=10.0)]
    """

    def __init__(self, behind: int = 0) -> None:
        self._behind = behind
        self._sent: deque[tuple[int, Tensor, Arrival | None]] = deque()

    def send(self, step: int, *, loss: Tensor, nll: Tensor | float, kl: Tensor | float) -> None:
        """Begin to copy the numbers of a step; all 0-d, or numbers of Python."""
        values = [each if isinstance(each, Tensor) else loss.new_full((), each) for each in (loss, nll, kl)]
        self._sent.append((step, *copy_begun(torch.stack([each.detach() for each in values]))))

    def arrived(self, *, wait: bool = False) -> list[Reading]:
        """The readings that have arrived since the last call, in order.

        Args:
            wait: Whether to wait for those that are still on their way.

        Raises:
            NotFiniteError: A loss is not finite. What arrived before it is lost with it.
        """
        found = []
        while self._sent:
            step, values, arrival = self._sent[0]
            if arrival is not None:
                due = len(self._sent) > self._behind if self._behind else arrival.query()
                if not (due or wait):
                    break
                arrival.synchronize()
            self._sent.popleft()
            reading = Reading(step, *values.tolist())
            if not math.isfinite(reading.loss):
                raise NotFiniteError(reading)
            found.append(reading)
        return found


def copy_begun(values: Tensor) -> tuple[Tensor, Arrival | None]:
    """A copy on the CPU of a vector, and when it will be there: None if it is."""
    if values.device.type != "cuda":
        return values.cpu(), None
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(values.device))
    return copy, event
