import os
import signal
import subprocess
import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from bayes_panns import ranks
from bayes_panns.cli import main
from bayes_panns.cli.main import SHARED
from bayes_panns.clips import Task, write
from bayes_panns.svi import CHECKPOINT, Stop
from tests.harness.waiting import PATIENCE, free_port

SCRIPT = Path(__file__).with_name("fits.py")

spec = spec_from_file_location("fits_in_processes", SCRIPT)
fits = module_from_spec(spec)
spec.loader.exec_module(fits)

EXACT = 1e-10
"""The largest difference of a tensor in double precision, relative to its largest element or 1."""


def environment(rank, world, port):
    added = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return os.environ | {name: str(value) for name, value in added.items()} | {"OMP_NUM_THREADS": "1"}


def start(world, *command):
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)], env=environment(rank, world, port), stderr=subprocess.PIPE
        )
        for rank in range(world)
    ]


def finish(processes):
    said = [process.communicate(timeout=PATIENCE)[1].decode() for process in processes]
    return [process.returncode for process in processes], said


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of fits that so many processes make, once."""

    @cache
    def make(world, names):
        folder = tmp_path_factory.mktemp("several")
        command = [sys.executable, SCRIPT, folder, str(world), *names]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return folder

    return make


OFTEN = ("mixup", "gauss-newton-mixed", "bounds", "accumulate-natural", "local", "own-guide", "stopped")
"""The fits of the ordinary tests, in two processes: each way through a step."""

UNEVEN = ("local", "multi-label", "gauss-newton-mixed", "accumulate", "price")
"""Those of three processes, whose parts of a step have different sizes."""

SELDOM = tuple(name for name in fits.CASES if name not in OFTEN)


def difference(one, other):
    pairs = ((one[name].double(), other[name].double()) for name in one)
    return max(((a - b).abs().max() / a.abs().max().clamp(min=1)).item() for a, b in pairs)


@pytest.mark.parametrize(
    ("name", "world", "names"),
    [(name, 2, OFTEN) for name in OFTEN]
    + [pytest.param(name, 2, SELDOM, marks=pytest.mark.long) for name in SELDOM]
    + [pytest.param(name, 3, UNEVEN, marks=pytest.mark.long) for name in UNEVEN],
    ids=lambda value: "" if isinstance(value, tuple) else str(value),
)
def test_several_processes_fit_what_one_fits(name, world, names, tmp_path, made):
    folder = made(world, names)
    one = fits.make(tmp_path / name, **fits.CASES[name])
    start = {key: value.clone() for key, value in fits.state(one).items()}
    assert one.run()
    found = [torch.load(folder / f"{name}.{rank}.pt") for rank in range(world)]
    assert all(torch.equal(found[0][key], each[key]) for each in found for key in each)
    random = found[0].pop("random")
    assert torch.equal(random, torch.get_rng_state())
    assert difference(fits.state(one), found[0]) < EXACT
    assert difference(start, found[0]) > 1e-3
    lines = fits.lines(folder / name)
    assert len(lines) == 3
    for before, after in zip(fits.lines(tmp_path / name), lines, strict=True):
        assert after == pytest.approx(before, rel=1e-9)


def test_a_stop_cuts_a_validation_short_and_the_resumed_fit_makes_it_again(tmp_path):
    fits.stopped_and_resumed(tmp_path / "one")


def test_the_time_limit_cuts_a_validation_short_but_not_the_one_that_a_fit_goes_on_with(tmp_path):
    fit = fits.make(tmp_path, **fits.CASES["stopped"])
    fits.asks_in_validation(fit, 2, lambda: setattr(fit._limit, "end", 0.0))
    assert not fit.run()
    assert (fit.step, fit.stopped, fits.lines(tmp_path)) == (2, Stop.TIME, [])
    kept = (tmp_path / CHECKPOINT).read_bytes()
    fit = fits.make(tmp_path, **fits.CASES["stopped"])
    fit.load_checkpoint()
    fit._limit.end = 0.0
    assert not fit.run()
    assert [line["step"] for line in fits.lines(tmp_path)] == [2]
    assert fit.step == 3
    # A kill may have come before the next checkpoint was written.
    (tmp_path / CHECKPOINT).write_bytes(kept)
    fit = fits.make(tmp_path, **fits.CASES["stopped"])
    fit.load_checkpoint()
    assert (fit.step, fits.lines(tmp_path)) == (2, [])
    assert fit.run()
    assert [line["step"] for line in fits.lines(tmp_path)] == [2, 4, 6]


@pytest.mark.long
def test_a_fit_whose_process_was_killed_goes_on_to_the_same_bits(tmp_path):
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, "10"], capture_output=True, text=True, timeout=2 * PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("another process has ended") >= 3


def torchrun(*words, processes=2):
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "bayes_panns"]
    return subprocess.run(
        [sys.executable, *command, *map(str, words)], capture_output=True, text=True, timeout=2 * PATIENCE
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The words of a small fit, but for its folder."""
    folder = tmp_path_factory.mktemp("run")
    label = np.arange(12) % 2
    generator = np.random.default_rng(0)
    waveform = 0.1 * generator.normal(size=(12, 4000)) * (1 + label[:, None])
    write(folder / "noise.h5", waveform, np.eye(2, dtype=bool)[label], ("soft", "loud"), Task.ONE_OF_K, 8000)
    (folder / "run.toml").write_text(
        'net = "resnet14-narrow"\nguide = "flip"\n[data]\nvalidation = 0.25\n[fit]\nepochs = 2\nbatch_size = 5\n'
        'features = "disk"\nspec_augment = true\n'
    )
    return ["pretrain", folder / "run.toml", "--data", folder / "noise.h5", "--device", "cpu", "-o"]


@pytest.mark.long
def test_torchrun_makes_the_fit_of_one_process(run, tmp_path):
    done = torchrun(*run, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("posterior in ") == 1
    assert "Traceback" not in done.stderr
    CliRunner().invoke(main, [*map(str, run), str(tmp_path / "one")], catch_exceptions=False)
    one, two = (load_file(tmp_path / name / "posterior" / "guide.safetensors") for name in ("one", "two"))
    # Adam divides a gradient by its size, so that rounding shows where a gradient is nearly 0.
    apart = sum((one[name] - two[name]).double().square().sum() for name in one).sqrt()
    assert apart < 1e-3 * sum(value.double().square().sum() for value in one.values()).sqrt()
    for before, after in zip(fits.lines(tmp_path / "one"), fits.lines(tmp_path / "two"), strict=True):
        assert after == pytest.approx(before, rel=1e-3)
    assert not (tmp_path / "two" / "features.bin").exists()


def test_commands_that_take_several_processes_are_named():
    """The others refuse them."""
    led = {name for name, each in main.commands.items() if each.callback.__code__.co_filename.endswith("led.py")}
    assert set(SHARED) == led | {"pretrain", "finetune"}


def test_an_error_is_said_although_the_launcher_ends_the_process(monkeypatch, tmp_path):
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))

    def speaks(message, *, lost):
        os.kill(os.getpid(), signal.SIGTERM)
        return True

    monkeypatch.setattr(ranks, "speaks", speaks)
    result = CliRunner().invoke(main, ["pretrain", str(tmp_path / "none.toml"), "--data", str(tmp_path / "none.h5")])
    assert result.exit_code == 1
    assert "process 1: " in result.output
    assert "none.toml" in result.output


@pytest.mark.long
def test_an_error_of_all_processes_is_said_once(run, tmp_path):
    done = torchrun(*run, tmp_path / "two", "--set", "fit.batch_size=1")
    assert done.returncode == 1
    assert done.stderr.count("2 processes cannot share out 1 clips a step") == 1
    assert "Traceback (most recent call last)" not in done.stderr.partition("ChildFailedError")[0].partition("E1")[0]


@pytest.mark.parametrize("first", [True, False])
def test_a_command_for_one_process_is_refused_once(first, monkeypatch):
    for name, value in {"RANK": 1 - first, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(ranks, "speaks", lambda message, *, lost: first)
    result = CliRunner().invoke(main, ["inspect", str(SCRIPT)])
    assert result.exit_code == 2
    assert ("inspect is work for one process" in result.output) == first


@pytest.mark.long
@pytest.mark.parametrize(("where", "step"), fits.FAIL_AT.items())
def test_an_error_of_another_process_is_said_with_its_number(where, step, tmp_path):
    processes = start(2, SCRIPT, tmp_path, "fails", where)
    codes, said = finish(processes)
    assert 0 not in codes
    assert "the disk of process 1 is full" in said[1]
    assert f"step {step} (epoch {step / 3:.1f}): another process has ended" in said[0]
    fit = fits.make(tmp_path / "fails", **fits.FAILS)
    fit.load_checkpoint()
    assert fit.step == step
    assert fit.run()
    whole = fits.make(tmp_path / "whole", **fits.FAILS)
    assert whole.run()
    assert difference(fits.state(whole), fits.state(fit)) < EXACT
    for before, after in zip(fits.lines(tmp_path / "whole"), fits.lines(tmp_path / "fails"), strict=True):
        assert after == pytest.approx(before, rel=1e-9)
