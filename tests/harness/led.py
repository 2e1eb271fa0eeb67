"""Commands in a process that a launcher has started, in small portions, so that there is something to share.

A test starts it with a list of command lines as JSON; ``patched`` makes the same portions in the test's own process.
"""

import json
import os
import socket
import subprocess
import sys

PORTIONS = {
    "bayes_panns.jobs.planning._TOGETHER": 2,
    "bayes_panns.predictions.clip_sets.CLIPS": 4,
    "bayes_panns.predictions.recordings.CLIPS": 4,
    "bayes_panns.predictions.embedding.CLIPS": 4,
}


def started(commands, *, world=2, before="", **options):
    """The processes of a launch, by rank: each runs all commands, after the lines of Python in ``before``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    lines = json.dumps([[str(each) for each in command] for command in commands])
    line = [sys.executable, "-W", "error", __file__, lines, before]
    return [
        subprocess.Popen(line, env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, **options)
        for rank in range(world)
    ]


def ended(processes, timeout=120):
    """The exit code, output and messages of each process; none is left."""
    try:
        return [(each.returncode, *found) for each in processes for found in [each.communicate(timeout=timeout)]]
    finally:
        for each in processes:
            each.kill()


def _run():
    import importlib

    from bayes_panns.cli import main

    for name, value in PORTIONS.items():
        module, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(module), attribute, value)
    exec(sys.argv[2], {})
    for command in json.loads(sys.argv[1]):
        code = main(command, standalone_mode=False)
        if code:
            sys.exit(code)


if __name__ == "__main__":
    _run()
