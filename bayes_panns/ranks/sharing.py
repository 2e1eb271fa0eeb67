"""Work shared out among all processes that there are: those of a launcher, and those that each of them starts."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from bayes_panns.ranks.crew import Elsewhere, Pieces
from bayes_panns.ranks.group import alone
from bayes_panns.ranks.job import Job, Start
from bayes_panns.ranks.processes import by_processes

_Work = TypeVar("_Work")
_Made = TypeVar("_Made")

_AHEAD = 4
"""Results of each other process that wait for their turn, or for this process to take them."""


def shared_out(
    work: Iterable[_Work],
    start: Start[_Work, _Made],
    setup: Any,
    *,
    jobs: int = 1,
    own: Callable[[_Work], Iterable[_Made]] | None = None,
    ahead: int | None = None,
) -> Iterator[_Made]:
    """What is made of pieces of work, as it comes.

    Within :func:`~bayes_panns.ranks.led` all processes of the launcher do pieces, each the next one when it is done
    with one. Elsewhere, and for work within a piece, this process does all by itself.

    Args:
        work: The pieces; each is done by one process, as if it were the only one.
        start: Called in each process with ``setup``; returns what makes something of a piece. A function of a module.
        setup: What it needs. It is pickled, and so are the pieces and what is made of them.
        jobs: How many processes each process starts for it; with 1 it does its pieces itself.
        own: What this process makes of a piece, if it has that already.
        ahead: How many results of each other process may wait to be taken; by default any number.

    Raises:
        ProcessError: A process was killed.
        BaseException: What was raised in a process.
    """
    pieces = Pieces(work)
    elsewhere = Elsewhere[_Work, _Made](pieces, Job(start, setup, jobs), ahead)
    try:
        mine = by_processes(pieces, start, setup, jobs) if jobs > 1 else _made(pieces, own or start(setup))
        while True:
            with elsewhere.unless_failed():
                made = next(mine, None)
            if made is None:
                break
            yield made
            yield from elsewhere.arrived()
        yield from elsewhere.rest()
    finally:
        pieces.stop()


def in_order(work: Iterable[_Work], make: Callable[[_Work], _Made]) -> Iterator[_Made]:
    """What is made of each piece of work, in order: the first process reads the pieces, and all compute.

    Args:
        work: The pieces; a few for each process are in memory.
        make: Computes something of a piece; it is pickled, with all that it needs.
    """
    ready, turn = dict[int, _Made](), 0
    for number, made in shared_out(enumerate(work), _making, make, ahead=_AHEAD):
        ready[number] = made
        while turn in ready:
            yield ready.pop(turn)
            turn += 1


def _making(make: Callable[[_Work], _Made]) -> "_Making[_Work, _Made]":
    return _Making(make)


class _Making(Generic[_Work, _Made]):
    """Makes something of a piece, and keeps its number."""

    def __init__(self, make: Callable[[_Work], _Made]) -> None:
        self._make = make

    def __call__(self, numbered: tuple[int, _Work]) -> Iterator[tuple[int, _Made]]:
        number, piece = numbered
        yield number, self._make(piece)


def _made(pieces: Iterable[_Work], make: Callable[[_Work], Iterable[_Made]]) -> Iterator[_Made]:
    """What this process makes, each piece by itself."""
    for piece in pieces:
        with alone():
            found = iter(make(piece))
        while True:
            with alone():
                made = next(found, None)
            if made is None:
                break
            yield made
