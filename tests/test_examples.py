"""Every example runs, tiny, with warnings as errors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bayes_panns.clips import Task, write
from bayes_panns.jobs import evaluate_posterior, fit
from bayes_panns.posterior import load
from bayes_panns.recipes import Data, Run
from bayes_panns.svi import FitSettings

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

TINY = {
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


def test_every_example_is_run_by_a_test():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*TINY, "own_guide.py"}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_an_example_runs(name, tmp_path):
    warnings = ["-W", "error", "-W", "ignore::DeprecationWarning"]
    command = [sys.executable, *warnings, str(EXAMPLES / name), *TINY[name]]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert result.returncode == 0, result.stderr
    assert "nan" not in result.stdout
    assert result.stdout.strip()


def test_a_guide_in_python_is_fitted_kept_and_opened_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    waveform = 0.1 * np.random.default_rng(0).normal(size=(8, 4000))
    write(tmp_path / "s.h5", waveform, np.eye(2, dtype=bool)[np.arange(8) % 2], ("a", "b"), Task.ONE_OF_K, 8000)
    store, guide = str(tmp_path / "s.h5"), "own_guide:low_rank_head"
    recipe = Run(
        guide=guide,
        data=Data(stores=[store], validation=0.0),
        fit=FitSettings(epochs=1, batch_size=4, spec_augment=False),
    )
    fitted = fit(recipe, tmp_path / "run", guide_function=guide)
    opened = load(tmp_path / "run", guide_function=guide)
    first, second = (evaluate_posterior(each, [store], draws=2).metrics for each in (fitted.posterior, opened))
    assert first == pytest.approx(second, rel=1e-4)
    assert first["unc/epistemic"] > 0
