"""Progress of long work: one object that every long job reports to.

Nothing is shown by default, so that the package is silent in scripts and tests. The commands show bars on a terminal.
A script can do so too::

    with progress.shown():
        fit(recipe, "runs/mine")

A job reports like this::

    with progress.task("packing", total=len(clips), unit="clip") as task:
        for clip in clips:
            ...
            task.advance()
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_Item = TypeVar("_Item")

_bars: ContextVar["Progress | None"] = ContextVar("bars", default=None)


class ProgressTask:
    """A piece of work whose progress is reported; made by :func:`task`."""

    def __init__(self, bars: "Progress | None", number: "TaskID | None"):
        self._bars, self._number = bars, number

    def advance(self, steps: float = 1) -> None:
        """Report that ``steps`` more are done."""
        if self._bars is not None and self._number is not None:
            self._bars.advance(self._number, steps)

    def show(self, text: str) -> None:
        """Show a few words beside the bar, such as the current loss."""
        if self._bars is not None and self._number is not None:
            self._bars.update(self._number, text=text)


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
def task(description: str, *, total: float | None, unit: str, done: int = 0) -> Iterator[ProgressTask]:
    """Report the progress of a piece of work.

    Args:
        description: What is done, as in "packing".
        total: How many steps there are; None if that is not known.
        unit: What a step is, in the singular.
        done: How many were done before.
    """
    bars = _bars.get()
    if bars is None:
        yield ProgressTask(None, None)
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
