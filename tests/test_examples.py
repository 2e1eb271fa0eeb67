"""Every example runs, tiny, with warnings as errors."""

import ast
import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bayes_panns import evaluate, fit, load
from bayes_panns.clips import Task, write
from bayes_panns.recipes import Data, Run
from bayes_panns.svi import FitSettings

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

TINY = {
    "exact_head.py": ["--clips", "15", "--held-out", "8", "--draws", "4", "--warmup", "4"],
    "exploding_scales.py": ["--clips", "16", "--steps", "2"],
    "natural_gradient.py": ["--clips", "16", "--steps", "2"],
    "nuts_head.py": [
        *("--clips", "12", "--held-out", "8", "--backbone-clips", "16", "--epochs", "1"),
        *("--steps", "3", "--draws", "4", "--warmup", "4"),
    ],
    "plain_pyro.py": ["--clips", "16", "--held-out", "8", "--steps", "3"],
    "swap_priors_and_guides.py": [
        "--clips",
        "16",
        "--held-out",
        "8",
        "--epochs",
        "1",
        "--draws",
        "2",
        "--resamples",
        "9",
    ],
}

LONG = ("exact_head.py", "exploding_scales.py", "natural_gradient.py", "nuts_head.py", "swap_priors_and_guides.py")


def test_every_example_is_run_by_a_test():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*TINY, "own_guide.py"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in TINY])
def test_an_example_runs(name, tmp_path):
    warnings = ["-W", "error", "-W", "ignore::DeprecationWarning"]
    command = [sys.executable, *warnings, str(EXAMPLES / name), *TINY[name]]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert result.returncode == 0, result.stderr
    assert "nan" not in result.stdout
    assert result.stdout.strip()


@pytest.fixture
def clips(tmp_path):
    """A store and a recording, and the settings that make a fit to it quick."""
    waveform = 0.1 * np.random.default_rng(0).normal(size=(8, 4000))
    write(tmp_path / "clips.h5", waveform, np.eye(2, dtype=bool)[np.arange(8) % 2], ("a", "b"), Task.ONE_OF_K, 8000)
    soundfile.write(tmp_path / "recording.wav", waveform[0], 8000)
    return tmp_path


QUICK = [*("--set", "fit.epochs=1"), *("--set", "data.validation=0"), *("--set", "fit.spec_augment=false")]


def bayes_panns(*arguments, cwd):
    """The installed command; it does not find modules in the current folder by itself."""
    command = [Path(sys.executable).with_name("bayes-panns"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.long
def test_the_documented_commands_of_a_guide_in_python_work_as_written(clips):
    documented = ast.get_docstring(ast.parse((EXAMPLES / "own_guide.py").read_text(encoding="utf-8")))
    change, *commands = [line.strip() for line in documented.splitlines() if line.startswith("    ")]
    assert change == "cd examples"
    assert [command.split()[1] for command in commands] == ["pretrain", "predict"]
    for command in commands:
        # The files it names, and a quick fit; the rest is as written.
        places = {name: str(clips / name) for name in ("clips.h5", "runs/own", "recording.wav")}
        program, *arguments = [places.get(word, word) for word in shlex.split(command)]
        assert program == "bayes-panns"
        result = bayes_panns(*arguments, *(QUICK if arguments[0] == "pretrain" else []), cwd=EXAMPLES)
        assert result.returncode == 0, result.stderr
    assert "recording.wav" in result.stdout

    # In other folders there is no such module, and without the option no code is run.
    run, recording = str(clips / "runs" / "own"), str(clips / "recording.wav")
    elsewhere = bayes_panns("predict", run, recording, "--guide", "own_guide:low_rank_head", cwd=clips)
    assert elsewhere.returncode == 1
    assert "No module named 'own_guide'" in elsewhere.stderr
    unnamed = bayes_panns("predict", run, recording, cwd=EXAMPLES)
    assert unnamed.returncode == 1
    assert "name it with --guide if you trust it" in unnamed.stderr


@pytest.mark.slow
def test_a_module_in_the_current_folder_is_found_and_hides_no_library(clips):
    (clips / "mine.py").write_text(
        "from pyro.infer.autoguide import AutoNormal\n\ndef normal(model):\n    return AutoNormal(model)\n"
    )
    (clips / "safetensors.py").write_text("raise SystemExit('this is not the library')\n")
    command = ["pretrain", "scratch", "--data", "clips.h5", "--guide", "mine:normal", "-o", "run", *QUICK]
    result = bayes_panns(*command, cwd=clips)
    assert result.returncode == 0, result.stderr


def test_a_guide_in_python_predicts_the_same_when_it_is_opened_again(clips):
    spec = importlib.util.spec_from_file_location("own_guide", EXAMPLES / "own_guide.py")
    sys.modules["own_guide"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["own_guide"])
    store, guide = str(clips / "clips.h5"), "own_guide:low_rank_head"
    recipe = Run(
        guide=guide,
        data=Data(stores=[store], validation=0.0),
        fit=FitSettings(epochs=1, batch_size=4, spec_augment=False),
    )
    fitted = fit(recipe, clips / "run", guide_function=guide)
    opened = load(clips / "run", guide_function=guide)
    first, second = (evaluate(each, [store], draws=2).metrics for each in (fitted.posterior, opened))
    assert first == pytest.approx(second, rel=1e-4)
    assert first["unc/epistemic"] > 0
