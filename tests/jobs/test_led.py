"""Jobs whose work the processes of a launcher share: the same bytes as from one process, and one end for all."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.clips import Task, write
from bayes_panns.jobs import planning
from bayes_panns.posterior import Posterior, save
from bayes_panns.recipes import read_strategy
from tests.harness.led import PORTIONS, Launcher
from tests.harness.waiting import PATIENCE, until

RATE = 8000


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A posterior, recordings of several lengths of which one is damaged, and a store with folds."""
    folder = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    posterior = Posterior.build(
        net="resnet14-narrow",
        labels=("low", "high"),
        task=Task.ONE_OF_K,
        sample_rate=RATE,
        clip_seconds=0.5,
        strategy=read_strategy("det-flip"),
    )
    save(posterior, folder / "posterior")
    random = np.random.default_rng(0)
    (folder / "disk").mkdir()
    for number, seconds in enumerate((0.5, 3.2, 0.7, 1.4, 0.5, 0.4, 2.1)):
        sound = 0.1 * random.normal(size=round(seconds * RATE))
        soundfile.write(folder / "disk" / f"{number}.wav", sound, RATE)
    (folder / "disk" / "none.wav").write_bytes(b"no sound")
    label, seconds = np.arange(18) % 2, np.arange(RATE // 2) / RATE
    waveform = 0.3 * np.sin(2 * np.pi * np.array([400, 1500])[label][:, None] * seconds)
    waveform += 0.01 * random.normal(size=waveform.shape)
    target = np.eye(2, dtype=bool)[label]
    write(folder / "clips.h5", waveform, target, ("low", "high"), Task.ONE_OF_K, RATE, fold=np.arange(18) // 6 + 1)
    (folder / "quick.toml").write_text("[data]\nvalidation = 0.0\n[fit]\nepochs = 1\nbatch_size = 8\n")
    return folder


@pytest.fixture(scope="module")
def launcher():
    with Launcher() as started:
        yield started


def commands(home, out):
    draws, labelled = ("--draws", "3"), ("--data", home / "clips.h5")
    return [
        ["predict", home / "posterior", home / "disk", "-o", f"{out}/results/", "--format", "csv", *draws],
        ["predict", home / "posterior", home / "disk", "-o", out / "tags.csv", "--format", "csv", *draws],
        ["embed", home / "posterior", home / "disk", "-o", out / "embedded.npz"],
        ["acquire", home / "posterior", home / "disk", "-o", out / "chosen", "--budget", "3", *draws],
        ["evaluate", home / "posterior", *labelled, "-o", out / "evaluation", "--json", out / "metrics.json", *draws],
    ]


def cross_validation(home, out, *more):
    return ["crossval", home / "quick.toml", "--data", home / "clips.h5", "--guide", "flip", "-o", out, *more]


AT_WORK = """
import logging, os
from pathlib import Path
from bayes_panns.predictions import clip_sets
from bayes_panns.ranks.links import Door, Meeting
from waiting import until
first, commands, predicted = os.environ["RANK"] == "0", [], clip_sets.predict_waveforms
def said(*arguments, **options):
    logging.getLogger("bayes_panns").info("at work")
    at_work = Path(f"FOLDER-{len(commands)}")
    # So that there is something left for the other.
    until(at_work.exists) if first else at_work.touch()
    return predicted(*arguments, **options)
def counted(meet):
    return lambda *arguments: commands.append(meet) or meet(*arguments)
clip_sets.predict_waveforms, Door.admit, Meeting.connect = said, counted(Door.admit), counted(Meeting.connect)
"""


def contents(folder):
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes().replace(bytes(folder), b"OUT") for name, path in found.items()}


def by_itself(*command):
    """A command by this process; the exit code and what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PORTIONS.items():
            patch.setattr(name, value)
        result = CliRunner().invoke(main, list(map(str, command)))
    return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def alone(home, tmp_path_factory):
    """What one process makes."""
    out = tmp_path_factory.mktemp("alone")
    assert [by_itself(*each)[0] for each in commands(home, out)] == [3, 3, 3, 3, 0]
    return out


def test_two_processes_make_the_same_bytes(home, alone, tmp_path, launcher):
    out = tmp_path / "out"
    out.mkdir()
    first, second = launcher.run(*commands(home, out), before=AT_WORK.replace("FOLDER", str(tmp_path / "at-work")))
    # Skipped files are no failure of a launch.
    assert (first[0], second) == (0, (0, "", "")), first[2]
    assert "1 skipped" in first[2]
    assert "rank 1: at work" in first[2]
    assert contents(out).keys() == contents(alone).keys()
    for name, content in contents(alone).items():
        assert contents(out)[name] == content, name


BOTH = """
import os
from pathlib import Path
from bayes_panns.jobs import planning
from bayes_panns.predictions import clip_sets
from waiting import until
planning._TOGETHER_BYTES = 20_000
predicted = clip_sets.predict_waveforms
def waits(*arguments, **options):
    Path("FOLDER", os.environ["RANK"]).touch()
    until(Path("FOLDER", "1").exists)
    return predicted(*arguments, **options)
clip_sets.predict_waveforms = waits
"""


def test_one_long_recording_is_shared_by_its_windows(home, tmp_path, launcher, monkeypatch):
    monkeypatch.setattr(planning, "_TOGETHER_BYTES", 20_000)
    command = ["predict", home / "posterior", home / "disk" / "1.wav", "--format", "csv", "--draws", "3", "-o"]
    assert by_itself(*command, f"{tmp_path}/one/")[0] == 0
    first, second = launcher.run([*command, f"{tmp_path}/two/"], before=BOTH.replace("FOLDER", str(tmp_path)))
    assert (first[0], second) == (0, (0, "", "")), first[2]
    assert (tmp_path / "1").exists()
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    ("sizes", "processes", "shared"),
    [([90], 2, 1), ([90, 90], 2, 0), ([90, 90, 90], 2, 1), ([90, 9, 9, 9], 2, 1), ([9, 9, 9], 2, 0), ([90] * 40, 8, 0)],
)
def test_long_recordings_are_shared_if_processes_would_wait(sizes, processes, shared, monkeypatch):
    monkeypatch.setattr(planning, "_TOGETHER_BYTES", 20)
    groups = [[planning.Planned(Path(), str(number), "", size, 0.0)] for number, size in enumerate(sizes)]
    assert planning.divided(groups, processes) == (groups[:shared], groups[shared:])


@pytest.fixture(scope="module")
def validated(home, tmp_path_factory):
    """A cross-validation by one process."""
    out = tmp_path_factory.mktemp("validated") / "cv"
    code, table = by_itself(*cross_validation(home, out))
    assert code == 0
    return out, table


def fits(folder):
    """The weights, predictions and tables of a cross-validation."""
    chosen = [*folder.rglob("*.safetensors"), *folder.rglob("*.npz"), folder / "results.json", folder / "table.tex"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in chosen}


SLOW = """
import os, time
from bayes_panns.svi import fit
step = fit.Fit._step
def slow(self, index):
    time.sleep(SECONDS * (os.environ["RANK"] == "RANKS"))
    return step(self, index)
fit.Fit._step = slow
"""


def slow(rank, seconds=0.5):
    """A fit of a process takes its time."""
    return SLOW.replace("SECONDS", str(seconds)).replace("RANKS", str(rank))


# An exchange of all processes has a time limit.
NO_EXCHANGE = """
import torch.distributed as dist
from bayes_panns.ranks.links import Door, Meeting
def refused(*arguments, **options):
    raise AssertionError("an exchange while a process may be at work")
def last(meet):
    def met(*arguments):
        found = meet(*arguments)
        for name in ("all_reduce", "all_gather", "all_gather_object", "broadcast", "broadcast_object_list", "barrier"):
            setattr(dist, name, refused)
        return found
    return met
Door.admit, Meeting.connect = last(Door.admit), last(Meeting.connect)
"""


@pytest.mark.long
def test_fits_of_two_processes_are_those_of_one(home, validated, tmp_path, launcher):
    whole, table = validated
    assert len(fits(whole)) >= 8
    # Who waits for a long fit has no timeout.
    first, second = launcher.run(cross_validation(home, tmp_path / "cv"), before=NO_EXCHANGE + slow(0, 4))
    assert (first[:2], second) == ((0, table), (0, "", "")), first[2]
    assert fits(tmp_path / "cv") == fits(whole)
    assert "rank 1: " in first[2]


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_kill_of_one_ends_all_and_what_is_finished_is_kept(home, validated, tmp_path, launcher, rank):
    out = tmp_path / "cv"
    pids = launcher.start(cross_validation(home, out), before=slow(rank, PATIENCE))
    until(lambda: any(out.rglob("evaluation")) and len(list(out.rglob("run.toml"))) >= 2)
    os.kill(pids[rank], signal.SIGKILL)
    found = launcher.ended()
    assert found[rank][0] == -signal.SIGKILL
    assert found[1 - rank][0] == 1
    if rank:
        assert "rank 1 was killed" in found[0][2].splitlines()[-1]
    else:
        assert found[1][1:] == ("", "")
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("evaluation/*.npz")}
    assert kept
    assert by_itself(*cross_validation(home, out, "--resume")) == (0, validated[1])
    assert fits(out) == fits(validated[0])
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())


BROKEN = """
import os, time
from bayes_panns.core.errors import FitError
from bayes_panns.svi import fit
whole = fit.Fit._step
def broken(self, index):
    if os.environ["RANK"] == "1":
        while not any(file.stat().st_size for file in self.folder.parent.rglob("metrics.jsonl")):
            time.sleep(0.05)
        raise FitError("the loss is not finite")
    return whole(self, index)
fit.Fit._step = broken
"""


@pytest.mark.long
def test_an_error_in_one_fit_ends_the_others_with_its_line(home, tmp_path, launcher):
    command = cross_validation(home, tmp_path / "cv", "--set", "fit.epochs=10000")
    first, second = launcher.run(command, before=BROKEN)
    assert (first[0], second) == (1, (1, "", ""))
    assert first[2].splitlines()[-1] == "bayes-panns: the loss is not finite"
    # The fit of the first process ended as by Ctrl-C.
    assert list((tmp_path / "cv").rglob("posterior.toml"))


@pytest.mark.long
def test_a_signal_to_one_process_interrupts_all(home, tmp_path, launcher):
    pids = launcher.start(cross_validation(home, tmp_path / "cv", "--set", "fit.epochs=10000"))
    until(lambda: [bool(file.stat().st_size) for file in tmp_path.rglob("metrics.jsonl")] == [True, True])
    os.kill(pids[1], signal.SIGTERM)
    first, second = launcher.ended()
    assert (first[0], second) == (143, (1, "", "")), first[2]
    assert "interrupted; --resume continues" in first[2].splitlines()[-1]


# What comes after the first results takes too long.
HELD = """
import time
from pathlib import Path
from bayes_panns.cli import main
from bayes_panns.predictions import clip_sets
predicted = clip_sets.predict_waveforms
def held(*arguments, **options):
    time.sleep(600 if list(Path("OUT").rglob("*.csv")) else 0)
    return predicted(*arguments, **options)
clip_sets.predict_waveforms = held
main()
"""


@pytest.mark.long
def test_recordings_stopped_under_torchrun_go_on_to_the_same_bytes(home, tmp_path, launcher):
    disk, whole, out = tmp_path / "disk", tmp_path / "whole", tmp_path / "out"
    disk.mkdir()
    # Groups of recordings that are predicted together have 16 MB or 64 files.
    for number in range(160):
        shutil.copyfile(home / "disk" / f"{number % 7}.wav", disk / f"{number}.wav")
    command = ["predict", home / "posterior", disk, "--format", "csv", "--draws", "3"]
    assert CliRunner().invoke(main, list(map(str, [*command, "-o", f"{whole}/"]))).exit_code == 0
    (tmp_path / "held.py").write_text(HELD.replace("OUT", str(out)))
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*line, str(tmp_path / "held.py"), *map(str, command), "-o", f"{out}/"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: list(out.rglob("*.csv")))
    process.send_signal(signal.SIGTERM)
    messages = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode != 0
    assert "bayes-panns: " not in messages
    assert not list(out.rglob(".*"))
    assert {path.name for path in out.glob("*.csv")} < {path.name for path in whole.glob("*.csv")}
    # Processes of each process, too.
    usual = "from bayes_panns.jobs import planning\nplanning._TOGETHER = 64\n"
    first, second = launcher.run([*command, "-o", f"{out}/", "--resume", "--jobs", "2"], before=usual)
    assert (first[0], second) == (0, (0, "", "")), first[2]
    assert contents(out) == contents(whole)


LAST_WORD = """
import sys, time
from pathlib import Path
import bayes_panns.cli
from bayes_panns.ranks import helper
main = sys.modules["bayes_panns.cli.main"]
said, work = main._fail, helper.Helper.work
def fail(*arguments, **options):
    time.sleep(0.5)
    Path("FOLDER", "said").touch()
    said(*arguments, **options)
def ended(self):
    try:
        time.sleep(LATE)
        work(self)
    finally:
        Path("FOLDER", "ended").touch()
main._fail, helper.Helper.work = fail, ended
"""


@pytest.mark.parametrize("late", [0, 1.5], ids=["waiting", "not-yet-waiting"])
def test_the_first_says_why_it_failed_before_another_ends(late, home, tmp_path, launcher):
    # A launcher ends all processes as soon as one has failed.
    command = ["embed", home / "nowhere", home / "disk", "-o", tmp_path / "embedded.npz"]
    first, second = launcher.run(command, before=LAST_WORD.replace("FOLDER", str(tmp_path)).replace("LATE", str(late)))
    assert (first[0], second) == (1, (1, "", ""))
    assert "is not a posterior" in first[2]
    assert (tmp_path / "said").stat().st_mtime_ns < (tmp_path / "ended").stat().st_mtime_ns


UNREADABLE = """
import os
from pathlib import Path
import torch
from bayes_panns.ranks import crew, links
from waiting import until
load, own, come = torch.load, crew.Elsewhere.unless_failed, Path("FOLDER", "come")
def full(*arguments, **options):
    content = load(*arguments, **options)
    if content[0] == "piece":
        come.touch()
        raise torch.OutOfMemoryError("no room for a piece")
    return content
def later(self):
    # So that there is a piece left for the other.
    until(come.exists)
    return own(self)
links.torch.load = full
if os.environ["RANK"] == "0":
    crew.Elsewhere.unless_failed = later
"""


def test_a_piece_that_a_process_cannot_take_ends_all(home, tmp_path, launcher):
    command = ["embed", home / "posterior", home / "disk", "-o", tmp_path / "embedded.npz"]
    first, second = launcher.run(command, before=UNREADABLE.replace("FOLDER", str(tmp_path)))
    assert (first[0], second) == (1, (1, "", ""))
    assert "no room for a piece" in first[2]
