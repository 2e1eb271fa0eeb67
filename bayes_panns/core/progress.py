"""Progress of long work: one object that every long job reports to.

Nothing is shown by default, so that the package is silent in scripts and tests. The commands show bars on a terminal.
A script can do so too::

    with progress.shown():
        fit(recipe, "runs/mine")

Where no bars are shown, long work that asks for it is logged instead: a line every few minutes.

A job reports like this::

    with progress.task("packing", total=len(clips), unit="clip") as task:
        for clip in clips:
            ...
            task.advance()
"""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

logger = logging.getLogger(__name__)

LOGGED_EVERY = 300.0
"""Seconds between two lines on a piece of work in a log."""

_Item = TypeVar("_Item")

_bars: ContextVar["Progress | None"] = ContextVar("bars", default=None)


class ProgressTask:
    """A piece of work whose progress is reported; made by :func:`task`."""

    def __init__(self, bars: "Progress | None", number: "TaskID | None", log: "_Log | None" = None):
        self._bars, self._number, self._log = bars, number, log

    def advance(self, steps: float = 1) -> None:
        """Report that ``steps`` more are done."""
        if self._log is not None:
            self._log.advance(steps)
        if self._bars is not None and self._number is not None:
            self._bars.advance(self._number, steps)

    def show(self, text: str) -> None:
        """Show a few words beside the bar, such as the current loss."""
        if self._bars is not None and self._number is not None:
            self._bars.update(self._number, text=text)


class _Log:
    """Progress in a log: how much is done, how fast it was since the last line, and how long the rest takes so."""

    def __init__(self, description: str, total: float | None, unit: str, done: float) -> None:
        self._description, self._total, self._unit, self._done = description, total, unit, done
        self._then, self._before = time.monotonic(), done

    def advance(self, steps: float) -> None:
        self._done += steps
        passed = time.monotonic() - self._then
        if passed < LOGGED_EVERY:
            return
        rate = (self._done - self._before) / passed
        of, rest = "", ""
        if self._total is not None:
            of = f" of {self._total:,.0f}"
            rest = f", {in_words((self._total - self._done) / rate)} left" if rate else ""
        logger.info(f"{self._description}: {self._done:,.0f}{of} {self._unit}s, {rate:,.3g} a second{rest}")
        self._then, self._before = self._then + passed, self._done


def in_words(seconds: float) -> str:
    """A time in hours and minutes.

    Example:
        >>> in_words(40), in_words(100), in_words(7300)
        ('1 min', '2 min', '2 h 2 min')
    """
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def visible() -> bool:
    """Whether progress is shown."""
    return _bars.get() is not None


@contextmanager
def shown(visible: bool = True) -> Iterator[None]:
    """Show progress bars on standard error inside this block.

    Args:
        visible: ``False`` leaves things as they are, so that a condition can be passed.
    """
    if not visible or _bars.get() is not None:
        yield
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        # Results go to standard output, which may be a file, while bars are shown.
        redirect_stdout=False,
    )
    token = _bars.set(bars)
    try:
        yield
    finally:
        _bars.reset(token)


@contextmanager
def hidden(hide: bool = True) -> Iterator[None]:
    """Show no bars inside this block, such as while results are printed to the same terminal.

    Args:
        hide: ``False`` leaves things as they are, so that a condition can be passed.
    """
    token = _bars.set(None if hide else _bars.get())
    try:
        yield
    finally:
        _bars.reset(token)


@contextmanager
def task(
    description: str, *, total: float | None, unit: str, done: int = 0, logged: bool = False
) -> Iterator[ProgressTask]:
    """Report the progress of a piece of work.

    Args:
        description: What is done, as in "packing".
        total: How many steps there are; None if that is not known.
        unit: What a step is, in the singular.
        done: How many were done before.
        logged: Whether to log a line every few minutes where no bars are shown.
    """
    bars = _bars.get()
    if bars is None:
        yield ProgressTask(None, None, _Log(description, total, unit, done) if logged else None)
        return
    number = bars.add_task(description, total=total, completed=done, unit=unit, text="")
    # The terminal is left alone between tasks.
    bars.start()
    try:
        yield ProgressTask(bars, number)
    finally:
        bars.remove_task(number)
        if not bars.tasks:
            bars.stop()


def track(items: Iterable[_Item], description: str, *, total: int, unit: str) -> Iterator[_Item]:
    """The items one by one, each counted as done when the next is asked for."""
    with task(description, total=total, unit=unit) as running:
        for item in items:
            yield item
            running.advance()
