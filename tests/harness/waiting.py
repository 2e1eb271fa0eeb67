"""Waiting for what other processes do, on machines of any speed and load."""

import random
import socket
import time

PATIENCE = 300
"""Seconds to wait for what must come: far more than it takes, even on a machine that is busy with other things."""


def until(there):
    """Wait until ``there()`` is true; returns what it gave.

    Raises:
        AssertionError: It never was.
    """
    ends = time.monotonic() + PATIENCE
    while not (found := there()):
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.05)
    return found


def until_page(page, condition):
    """Wait for a condition in JavaScript; a page's policy may let no script of a string wait for it.

    Raises:
        AssertionError: It never was true.
    """
    ends = time.monotonic() + PATIENCE
    while not page.evaluate(condition):
        assert time.monotonic() < ends, f"never: {condition}"
        page.wait_for_timeout(50)


def free_port():
    """A port for a group of processes to meet at.

    The system gives ports from 32768 on to whoever connects, so one of those may be taken before the group opens it.
    """
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as place:
            if place.connect_ex(("127.0.0.1", port)):
                return port
