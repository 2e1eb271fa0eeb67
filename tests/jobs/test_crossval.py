"""Cross-validation through the Python call and the command line."""

import importlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import stats

from bayes_panns.cli import main
from bayes_panns.clips import Task, write
from bayes_panns.core.errors import FitError, StoreError
from bayes_panns.jobs import crossval, write_results
from bayes_panns.posterior import load
from bayes_panns.posterior.disk import read_header
from bayes_panns.recipes import Data, Run
from bayes_panns.report import crossval_latex, crossval_table
from bayes_panns.svi import FitSettings

module = importlib.import_module("bayes_panns.jobs.crossval")

RATE = 8000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    generator = np.random.default_rng(0)
    label = np.arange(18) % 2
    time = np.arange(RATE // 2) / RATE
    pitch = np.array([500, 1500])[label][:, None] * generator.uniform(0.9, 1.1, (18, 1))
    waveform = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.02 * generator.normal(size=(18, len(time)))
    path = tmp_path_factory.mktemp("stores") / "folds.h5"
    write(path, waveform, np.eye(2, dtype=bool)[label], ("a", "b"), Task.ONE_OF_K, RATE, fold=np.arange(18) // 6 + 1)
    return str(path)


def recipe(store):
    return Run(
        # A recipe's folds are for a single fit.
        data=Data(stores=[store], folds=[1, 2], validation=0.0),
        fit=FitSettings(epochs=2, batch_size=8, spec_augment=False),
    )


@pytest.fixture(scope="module")
def result(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cv") / "x"
    result = crossval(recipe(store), folder, guides=["flip", "det"], seeds=[0, 1], draws=3, ood=[store])
    return replace(result, resamples=100)


def test_each_fold_is_scored_by_a_fit_to_the_others(result, store, tmp_path):
    assert set(result.evaluations) == {"flip", "det"}
    for strategy in result.evaluations.values():
        assert list(strategy) == [0, 1]
        for folds in strategy.values():
            assert list(folds) == [1, 2, 3]
            for fold, evaluation in folds.items():
                assert evaluation.provenance["folds"] == [fold]
                assert len(evaluation.names) == 6
    flip, det = (result.evaluations[name][0][1] for name in ("flip", "det"))
    assert flip.metrics["unc/epistemic"] > 0 == det.metrics["unc/epistemic"]


def test_the_spread_is_over_folds_of_the_seeds_mean(result):
    values = [[result.evaluations["flip"][seed][fold].metrics["cal/nll"] for fold in (1, 2, 3)] for seed in (0, 1)]
    folds = np.mean(values, axis=0)
    spread = result.spread("flip")["cal/nll"]
    assert spread.folds == pytest.approx(folds)
    assert spread.deviation == pytest.approx(folds.std(ddof=1))
    low, high = stats.t.interval(0.95, 2, folds.mean(), folds.std(ddof=1) / 3**0.5)
    assert (spread.low, spread.high) == pytest.approx((low, high))


def test_clips_of_several_seeds_stay_one_group(result):
    pooled = result.pooled("flip")
    assert len(pooled.names) == 36
    assert len(set(pooled.groups)) == 18


def test_differences_are_paired_and_of_the_pooled_clips(result):
    differences = result.differences["flip", "det"]
    flip, det = result.pooled("flip"), result.pooled("det")
    nll = differences["cal/nll"]
    assert nll.value == pytest.approx(flip.metrics["cal/nll"] - det.metrics["cal/nll"])
    assert nll.low <= nll.value <= nll.high


def test_tables_hold_what_was_measured(result, tmp_path):
    text = crossval_table(result)
    spread = result.spread("det")["cls/accuracy"]
    assert f"{spread.mean:.4f} ± {spread.deviation:.4f}" in text
    assert "flip minus det, pooled" in text
    latex = crossval_latex(result)
    assert latex.startswith(r"\begin{tabular}{l")
    assert rf"det & ${spread.mean:.3f} \pm {spread.deviation:.3f}$" in latex
    assert latex.count(r"\\") == 3
    write_results(result, tmp_path / "results.json")
    table = json.loads((tmp_path / "results.json").read_text())
    found = table["strategies"]["det"]
    assert found["metrics"]["cls/accuracy"]["mean"] == pytest.approx(spread.mean)
    assert found["pooled"]["cls/accuracy"]["value"] == pytest.approx(spread.mean)
    assert found["pooled"]["ood/auroc"]["low"] <= found["pooled"]["ood/auroc"]["value"]
    assert table["differences"][0]["of"] == "flip"


def test_one_that_was_stopped_in_a_fold_goes_on_to_the_same_table(store, tmp_path, monkeypatch):
    whole = crossval(recipe(store), tmp_path / "whole", draws=2)
    honest = module.fit
    calls = []

    def stopping(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return honest(*arguments, **options)

    monkeypatch.setattr(module, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        crossval(recipe(store), tmp_path / "parts", draws=2)
    with pytest.raises(FitError, match="--resume"):
        crossval(recipe(store), tmp_path / "parts", draws=2)
    fits = len(calls)
    again = crossval(recipe(store), tmp_path / "parts", draws=2, resume=True)
    assert len(calls) == fits + 1
    assert crossval_table(again) == crossval_table(whole)


def test_a_fit_that_was_interrupted_is_told_and_not_scored(store, tmp_path, monkeypatch):
    class Interrupted:
        complete = False

    monkeypatch.setattr(module, "fit", lambda *_, **__: Interrupted())
    assert crossval(recipe(store), tmp_path / "x", draws=2) is None
    assert not list(tmp_path.rglob("evaluation"))


def test_mistakes_are_told(store, tmp_path):
    with pytest.raises(StoreError, match="has the folds 1, 2, 3"):
        crossval(recipe(store), tmp_path / "x", folds=[7])
    write(tmp_path / "n.h5", np.zeros((2, 4000)), np.eye(2, dtype=bool), ("a", "b"), Task.ONE_OF_K, RATE)
    with pytest.raises(StoreError, match="no folds"):
        crossval(recipe(str(tmp_path / "n.h5")), tmp_path / "y")


@pytest.mark.slow
def test_each_fit_starts_from_the_upstream_posterior_of_its_seed_and_fold(store, tmp_path):
    quick = recipe(store).model_copy(update={"fit": FitSettings(epochs=1, batch_size=16, spec_augment=False)})
    crossval(quick, tmp_path / "first", guides=["det"], seeds=[0, 1], folds=[1, 2], draws=0)
    heads = quick.model_copy(update={"upstream": str(tmp_path / "first" / "det"), "freeze": ["backbone"]})
    crossval(heads, tmp_path / "second", guides=["det-flip"], seeds=[0, 1], folds=[1, 2], draws=2)
    backbones = set()
    for seed in (0, 1):
        for fold in (1, 2):
            before, after = (
                load(module.run_folder(tmp_path / which, seed, fold)) for which in ("first/det", "second/det-flip")
            )
            # Nothing of the scored fold leaks in through the upstream posterior.
            assert after.provenance["upstream"]["folds"] == [each for each in (1, 2, 3) if each != fold]
            assert after.provenance["upstream"]["seed"] == seed
            weights = [each.points()["conv_block1.conv1.weight"] for each in (before, after)]
            torch.testing.assert_close(*weights, rtol=0, atol=0)
            backbones.add(weights[0].sum().item())
    assert len(backbones) == 4


def test_an_upstream_seed_or_fold_that_is_missing_is_told_before_any_fit(store, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "fit", None)
    upstream = tmp_path / "cv" / "det"
    heads = recipe(store).model_copy(update={"upstream": str(upstream)})
    for fold in (1, 2):
        (upstream / "seed-3" / f"fold-{fold}" / "posterior").mkdir(parents=True)
    monkeypatch.setattr(module, "read_header", lambda folder: {"provenance": {"complete": True}})
    with pytest.raises(FitError, match="no posterior of seed 3, fold 3"):
        crossval(heads, tmp_path / "x", seeds=[3])
    with pytest.raises(FitError, match="no posterior of seed 0, fold 1"):
        crossval(heads, tmp_path / "x", folds=[1, 2])
    monkeypatch.setattr(module, "read_header", lambda folder: {"provenance": {"complete": False}})
    with pytest.raises(FitError, match="was interrupted"):
        crossval(heads, tmp_path / "x", seeds=[3], folds=[1, 2])
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_the_command_prints_the_table_and_leaves_every_number(store, tmp_path):
    quick = ["--set", "fit.epochs=1", "--set", "fit.batch_size=8", "--set", "fit.spec_augment=false", "--draws", "2"]
    quick += ["--set", "data.share=0.5", "--set", "data.validation=0"]
    command = ["crossval", "scratch", "--data", store, *quick, "-o", str(tmp_path / "cv")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "flip: mean ± sd (95 % interval)" in result.stdout
    assert json.loads((tmp_path / "cv" / "results.json").read_text())["strategies"]["flip"]["folds"] == [1, 2, 3]
    assert (tmp_path / "cv" / "table.tex").is_file()
    assert "flip, seed 0, fold 3: cls/accuracy" in result.stderr
    header = read_header(tmp_path / "cv" / "flip" / "seed-0" / "fold-1" / "posterior")
    assert header["provenance"]["clips"] == 6  # half of 12
    assert CliRunner().invoke(main, [*command, "--resume"]).stdout == result.stdout


def test_a_single_fold_has_no_spread(result):
    one = module.CrossValidation({"flip": {0: {1: result.evaluations["flip"][0][1]}}})
    spread = one.spread("flip")["cal/nll"]
    assert spread.mean == result.evaluations["flip"][0][1].metrics["cal/nll"]
    assert math.isnan(spread.deviation)
    assert math.isnan(spread.low)
