"""``--resume [auto]``, the limits of a fit on the command line, and the exit codes of what ends it."""

import itertools
import os
import shutil
import signal
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, strategies

from bayes_panns.cli import main
from bayes_panns.clips import Task, write
from bayes_panns.core.durations import seconds_of
from bayes_panns.svi import Fit

RATE = 8000


def parsed(command, *words):
    return main.commands[command].make_context(command, list(words), resilient_parsing=False).params


@pytest.mark.parametrize("command", ["pretrain", "finetune", "crossval"])
@pytest.mark.parametrize(
    ("words", "resume"),
    [((), False), (("--resume",), True), (("--resume", "auto"), "auto"), (("--resume=auto",), "auto")],
)
def test_resume_and_its_word_may_stand_anywhere(command, words, resume):
    parts = [("urbansound8k",), ("--seeds", "1") if command == "crossval" else ("--seed", "1"), words]
    for order in itertools.permutations(parts):
        found = parsed(command, *itertools.chain(*order))
        assert (found["run"], found["resume"]) == ("urbansound8k", resume), order
        assert found.get("seed", 1) == 1


def test_a_recipe_of_that_name_is_an_argument_where_it_must_be_one():
    assert parsed("pretrain", "--resume", "--", "auto")["run"] == "auto"
    assert parsed("pretrain", "--resume", "--", "auto")["resume"] is True
    assert parsed("pretrain", "auto", "--resume")["resume"] is True
    with pytest.raises(click.MissingParameter):
        parsed("pretrain", "--resume", "auto")
    with pytest.raises(click.BadParameter, match="'always': write --resume or --resume auto"):
        parsed("pretrain", "esc10", "--resume=always")


@given(strategies.integers(0, 99), strategies.integers(0, 23), strategies.integers(0, 59), strategies.integers(1, 59))
def test_a_length_of_time_is_read_as_slurm_writes_it(days, hours, minutes, seconds):
    total = ((days * 24 + hours) * 60 + minutes) * 60
    assert seconds_of(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == total + seconds
    assert seconds_of(f"{days * 24 + hours}:{minutes:02}:{seconds:02}") == total + seconds
    assert seconds_of(str(total + seconds)) == total + seconds
    assert seconds_of(f"{days + 1}-{hours}") == ((days + 1) * 24 + hours) * 3600


@pytest.mark.parametrize("text", ["", "0", "00:00", "1:2:3:4", "1h", "-5", "1.5", "١", "1:100", "9" * 400])
def test_what_is_no_time_is_told(text):
    with pytest.raises(ValueError, match=r"write HH:MM|is no time"):
        seconds_of(text)
    with pytest.raises(click.BadParameter, match=r"write HH:MM|is no time"):
        parsed("pretrain", "esc10", f"--time-limit={text}")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A store of two tones in two folds, and a quick recipe."""
    folder = tmp_path_factory.mktemp("home")
    label, seconds = np.arange(12) % 2, np.arange(RATE // 2) / RATE
    waveform = 0.3 * np.sin(2 * np.pi * np.array([400, 1500])[label][:, None] * seconds)
    write(folder / "clips.h5", waveform, np.eye(2, dtype=bool)[label], ("a", "b"), Task.ONE_OF_K, RATE, fold=label + 1)
    (folder / "quick.toml").write_text(
        "[data]\nvalidation = 0.2\n[fit]\nepochs = 1\nbatch_size = 4\nspec_augment = false\n"
    )
    return folder


def run(home, command, out, *words):
    words = (command, home / "quick.toml", "--data", home / "clips.h5", "-o", out, *words)
    return CliRunner().invoke(main, [str(word) for word in words])


def test_a_batch_script_starts_goes_on_and_ends_with_one_command(home, tmp_path):
    """A time limit that has passed, until it is lifted."""
    out = tmp_path / "run"
    first = run(home, "pretrain", out, "--resume", "auto", "--time-limit", "1")
    assert first.exit_code == 75, first.output
    assert "ended by the time limit" in first.output
    assert run(home, "pretrain", out).exit_code == 1
    then = run(home, "pretrain", out, "--resume", "auto")
    assert then.exit_code == 0, then.output
    assert "resuming at epoch" in then.output
    again = run(home, "pretrain", out, "--resume", "auto")
    assert again.exit_code == 0
    assert "the fit is complete" in again.output
    # A process that was killed before it wrote its recipe leaves this.
    killed = tmp_path / "killed"
    killed.mkdir()
    shutil.copy(out / "resume.json", killed)
    assert run(home, "pretrain", killed, "--resume").exit_code == 1
    assert run(home, "pretrain", killed, "--resume", "auto").exit_code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 75)])
@pytest.mark.parametrize("command", ["pretrain", "crossval"])
def test_the_exit_code_says_what_ended_the_fit(home, tmp_path, monkeypatch, command, number, code):
    step = Fit._step
    monkeypatch.setattr(Fit, "_step", lambda self, index: os.kill(os.getpid(), number) or step(self, index))
    result = run(home, command, tmp_path / "run", "--set", "data.validation=0")
    assert result.exit_code == code, result.output
    assert "--resume continues" in result.output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75), (signal.SIGUSR2, 75)])
def test_a_signal_before_the_first_step_ends_the_command(home, tmp_path, monkeypatch, number, code):
    monkeypatch.setattr(sys.modules["bayes_panns.jobs.fit"], "with_net", lambda *_: os.kill(os.getpid(), number))
    result = run(home, "pretrain", tmp_path / "run", "--resume", "auto")
    assert result.exit_code == code
    monkeypatch.undo()
    assert signal.getsignal(number) is signal.SIG_DFL
