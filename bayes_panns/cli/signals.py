"""What a command does on SIGTERM."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def sigterm_exits() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM end this block as an exception does, so that temporary files are removed; the exit code is 143.

    A fit has a handler of its own while it runs, and ends after the step under way.

    Yields:
        A function that says whether SIGTERM has arrived since it was last asked, whoever handled it.
    """
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield lambda: False
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        # A second one must not cut the cleaning up short.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + signum)

    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)

    def terminated() -> bool:
        try:
            return signal.SIGTERM in os.read(reader, 4096)
        except BlockingIOError:
            return False

    # Python writes the number of every signal there, before any handler runs.
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, previous)
        signal.set_wakeup_fd(earlier)
        os.close(reader)
        os.close(writer)
