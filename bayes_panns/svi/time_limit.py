"""When a fit ends itself, so that its last checkpoint is written before it is killed."""

import os
import time
from collections.abc import Callable

from bayes_panns.svi.settings import Running

_END = "SLURM_JOB_END_TIME"
"""Where SLURM says when the job ends, in seconds since 1970."""

_SPARE, _MARGIN = 10.0, 1.5
"""Seconds that a process needs to end, and what the times that were measured are multiplied by."""

_SPEED = 1e8
"""Bytes a second that a checkpoint is taken to be written with, before one was."""


class TimeLimit:
    """The limit of a fit's time: that of :class:`~bayes_panns.svi.Running`, and the end of a SLURM job.

    The fit ends before a step that might be one too many: what has to fit in are the longest step so far, the
    validation if an epoch ends with it, the checkpoint that may be under way, the last one, and the posterior.

    Args:
        running: How the fit runs.
        validation: How many batches of validation clips there are; each counts as a step before any is scored.
        size: Bytes of a checkpoint.
        clock: Seconds since 1970.

    Attributes:
        end: When the time is over, in seconds since 1970; None if it never is.
    """

    def __init__(
        self, running: Running, *, validation: int, size: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock, self._validation, self._written_in = clock, validation, size / _SPEED
        now = clock()
        ends = [] if running.time_limit is None else [running.started + running.time_limit]
        told = os.environ.get(_END, "")
        if told.isascii() and told.isdecimal():
            ends.append(float(told))
        self.end = min(ends, default=None)
        self._spare = 0.0 if self.end is None else min(_SPARE, 0.1 * max(0.0, self.end - now))
        self._longest: dict[bool, float] = {}
        self._asked: tuple[float, bool] | None = None
        self._steps = 0

    def reached(self, *, ends_epoch: bool, checkpoint: float | None) -> bool:
        """Whether to end before the next step; to be asked before each. The first step is always made.

        Args:
            ends_epoch: Whether an epoch ends with the step.
            checkpoint: Seconds that the last checkpoint took; None before there is one.
        """
        now = self._clock()
        if self._asked is not None:
            before, kind = self._asked
            # The first step may compile and allocate.
            last = self._longest.get(kind, 0.0) if self._steps > 2 else 0.0
            self._longest[kind] = max(last, now - before)
        self._asked, self._steps = (now, ends_epoch), self._steps + 1
        if self.end is None or not self._longest:
            return False
        step = self._longest.get(False, self._longest.get(True, 0.0))
        if ends_epoch:
            step = self._longest.get(True, step * (1 + self._validation))
        return self._is_over(now, step, checkpoint)

    def within_validation(self, checkpoint: float | None) -> Callable[[], bool]:
        """What tells whether to end before the next batch of a validation; to be asked before each.

        Args:
            checkpoint: As for :meth:`reached`.
        """
        before, longest = self._clock(), 0.0

        def reached() -> bool:
            nonlocal before, longest
            now = self._clock()
            longest, before = max(longest, now - before), now
            return self._is_over(now, longest, checkpoint)

        return reached

    def _is_over(self, now: float, work: float, checkpoint: float | None) -> bool:
        """Whether there is no time for some seconds of work, and to write down what there is."""
        need = work + 3 * (self._written_in if checkpoint is None else checkpoint)
        return self.end is not None and now + _MARGIN * need + self._spare >= self.end
