"""The commands, each in a process of its own that is forked from one that has imported everything.

A process of its own takes seconds to import torch; a forked one starts in milliseconds. The server is this file, run as
a program. It answers one request at a time; for two commands at once start two servers.
"""

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]

_IMPORTED = (
    "bayes_panns.cli",
    "bayes_panns.clips.catalogs",
    "bayes_panns.evaluations",
    "bayes_panns.interop",
    "bayes_panns.jobs",
    "bayes_panns.predictions",
    "bayes_panns.report",
    "bayes_panns.report.page",
    "matplotlib.backends.backend_agg",
    # An optimiser imports it at the first step.
    "torch._dynamo",
    "arviz",
    "h5netcdf",
    "pyarrow.parquet",
    # Each first step of an optimiser imports it, in more than a second.
    "torch._dynamo",
)


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Attributes:
        returncode: As subprocess has it: the exit code, or minus the number of the signal that ended it.
        stdout: What it printed.
        stderr: The same, of its messages.
        seconds: How long it took.
        peak_bytes: The most memory that it had resident; about 0.5 GB of it are the imports.
        timed_out: Whether it was killed because it took longer than its timeout.
    """

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int
    timed_out: bool = False

    @property
    def traceback(self) -> bool:
        """Whether it ended in an error that is no message for a user."""
        return "Traceback (most recent call last)" in self.stderr


class ForkServer:
    """A process that runs the commands of ``bayes-panns``, each in a fork of its own. A context manager.

    Args:
        environment: Variables of the server, and so of every command, beside those of this process.
        program: Words before the server's own, such as ``("setpriv", "--reuid=65534")``.

    Example:
        >>> with ForkServer() as server:  # doctest: +SKIP
        ...     server.run(["inspect", "clips.h5"], cwd=folder).returncode
        0
    """

    def __init__(self, environment: Mapping[str, str] | None = None, program: Sequence[str] = ()) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        self._folder = tempfile.TemporaryDirectory(prefix="fork-server-")
        # Commands may run as another user.
        Path(self._folder.name).chmod(0o777)
        self._server = subprocess.Popen(
            [*program, sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **own, **(environment or {})},
            cwd=self._folder.name,
        )
        self._answer(300)  # It is ready.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server."""
        # It holds nothing, and would take seconds to take its modules down.
        self._server.kill()
        self._server.wait()
        self._server.stdin.close()
        self._server.stdout.close()
        self._folder.cleanup()

    def run(
        self,
        args: Sequence[object],
        *,
        cwd: Path | str,
        timeout: float = 300,
        memory: int | None = None,
        file_size: int | None = None,
        env: Mapping[str, str] | None = None,
        before: str = "",
        stdin: Path | None = None,
        signals: Sequence[tuple[float | Callable[[], bool], int]] = (),
    ) -> Result:
        """Run a command to its end.

        Args:
            args: Its arguments, without ``bayes-panns``.
            cwd: The folder to run it in.
            timeout: Seconds after which it is killed.
            memory: Bytes of address space that it may take beyond what is imported.
            file_size: The largest file that it may write, in bytes; what goes beyond fails as on a full disk.
            env: Environment variables to set.
            before: Python code to run in the process before the command.
            stdin: A file that is its standard input; by default it has none.
            signals: Seconds from its start, or what becomes true, in order, and the signal that it is then sent.
        """
        out, err = (Path(self._folder.name) / name for name in ("out", "err"))
        for path in (out, err):
            path.unlink(missing_ok=True)
        request = {
            "args": [os.fsdecode(os.fspath(each)) if isinstance(each, os.PathLike) else str(each) for each in args],
            "cwd": str(cwd),
            "env": dict(env or {}),
            "before": before,
            "memory": memory,
            "file_size": file_size,
            "stdin": str(stdin or os.devnull),
            "out": str(out),
            "err": str(err),
        }
        started = time.monotonic()
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        pid = self._answer(300)["pid"]
        ended = None
        for after, number in signals:
            if callable(after):
                while ended is None and not after():
                    ended = self._answer(0.01, otherwise=None)
            else:
                ended = self._answer(max(0.0, started + after - time.monotonic()), otherwise=None)
            if ended is not None:
                break
            # It may end just now; its number is not given away before the server is asked again.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        ended = ended or self._answer(max(0.0, started + timeout - time.monotonic()), otherwise=None)
        timed_out = ended is None
        if timed_out:
            os.kill(pid, signal.SIGKILL)
            ended = self._answer(300)
        # What it may have started itself, such as a decoder.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        return Result(
            os.waitstatus_to_exitcode(ended["status"]),
            _said(out),
            _said(err),
            ended["seconds"],
            ended["peak_bytes"],
            timed_out,
        )

    def _answer(self, timeout: float, **otherwise: Any) -> Any:
        """The next answer of the server; after ``timeout`` seconds without one ``otherwise``, if that is given."""
        ready, _, _ = select.select([self._server.stdout], [], [], timeout)
        if not ready and otherwise:
            return otherwise["otherwise"]
        line = self._server.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"the fork server {'ended' if ready else 'does not answer'}")
        return json.loads(line)


def _said(path: Path) -> str:
    """What a command has written; nothing if a signal ended it before it had a place to write to."""
    return path.read_text(encoding="utf-8", errors="backslashreplace") if path.exists() else ""


def _serve() -> None:
    """Answer each request with the process, and again when that has ended."""
    import importlib

    with warnings.catch_warnings():
        # What a library says on its import, such as ArviZ of its next version.
        warnings.simplefilter("ignore")
        for name in _IMPORTED:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    answers = os.dup(1)
    # What is printed by mistake must not look like an answer.
    os.dup2(2, 1)
    _tell(answers, {"ready": True})
    while request := sys.stdin.buffer.readline():
        wanted = json.loads(request)
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(answers)
            _command(wanted)
        _tell(answers, {"pid": pid})
        _, status, used = os.wait4(pid, 0)
        seconds = time.monotonic() - started
        _tell(answers, {"status": status, "seconds": seconds, "peak_bytes": used.ru_maxrss * 1024})


def _command(wanted: dict[str, Any]) -> None:
    """Be the command: does not return."""
    code = 1
    try:
        os.setsid()
        # A core of this size takes seconds to write.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number, path, flags in (
            (0, wanted["stdin"], os.O_RDONLY),
            (1, wanted["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (2, wanted["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            os.dup2(os.open(path, flags, 0o666), number)
        os.chdir(wanted["cwd"])
        os.environ.update(wanted["env"])
        tempfile.tempdir = None
        if wanted["memory"] is not None:
            most = wanted["memory"] + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        if wanted["file_size"] is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (wanted["file_size"], wanted["file_size"]))
        exec(wanted["before"], {})
        code = _main(wanted["args"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _main(args: list[str]) -> int:
    """Run the command as a process of its own would; the exit code."""
    import atexit

    from bayes_panns.cli import main

    sys.argv = ["bayes-panns", *args]
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (lives as long as the process)
    try:
        main(args, prog_name="bayes-panns", standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        # The command has ended; a signal would only disturb how torch takes itself down.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        atexit._run_exitfuncs()
    return 0


def _tell(descriptor: int, answer: dict[str, Any]) -> None:
    os.write(descriptor, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _serve()
