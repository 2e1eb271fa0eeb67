"""What docs/uncertainty.md shows runs, and the names in it exist."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from bayes_panns import evaluations, metrics
from bayes_panns.clips import Task, write
from bayes_panns.evaluations import Evaluation
from bayes_panns.posterior import Calibration, Posterior, save
from bayes_panns.predictions import decompose

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "uncertainty.md").read_text(encoding="utf-8")


def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels, rate = ("a", "b", "c"), 8000
    posterior = Posterior.build(
        net="resnet14-narrow", labels=labels, task=Task.ONE_OF_K, sample_rate=rate, clip_seconds=0.5
    )
    save(posterior, tmp_path / "runs" / "esc10")
    (tmp_path / "stores").mkdir()
    waveforms = 0.1 * np.random.default_rng(0).normal(size=(4, rate // 2))
    target = np.eye(3, dtype=bool)[[0, 1, 2, 0]]
    write("stores/esc10.h5", waveforms, target, labels, Task.ONE_OF_K, rate, fold=np.array([5, 5, 1, 5]))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found = {}
    exec(code, found)
    assert found["u"].covariance.shape == (3, 3, 3)


@pytest.fixture
def names():
    draws = torch.rand(4, 6, 3, dtype=torch.float64).softmax(dim=2)
    made = Evaluation.of(
        decompose(draws, "one-of-k"),
        np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2]],
        decompose(draws, "one-of-k"),
        names=list("abcdef"),
        labels=("x", "y", "z"),
        ood_names=list("abcdef"),
        calibration=Calibration(temperature=1.0, threshold=0.3, coverage=0.9, draws=4, clips=(9, 9), data=("s.h5",)),
        provenance={},
    )
    return set(made.metrics)


def test_the_metrics_and_functions_exist(names):
    named = set(re.findall(r"`((?:cls|cal|sc|unc|ood|set)/\w+)`", PAGE))
    assert len(named) > 12
    assert named <= names
    (table,) = re.findall(r"\| question \|.*?\n\n", PAGE, re.DOTALL)
    for row in table.strip().splitlines()[2:]:
        for function in re.findall(r"`(\w+)(?:\(.*?\))?`", row.split("|")[3]):
            assert hasattr(metrics, function) or hasattr(evaluations, function), function
