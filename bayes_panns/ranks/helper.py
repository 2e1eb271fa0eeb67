"""A process that is not the first one: it does what that one gives it."""

import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bayes_panns.ranks.group import alone
from bayes_panns.ranks.interruption import Interruption, taken
from bayes_panns.ranks.job import ASK, DONE, END, ERROR, MADE, PIECE, SAID, Job, sendable
from bayes_panns.ranks.links import Link
from bayes_panns.ranks.processes import by_processes

ROOM = 20.0
"""Seconds that a process has to end what it does once another one has failed; a launcher kills it after 30."""

_LAST_WORD = 3.0
"""Seconds that the first process has to say why it failed: a launcher ends it as soon as another one has ended."""


class Helper:
    """A process that is not the first one.

    Args:
        link: The connection to the first one.
    """

    def __init__(self, link: Link) -> None:
        self._link, self._messages = link, queue.SimpleQueue[tuple[str, Any]]()
        self._over, self._ended = threading.Event(), False
        self._interruption = Interruption()
        threading.Thread(target=self._listen, daemon=True).start()

    def work(self) -> None:
        """Do what the first process gives, until it ends.

        Raises:
            SystemExit: The job has failed.
        """
        try:
            while True:
                kind, content = self._heard()
                if kind == END:
                    return
                with self._interruption.block():
                    self._do(content)
                self._link.send(DONE)
        except BaseException as error:
            if not self._ended:
                with suppress(OSError):
                    self._link.send(ERROR, sendable(error))
                self._over.wait(ROOM)
            if self._ended:
                # What it was doing is not wanted any more.
                return
            # Were this process the first to end, the launcher would end the others, which have something to say.
            time.sleep(_LAST_WORD)
            raise SystemExit(1) from None

    def _do(self, job: Job) -> None:
        if job.jobs > 1:
            for made in by_processes(self._pieces(), job.start, job.setup, job.jobs):
                self._link.send(MADE, made)
            return
        make = job.start(job.setup)
        # What there is to warn of before the first piece, the first process has said.
        with _forwarded(self._link), alone():
            for piece in self._pieces():
                for made in make(piece):
                    self._link.send(MADE, made)

    def _pieces(self) -> Iterator[Any]:
        while True:
            self._link.send(ASK)
            kind, piece = self._heard()
            if kind == END:
                raise KeyboardInterrupt
            if kind != PIECE:
                return
            yield piece

    def _heard(self) -> tuple[str, Any]:
        """The next message of the first process.

        Raises:
            BaseException: It could not be read.
        """
        kind, content = taken(self._messages)
        if kind == ERROR:
            raise content
        return kind, content

    def _listen(self) -> None:
        """Take messages until the end, which ends what this process does; whether the first one has failed or not."""
        try:
            kind = ""
            while kind != END:
                try:
                    kind, content = self._link.receive()
                except (EOFError, OSError):
                    raise
                except Exception as error:  # Such as too little memory on a GPU for what has come.
                    kind, content = ERROR, error
                self._ended = kind == END
                self._messages.put((kind, content))
            self._over.set()
            self._interruption.ask()
        except (EOFError, OSError):
            self._over.set()
            self._interruption.ask()
            # Who waits for a message, or is about to, would not notice a signal for certain.
            self._messages.put((ERROR, KeyboardInterrupt()))
            time.sleep(ROOM)
            os._exit(1)


class _Forwarding(logging.Handler):
    """Sends messages to the first process."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._link.send(SAID, (record.name, record.levelno, record.getMessage()))


@contextmanager
def _forwarded(link: Link) -> Iterator[None]:
    """A block whose messages the first process says."""
    package, handler = logging.getLogger("bayes_panns"), _Forwarding(link)
    level, others = package.level, package.handlers[:]
    package.handlers[:] = [handler]
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.handlers[:] = others
        package.setLevel(level)
