"""The real command line, through click's runner."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.evaluations import Evaluation

RATE = 8000


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Recordings of three classes, a store of them, and a short run on it."""
    folder = tmp_path_factory.mktemp("home")
    generator = np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    for label, pitch in (("high", 2000), ("low", 300), ("mid", 900)):
        (folder / "sounds" / label).mkdir(parents=True)
        for index in range(6):
            wave = 0.3 * np.sin(2 * np.pi * pitch * generator.uniform(0.95, 1.05) * time)
            soundfile.write(folder / "sounds" / label / f"{index}.wav", wave, RATE)
    run("pack", "folder", folder / "sounds", "-o", folder / "clips.h5", "--seconds", 0.5, "--sample-rate", RATE)
    (folder / "quick.toml").write_text(
        "[data]\nvalidation = 0.2\n[fit]\nepochs = 2\nbatch_size = 8\nspec_augment = false\n"
    )
    run("pretrain", folder / "quick.toml", "--data", folder / "clips.h5", "-o", folder / "run")
    return folder


def test_help_shows_every_command_with_an_example():
    text = run("--help").output
    for command in main.commands:
        assert command in text
        assert f"bayes-panns {command}" in run(command, "--help").output


def test_the_version_is_told():
    from bayes_panns import __version__

    assert __version__ in run("--version").output


def test_pack_counts_what_it_skips(home, tmp_path):
    shutil.copytree(home / "sounds", tmp_path / "sounds")
    (tmp_path / "sounds" / "low" / "broken.wav").write_bytes(b"RIFF")
    result = run("pack", "folder", tmp_path / "sounds", "-o", tmp_path / "s.h5", "--exclude", "high/0.wav,5.wav")
    assert "skipped low/broken.wav" in result.stderr.replace("skipped broken.wav", "skipped low/broken.wav")
    assert "14 clips packed, 1 skipped, 4 excluded" in result.stderr
    assert result.stdout == ""


def test_inspect_describes_a_store_a_posterior_and_a_run(home):
    store = run("inspect", home / "clips.h5").stdout
    assert "clips" in store
    assert "18" in store
    assert "high" in store
    posterior = run("inspect", home / "run" / "posterior").stdout
    assert "resnet14-narrow" in posterior
    assert "3: high, low, mid" in posterior
    whole = run("inspect", home / "run").stdout
    assert "last epoch" in whole
    assert "kl_weight" in whole


def test_a_posterior_is_transferred_and_scored(home, tmp_path):
    out = tmp_path / "tuned"
    result = run(
        *("finetune", home / "quick.toml", "--from", home / "run", "--data", home / "clips.h5", "--guide", "det-flip"),
        *("-o", out, "--set", "fit.epochs=1", "--seed", 3),
    )
    assert "taken from" in result.stderr
    assert "new: none" in result.stderr
    shown = run("evaluate", out, "--data", home / "clips.h5", "--draws", 2, "--json", tmp_path / "m.json")
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert "cls/accuracy" in shown.stdout
    assert metrics["clips"] == 18
    assert metrics["draws"] == 2
    piped = run("evaluate", out, "--data", home / "clips.h5", "--ood", home / "clips.h5", "--draws", 0, "--json", "-")
    assert json.loads(piped.stdout)["ood/auroc"] == pytest.approx(0.5)


def test_moments_stand_in_for_draws(home):
    scored = json.loads(
        run("evaluate", home / "run", "--data", home / "clips.h5", "--draws", "moments", "--json", "-").stdout
    )
    drawn = json.loads(run("evaluate", home / "run", "--data", home / "clips.h5", "--draws", 40, "--json", "-").stdout)
    assert scored["draws"] == "moments"
    assert scored["unc/total"] == pytest.approx(scored["unc/aleatoric"] + scored["unc/epistemic"])
    assert scored["unc/total"] == pytest.approx(drawn["unc/total"], rel=0.1)
    assert scored["unc/epistemic"] > 0
    tags = json.loads(
        run("predict", home / "run", home / "sounds/mid/0.wav", "--draws", "moments", "--format", "json").stdout
    )
    assert all(value >= 0 for value in tags["windows"][0]["epistemic"])


def test_a_head_is_fitted_on_embeddings_that_the_second_run_finds(home, tmp_path):
    def finetune(folder, *more):
        return run(
            *("finetune", "fixed-features", "--from", home / "run", "--data", home / "clips.h5", "-o", folder),
            *("--set", "fit.epochs=2", *more),
        ).stderr

    assert re.search(r"embeddings of \d+ clips of clips.h5: \d+ computed in", finetune(tmp_path / "first"))
    second = finetune(tmp_path / "second", "--set", "fit.learning_rate=0.02")
    assert f"read from {home / 'clips.embeddings'}" in second
    assert "computed" not in second
    assert "resuming at epoch 2.0" in finetune(tmp_path / "first", "--resume")
    result = run("evaluate", tmp_path / "second", "--data", home / "clips.h5", "--draws", 2, "--json", "-")
    assert json.loads(result.stdout)["unc/epistemic"] > 0
    assert run("predict", tmp_path / "second", home / "sounds/low/0.wav", "--draws", 2).stdout


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_predict_tags_files_and_folders(home, tmp_path, form):
    result = run(
        "predict", home / "run", home / "sounds" / "low", home / "sounds/mid/0.wav", "--format", form, "--draws", 2
    )
    if form == "json":
        table = json.loads(result.stdout)
        assert table["labels"] == ["high", "low", "mid"]
        # One second, clips of half a second: two windows a file.
        assert len(table["windows"]) == 14
        assert {
            "file",
            "start",
            "end",
            "probability",
            "aleatoric",
            "epistemic",
            "entropy",
            "mutual_information",
        } == set(table["windows"][0])
    else:
        assert len(result.stdout.splitlines()) == 1 + 14 * (3 if form == "csv" else 1)
    run("predict", home / "run", home / "sounds/mid/0.wav", "--format", form, "-o", tmp_path / "tags", "--draws", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["tags"]


def test_predict_tags_by_several_posteriors_as_one(home, tmp_path):
    second = tmp_path / "second"
    run("pretrain", home / "quick.toml", "--data", home / "clips.h5", "-o", second, "--seed", 1, "--guide", "det")

    def tagged(*words):
        found = json.loads(run("predict", *words, home / "sounds/low/0.wav", "--format", "json", "--draws", 0).stdout)
        return np.array([window["probability"] for window in found["windows"]])

    both = tagged(home / "run", "--with", second)
    np.testing.assert_allclose(both, (tagged(home / "run") + tagged(second)) / 2, atol=1e-4)


def test_predict_skips_what_it_cannot_read_and_says_so(home, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    result = run("predict", home / "run", tmp_path / "broken.wav", home / "sounds/mid/0.wav", "--draws", 0)
    assert "skipped" in result.stderr
    assert "broken.wav: cannot be read" in result.stderr
    assert "1 files tagged, 1 skipped" in result.stderr
    assert "broken" not in result.stdout


def test_a_reader_that_has_enough_is_no_mistake(home):
    command = f"{sys.executable} -c 'from bayes_panns.cli import main; main()' inspect {home / 'run'} | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert result.stderr == ""


def test_predict_writes_an_audacity_track_with_windows_of_choice(home):
    arguments = ("predict", home / "run", home / "sounds/mid/0.wav", "--format", "audacity", "--draws", 0)
    assert len(run(*arguments, "--window", 0.25, "--hop", 0.25).stdout.splitlines()) == 4
    run(*arguments, home / "sounds/mid/1.wav", code=2)


def test_resume_goes_on_and_a_second_start_is_refused(home):
    arguments = ("pretrain", home / "quick.toml", "--data", home / "clips.h5", "-o", home / "run")
    assert "is not empty" in run(*arguments, code=1).stderr
    assert "resuming at epoch 2.0" in run(*arguments, "--resume").stderr


def bad_csv(home, text):
    path = home / "bad.csv"
    path.write_text(text)
    return path


def damaged(home):
    target = home / "damaged"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(home / "run" / "posterior", target)
    tensors = target / "guide.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    return target


def other_labels(home):
    shutil.copytree(home / "sounds" / "low", home / "more" / "low", dirs_exist_ok=True)
    shutil.copytree(home / "sounds" / "mid", home / "more" / "middle", dirs_exist_ok=True)
    run("pack", "folder", home / "more", "-o", home / "more.h5", "--seconds", 0.5, "--sample-rate", RATE)
    return home / "more.h5"


def broken_sound(home, content):
    path = home / "broken.wav"
    path.write_bytes(content)
    return path


def broken_run(home):
    (home / "brokenrun").mkdir(exist_ok=True)
    (home / "brokenrun" / "run.toml").write_text("net = ")
    return home / "brokenrun"


def recipe(home, text):
    path = home / "wrong.toml"
    path.write_text(text)
    return path


MISTAKES = {
    "a file that is no sound": (
        lambda home: ("predict", home / "run", broken_sound(home, b"hello" * 99)),
        "broken.wav: cannot be read as sound",
    ),
    "an empty file": (lambda home: ("predict", home / "run", broken_sound(home, b"")), "broken.wav: the file is empty"),
    "a missing file": (lambda home: ("predict", home / "run", home / "nowhere.wav"), "nowhere.wav: no such file"),
    "an empty folder": (
        lambda home: ("predict", home / "run", Path(home / "void").mkdir(exist_ok=True) or home / "void"),
        "void: holds no sound file",
    ),
    "a missing posterior": (
        lambda home: ("predict", home / "nowhere", home / "sounds/low/0.wav"),
        "nowhere: no posterior there",
    ),
    "a truncated posterior": (
        lambda home: ("predict", damaged(home), home / "sounds/low/0.wav"),
        "is damaged or truncated",
    ),
    "a CSV without the column": (
        lambda home: ("pack", "folder", bad_csv(home, "path,label\na.wav,b\n"), "-o", home / "x.h5"),
        "bad.csv",
    ),
    "a CSV of files that are not there": (
        lambda home: ("pack", "folder", bad_csv(home, "file,labels\na.wav,b\n"), "-o", home / "x.h5"),
        "a.wav",
    ),
    "a folder that is not ESC-50": (lambda home: ("pack", "esc50", home / "sounds", "-o", home / "x.h5"), "esc50.csv"),
    "labels that differ": (
        lambda home: ("evaluate", home / "run", "--data", other_labels(home)),
        "more.h5: its labels are not the posterior's: it lacks high, mid and adds middle",
    ),
    "a store that is no store": (
        lambda home: ("evaluate", home / "run", "--data", home / "quick.toml"),
        "quick.toml",
    ),
    "a missing store": (
        lambda home: ("pretrain", home / "quick.toml", "--data", home / "none.h5", "-o", home / "y"),
        "none.h5",
    ),
    "an unknown key": (
        lambda home: ("pretrain", recipe(home, "[fit]\nlearing_rate = 1e-3\n"), "--data", home / "clips.h5"),
        "wrong.toml: unknown key fit.learing_rate; did you mean learning_rate?",
    ),
    "embeddings of a backbone that is trained": (
        lambda home: (
            *("finetune", "fixed-features", "--from", home / "run", "--data", home / "clips.h5", "-o", home / "y"),
            *("--set", "freeze=[]"),
        ),
        'fit.features = "embeddings": the fit would change bn0, conv_block1, ',
    ),
    "a wrong type": (
        lambda home: ("pretrain", recipe(home, '[fit]\nepochs = "ten"\n'), "--data", home / "clips.h5"),
        "wrong.toml: fit.epochs = 'ten': input should be a valid integer",
    ),
    "a missing recipe": (
        lambda home: ("pretrain", "nothing", "--data", home / "clips.h5"),
        "nothing: no such file, and no recipe",
    ),
    "a missing guide": (
        lambda home: ("pretrain", home / "quick.toml", "--guide", "flop", "--data", home / "clips.h5"),
        "flop: no such file, and no recipe of that name in guides/",
    ),
    "a GPU that is not there": (
        lambda home: ("predict", home / "run", home / "sounds/low/0.wav", "--device", "cuda"),
        "torch sees no GPU",
    ),
    "a run whose recipe is damaged": (
        lambda home: ("inspect", broken_run(home)),
        "run.toml: not valid TOML",
    ),
    "a folder to write to that is not there": (
        lambda home: ("predict", home / "run", home / "sounds/low/0.wav", "--draws", 0, "-o", home / "no" / "t.csv"),
        "to write it to; make it first",
    ),
    "nothing to inspect": (lambda home: ("inspect", home / "nowhere"), "nowhere: no such file or folder"),
    "a folder that is none of ours": (
        lambda home: ("inspect", home / "sounds"),
        "is not a store (a file), a posterior",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_1(home, mistake, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments, message = MISTAKES[mistake]
    result = run(*arguments(home), code=1)
    assert message in result.stderr
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
    assert not (home / "x.h5").exists()
    assert not (home / "y").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict",),
        ("pack", "nonsense", "x", "-o", "y"),
        ("evaluate", "p", "--data", "s", "--draws", "-1"),
        ("evaluate", "p", "--data", "s", "--draws", "moment"),
        ("evaluate", "p", "--data", "s", "--folds", "1,two"),
        ("finetune", "esc10", "--data", "s"),
        ("pack", "esc50", "x", "-o", "y", "--min-count", "3"),
        ("pack", "folder", "x", "-o", "y", "--esc10"),
        ("fly",),
    ],
)
def test_wrong_usage_gets_exit_code_2(arguments):
    assert "Usage:" in run(*arguments, code=2).stderr


@pytest.mark.slow
def test_ctrl_c_leaves_a_posterior_that_is_usable_and_a_run_that_goes_on(home, tmp_path):
    out = tmp_path / "run"
    arguments = ["pretrain", str(home / "quick.toml"), "--data", str(home / "clips.h5"), "-o", str(out)]
    arguments += ["--set", "fit.epochs=2000"]
    command = [sys.executable, "-c", "from bayes_panns.cli import main; main()", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "checkpoint.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert re.search(r"complete +False", run("inspect", out).stdout)
    run("predict", out, home / "sounds/mid/0.wav", "--draws", 1)
    # It goes on where it stopped: with the same recipe, and from the step after the last.
    again = subprocess.Popen([*command, "--resume"], stderr=subprocess.PIPE, text=True)
    line = ""
    while "resuming at epoch" not in line and again.poll() is None:
        line = again.stderr.readline()
    again.kill()
    again.communicate()
    assert float(line.split()[3]) > 0


def test_calibrate_keeps_a_temperature_and_predict_shows_the_sets(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    short = run("calibrate", tmp_path / "run", "--draws", 2, code=1)
    assert "a coverage of 0.9 needs at least 9" in short.stderr
    arguments = ("--data", home / "clips.h5", "--coverage", 0.8, "--draws", 2)
    assert "temperature" in run("calibrate", tmp_path / "run", *arguments).stderr
    posterior = tmp_path / "run" / "posterior"
    assert "threshold" in run("inspect", posterior).stdout
    sound = home / "sounds" / "low" / "0.wav"
    window = json.loads(run("predict", posterior, sound, "--draws", 2, "--format", "json").stdout)["windows"][0]
    assert set(window["set"]) <= {"high", "low", "mid"}
    assert "80 % set" in run("predict", posterior, sound, "--draws", 2).stdout
    result = run("evaluate", posterior, "--data", home / "clips.h5", "--draws", 2, "--intervals", "--json", "-")
    metrics = json.loads(result.stdout)
    assert 0 <= metrics["set/coverage/low"] <= metrics["set/coverage"] <= metrics["set/coverage/high"] <= 1
    assert metrics["cal/nll/low"] < metrics["cal/nll"] < metrics["cal/nll/high"]
    result = run("evaluate", posterior, "--data", home / "clips.h5", "--draws", 2, "--intervals")
    assert re.search(r"^set/size +\d\.\d{4}  \(\d\.\d{4} to \d\.\d{4}\)$", result.stdout, re.MULTILINE)


def test_several_posteriors_are_scored_as_one(home):
    once = run("evaluate", home / "run", "--data", home / "clips.h5", "--draws", 2, "--json", "-").stdout
    twice = run("evaluate", home / "run", home / "run", "--data", home / "clips.h5", "--draws", 4, "--json", "-").stdout
    assert json.loads(twice)["cal/nll"] == pytest.approx(json.loads(once)["cal/nll"])


def test_an_evaluation_can_be_kept(home, tmp_path):
    kept = tmp_path / "kept"
    result = run("evaluate", home / "run", "--data", home / "clips.h5", "--draws", 2, "-o", kept, "--covariance")
    assert "cal/nll" in result.stdout
    evaluation = Evaluation.load(kept)
    assert evaluation.provenance["posterior"] == str((home / "run" / "posterior").resolve())
    assert evaluation.uncertainty.covariance.shape == (18, 3, 3)
    # Told before anything is predicted.
    result = run("evaluate", home / "run", "--data", home / "nowhere.h5", "-o", home / "sounds", code=1)
    assert "is not an evaluation" in result.stderr
    result = run("evaluate", home / "run", "--data", home / "nowhere.h5", "-o", home / "clips.h5", code=1)
    assert "is not an evaluation" in result.stderr
