"""How many processes may work at once, and how one that works for another one behaves."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_STAY = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
]
"""The signals that are left to the first process."""


@contextmanager
def signals_held() -> Iterator[None]:
    """A block in which processes are started by ``multiprocessing`` that hear no signal until :func:`subordinate`.

    A terminal, a launcher and SLURM send signals to all processes of a job. One that has just been started would die of
    them, and the job with it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STAY)
    try:
        # It unblocks some signals once it runs; it must not hear them either.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STAY)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def subordinate() -> None:
    """Make this process, which another one has started by ``multiprocessing``, live as long as that one.

    Signals may reach all processes of a job: the first one decides what to do, and ends the others. When it dies, even
    by a kill, this process ends at once. What there is to warn of, the first one says.
    """
    for number in _STAY:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        # What came before is dropped.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STAY)
    logging.getLogger("bayes_panns").addHandler(logging.NullHandler())
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
