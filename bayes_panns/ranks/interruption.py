"""Interrupting the main thread from another one, as by Ctrl-C, in one block and nowhere else."""

import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

_Value = TypeVar("_Value")

LOOK = 1.0
"""Seconds for which the main thread waits without a look whether it was interrupted.

A signal that comes just before a thread begins to wait does not wake it.
"""


class Interruption:
    """Interrupts a block of the main thread, or lets it not begin."""

    def __init__(self) -> None:
        self._state, self._inside, self._asked = threading.Lock(), False, False

    def ask(self) -> None:
        """Interrupt the block that is under way, and those that are still to begin. Asked once, by any thread."""
        with self._state:
            self._asked = True
            if self._inside:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    @contextmanager
    def block(self) -> Iterator[None]:
        """A block that may be interrupted; in another thread than the main one only its beginning can be prevented.

        Raises:
            KeyboardInterrupt: It was.
        """
        with self._state:
            if self._asked:
                raise KeyboardInterrupt
            self._inside = threading.current_thread() is threading.main_thread()
        try:
            yield
        finally:
            with self._state:
                self._inside = False
            if self._asked:
                # A signal that was sent as the block ended arrives here, by this call, and not in what follows.
                signal.pthread_sigmask(signal.SIG_BLOCK, ())


def taken(messages: "queue.SimpleQueue[_Value]") -> _Value:
    """The next message, as soon as there is one; a signal interrupts the waiting."""
    while True:
        with suppress(queue.Empty):
            return messages.get(timeout=LOOK)
