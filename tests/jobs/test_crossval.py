"""Cross-validation through the Python call and the command line."""

import importlib
import json
import math
import shutil
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pyro.infer.autoguide import AutoNormal
from scipy import stats

from bayes_panns.cli import main
from bayes_panns.clips import Store, Task, write
from bayes_panns.core.errors import FitError, OutputError, RecipeError, SettingError, StoreError
from bayes_panns.jobs import crossval, write_results
from bayes_panns.posterior import load
from bayes_panns.posterior.disk import read_header
from bayes_panns.recipes import Data, Run, replaced
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
    complete = [folder / "posterior" / "guide.safetensors" for _, folder in calls[:2]]
    before = [path.stat().st_mtime_ns for path in complete]
    again = crossval(recipe(store), tmp_path / "parts", draws=2, resume=True)
    assert [path.stat().st_mtime_ns for path in complete] == before
    assert crossval_table(again) == crossval_table(whole)


def test_a_fit_that_was_interrupted_is_reported_and_not_scored(store, tmp_path, monkeypatch):
    class Interrupted:
        complete = False

    monkeypatch.setattr(module, "fit", lambda *_, **__: Interrupted())
    assert crossval(recipe(store), tmp_path / "x", draws=2) is None
    assert not list(tmp_path.rglob("evaluation"))


def test_mistakes_are_reported_before_any_fit(store, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "fit", None)
    for folds in ([7], []):
        with pytest.raises(StoreError, match="has the folds 1, 2, 3; a cross-validation needs two"):
            crossval(recipe(store), tmp_path / "x", folds=folds)
    write(tmp_path / "n.h5", np.zeros((2, 4000)), np.eye(2, dtype=bool), ("a", "b"), Task.ONE_OF_K, RATE)
    with pytest.raises(StoreError, match="have no folds"):
        crossval(recipe(str(tmp_path / "n.h5")), tmp_path / "y")
    for options, message in (
        ({"folds": [1, 2, 1]}, "the fold 1 is named twice"),
        ({"seeds": [4, 4]}, "the seed 4 is named twice"),
        ({"guides": ["det", "guides/det.toml"]}, "the guide det is named twice"),
    ):
        with pytest.raises(RecipeError, match=message):
            crossval(recipe(store), tmp_path / "z", **options)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        crossval(recipe(store), tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"n.h5", "file"}


def test_seeds_are_validated(store, tmp_path):
    with pytest.raises(SettingError, match=r"fit.seed = -1: input should be greater than or equal to 0"):
        crossval(recipe(store), tmp_path / "x", seeds=[-1])


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


def test_fits_from_points_draw_nothing_that_they_freeze(store, tmp_path):
    quick = recipe(store).model_copy(update={"fit": FitSettings(epochs=1, batch_size=16, spec_augment=False)})
    crossval(quick, tmp_path / "first", guides=["det"], folds=[1, 2], draws=0)
    frozen = {"upstream": str(tmp_path / "first" / "det"), "freeze": ["bn0", "conv_block1"]}
    run = quick.model_copy(update=frozen)
    found = crossval(run, tmp_path / "second", guides=["flip-from-points"], folds=[1, 2], draws=2)
    assert set(found.evaluations["flip-from-points"][0]) == {1, 2}
    for fold in (1, 2):
        posterior = load(module.run_folder(tmp_path / "second" / "flip-from-points", 0, fold))
        assert posterior.strategy.points == ["conv_block1.*"]
        assert posterior.provenance["upstream"]["folds"] == [each for each in (1, 2, 3) if each != fold]
    again = crossval(run, tmp_path / "second", guides=["flip-from-points"], folds=[1, 2], draws=2, resume=True)
    assert again.evaluations["flip-from-points"][0][1].metrics == found.evaluations["flip-from-points"][0][1].metrics


def test_an_upstream_seed_or_fold_that_is_missing_is_reported_before_any_fit(store, tmp_path, monkeypatch):
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


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    """Clips of two labels, of which the third fold has none."""
    generator = np.random.default_rng(0)
    fold, label = np.arange(18) // 6 + 1, np.arange(18) % 2
    target = np.eye(2, dtype=bool)[label] & (fold != 3)[:, None]
    pitch = np.array([500, 1500])[label][:, None] * generator.uniform(0.9, 1.1, (18, 1))
    path = tmp_path_factory.mktemp("stores") / "rare.h5"
    waveform = 0.3 * np.sin(2 * np.pi * pitch * np.arange(4000) / RATE)
    write(path, waveform, target, ("a", "b"), Task.MULTI_LABEL, RATE, fold=fold)
    return str(path)


@pytest.fixture(scope="module")
def undefined(rare, tmp_path_factory):
    return replace(crossval(recipe(rare), tmp_path_factory.mktemp("cv") / "x", guides=["det"], draws=0), resamples=50)


def test_a_metric_that_a_fold_lacks_is_the_mean_of_the_others(undefined):
    spread = undefined.spread("det")["cls/map"]
    values = [undefined.evaluations["det"][0][fold].metrics["cls/map"] for fold in (1, 2)]
    assert spread.folds[:2] == pytest.approx(values)
    assert math.isnan(spread.folds[2])
    assert (spread.defined, spread.mean) == (2, pytest.approx(np.mean(values)))
    half = stats.t.ppf(0.975, 1) * np.std(values, ddof=1) / 2**0.5
    assert (spread.low, spread.high) == pytest.approx((np.mean(values) - half, np.mean(values) + half))
    assert undefined.spread("det")["cal/nll"].defined == 3


def test_the_interval_of_a_mean_counts_the_folds_where_the_metric_is_defined(result):
    values = {1: 0.2, 2: 0.6, 3: math.nan, 4: 0.7}
    one = result.evaluations["flip"][0][1]
    seeds = [{fold: replace(one, metrics={"m": value + shift}) for fold, value in values.items()} for shift in (0, 0.1)]
    spread = module.CrossValidation({"x": dict(enumerate(seeds))}).spread("x")["m"]
    known = np.array([0.25, 0.65, 0.75])
    assert spread.folds == pytest.approx((0.25, 0.65, math.nan, 0.75), nan_ok=True)
    assert (spread.defined, spread.mean) == (3, pytest.approx(known.mean()))
    assert spread.deviation == pytest.approx(known.std(ddof=1))
    low, high = stats.t.interval(0.95, 2, known.mean(), known.std(ddof=1) / 3**0.5)
    assert (spread.low, spread.high) == pytest.approx((low, high))


def test_undefined_numbers_are_null_in_the_results_and_counted_in_the_table(undefined, tmp_path):
    write_results(undefined, tmp_path / "results.json")

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    table = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    found = table["strategies"]["det"]["metrics"]["cls/map"]
    assert found["folds"][2] is None
    assert found["folds"][0] is not None
    assert found["defined"] == 2
    (line,) = [line for line in crossval_table(undefined).splitlines() if line.startswith("cls/map ")]
    assert line.endswith("[2 of 3 folds]")
    (line,) = [line for line in crossval_table(undefined).splitlines() if line.startswith("cal/nll ")]
    assert "folds" not in line


def test_a_metric_that_only_a_later_fold_has_is_not_dropped(result):
    evaluations = result.evaluations["flip"][0]
    first = evaluations[1]
    without = {name: value for name, value in first.metrics.items() if name != "cls/map"}
    changed = module.CrossValidation({"flip": {0: {**evaluations, 1: replace(first, metrics=without)}}})
    spread = changed.spread("flip")["cls/map"]
    assert spread.defined == 2
    assert spread.mean == pytest.approx(np.mean([evaluations[fold].metrics["cls/map"] for fold in (2, 3)]))


def test_fits_are_scored_on_the_device_that_they_are_fitted_on(store, tmp_path, monkeypatch):
    devices = {}

    class Complete:
        complete = True

    def fitted(recipe, folder, *, device, **options):
        devices["fit"] = device
        return Complete()

    def loaded(folder, *, device, **options):
        devices["load"] = device
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(module, "fit", fitted)
    monkeypatch.setattr(module, "load", loaded)
    with pytest.raises(KeyboardInterrupt):
        crossval(recipe(store), tmp_path / "x", device="cuda:1")
    assert devices == {"fit": "cuda:1", "load": torch.device("cuda:1")}


def test_an_evaluation_of_an_earlier_posterior_is_not_taken_for_that_of_a_longer_fit(store, tmp_path):
    first = crossval(recipe(store), tmp_path / "cv", guides=["det"], folds=[1, 2], draws=0)
    again = crossval(recipe(store), tmp_path / "cv", guides=["det"], folds=[1, 2], draws=0, resume=True)
    longer = replaced(recipe(store), {"fit.epochs": 4})
    second = crossval(longer, tmp_path / "cv", guides=["det"], folds=[1, 2], draws=0, resume=True)
    nll = [each.evaluations["det"][0][1].metrics["cal/nll"] for each in (first, again, second)]
    assert nll[0] == nll[1] != nll[2]
    # Nor is a longer fit's taken for that of a shorter one.
    with pytest.raises(FitError, match=r"was fitted for fit.epochs = 4, not 2"):
        crossval(recipe(store), tmp_path / "cv", guides=["det"], folds=[1, 2], draws=0, resume=True)


def test_a_guide_in_python_is_compared_with_recipes(store, tmp_path, monkeypatch):
    guides = types.ModuleType("compared_guides")
    guides.normal = lambda model: AutoNormal(model, init_scale=0.01)
    monkeypatch.setitem(sys.modules, "compared_guides", guides)
    quick = replaced(recipe(store), {"fit.epochs": 1})
    result = crossval(quick, tmp_path / "cv", guides=["det", "compared_guides:normal"], folds=[1, 2], draws=2)
    assert list(result.evaluations) == ["det", "normal"]
    assert (tmp_path / "cv" / "normal" / "seed-0" / "fold-1" / "posterior").is_dir()


def test_a_single_fold_has_no_spread(result):
    one = module.CrossValidation({"flip": {0: {1: result.evaluations["flip"][0][1]}}})
    spread = one.spread("flip")["cal/nll"]
    assert spread.mean == result.evaluations["flip"][0][1].metrics["cal/nll"]
    assert math.isnan(spread.deviation)
    assert math.isnan(spread.low)


def test_an_evaluation_of_a_store_that_has_changed_in_its_place_is_made_again(store, tmp_path):
    outside = shutil.copy(store, tmp_path / "outside.h5")
    options = {"guides": ["det"], "folds": [1, 2], "draws": 0, "ood": [outside]}
    first = crossval(recipe(store), tmp_path / "cv", **options)
    clips = Store(outside)
    write(outside, -0.5 * clips.waveform(range(6)), clips.target()[:6], clips.labels, clips.task, clips.sample_rate)
    second = crossval(recipe(store), tmp_path / "cv", resume=True, **options)
    names = [each.evaluations["det"][0][1].ood_names for each in (first, second)]
    assert len(names[0]) > len(names[1]) == 6


@pytest.mark.long
def test_an_evaluation_of_another_precision_is_made_again(store, tmp_path):
    options = {"guides": ["det"], "folds": [1], "draws": 0}
    first = crossval(recipe(store), tmp_path / "cv", **options)
    half = crossval(recipe(store), tmp_path / "cv", precision="bf16", resume=True, **options)
    again = crossval(recipe(store), tmp_path / "cv", resume=True, **options)
    nll = [each.evaluations["det"][0][1].metrics["cal/nll"] for each in (first, half, again)]
    assert nll[0] == nll[2] != nll[1]
    assert nll[1] == pytest.approx(nll[0], rel=0.02)
