"""Work shared out among processes, each with a share of the threads.

A process is started anew (``spawn``), so that no lock or thread of this one is copied. When this process dies, even by
a kill, the others end at once.
"""

import multiprocessing
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import torch

from bayes_panns.core.errors import ProcessError
from bayes_panns.core.processes import signals_held, subordinate
from bayes_panns.ranks.group import alone
from bayes_panns.ranks.interruption import LOOK
from bayes_panns.ranks.job import Start, sendable
from bayes_panns.ranks.links import use_own_gpu

_Work = TypeVar("_Work")
_Made = TypeVar("_Made")

_PATIENCE = 5.0
"""Seconds that a process has to end once it was told to."""


def by_processes(work: Iterator[_Work], start: Start[_Work, _Made], setup: Any, jobs: int) -> Iterator[_Made]:
    """What processes make of pieces of work, as it comes.

    Args:
        work: The pieces; each is done by one process.
        start: Called in each process with ``setup``; returns what makes something of a piece. A function of a module.
        setup: What it needs.
        jobs: How many processes, at least 1.

    Raises:
        ProcessError: A process was killed.
        BaseException: What was raised in a process.
    """
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    workers = list[_Worker[_Work]]()
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, start, setup, threads), daemon=True)
            with signals_held():
                process.start()
                # A signal that was held is raised as the block ends.
                workers.append(_Worker(process, ours))
            theirs.close()
        busy = {worker.connection: worker for worker in workers if worker.given(work)}
        while busy:
            for ready in wait(list(busy), LOOK):
                assert isinstance(ready, Connection)
                kind, made = busy[ready].receive()
                if kind == _ERROR:
                    raise made
                if kind == _MADE:
                    yield made
                elif not busy[ready].given(work):
                    del busy[ready]
    finally:
        for worker in workers:
            worker.end()


_MADE, _DONE, _ERROR = "made", "done", "error"


class _Worker(Generic[_Work]):
    """A process, as this one sees it."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self._process, self.connection = process, connection

    def given(self, work: Iterator[_Work]) -> bool:
        """Send the next piece, if there is one; returns whether there was."""
        for piece in work:
            with self._named():
                self.connection.send(piece)
            return True
        return False

    def receive(self):  # type: ignore[no-untyped-def]
        with self._named():
            return self.connection.recv()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """A block that speaks with the process.

        Raises:
            ProcessError: It is gone.
        """
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self._process.join(_PATIENCE)
            said = self._said()
            if said is not None:
                raise said from error
            raise ProcessError(
                f"a process was killed (exit code {self._process.exitcode}), perhaps for lack of memory; go on with "
                "--resume, and fewer --jobs"
            ) from error

    def _said(self) -> BaseException | None:
        """Why it has ended, if it could say so before it was given more."""
        with suppress(EOFError, OSError):
            while self.connection.poll():
                kind, made = self.connection.recv()
                if kind == _ERROR:
                    return made
        return None

    def end(self) -> None:
        """End the process, which ends itself when its connection is closed."""
        self.connection.close()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _work(
    connection: Connection,
    start: Start[_Work, _Made],
    setup: Any,
    threads: int,
) -> None:
    """The life of a process."""
    subordinate()
    torch.set_num_threads(threads)
    use_own_gpu()
    pieces = queue.SimpleQueue[_Work]()
    threading.Thread(target=_listen, args=(connection, pieces), daemon=True).start()
    try:
        with alone():
            make = start(setup)
            while True:
                for made in make(pieces.get()):
                    connection.send((_MADE, made))
                connection.send((_DONE, None))
    except BaseException as error:
        # Who has closed the connection wants to hear no more.
        with suppress(OSError):
            connection.send((_ERROR, sendable(error)))


def _listen(connection: Connection, pieces: "queue.SimpleQueue[_Work]") -> None:
    """Take pieces of work until the other end is closed, or its process has died; then end this process."""
    try:
        while True:
            pieces.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)
