"""Parts, one after the other, each within its time."""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import torch

from bayes_panns.core.errors import reason
from benchmarks.gpu.setting import Found, Setting, Skipped, room

logger = logging.getLogger(__name__)

GRACE = 1.5
"""A part is cut off when it has taken its time and half of that again."""

ON_CPU = 10
"""How much more time a part has on a CPU, where nothing is measured and others may be at work."""


@dataclass(frozen=True)
class Part:
    """One thing to check or to measure.

    Attributes:
        summary: What it does, for the table.
        seconds: How long it may take on a GPU.
        run: Yields what it finds; it is given when its time is over, on the clock of :func:`time.monotonic`.
        measures: Whether it is a measurement; the others are checks.
    """

    summary: str
    seconds: float
    run: Callable[[Setting, float], Iterator[Found]]
    measures: bool = False


@dataclass
class Outcome:
    """What came of a part.

    Attributes:
        rows: What it found.
        seconds: How long it took.
        reason: Why it is not complete; empty if it is.
        failed: Whether that is an error.
    """

    rows: list[Found] = field(default_factory=list)
    seconds: float = 0.0
    reason: str = ""
    failed: bool = False


class _TimeUp(BaseException):
    """The time of a part is over. Nothing in a part may catch it by accident."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_parts(
    parts: Mapping[str, Part], setting: Setting, seconds: float, keep: Callable[[Mapping[str, Outcome]], None]
) -> dict[str, Outcome]:
    """Run parts in order.

    One that fails, or takes too long, ends; the others go on. None begins when the time is over.

    Args:
        parts: By name.
        setting: What each is given.
        seconds: How long all may take.
        keep: Called with all outcomes so far after each row, and at the end of each part.
    """
    ends, outcomes = time.monotonic() + seconds, dict[str, Outcome]()
    for name, part in parts.items():
        outcome = outcomes[name] = Outcome()
        started = time.monotonic()
        left = ends - started
        if left < min(5.0, part.seconds):
            outcome.reason = "the time was over"
            keep(outcomes)
            continue
        logger.info(f"{name}: {part.summary}")
        own = min(part.seconds * (1 if setting.on_gpu else ON_CPU), left)
        torch.manual_seed(0)
        try:
            with room(), _limited(min(GRACE * own, left)):
                for row in part.run(setting, started + own):
                    outcome.rows.append(row)
                    outcome.seconds = time.monotonic() - started
                    keep(outcomes)
        except Skipped as error:
            outcome.reason = str(error)
        except _TimeUp:
            outcome.reason, outcome.failed = f"cut off after {time.monotonic() - started:.0f} s", True
        except Exception as error:  # Whatever a part does, the others go on.
            outcome.reason, outcome.failed = f"{type(error).__name__}: {reason(error)}", True
        outcome.seconds = time.monotonic() - started
        if outcome.reason:
            logger.warning(f"{name}: {outcome.reason}")
        keep(outcomes)
    return outcomes
