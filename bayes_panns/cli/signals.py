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

_PAUSE, _WATCH = 0.02, 1.0
"""Seconds until a signal that was lost is sent again: if Python says that it was, and otherwise."""


@contextmanager
def signals_exit() -> Iterator["Ending"]:
    """Let SIGTERM, SIGUSR1 and SIGUSR2 end this block as an exception does, so that temporary files are removed.

    Python drops an exception that is raised in ``__del__`` or in the callback of a weak reference, and goes on; code in
    C may drop it, or raise another one instead. These signals are then sent again, until the exception leaves the
    block. So is Ctrl-C, if Python reports that it was dropped.

    A fit has handlers of its own while it makes steps, and ends after the one under way.

    Yields:
        What the block was told.
    """
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    sys.unraisablehook = ending.report
    previous = {number: signal.signal(number, ending.stop) for number in _CODES}
    try:
        yield ending
    finally:
        ending.over = True
        for number, handler in previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = ending.previous


class _EndedError(SystemExit):
    """What a signal raises."""


class Ending:
    """What a block was told by signals.

    Attributes:
        over: Whether the block has ended.
        previous: What reports exceptions that Python drops, outside the block.
    """

    def __init__(self) -> None:
        self.over = False
        self.previous = sys.unraisablehook
        self._asked = 0
        self._main = threading.get_ident()

    @contextmanager
    def first(self) -> Iterator[None]:
        """A part of the block in which an error that comes after a signal counts as the signal."""
        try:
            yield
        except Exception as error:
            if self._asked:
                raise _EndedError(_CODES[self._asked]) from error
            raise

    def stop(self, number: int, frame: FrameType | None) -> None:
        """End the block: the handler of a signal."""
        if _cleaning_up():
            # Another one must not cut it short.
            return
        while frame is not None:
            if frame.f_code is Ending.report.__code__:
                # What is raised in a report is dropped without another one.
                self._send_after(_PAUSE, number)
                return
            frame = frame.f_back
        if not self._asked:
            self._asked = number
            self._send_after(_WATCH, number, again=True)
        raise _EndedError(_CODES[self._asked])

    def report(self, dropped: "sys.UnraisableHookArgs") -> None:
        """Report an exception that Python has dropped; if it was a signal's, send that again."""
        if issubclass(dropped.exc_type, _EndedError):
            self._send_after(_PAUSE, self._asked)
        elif issubclass(dropped.exc_type, KeyboardInterrupt):
            self._send_after(_PAUSE, signal.SIGINT)
        else:
            self.previous(dropped)

    def _send_after(self, seconds: float, number: int, again: bool = False) -> None:
        # Not threading.Thread: what the signal has interrupted may hold a lock of that module.
        _thread.start_new_thread(self._send, (seconds, number, again))

    def _send(self, seconds: float, number: int, again: bool) -> None:
        while True:
            time.sleep(seconds)
            if self.over:
                return
            if sys.platform == "win32":
                _thread.interrupt_main(number)
            else:
                # It wakes the main thread from what it may wait for.
                signal.pthread_kill(self._main, number)
            if not again:
                return


def _cleaning_up() -> bool:
    """Whether what a signal raised is on its way out of the block."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, _EndedError):
        error = error.__context__
    return error is not None
