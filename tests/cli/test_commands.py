"""The commands, through click's runner; test_process.py has those that need a process of their own."""

import json
import logging
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from pyro.infer.autoguide import AutoNormal

from bayes_panns.cli.main import SECTIONS, main
from bayes_panns.core.choices import CheckpointKind, ExportFormat, ScaleRule, TagFormat
from bayes_panns.core.errors import OutputError
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


def test_help_shows_every_command_in_one_section_and_with_an_example():
    text = run("--help").output
    shown = [name for names in SECTIONS.values() for name in names]
    assert len(set(shown)) == len(shown)
    assert set(shown) >= set(main.commands)
    for title in SECTIONS:
        assert f"\n{title}:\n" in text
    for command in main.commands:
        assert re.search(rf"^  {command}  +\w", text, re.MULTILINE)
        described = run(command, "--help").output
        assert "Example:" in described
        assert f"bayes-panns {command}" in described


def test_help_needs_no_heavy_module():
    code = (
        "import sys; from bayes_panns.cli import main; main(['pack', '--help'], standalone_mode=False);"
        "heavy = {'torch', 'pyro', 'h5py', 'numpy', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_helps_name_every_word_that_a_command_takes():
    from bayes_panns.clips import CATALOGS
    from bayes_panns.clips.catalogs.audioset import SPLITS
    from bayes_panns.interop import PUBLISHED

    for command, words in (
        ("pack", {*CATALOGS, *SPLITS}),
        ("fetch", set(PUBLISHED)),
        ("import", {*CheckpointKind.words(), *ScaleRule.words()}),
        ("export", set(ExportFormat.words())),
        ("predict", set(TagFormat.words())),
    ):
        text = run(command, "--help").output
        assert all(re.search(rf"\b{re.escape(word)}\b", text) for word in words), command


def test_the_version_is_printed():
    from bayes_panns import __version__

    assert __version__ in run("--version").output


def test_pack_counts_what_it_skips(home, tmp_path):
    shutil.copytree(home / "sounds", tmp_path / "sounds")
    (tmp_path / "sounds" / "low" / "broken.wav").write_bytes(b"RIFF")
    result = run(
        "pack", "folder", tmp_path / "sounds", "-o", tmp_path / "s.h5", "--exclude", "high/0.wav,5.wav", code=3
    )
    assert re.search(r"^skipped low/broken\.wav: cannot be read", result.stderr, re.MULTILINE)
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


def test_a_posterior_gets_widths_from_clips(home, tmp_path):
    out = tmp_path / "widths"
    given = ("widths", home / "run", "--data", home / "clips.h5")
    shown = run(*given, "-o", out, "--guide", "det-flip", "--clips", 5, "--kl-weight", 0.01)
    assert "widths: 2 weight tensors with a width" in shown.stderr
    assert "as of 5 clips, kl_weight 0.01" in shown.stderr
    assert shown.stdout == ""
    described = run("inspect", out).stdout
    assert re.search(r"^ +rule +fisher$", described, re.MULTILINE)
    assert re.search(r"^ +folder +run$", described, re.MULTILINE)
    at_mean = [
        json.loads(run("evaluate", each, "--data", home / "clips.h5", "--draws", 0, "--json", "-").stdout)
        for each in (out, home / "run")
    ]
    assert at_mean[0]["cal/nll"] == pytest.approx(at_mean[1]["cal/nll"], rel=1e-5)
    assert "guide det: the guide has no mean-field" in run(*given, "-o", out, "--guide", "det", code=1).stderr
    assert "Missing option '--data'" in run("widths", home / "run", "-o", out, code=2).stderr


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
    assert "resuming at epoch 2.0 of 3" in finetune(tmp_path / "first", "--set", "fit.epochs=3", "--resume")
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
    result = run("predict", home / "run", tmp_path / "broken.wav", home / "sounds/mid/0.wav", "--draws", 0, code=3)
    assert "skipped" in result.stderr
    assert "broken.wav: cannot be read" in result.stderr
    assert "1 file tagged, 1 skipped" in result.stderr
    assert "broken" not in result.stdout


def test_predict_writes_an_audacity_track_with_windows_of_choice(home):
    arguments = ("predict", home / "run", home / "sounds/mid/0.wav", "--format", "audacity", "--draws", 0)
    assert len(run(*arguments, "--window", 0.25, "--hop", 0.25).stdout.splitlines()) == 4
    run(*arguments, home / "sounds/mid/1.wav", code=2)


def test_a_complete_run_stays_and_can_be_continued(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    arguments = ("pretrain", home / "quick.toml", "--data", home / "clips.h5", "-o", tmp_path / "run")
    assert "is not empty; resume the run there with --resume" in run(*arguments, code=1).stderr
    kept = (tmp_path / "run" / "posterior" / "guide.safetensors").stat().st_mtime_ns
    assert "the fit is complete, with fit.epochs = 2; raise it" in run(*arguments, "--resume").stderr
    assert (tmp_path / "run" / "posterior" / "guide.safetensors").stat().st_mtime_ns == kept
    continued = run(*arguments, "--resume", "--set", "fit.epochs=3").stderr
    assert "fit.epochs rises from 2 to 3" in continued
    assert "epoch 3 of 3" in continued
    assert "the fit is complete, with fit.epochs = 3" in run(*arguments, "--resume", "--set", "fit.epochs=1").stderr


def test_a_guide_in_python_is_named_on_the_command_line_alone(home, tmp_path, monkeypatch):
    module = types.ModuleType("guides_on_the_line")
    module.make = lambda model: AutoNormal(model, init_scale=0.01)
    monkeypatch.setitem(sys.modules, "guides_on_the_line", module)
    (tmp_path / "code.toml").write_text('guide = "guides_on_the_line:make"\n[fit]\nepochs = 1\nspec_augment = false\n')
    command = ("pretrain", tmp_path / "code.toml", "--data", home / "clips.h5", "-o", tmp_path / "run")
    refused = run(*command, code=1).stderr
    assert "is a Python function, which a recipe cannot run; name it with --guide if you trust it" in refused
    assert not (tmp_path / "run").exists()
    function = ("--guide", "guides_on_the_line:make")
    run(*command, *function)
    assert "the fit is complete, with fit.epochs = 1" in run(*command, *function, "--resume").stderr
    assert "a Python function" in run(*command, "--resume", code=1).stderr
    assert "guides_on_the_line:make" in run("inspect", tmp_path / "run").stdout
    sound = home / "sounds" / "low" / "0.wav"
    assert "name it with --guide if you trust it" in run("predict", tmp_path / "run", sound, code=1).stderr
    assert run("predict", tmp_path / "run", sound, "--draws", 2, *function).stdout


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


def one_label(home):
    (home / "one.csv").write_text("file,labels\n" + "".join(f"sounds/low/{index}.wav,low\n" for index in range(4)))
    run("pack", "folder", home / "one.csv", "-o", home / "one.h5", "--seconds", 0.5, "--sample-rate", RATE)
    return home / "one.h5"


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
        "nowhere: is not a posterior",
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
        "more.h5: the posterior does not know middle; it knows high, low, mid",
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
    "a single label": (
        lambda home: ("pretrain", home / "quick.toml", "--data", one_label(home), "-o", home / "y"),
        "one.h5: has the single label 'low', so there is nothing to learn",
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
    "a numbered GPU that is not there": (
        lambda home: ("predict", home / "run", home / "sounds/low/0.wav", "--device", "cuda:0"),
        "torch sees no GPU",
    ),
    "a GPU that is not there": (
        lambda home: ("predict", home / "run", home / "sounds/low/0.wav", "--device", "cuda"),
        "torch sees no GPU",
    ),
    "a run whose recipe is damaged": (
        lambda home: ("inspect", broken_run(home)),
        "run.toml: is not valid TOML",
    ),
    "a fit into a file": (
        lambda home: ("pretrain", home / "quick.toml", "--data", home / "clips.h5", "-o", home / "quick.toml"),
        "quick.toml: is a file; choose another folder",
    ),
    "nothing to inspect": (lambda home: ("inspect", home / "nowhere"), "nowhere: no such file or folder"),
    "a folder that is none of ours": (
        lambda home: ("inspect", home / "sounds"),
        "is not a store (a file), a posterior",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_1(home, mistake, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments, message = MISTAKES[mistake]
    result = run(*arguments(home), code=1)
    assert message in result.stderr
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
    assert not (home / "x.h5").exists()
    assert not (home / "y").exists()


OUTPUTS = {
    "predict": lambda home, out: ("predict", home / "no-posterior", home / "sounds", "-o", out),
    "evaluate --json": lambda home, out: ("evaluate", home / "no-posterior", "--data", "none.h5", "--json", out),
    "export": lambda home, out: ("export", home / "no-posterior", "-o", out),
    "report": lambda home, out: ("report", home / "no-posterior", "-o", out),
}


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_file_that_cannot_be_written_is_refused_before_any_work(home, command):
    # The posterior is not there either: that would be found later.
    missing = run(*OUTPUTS[command](home, home / "no" / "file.out"), code=1)
    assert "make it first" in missing.stderr
    assert str(home / "no") in missing.stderr
    folder = run(*OUTPUTS[command](home, home / "sounds"), code=1)
    assert "is a folder" in folder.stderr
    assert len(folder.stderr.splitlines()) == 1
    assert not (home / "no").exists()


FOLDERS = {
    "pretrain": lambda home, out: ("pretrain", home / "quick.toml", "--data", "none.h5", "-o", out),
    "crossval": lambda home, out: ("crossval", home / "quick.toml", "--data", "none.h5", "-o", out),
    "evaluate -o": lambda home, out: ("evaluate", home / "no-posterior", "--data", "none.h5", "-o", out),
    "import": lambda home, out: ("import", "panns", home / "no.pth", "-o", out),
    "demo": lambda home, out: ("demo", "-o", out),
    "pack": lambda home, out: ("pack", "folder", home / "sounds", "-o", out / "clips.h5"),
}


@pytest.mark.parametrize("command", FOLDERS)
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(home, command):
    for place in (home / "quick.toml", home / "quick.toml" / "deeper" / "run"):
        result = run(*FOLDERS[command](home, place), code=1)
        assert "is a file; choose another folder" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_the_folders_above_a_folder_of_results_are_made(home, tmp_path):
    sounds = ("pack", "folder", home / "sounds", "--seconds", 0.5, "--sample-rate", RATE)
    run(*sounds, "-o", tmp_path / "deep" / "stores" / "clips.h5")
    assert (tmp_path / "deep" / "stores" / "clips.h5").is_file()
    run("evaluate", home / "run", "--data", home / "clips.h5", "--draws", 0, "-o", tmp_path / "deep" / "x" / "kept")
    assert Evaluation.load(tmp_path / "deep" / "x" / "kept")


PREDICT = ("predict", "p", "f.wav")
EVALUATE = ("evaluate", "p", "--data", "s")
FIT = ("pretrain", "scratch", "--data", "s.h5", "-o", "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict",), "Missing argument"),
        (
            ("pack", "nonsense", "x", "-o", "y"),
            "'nonsense' is not one of audioset, esc50, urbansound8k, dcase2013, folder",
        ),
        (("import", "panns", "x", "-o", "y", "--net", "cnn99"), "'cnn99' is not one of "),
        ((*EVALUATE, "--draws", "-1"), "write a whole number from 0 up, or moments"),
        ((*EVALUATE, "--draws", "moment"), "write a whole number from 0 up, or moments"),
        ((*EVALUATE, "--draws", "²"), "write a whole number from 0 up, or moments"),
        ((*EVALUATE, "--folds", "1,two"), "write whole numbers with commas"),
        ((*EVALUATE, "--folds", "1,-2"), "write whole numbers with commas"),
        ((*EVALUATE, "--folds", ""), "write whole numbers with commas"),
        ((*EVALUATE, "--folds", "1,2,1"), "name each number once"),
        ((*EVALUATE, "--device", "gpu"), "device 'gpu': write auto, cpu, cuda, cuda:N or mps"),
        (("crossval", "scratch", "--data", "s", "--seeds", "3,3"), "name each number once"),
        ((*PREDICT, "--window", "nan"), "not a finite number"),
        ((*PREDICT, "--window", "inf"), "not a finite number"),
        ((*PREDICT, "--window", "1e-5"), "not in the range x>=0.001"),
        ((*PREDICT, "--window", "-1"), "not in the range"),
        ((*PREDICT, "--hop", "inf"), "not a finite number"),
        ((*PREDICT, "--hop", "0"), "not in the range"),
        (("calibrate", "p", "--coverage", "nan"), "not a finite number"),
        (("calibrate", "p", "--coverage", "1"), "not in the range"),
        (("pack", "esc50", "x", "-o", "y", "--seconds", "inf"), "not a finite number"),
        (("pack", "esc50", "x", "-o", "y", "--min-count", "3"), "--min-count is not for the catalog esc50"),
        (("pack", "folder", "x", "-o", "y", "--esc10"), "--esc10 is not for the catalog folder"),
        (("finetune", "esc10", "--data", "s"), "name the posterior to start from with --from"),
        ((*FIT, "--seed", "-1"), "--seed -1: fit.seed = -1: input should be greater than or equal to 0"),
        ((*FIT, "--set", "fit.epochs=0"), "--set fit.epochs=0: fit.epochs = 0: input should be greater than"),
        ((*FIT, "--set", "fit.epoch=3"), "unknown key fit.epoch; did you mean epochs?"),
        ((*FIT, "--set", "epochs"), "write it as key=value"),
        ((*FIT, "--set", "guide=os:getcwd"), "a guide in Python is code; name it with --guide os:getcwd"),
        ((*FIT, "--device", "npu"), "device 'npu': write auto, cpu, cuda, cuda:N or mps"),
        (("crossval", "scratch", "--data", "s", "--set", "fit.seed=-2"), "fit.seed = -2"),
        (("fly",), "No such command"),
    ],
)
def test_wrong_usage_gets_exit_code_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, code=2)
    assert "Usage:" in result.stderr
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_calibrate_keeps_a_temperature_and_predict_shows_the_sets(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    short = run("calibrate", tmp_path / "run", "--draws", 2, code=1)
    assert "a coverage of 0.9 needs at least 9" in short.stderr
    arguments = ("--data", home / "clips.h5", "--coverage", 0.8, "--draws", 2)
    posterior = tmp_path / "run" / "posterior"
    assert run("calibrate", tmp_path / "run", *arguments).stderr.startswith(f"{posterior.resolve()}: temperature ")
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


def test_calibrate_fits_decisions_and_inspect_and_evaluate_show_them(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    asked = ("calibrate", tmp_path / "run", "--data", home / "clips.h5", "--coverage", 0.8, "--draws", 2)
    told = run(*asked, "--precision", 0.05, "--confidence", 0.5).stderr
    assert "decisions: precision 0.05 with a confidence of 0.5: " in told
    shown = run("inspect", tmp_path / "run").stdout
    assert re.search(r"target +precision 0.05, with a confidence of 0.5", shown)
    assert re.search(r"outside +entropy above", shown)
    for label in ("low", "mid", "high"):
        assert re.search(rf"{label} +(from \d\.\d+: \d+ called, \d+ wrong; precision 0\.\d+ or more|never)", shown)
    evaluated = run(
        "evaluate", tmp_path / "run", "--data", home / "clips.h5", "--draws", 2, "--intervals", "--json", "-"
    )
    metrics = json.loads(evaluated.stdout)
    assert 0 <= metrics["dec/coverage/low"] <= metrics["dec/coverage"] <= 1
    assert {"dec/coverage", "dec/outside"} <= metrics.keys()
    # A target that so few clips cannot show is refused, or said.
    hours = run(*asked, "--false-alarms", 0.1, code=1)
    assert "hours of independent held-out sound" in hours.stderr
    assert "never decided: " in run(*asked, "--precision", 0.999).stderr
    both = run("calibrate", tmp_path / "run", "--risk", 0.1, "--precision", 0.9, code=2)
    assert "--precision and --risk: decisions have one target; name one" in both.stderr


def test_several_posteriors_are_scored_as_one(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "second")
    asked = ("evaluate", home / "run", tmp_path / "second", "--data", home / "clips.h5", "--draws")
    assert json.loads(run(*asked, 4, "--json", "-").stdout)["draws"] == 4
    # At the mean, two of the same are one.
    once = run("evaluate", home / "run", "--data", home / "clips.h5", "--draws", 0, "--json", "-").stdout
    twice = run(*asked, 0, "--json", "-").stdout
    assert json.loads(twice)["cal/nll"] == pytest.approx(json.loads(once)["cal/nll"])
    same = run("evaluate", home / "run", home / "run", "--data", home / "clips.h5", code=1)
    assert "is named twice" in same.stderr


def test_an_evaluation_can_be_kept(home, tmp_path):
    kept = tmp_path / "kept"
    result = run("evaluate", home / "run", "--data", home / "clips.h5", "--draws", 2, "-o", kept, "--covariance")
    assert "cal/nll" in result.stdout
    evaluation = Evaluation.load(kept)
    assert evaluation.provenance["posterior"] == str((home / "run" / "posterior").resolve())
    assert evaluation.uncertainty.covariance.shape == (18, 3, 3)
    # Refused before anything is predicted.
    result = run("evaluate", home / "run", "--data", home / "nowhere.h5", "-o", home / "sounds", code=1)
    assert "evaluation; choose another folder" in result.stderr
    result = run("evaluate", home / "run", "--data", home / "nowhere.h5", "-o", home / "clips.h5", code=1)
    assert "is a file; choose another folder" in result.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory (MemoryError); close other programs, or take fewer clips at once"),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory"),
            "out of memory (DefaultCPUAllocator: not enough memory",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
            "out of memory (CUDA out of memory. Tried to",
        ),
        (PermissionError(13, "Permission denied", "x.h5"), "x.h5: permission denied"),
        (OSError(28, "No space left on device"), "no space left on device"),
        (OSError(), "OSError"),
        (OutputError("x\n y"), "x y"),
    ],
)
def test_what_cannot_be_helped_is_one_line(error, message, monkeypatch):
    monkeypatch.setattr("bayes_panns.report.describe", raising(error))
    result = run("inspect", "x", code=1)
    assert result.stderr.startswith(f"bayes-panns: {message}")
    assert len(result.stderr.splitlines()) == 1


def test_ctrl_c_is_one_line(monkeypatch):
    monkeypatch.setattr("bayes_panns.report.describe", raising(KeyboardInterrupt()))
    assert run("inspect", "x", code=130).stderr == "bayes-panns: interrupted\n"


def test_a_defect_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr("bayes_panns.report.describe", raising(RuntimeError("a shape is wrong")))
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        run("inspect", "x", code=1)


def test_warnings_are_marked_and_the_logger_is_left_as_it_was(monkeypatch):
    package = logging.getLogger("bayes_panns")
    level, handlers = package.level, list(package.handlers)

    def describe(path):
        logging.getLogger("bayes_panns.report").warning("look out")
        logging.getLogger("bayes_panns.report").info("nothing to see")
        return "text\n"

    monkeypatch.setattr("bayes_panns.report.describe", describe)
    result = run("inspect", "x")
    assert (result.stdout, result.stderr) == ("text\n", "warning: look out\nnothing to see\n")
    assert (package.level, package.handlers) == (level, handlers)


def raising(error):
    def describe(path):
        raise error

    return describe


def test_check_start_fits_a_run_again_and_shows_what_is_left(home, tmp_path):
    folder = shutil.copytree(home / "run", tmp_path / "run")
    result = run("check-start", folder, "--factor", 10)
    head, *rows = result.stdout.splitlines()
    assert re.split("  +", head) == ["parameter", "weights", "left of the start", "rank correlation"]
    assert re.match(r"all +[\d,]+ +\d+\xa0%$", rows[-1])
    assert json.loads((folder / "start.json").read_text())["factor"] == 10
    assert f"kept in {folder}/start.json" in result.stderr
    assert "is left of the start" not in run("inspect", folder).stdout
    assert "--factor 1 would be the same fit again" in run("check-start", folder, "--factor", 1, code=2).stderr
    assert "there is no run" in run("check-start", tmp_path, code=1).stderr


def test_a_fit_says_how_many_weights_the_data_determine(home, tmp_path):
    result = run("pretrain", home / "quick.toml", "--data", home / "clips.h5", "-o", tmp_path / "run")
    assert re.search(r"^by their widths, the data determine [\d,]+ of [\d,]+ weights", result.stderr, re.MULTILINE)
    assert result.stderr.count("warning: ") == 1
    assert "warning: the posterior's widths are those of the start" in result.stderr
    assert "effective parameters" in run("inspect", tmp_path / "run").stdout
