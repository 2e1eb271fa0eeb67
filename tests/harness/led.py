"""Commands in processes that a launcher has started, in small portions, so that there is something to share.

The processes of a :class:`Launcher` are forks of one that has imported everything: imports take seconds.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

PORTIONS = {
    "bayes_panns.jobs.planning._TOGETHER": 2,
    "bayes_panns.predictions.clip_sets.CLIPS": 4,
    "bayes_panns.predictions.recordings.CLIPS": 4,
    "bayes_panns.predictions.embedding.CLIPS": 4,
}

_IMPORTED = ("bayes_panns.cli", "bayes_panns.jobs", "bayes_panns.report", "bayes_panns.report.labelling.page")


class Launcher:
    """Starts commands in two processes each, one launch at a time. A context manager."""

    def __enter__(self):
        self._pids = []
        self._folder = Path(tempfile.mkdtemp(prefix="launcher-"))
        self._server = subprocess.Popen(
            [sys.executable, "-W", "error", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        return self

    def __exit__(self, *_):
        self._clear()
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()
        for file in self._folder.iterdir():
            file.unlink()
        self._folder.rmdir()

    def _clear(self):
        """End what a test that failed has left."""
        if self._pids:
            for pid in self._pids:
                os.kill(pid, signal.SIGKILL)
            self.ended()

    def start(self, *commands, before=""):
        """Run commands one after the other; the numbers of the processes, by rank.

        Args:
            commands: Arguments of ``bayes-panns``.
            before: Python code to run in each process first.
        """
        from tests.harness.waiting import free_port

        self._clear()
        lines = [[str(each) for each in command] for command in commands]
        wanted = {"commands": lines, "before": before, "port": str(free_port()), "folder": str(self._folder)}
        self._server.stdin.write(json.dumps(wanted) + "\n")
        self._server.stdin.flush()
        self._pids = json.loads(self._server.stdout.readline())
        return self._pids

    def ended(self):
        """The exit code of each process, or minus the signal that ended it, and its output and messages."""
        codes = json.loads(self._server.stdout.readline())
        self._pids = []
        return [
            (code, *((self._folder / f"{rank}.{kind}").read_text() for kind in ("out", "err")))
            for rank, code in enumerate(codes)
        ]

    def run(self, *commands, before=""):
        """Run commands to their end: see :meth:`start` and :meth:`ended`."""
        self.start(*commands, before=before)
        return self.ended()


def _serve():
    import importlib

    for name in _IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        wanted = json.loads(line)
        pids = [_forked(wanted, rank) for rank in range(2)]
        print(json.dumps(pids), flush=True)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)


def _forked(wanted, rank):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with contextlib.suppress(SystemExit):
        try:
            for number, kind in ((1, "out"), (2, "err")):
                place = Path(wanted["folder"]) / f"{rank}.{kind}"
                os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": wanted["port"]}
            code = _run(wanted)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return 0


def _run(wanted):
    import importlib

    from bayes_panns import ranks
    from bayes_panns.cli import main

    # The next command needs the group again.
    ranks.leave = lambda: None
    for name, value in PORTIONS.items():
        module, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(module), attribute, value)
    exec(wanted["before"], {})
    for command in wanted["commands"]:
        try:
            main(command)
        except SystemExit as end:
            if end.code:
                return end.code
    return 0


if __name__ == "__main__":
    _serve()
