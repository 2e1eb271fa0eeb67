"""Commands one after another in this process: quick, for the short run. The long run has a process for each."""

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from tests.harness.fork_server import Result

_WAITING = 20
"""How much longer a command may wait than compute."""


class _Hang(BaseException):
    """A command takes too long."""


def _hang(number: int, frame: FrameType | None) -> None:
    raise _Hang


class Together:
    """Has the method ``run`` of a :class:`~tests.harness.fork_server.ForkServer`.

    A command that crashes takes this process with it, so the caller says before each which it is. The memory is the
    most that this process has had so far.
    """

    def __init__(self, folder: Path) -> None:
        self._out, self._err = folder / "out", folder / "err"
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, _hang)

    def run(
        self, args: Sequence[object], *, cwd: Path | str, timeout: float, memory: int, env: Mapping[str, str]
    ) -> Result:
        """Run a command to its end, or for ``timeout`` seconds of this process, however many others share its core."""
        from bayes_panns.cli import main

        resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
        os.chdir(cwd)
        os.environ.update(env)
        tempfile.tempdir = None
        kept = [os.dup(number) for number in (1, 2)]
        files = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in (self._out, self._err)]
        started, code, hung = time.monotonic(), 0, False
        for number, file in enumerate(files, 1):
            os.dup2(file, number)
        signal.setitimer(signal.ITIMER_PROF, timeout)
        signal.setitimer(signal.ITIMER_REAL, _WAITING * timeout)
        try:
            main([str(each) for each in args], prog_name="bayes-panns")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except _Hang:
            hung = True
        except Exception:
            traceback.print_exc()
            code = 1
        finally:
            for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
                signal.setitimer(timer, 0)
            sys.stdout.flush()
            sys.stderr.flush()
            for number, file in enumerate(kept, 1):
                os.dup2(file, number)
            for file in (*kept, *files):
                os.close(file)
        out, err = (path.read_text(encoding="utf-8", errors="backslashreplace") for path in (self._out, self._err))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Result(code, out, err, time.monotonic() - started, peak, hung)
