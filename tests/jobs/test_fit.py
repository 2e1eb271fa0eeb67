"""Fits through the Python call: from scratch, by transfer, with parts frozen, and what is refused."""

import json
import sys
import tomllib
import types

import numpy as np
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from bayes_panns.clips import Task, write
from bayes_panns.core.errors import FitError, OutputError, RecipeError, StoreError
from bayes_panns.jobs import RunFolder, crossval, evaluate_posterior, fit
from bayes_panns.posterior import load
from bayes_panns.recipes import replaced


def test_a_fit_leaves_what_it_promises(upstream):
    assert {path.name for path in upstream.iterdir()} == {
        *("posterior", "metrics.jsonl", "run.toml", "resume.json"),
        *("checkpoint.pt", "checkpoint.previous.pt", "checkpoint.best.pt"),
    }
    assert len((upstream / "metrics.jsonl").read_text().splitlines()) == 2
    run = tomllib.loads((upstream / "run.toml").read_text())
    assert run["fit"]["epochs"] == 2
    posterior = load(upstream)
    assert posterior.labels == ("low", "mid", "high")
    assert posterior.provenance["complete"]
    assert (posterior.provenance["steps"], posterior.provenance["kl_weight"]) == (4, 1.0)
    assert set(posterior.metrics) >= {"nll", "kl", "val/nll", "val/accuracy"}


def test_transfer_says_what_was_taken_and_where_it_came_from(downstream):
    assert downstream.inherited.new == ("fc_audioset.weight", "fc_audioset.bias")
    assert len(downstream.inherited.taken) > 50
    provenance = downstream.posterior.provenance
    assert provenance["upstream"]["data"] == ["upstream.h5"]
    assert provenance["folds"] == [1]
    assert (provenance["clips"], provenance["tempered"]) == (8, True)


def test_frozen_parts_stay_as_upstream_had_them(stores, upstream, tmp_path, recipe):
    parts = ["bn0", "conv_block1", "resnet", "conv_block_after1"]
    fitted = fit(recipe(stores["downstream"], upstream=str(upstream), freeze=parts), tmp_path / "run")
    before, after = load(upstream), fitted.posterior
    for name, value in after.points().items():
        assert (value == before.points()[name]).all(), name
    for name, (loc, scale) in after.gaussians().items():
        moved = not (
            (loc == before.gaussians()[name][0]).all() if loc.shape == before.gaussians()[name][0].shape else False
        )
        assert moved == name.startswith("fc"), name
        assert scale.isfinite().all()


@pytest.mark.parametrize("freeze", [["bn0", "conv_block1"], ["backbone"]])
def test_frozen_parts_that_start_from_points_are_points(stores, upstream, tmp_path, freeze, recipe):
    det = fit(recipe(stores["upstream"], guide="det", epochs=1), tmp_path / "det").folder
    run = recipe(stores["downstream"], guide="flip-from-points", upstream=str(det), freeze=freeze)
    before, after = load(det).points(), load(fit(run, tmp_path / "run").folder)
    drawn = {name.split(".")[0] for name in after.gaussians()}
    rest = {"resnet", "conv_block_after1", "fc1"} if freeze != ["backbone"] else set()
    assert drawn == {"fc_audioset", *rest}
    for name in ("conv_block1.conv1.weight", "bn0.running_mean"):
        assert torch.equal(after.points()[name], before[name])
    assert after.strategy.points


def test_a_flip_with_a_frozen_backbone_of_points_runs_on_its_embeddings(stores, upstream, tmp_path, recipe):
    """It is a guide of the last layer then."""
    det = fit(recipe(stores["upstream"], guide="det", epochs=1), tmp_path / "det").folder
    options = {"freeze": ["backbone"], "features": "embeddings"}
    run = recipe(stores["downstream"], upstream=str(det), **options)
    assert fit(run, tmp_path / "run").posterior.model.only_head
    with pytest.raises(RecipeError, match=r"the guide draws conv_block1\.conv1\.weight"):
        fit(recipe(stores["downstream"], upstream=str(upstream), **options), tmp_path / "other")


def test_nothing_is_left_to_fit_if_all_is_frozen(stores, upstream, tmp_path, recipe):
    run = recipe(stores["downstream"], upstream=str(upstream), freeze=["backbone", "fc_audioset"])
    with pytest.raises(FitError, match="there is nothing to train: every part of the network is frozen"):
        fit(run, tmp_path / "run")


def test_a_head_on_the_embeddings_of_a_frozen_backbone_equals_one_on_waveforms(stores, upstream, tmp_path, recipe):
    options = {"guide": "det-flip", "upstream": str(upstream), "freeze": ["backbone"], "validation": 0.25}
    for features in ("memory", "embeddings"):
        run = recipe(stores["downstream"], **options, features=features, kl_weight=1e-3, learning_rate=1e-2)
        fit(run, tmp_path / features)
    whole, head, before = load(tmp_path / "memory"), load(tmp_path / "embeddings"), load(upstream)
    known = before.points() | {name: loc for name, (loc, _) in before.gaussians().items()}
    assert head.points().keys() == whole.points().keys()
    assert all((value == known[name]).all() for name, value in head.points().items())
    assert set(head.gaussians()) == {"fc_audioset.weight", "fc_audioset.bias"}
    for name, pair in head.gaussians().items():
        for value, other in zip(pair, whole.gaussians()[name], strict=True):
            assert value.numpy() == pytest.approx(other.numpy(), rel=1e-3, abs=1e-4)
    assert head.metrics["val/nll"] == pytest.approx(whole.metrics["val/nll"], rel=1e-3)
    scores = [evaluate_posterior(posterior, [stores["downstream"]], draws=4).metrics for posterior in (whole, head)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-2)
    assert scores[1]["unc/epistemic"] > 0


ROTATED = {"guide": "rotated-head", "freeze": ["backbone"], "features": "embeddings", "views": 2, "batch_size": 64}


def test_a_rotated_head_starts_from_the_upstream_heads_mean(caplog, stores, upstream, tmp_path, recipe):
    caplog.clear()
    det = fit(recipe(stores["downstream"], guide="det", upstream=str(upstream)), tmp_path / "det").folder
    run = recipe(stores["downstream"], upstream=str(det), **ROTATED, epochs=1, learning_rate=1e-12)
    head = fit(run, tmp_path / "head").posterior
    assert any("rotated: its mean is the upstream posterior's" in line for line in caplog.messages)
    for name, value in load(det).points().items():
        if name.startswith("fc_audioset."):
            assert head.gaussians()[name][0].numpy() == pytest.approx(value.numpy(), abs=1e-5)
    assert head.guide.part_of("net.fc_audioset.weight").axes.centre.abs().max() > 0
    logged = json.loads((tmp_path / "head" / "metrics.jsonl").read_text())
    width = head.model.prior("net.fc_audioset.weight").variance.mean().sqrt().item()
    assert logged["prior/fc_audioset.weight"] == pytest.approx(width, rel=1e-5)
    assert {"scale/fc_audioset.weight", "scale/fc_audioset.bias"} <= logged.keys()


@pytest.mark.parametrize(
    ("store", "freeze"), [("downstream", ["backbone"]), ("many", ["backbone"]), ("downstream", ["backbone", "locs"])]
)
def test_a_rotated_head_for_new_labels_is_fitted_first_and_resumes_exactly(
    caplog, stores, upstream, tmp_path, interrupted, store, freeze, recipe
):
    caplog.clear()
    options = {**ROTATED, "freeze": freeze, "epochs": 6, "learning_rate": 1e-2}
    run = recipe(stores[store], upstream=str(upstream), **options)
    whole = fit(run, tmp_path / "whole")
    assert any("rotated: its mean is fitted to the clips" in line for line in caplog.messages)
    assert evaluate_posterior(load(whole.folder), [stores[store]], draws=4).metrics["unc/epistemic"] > 0
    with interrupted():
        assert not fit(run, tmp_path / "parts").complete
    parts = fit(run, tmp_path / "parts", resume=True)
    assert parts.complete
    for name, value in whole.posterior.guide.state_dict().items():
        assert torch.equal(parts.posterior.guide.state_dict()[name], value), name


def test_a_rotated_head_needs_embeddings(stores, upstream, tmp_path, recipe):
    with pytest.raises(RecipeError, match="takes its axes from the embeddings of a frozen backbone"):
        fit(recipe(stores["downstream"], guide="rotated-head", upstream=str(upstream)), tmp_path / "run")


@pytest.mark.parametrize("guide", ["last-layer", "low-rank-head", "map-head"])
def test_strategies_of_the_last_layer_run_on_fixed_features(stores, upstream, tmp_path, guide, recipe):
    run = recipe(stores["downstream"], **{**ROTATED, "guide": guide}, upstream=str(upstream))
    metrics = evaluate_posterior(load(fit(run, tmp_path / "run").folder), [stores["downstream"]], draws=4).metrics
    assert (metrics["unc/epistemic"] > 0) == (guide != "map-head")


@pytest.mark.parametrize("guide", ["flip", "rotated-head", "low-rank-head", "last-layer"])
def test_frozen_locs_leave_the_widths_to_be_fitted(stores, upstream, tmp_path, guide, recipe):
    det = fit(recipe(stores["downstream"], guide="det", upstream=str(upstream)), tmp_path / "det").folder
    options = {**ROTATED, "freeze": ["locs"]} if guide == "rotated-head" else {"freeze": ["locs"]}
    run = recipe(stores["downstream"], upstream=str(det), **{**options, "guide": guide, "learning_rate": 0.1})
    before, after = load(det), fit(run, tmp_path / "run").posterior
    means = after.points() | {name: mean for name, (mean, _) in after.gaussians().items()}
    assert {name for name in before.points() if name in means} == set(before.points())
    for name, value in before.points().items():
        assert means[name].numpy() == pytest.approx(value.numpy(), abs=1e-5), name
    start = fit(run.model_copy(update={"fit": run.fit.model_copy(update={"learning_rate": 1e-9})}), tmp_path / "start")
    moved = {
        name: not torch.allclose(width, start.posterior.gaussians()[name][1], rtol=1e-3)
        for name, (_, width) in after.gaussians().items()
    }
    assert all(moved.values()), moved
    assert len(moved) >= 2


@pytest.mark.parametrize(
    ("guide", "store", "options"),
    [
        ("det", "downstream", {}),
        ("flip", "downstream", {"spec_augment": True}),
        ("flip", "many", {}),
        ("det-flip", "downstream", {"features": "embeddings", "freeze": ["backbone"]}),
    ],
)
def test_a_probed_head_knows_the_labels_before_the_first_step(
    stores, upstream, tmp_path, guide, store, options, recipe
):
    metrics = {}
    for head in ("random", "probe"):
        run = recipe(stores[store], guide=guide, upstream=str(upstream), epochs=1, learning_rate=1e-9, **options)
        posterior = fit(run.model_copy(update={"head": head}), tmp_path / head).posterior
        metrics[head] = evaluate_posterior(posterior, [stores[store]], draws=0).metrics
    assert metrics["probe"]["cls/map"] == pytest.approx(1)
    assert metrics["probe"]["cal/nll"] < metrics["random"]["cal/nll"] / 2


def test_a_probe_needs_an_upstream_posterior(stores, tmp_path, recipe):
    run = recipe(stores["downstream"]).model_copy(update={"head": "probe"})
    with pytest.raises(RecipeError, match="needs a posterior to start from"):
        fit(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_head_for_the_upstreams_own_labels_is_not_probed(caplog, stores, upstream, tmp_path, recipe):
    run = recipe(stores["upstream"], upstream=str(upstream), epochs=1, learning_rate=1e-9)
    caplog.clear()
    after = fit(run.model_copy(update={"head": "probe"}), tmp_path / "run").posterior
    assert not any("starts at the probe" in line for line in caplog.messages)
    before = load(upstream).gaussians()["fc_audioset.weight"][0]
    assert after.gaussians()["fc_audioset.weight"][0].numpy() == pytest.approx(before.numpy(), abs=1e-5)


@pytest.mark.parametrize("transferred", [True, False])
def test_locs_that_nothing_has_fitted_are_not_frozen(stores, upstream, tmp_path, transferred, recipe):
    run = recipe(stores["downstream"], upstream=str(upstream) if transferred else None, freeze=["locs"])
    with pytest.raises(RecipeError, match="would stay random: start from a posterior of the same labels"):
        fit(run, tmp_path / "run")
    if transferred:
        assert fit(run.model_copy(update={"head": "probe"}), tmp_path / "run").posterior.gaussians()


def test_a_run_that_freezes_trains_no_other_kind_either(stores, upstream, tmp_path, recipe):
    run = recipe(stores["downstream"], guide="map", upstream=str(upstream), freeze=["resnet", "conv_block1"])
    before, after = load(upstream), fit(run, tmp_path / "run").posterior
    moved = {
        name.split(".")[0]
        for name, (loc, _) in before.gaussians().items()
        if name.split(".")[0] != "fc_audioset" and not torch.equal(after.points()[name], loc)
    }
    assert moved == {"conv_block_after1", "fc1"}


@pytest.mark.parametrize(
    "guide", ["det-flip", "drop", "det", "map", "low-rank-head", "flip-last-stage", "flip-upstream-prior"]
)
def test_every_strategy_runs_from_end_to_end(stores, upstream, tmp_path, guide, recipe):
    fitted = fit(recipe(stores["downstream"], guide=guide, upstream=str(upstream), mixup=True), tmp_path / "run")
    metrics = evaluate_posterior(load(fitted.folder), [stores["downstream"]], draws=3).metrics
    assert metrics["draws"] == (0 if guide in ("det", "map") else 3)
    assert (metrics["unc/epistemic"] > 0) == (guide not in ("det", "map"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"freeze": ["stem"]},
            RecipeError,
            r"no module 'stem'; there are bn0, conv_block1.* backbone \(all but fc_audioset\) and locs",
        ),
        ({"features": "embeddings"}, RecipeError, "the guide draws conv_block1.conv1.weight and .* such as det-flip"),
        ({"features": "embeddings", "guide": "det-flip"}, RecipeError, r"would change bn0.* freeze = \[\"backbone\"\]"),
        ({"folds": [7]}, StoreError, "no clip is in fold 7; there are 1, 2"),
        (
            {"guide": "nowhere:guide"},
            RecipeError,
            "a Python function, which a recipe cannot run",
        ),
    ],
)
def test_what_does_not_fit_is_reported_before_anything_is_made(stores, tmp_path, change, error, message, recipe):
    with pytest.raises(error, match=message):
        fit(recipe(stores["downstream"], **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_metrics_are_json_lines_with_nll_and_kl_apart(upstream):
    line = json.loads((upstream / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["nll"] > 0
    assert line["kl"] > 1000
    assert line["kl_weight"] == 1.0


def test_a_single_label_is_nothing_to_learn_but_its_presence_is(tmp_path, recipe):
    waveform = 0.1 * np.random.default_rng(0).normal(size=(6, 4000))
    write(tmp_path / "one.h5", waveform, np.ones((6, 1), dtype=bool), ("dog",), Task.ONE_OF_K, 8000)
    with pytest.raises(StoreError, match=r"one.h5: has the single label 'dog', so there is nothing to learn"):
        fit(recipe(str(tmp_path / "one.h5")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    there = np.arange(6)[:, None] % 2 == 0
    write(tmp_path / "tags.h5", waveform, there, ("dog",), Task.MULTI_LABEL, 8000)
    assert fit(recipe(str(tmp_path / "tags.h5"), epochs=1), tmp_path / "run").complete


def test_a_guide_in_python_runs_only_if_the_caller_names_it(stores, tmp_path, recipe, monkeypatch):
    made = []

    def make(model):
        made.append(model)
        return AutoNormal(model, init_scale=0.01)

    module = types.ModuleType("guides_of_mine")
    module.make = make
    monkeypatch.setitem(sys.modules, "guides_of_mine", module)
    run = recipe(stores["downstream"], guide="guides_of_mine:make", epochs=1)
    with pytest.raises(RecipeError, match="a Python function, which a recipe cannot run"):
        fit(run, tmp_path / "run")
    with pytest.raises(RecipeError, match="a Python function, which a recipe cannot run"):
        crossval(run, tmp_path / "cv")
    assert not made
    fit(recipe(stores["downstream"], epochs=1), tmp_path / "run", guide_function="guides_of_mine:make")
    # What was run is written down, and can be read, shown and resumed; but it does not run by itself.
    written = RunFolder(tmp_path / "run").read_recipe()
    assert written.guide == "guides_of_mine:make"
    with pytest.raises(RecipeError, match="a Python function"):
        fit(written, tmp_path / "run", resume=True)
    longer = replaced(written, {"fit.epochs": 2})
    again = fit(longer, tmp_path / "run", guide_function="guides_of_mine:make", resume=True)
    assert again.posterior.provenance["epochs"] == 2
    with pytest.raises(FitError, match=r"was started with guide = 'guides_of_mine:make', not 'flip'"):
        fit(replaced(longer, {"guide": "flip"}), tmp_path / "run", resume=True)


def test_a_recipe_is_validated_however_it_was_made(stores, tmp_path, recipe):
    run = recipe(stores["downstream"])
    invalid = run.model_copy(update={"fit": run.fit.model_copy(update={"seed": -1})})
    with pytest.raises(RecipeError, match=r"fit.seed = -1: input should be greater than or equal to 0"):
        fit(invalid, tmp_path / "run")


def test_the_folder_of_a_run_is_checked_before_any_work(stores, tmp_path, recipe):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="is a file; choose another folder"):
            fit(recipe("nowhere.h5"), place)
