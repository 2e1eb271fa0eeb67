"""How many processes may work at once, and how one that works for another one behaves."""

import logging
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def subordinate() -> None:
    """Make this process, which another one has started by ``multiprocessing``, live as long as that one.

    Ctrl-C and SIGTERM may reach all processes of a job: the first one decides what to do, and ends the others. When it
    dies, even by a kill, this process ends at once. What there is to warn of, the first one says.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.getLogger("bayes_panns").addHandler(logging.NullHandler())
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
