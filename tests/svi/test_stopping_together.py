"""Two processes of one fit: a signal or a time limit that reaches one of them ends both, at the same step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bayes_panns.svi import Stop
from bayes_panns.svi.checkpoint import CHECKPOINT, read_checkpoint
from tests.harness.waiting import PATIENCE, free_port
from tests.svi.test_fit import store  # noqa: F401

pytestmark = pytest.mark.long

PROGRAM = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from bayes_panns.ranks import leave
from tests.svi.test_fit import job
store, place, rank = Path(sys.argv[1]), Path(sys.argv[2]), int(os.environ["RANK"])

def run(name, how="", resume=False):
    fit = job(store, place / name)
    if resume:
        fit.load_checkpoint()
    step = fit._step
    def disturbed(index):
        if rank == 1 and fit.step == 1 and how == "signal":
            os.kill(os.getpid(), signal.SIGUSR1)
        if rank == 1 and fit.step == 1 and how == "limit":
            fit._limit.end = 0.0
        return step(index)
    fit._step = disturbed
    print(fit.run(), fit.step, fit.stopped, flush=True)
    fit._group.wait()
    return fit

run("limit", "limit")
run("signal", "signal")
run("signal", resume=True)
whole = run("whole")
leave()
"""


def test_both_end_at_the_same_step_and_go_on_to_the_same_bits(store, tmp_path):  # noqa: F811
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(store), str(tmp_path)],
            cwd=Path(__file__).parents[2],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        expected = [f"False 2 {Stop.TIME}", f"False 2 {Stop.REQUESTED}", "True 6 None", "True 6 None"]
        assert out.splitlines() == expected
    assert read_checkpoint(tmp_path / "limit" / CHECKPOINT)["step"] == 2
    whole, parts = (read_checkpoint(tmp_path / name / CHECKPOINT) for name in ("whole", "signal"))
    assert whole["step"] == parts["step"] == 6
    assert all(torch.equal(value, parts["objective"][name]) for name, value in whole["objective"].items())
    assert torch.equal(whole["rng"], parts["rng"])
