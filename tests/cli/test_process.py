"""The real command line, in a process of its own: signals, pipes and terminals."""

import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.clips import Task, write
from bayes_panns.core.files import locked
from tests.harness.waiting import PATIENCE, until

RATE = 8000
COMMAND = (sys.executable, "-c", "from bayes_panns.cli import main; main()")


def start(*arguments, program=COMMAND, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([*program, *map(str, arguments)], **options)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def leftovers(folder):
    return list(folder.rglob(".*"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A store of two tones, a sound file, and a short run."""
    folder = tmp_path_factory.mktemp("home")
    label, seconds = np.arange(12) % 2, np.arange(RATE // 2) / RATE
    waveform = 0.3 * np.sin(2 * np.pi * np.array([400, 1500])[label][:, None] * seconds)
    waveform += 0.01 * np.random.default_rng(0).normal(size=waveform.shape)
    target = np.eye(2, dtype=bool)[label]
    write(folder / "clips.h5", waveform, target, ("low", "high"), Task.ONE_OF_K, RATE, fold=np.arange(12) // 2 % 2)
    soundfile.write(folder / "low.wav", waveform[0], RATE)
    (folder / "quick.toml").write_text(
        "[data]\nvalidation = 0.2\n[fit]\nepochs = 1\nbatch_size = 8\nspec_augment = false\n"
    )
    run("pretrain", folder / "quick.toml", "--data", folder / "clips.h5", "-o", folder / "run")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_fit_leaves_a_posterior_that_is_usable(home, tmp_path, number, code):
    out = tmp_path / "run"
    arguments = ("pretrain", home / "quick.toml", "--data", home / "clips.h5", "-o", out, "--set", "fit.epochs=100000")
    process = start(*arguments)
    until(lambda: (out / "checkpoint.pt").is_file() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    # Meanwhile the folder is the fit's alone.
    assert "another fit is running there" in run(*arguments, "--resume", code=1).stderr
    process.send_signal(number)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, stderr
    assert f"interrupted; {out}/posterior can be used as it is" in stderr
    assert "Traceback" not in stderr
    assert leftovers(out) == []
    assert re.search(r"complete +False", run("inspect", out).stdout)
    assert run("predict", out, home / "low.wav", "--draws", 1).stdout


def test_a_terminated_command_leaves_nothing_half_written(tmp_path):
    program = (
        "import time\n"
        "from bayes_panns.cli.main import main\n"
        "from bayes_panns.core.files import whole_file\n"
        "from pathlib import Path\n"
        "@main.command()\n"
        "def write_slowly():\n"
        "    with whole_file(Path('out.txt')) as part:\n"
        "        part.write_text('half')\n"
        "        print('writing', flush=True)\n"
        f"        time.sleep({PATIENCE})\n"
        "main(['write-slowly'])\n"
    )
    process = start(program=(sys.executable, "-c", program), cwd=tmp_path)
    assert process.stdout.readline() == "writing\n", process.communicate()
    assert len(leftovers(tmp_path)) > 0
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr) == (143, "")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_read_enough_is_no_mistake(home):
    command = f"{sys.executable} -c 'from bayes_panns.cli import main; main()' inspect {home / 'run'}"
    result = subprocess.run(["bash", "-c", f"{command} | true"], capture_output=True, text=True, check=True)
    assert result.stderr == ""


def test_results_reach_a_file_when_progress_is_shown_on_a_terminal(tmp_path):
    """As in ``python script.py > results.txt`` typed into a terminal."""
    pty = pytest.importorskip("pty")
    terminal, stderr = pty.openpty()
    program = (
        "import click; from bayes_panns.core import progress\n"
        "with progress.shown(), progress.task('working', total=1, unit='step'):\n"
        "    print('printed')\n"
        "    click.echo('echoed')\n"
    )
    with (tmp_path / "results.txt").open("w") as file:
        process = start(program=(sys.executable, "-c", program), stdout=file, stderr=stderr)
    os.close(stderr)
    shown = b""
    while piece := _read(terminal):
        shown += piece
    os.close(terminal)
    assert process.wait(timeout=PATIENCE) == 0, shown
    assert (tmp_path / "results.txt").read_text().splitlines() == ["printed", "echoed"]
    assert b"working" in shown
    assert b"printed" not in shown


def _read(terminal):
    """What a terminal shows next; nothing when its last writer has closed it."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


WRITERS = {
    "calibrate": ("calibrate", "{run}", "--draws", 1, "--coverage", 0.5),
    "evaluate": ("evaluate", "{run}", "--data", "{home}/clips.h5", "--draws", 1, "-o", "{run}/evaluation"),
    "widths": ("widths", "{run}", "--data", "{home}/clips.h5", "-o", "{run}/posterior"),
    "check-start": ("check-start", "{run}"),
    "crossval": ("crossval", "{home}/quick.toml", "--data", "{home}/clips.h5", "-o", "{run}", "--resume"),
}


@pytest.mark.parametrize("command", WRITERS)
def test_what_writes_into_a_run_waits_for_its_fit(home, tmp_path, command):
    run_folder = shutil.copytree(home / "run", tmp_path / "run")
    arguments = [str(word).format(run=run_folder, home=home) for word in WRITERS[command]]
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    with locked(run_folder):
        assert "another fit is running there, or a command that writes there" in run(*arguments, code=1).stderr
    assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before


def test_what_scores_a_run_may_do_so_at_once(home, tmp_path):
    run_folder = shutil.copytree(home / "run", tmp_path / "run")
    with locked(run_folder, shared=True):
        run("evaluate", run_folder, "--data", home / "clips.h5", "--draws", 1, "-o", run_folder / "evaluation")
