"""Posteriors, runs and checkpoints that version 0.1 wrote load and predict the same; see tests/data/old."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bayes_panns.clips import ClipSet
from bayes_panns.core.choices import ShortClips, Task
from bayes_panns.jobs import RunFolder, fit
from bayes_panns.posterior import FittedClips, Posterior, load, save
from bayes_panns.recipes import read_run, read_strategy
from bayes_panns.svi import Embeddings, Features, Fit, FitSettings, read_metrics

ARCHIVE = Path(__file__).parent.parent / "data" / "old" / "old.tar.xz"
POSTERIORS = ["flip", "det", "drop", "map", "last-layer", "rotated", "low-rank"]
LABELS = ("low", "high", "noise")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def answers(old):
    return np.load(old / "answers.npz")


@pytest.fixture(scope="module")
def clips(old):
    return torch.from_numpy(ClipSet(old / "tones.h5").waveform(np.arange(6)))


def check(posterior, name, answers, clips):
    for key, draws in (("draws", 4), ("mean", 0)):
        made = torch.stack(list(posterior.draws(clips, draws)))
        torch.testing.assert_close(made, torch.from_numpy(answers[f"{name}/{key}"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_posterior_predicts_the_same_and_is_written_as_before(old, answers, clips, name, tmp_path):
    posterior = load(old / name)
    check(posterior, name, answers, clips)
    assert posterior.short_clips == ShortClips.PAD
    assert posterior.fitted_clips == FittedClips()
    assert (posterior.calibration is not None) == (name == "rotated")
    save(posterior, tmp_path / "again")
    tensors = "guide.safetensors"
    assert (tmp_path / "again" / tensors).read_bytes() == (old / name / tensors).read_bytes()


@pytest.mark.parametrize("guide", ["flip", "flip-last-stage", "rotated-head", "low-rank-head", "map"])
def test_a_checkpoint_is_resumed_as_it_was(old, answers, clips, guide, tmp_path):
    """Parameters had other names, and an optimiser's state another order."""
    torch.manual_seed(5)
    posterior = Posterior.build(
        net="resnet14-narrow",
        labels=LABELS,
        task=Task.ONE_OF_K,
        sample_rate=8000,
        clip_seconds=0.5,
        strategy=read_strategy(guide),
        clips=24,
    )
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("checkpoint.pt", "metrics.jsonl"):
        (folder / name).write_bytes((old / f"checkpoint-{guide}" / name).read_bytes())
    data = Features(ClipSet(old / "tones.h5"), posterior.front_end, Task.ONE_OF_K)
    settings = FitSettings(epochs=2, batch_size=8, spec_augment=False, learning_rate=1e-4)
    job = Fit(posterior.model, posterior.guide, data, settings, folder)
    job.load_checkpoint()
    assert job.step == 4
    assert job.run()
    check(posterior, f"checkpoint-{guide}", answers, clips)


def test_an_interrupted_run_goes_on_to_the_same_end(old, answers, clips, monkeypatch):
    monkeypatch.chdir(old)
    settings = [
        'guide="last-layer"',
        'data.stores=["tones.h5"]',
        "data.validation=0",
        "fit.epochs=3",
        "fit.batch_size=8",
        "fit.steps_per_epoch=2",
        'upstream="det"',
    ]
    recipe = read_run("fixed-features", settings)
    assert RunFolder(old / "interrupted").read_recipe().fit.scale_bounds == []
    done = fit(recipe, "interrupted", device="cpu", resume=True)
    assert done.complete
    check(done.posterior, "interrupted", answers, clips)
    before = [json.loads(line) for line in str(answers["interrupted/metrics"]).splitlines()]
    after = read_metrics(old / "interrupted" / "metrics.jsonl")
    assert [line["step"] for line in after] == [line["step"] for line in before]
    assert after[-1]["nll"] == pytest.approx(before[-1]["nll"], rel=1e-6)


def test_embeddings_that_were_kept_are_found(old, caplog):
    posterior = load(old / "det")
    posterior.freeze(["backbone"])
    Embeddings(ClipSet(old / "tones.h5"), posterior.model, Task.ONE_OF_K)
    assert "read from" in caplog.text
