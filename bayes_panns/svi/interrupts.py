"""What ends a fit before its last epoch: signals and the limit of its time."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from types import FrameType

from bayes_panns.core.launch import launch

_TOGETHER = 0.5
"""Seconds within which a second Ctrl-C may be the first: a launcher passes on what its processes got themselves."""


class Stop(Enum):
    """Why a fit ended before its last epoch, with a checkpoint; the one that comes first here counts."""

    INTERRUPTED = "Ctrl-C"
    TERMINATED = "SIGTERM"
    REQUESTED = "SIGUSR1 or SIGUSR2"
    TIME = "the time limit"

    @classmethod
    def first_of(cls, flags: Sequence[bool]) -> "Stop | None":
        """The first whose flag is set, in the order of the members; None if there is none."""
        return next((reason for reason, asked in zip(cls, flags, strict=True) if asked), None)


_OF_SIGNAL = {
    getattr(signal, name): reason
    for name, reason in {
        "SIGINT": Stop.INTERRUPTED,
        "SIGTERM": Stop.TERMINATED,
        "SIGUSR1": Stop.REQUESTED,
        "SIGUSR2": Stop.REQUESTED,
    }.items()
    if hasattr(signal, name)
}
"""Windows lacks two of them."""

_last: list[Stop | None] = [None]


def last_stop() -> Stop | None:
    """What ended the last fit of this process early; None if nothing did."""
    return _last[0]


def note_stop(reason: Stop | None) -> None:
    """Keep what ended a fit, for :func:`last_stop`."""
    _last[0] = reason


class Interrupts:
    """What a fit was asked by signals, in this process."""

    def __init__(self) -> None:
        self._asked: set[Stop] = set()
        self._first = 0.0

    def ask(self, reason: Stop) -> None:
        """Ask the fit to end after the step under way.

        Raises:
            KeyboardInterrupt: It is Ctrl-C, and the fit was asked before.
        """
        now = time.monotonic()
        self._first = self._first if self._asked else now
        together = launch().world > 1 and now - self._first < _TOGETHER
        # Schedulers send SIGTERM after SIGUSR1, or twice, while the checkpoint is written.
        if reason is Stop.INTERRUPTED and self._asked and not together:
            raise KeyboardInterrupt
        self._asked.add(reason)

    def flags(self, *, out_of_time: bool = False) -> tuple[bool, ...]:
        """Whether each :class:`Stop` was asked for, in the order of its members.

        Args:
            out_of_time: Whether the time limit has come.
        """
        return tuple(reason in self._asked or (reason is Stop.TIME and out_of_time) for reason in Stop)


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Turn Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 into flags, so that no step is cut in half.

    A second Ctrl-C interrupts at once. Outside the main thread signals stay as they are, and no flag is set.
    """
    interrupts = Interrupts()

    def ask(signum: int, frame: FrameType | None) -> None:
        interrupts.ask(_OF_SIGNAL[signum])

    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    previous = {number: signal.signal(number, ask) for number in _OF_SIGNAL}
    try:
        yield interrupts
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
