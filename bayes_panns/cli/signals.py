"""What a command does when it is told to end."""

import _thread
import signal
import sys
import threading
import time
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

_PAUSE = 0.02
"""Seconds until a signal that was lost is sent again."""


@contextmanager
def signals_exit() -> Iterator[None]:
    """Let SIGTERM, SIGUSR1 and SIGUSR2 end this block as an exception does, so that temporary files are removed.

    Python drops an exception that is raised in ``__del__`` or in the callback of a weak reference, and goes on. These
    signals, and Ctrl-C, are sent again if that happens, until the exception leaves the block.

    A fit has handlers of its own while it makes steps, and ends after the one under way.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = _Ending()
    sys.unraisablehook = ending.report
    previous = {number: signal.signal(number, ending.stop) for number in _CODES}
    try:
        yield
    finally:
        ending.lost = False
        for number, handler in previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = ending.previous


class _EndedError(SystemExit):
    """What a signal raises."""


class _Ending:
    """What a block was told by signals.

    Attributes:
        lost: Whether Python has dropped what the last signal raised.
        previous: What reports other exceptions that are dropped.
    """

    def __init__(self) -> None:
        self.lost = False
        self.previous = sys.unraisablehook
        self._asked = 0
        self._main = threading.get_ident()

    def stop(self, number: int, frame: FrameType | None) -> None:
        """End the block: the handler of a signal."""
        if self._asked and not self.lost:
            # Another one must not cut the cleaning up short.
            return
        while frame is not None:
            if frame.f_code is _Ending.report.__code__:
                # What is raised in a report is dropped without another one.
                self._send_again(number)
                return
            frame = frame.f_back
        self._asked, self.lost = number, False
        raise _EndedError(_CODES[number])

    def report(self, dropped: "sys.UnraisableHookArgs") -> None:
        """Report an exception that Python has dropped; if it was a signal's, send that again."""
        if issubclass(dropped.exc_type, _EndedError):
            self._send_again(self._asked)
        elif issubclass(dropped.exc_type, KeyboardInterrupt):
            self._send_again(signal.SIGINT)
        else:
            self.previous(dropped)

    def _send_again(self, number: int) -> None:
        self.lost = True
        # Not threading.Thread: what the signal has interrupted may hold a lock of that module.
        _thread.start_new_thread(self._send, (number,))

    def _send(self, number: int) -> None:
        time.sleep(_PAUSE)
        if not self.lost:
            return
        if sys.platform == "win32":
            _thread.interrupt_main(number)
        else:
            # It wakes the main thread from what it may wait for.
            signal.pthread_kill(self._main, number)
