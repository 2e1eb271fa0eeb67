"""Fits of two processes of which one is killed at a random moment: ``python kills.py FOLDER TIMES``.

The processes are forks of this one, which has imported all that they need and computed nothing.
"""

import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch
from fits import end, ended, forks, lines, make, state

from bayes_panns.core.errors import LostProcessError
from bayes_panns.ranks import group, leave

OPTIONS = {"estimator": "flipout", "mixup": True, "epochs": 6, "dropout": "fit", "clip_gradient": 1.0}

LOST = 17
"""The exit code of a process that says that another one has ended."""


def process(folder, rank):
    """Fit, or go on with the fit, as one of two processes."""
    try:
        fit = make(folder, **OPTIONS)
        if fit.checkpointed:
            fit.load_checkpoint()
        group().wait()
        fit.run()
        leave()
        torch.save(state(fit) | {"random": torch.get_rng_state()}, folder / f"end.{rank}.pt")
    except LostProcessError as error:
        (folder / "said.txt").write_text(str(error))
        end(LOST)
    end()


def start(folder):
    return forks(2, partial(process, folder))


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def epoch_begins(folder, number):
    """When so many epochs are done: waits for that."""
    file = folder / "metrics.jsonl"
    while not file.exists() or file.read_bytes().count(b"\n") < number:
        time.sleep(0.01)
    return time.monotonic()


def main(folder, times):
    assert ended(start(folder / "whole")) == [0, 0]
    whole = torch.load(folder / "whole" / "end.0.pt")
    draws = random.Random(0)
    for number in range(times):
        run, said = folder / f"run-{number}", []
        children = start(run)
        # Until both have begun, there is nothing to lose.
        first = epoch_begins(run, 1)
        epochs = draws.randrange(1, OPTIONS["epochs"] - 1)
        time.sleep(draws.uniform(0, 1) * (epoch_begins(run, epochs) - first) / epochs)
        victim = draws.randrange(2)
        os.kill(children[victim], signal.SIGKILL)
        codes = ended(children)
        # One that came to its end first has ended well.
        if codes != [0, 0]:
            assert codes[victim] == -signal.SIGKILL
            assert codes[1 - victim] in (0, LOST), codes
            if codes[1 - victim] == LOST:
                said = (run / "said.txt").read_text()
                assert said.startswith("step ")
                assert "another process has ended" in said
                assert "\n" not in said
            assert ended(start(run)) == [0, 0]
        for rank in range(2):
            assert same(whole, torch.load(run / f"end.{rank}.pt")), (number, said)
        assert lines(run) == lines(folder / "whole")
        print(victim, said or "was done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
