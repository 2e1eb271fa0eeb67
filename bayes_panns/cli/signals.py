"""What a command does when it is told to end."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143
"""The exit codes after Ctrl-C and SIGTERM, as shells have them: 128 plus the signal's number."""

AGAIN = 75
"""The exit code after SIGUSR1, SIGUSR2 and the time limit: EX_TEMPFAIL of sysexits.h, to be run again."""

_CODES: Mapping[int, int] = {
    getattr(signal, name): code
    for name, code in {"SIGTERM": TERMINATED, "SIGUSR1": AGAIN, "SIGUSR2": AGAIN}.items()
    if hasattr(signal, name)
}


@contextmanager
def signals_exit() -> Iterator[None]:
    """Let SIGTERM, SIGUSR1 and SIGUSR2 end this block as an exception does, so that temporary files are removed.

    A fit has handlers of its own while it makes steps, and ends after the one under way.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        # Another one must not cut the cleaning up short.
        for number in _CODES:
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(_CODES[signum])

    previous = {number: signal.signal(number, stop) for number in _CODES}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
