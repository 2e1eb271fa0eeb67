"""Whole jobs through the Python calls: fit, transfer, resume, evaluate."""

import json
import tomllib

import numpy as np
import pytest
import torch

from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core.errors import FitError, PosteriorError, RecipeError, StoreError
from bayes_panns.jobs.workflow import calibrate, divide, evaluate_posterior, fit, held_out
from bayes_panns.metrics import conformal_threshold, label_sets
from bayes_panns.posterior import Ensemble, load, save_calibration
from bayes_panns.predictions import predict_logits
from bayes_panns.recipes.reading import Data, Run, read_run
from bayes_panns.svi import Fit, FitSettings

RATE = 8000


def tones(path, pitches, labels, *, clips=16, fold=None, task=Task.ONE_OF_K, rate=RATE):
    generator = np.random.default_rng(len(labels))
    time = np.arange(rate // 2) / rate
    label = np.arange(clips) % len(labels)
    pitch = np.array(pitches)[label][:, None] * generator.uniform(0.95, 1.05, (clips, 1))
    waveform = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.01 * generator.normal(size=(clips, len(time)))
    write(path, waveform, np.eye(len(labels), dtype=bool)[label], labels, task, rate, fold=fold)
    return str(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return {
        "upstream": tones(folder / "upstream.h5", [300, 900, 2500], ("low", "mid", "high")),
        "downstream": tones(folder / "downstream.h5", [500, 1500], ("a", "b"), fold=np.arange(16) // 8 + 1),
        "swapped": tones(folder / "swapped.h5", [1500, 500], ("b", "a")),
        "other": tones(folder / "other.h5", [500, 1500], ("a", "c")),
        "many": tones(folder / "many.h5", [500, 1500], ("a", "b"), task=Task.MULTI_LABEL),
        "fast": tones(folder / "fast.h5", [500, 1500], ("a", "b"), rate=16000),
    }


def recipe(store, *, guide="flip", upstream=None, folds=None, freeze=(), validation=0.0, **settings):
    settings = {"epochs": 2, "batch_size": 8, "spec_augment": False, **settings}
    return Run(
        guide=guide,
        upstream=upstream,
        freeze=list(freeze),
        data=Data(stores=[store], folds=folds, validation=validation),
        fit=FitSettings(**settings),
    )


@pytest.fixture(scope="module")
def upstream(stores, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "upstream"
    fit(recipe(stores["upstream"], validation=0.2), folder)
    return folder


@pytest.fixture(scope="module")
def downstream(stores, upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "downstream"
    settings = {"epochs": 30, "batch_size": 4, "learning_rate": 3e-3, "kl_weight": 1e-5}
    return fit(recipe(stores["downstream"], upstream=str(upstream), folds=[1], **settings), folder)


def test_a_fit_leaves_what_it_promises(upstream):
    assert {path.name for path in upstream.iterdir()} == {"posterior", "metrics.jsonl", "run.toml", "checkpoint.pt"}
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


def test_it_scores_held_out_folds_and_strangers(downstream, stores):
    found = evaluate_posterior(
        downstream.posterior, [stores["downstream"]], folds=[2], ood=[stores["upstream"]], draws=4
    )
    metrics = found.metrics
    assert metrics["cls/accuracy"] == 1
    assert (metrics["clips"], metrics["draws"]) == (8, 4)
    assert metrics["unc/total"] == pytest.approx(metrics["unc/aleatoric"] + metrics["unc/epistemic"])
    assert {
        "cls/map",
        "cls/auc",
        "cal/nll",
        "cal/brier",
        "cal/ece",
        "cal/ace",
        "sc/aurc",
        "ood/auroc",
        "ood/fpr95",
    } <= set(metrics)
    assert found.uncertainty.probability.shape == (8, 2)


def test_labels_may_stand_in_another_order(downstream, stores):
    straight = evaluate_posterior(downstream.posterior, [stores["downstream"]], draws=0).metrics
    swapped = evaluate_posterior(downstream.posterior, [stores["swapped"]], draws=0).metrics
    assert straight["cls/accuracy"] == swapped["cls/accuracy"] == 1


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("other", "its labels are not the posterior's: it lacks b and adds c"),
        ("many", "its task is multi-label, but the posterior's is one-of-k"),
        ("fast", "sample rate 16000 Hz, but the posterior's is 8000"),
    ],
)
def test_a_store_that_does_not_fit_is_told(downstream, stores, store, message):
    with pytest.raises(StoreError, match=message):
        evaluate_posterior(downstream.posterior, [stores[store]])


def test_frozen_parts_stay_as_upstream_had_them(stores, upstream, tmp_path):
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


def test_a_head_on_the_embeddings_of_a_frozen_backbone_is_a_posterior_like_any_other(stores, upstream, tmp_path):
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


def test_a_rotated_head_starts_from_the_upstream_heads_mean(caplog, stores, upstream, tmp_path):
    caplog.clear()
    det = fit(recipe(stores["downstream"], guide="det", upstream=str(upstream)), tmp_path / "det").folder
    run = recipe(stores["downstream"], upstream=str(det), **ROTATED, epochs=1, learning_rate=1e-12)
    head = fit(run, tmp_path / "head").posterior
    assert any("rotated: its mean is the upstream posterior's" in line for line in caplog.messages)
    for name, value in load(det).points().items():
        if name.startswith("fc_audioset."):
            assert head.gaussians()[name][0].numpy() == pytest.approx(value.numpy(), abs=1e-5)
    assert head.guide.parts[0].axes.centre.abs().max() > 0
    logged = json.loads((tmp_path / "head" / "metrics.jsonl").read_text())
    width = head.model.prior("net.fc_audioset.weight").variance.mean().sqrt().item()
    assert logged["prior/fc_audioset.weight"] == pytest.approx(width, rel=1e-5)
    assert {"scale/fc_audioset.weight", "scale/fc_audioset.bias"} <= logged.keys()


@pytest.mark.parametrize(
    ("store", "freeze"), [("downstream", ["backbone"]), ("many", ["backbone"]), ("downstream", ["backbone", "locs"])]
)
def test_a_rotated_head_for_new_labels_is_fitted_first_and_resumes_exactly(
    caplog, stores, upstream, tmp_path, monkeypatch, store, freeze
):
    caplog.clear()
    options = {**ROTATED, "freeze": freeze, "epochs": 6, "learning_rate": 1e-2}
    run = recipe(stores[store], upstream=str(upstream), **options)
    whole = fit(run, tmp_path / "whole")
    assert any("rotated: its mean is fitted to the clips" in line for line in caplog.messages)
    assert evaluate_posterior(load(whole.folder), [stores[store]], draws=4).metrics["unc/epistemic"] > 0
    with monkeypatch.context() as patch:
        patch.setattr(Fit, "run", lambda job, run=Fit.run: stop_after(job, run))
        assert not fit(run, tmp_path / "parts").complete
    parts = fit(run, tmp_path / "parts", resume=True)
    assert parts.complete
    for name, value in whole.posterior.guide.state_dict().items():
        assert torch.equal(parts.posterior.guide.state_dict()[name], value), name


def test_a_rotated_head_needs_embeddings(stores, upstream, tmp_path):
    with pytest.raises(RecipeError, match="takes its axes from the embeddings of a frozen backbone"):
        fit(recipe(stores["downstream"], guide="rotated-head", upstream=str(upstream)), tmp_path / "run")


@pytest.mark.parametrize("guide", ["last-layer", "low-rank-head", "map-head"])
def test_strategies_of_the_last_layer_run_on_fixed_features(stores, upstream, tmp_path, guide):
    run = recipe(stores["downstream"], **{**ROTATED, "guide": guide}, upstream=str(upstream))
    metrics = evaluate_posterior(load(fit(run, tmp_path / "run").folder), [stores["downstream"]], draws=4).metrics
    assert (metrics["unc/epistemic"] > 0) == (guide != "map-head")


@pytest.mark.parametrize("guide", ["flip", "rotated-head", "low-rank-head", "last-layer"])
def test_frozen_locs_leave_the_widths_to_be_fitted(stores, upstream, tmp_path, guide):
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
def test_a_probed_head_knows_the_labels_before_the_first_step(stores, upstream, tmp_path, guide, store, options):
    metrics = {}
    for head in ("random", "probe"):
        run = recipe(stores[store], guide=guide, upstream=str(upstream), epochs=1, learning_rate=1e-9, **options)
        posterior = fit(run.model_copy(update={"head": head}), tmp_path / head).posterior
        metrics[head] = evaluate_posterior(posterior, [stores[store]], draws=0).metrics
    assert metrics["probe"]["cls/map"] == pytest.approx(1)
    assert metrics["probe"]["cal/nll"] < metrics["random"]["cal/nll"] / 2


def test_a_probe_needs_an_upstream_posterior(stores, tmp_path):
    run = recipe(stores["downstream"]).model_copy(update={"head": "probe"})
    with pytest.raises(RecipeError, match="needs a posterior to start from"):
        fit(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_head_for_the_upstreams_own_labels_is_not_probed(caplog, stores, upstream, tmp_path):
    run = recipe(stores["upstream"], upstream=str(upstream), epochs=1, learning_rate=1e-9)
    caplog.clear()
    after = fit(run.model_copy(update={"head": "probe"}), tmp_path / "run").posterior
    assert not any("starts as the most probable" in line for line in caplog.messages)
    before = load(upstream).gaussians()["fc_audioset.weight"][0]
    assert after.gaussians()["fc_audioset.weight"][0].numpy() == pytest.approx(before.numpy(), abs=1e-5)


@pytest.mark.parametrize("transferred", [True, False])
def test_locs_that_nothing_has_fitted_are_not_frozen(stores, upstream, tmp_path, transferred):
    run = recipe(stores["downstream"], upstream=str(upstream) if transferred else None, freeze=["locs"])
    with pytest.raises(RecipeError, match="would stay at random: start from a posterior of the same labels"):
        fit(run, tmp_path / "run")
    if transferred:
        assert fit(run.model_copy(update={"head": "probe"}), tmp_path / "run").posterior.gaussians()


def test_a_run_that_freezes_trains_no_other_kind_either(stores, upstream, tmp_path):
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
def test_every_strategy_runs_from_end_to_end(stores, upstream, tmp_path, guide):
    fitted = fit(recipe(stores["downstream"], guide=guide, upstream=str(upstream), mixup=True), tmp_path / "run")
    metrics = evaluate_posterior(load(fitted.folder), [stores["downstream"]], draws=3).metrics
    assert metrics["draws"] == (0 if guide in ("det", "map") else 3)
    assert (metrics["unc/epistemic"] > 0) == (guide not in ("det", "map"))


def test_a_stopped_run_goes_on_and_a_finished_one_stays(stores, tmp_path, monkeypatch):
    whole = fit(recipe(stores["upstream"]), tmp_path / "whole")
    original = Fit.run
    monkeypatch.setattr(Fit, "run", lambda self: stop_after(self, original))
    partial = fit(recipe(stores["upstream"]), tmp_path / "parts")
    assert not partial.complete
    assert load(tmp_path / "parts").provenance["complete"] is False
    monkeypatch.undo()
    resumed = fit(recipe(stores["upstream"]), tmp_path / "parts", resume=True)
    assert resumed.complete
    for name, (loc, scale) in whole.posterior.gaussians().items():
        assert (loc == resumed.posterior.gaussians()[name][0]).all()
        assert (scale == resumed.posterior.gaussians()[name][1]).all()
    again = fit(recipe(stores["upstream"]), tmp_path / "parts", resume=True)
    assert again.posterior.provenance["steps"] == 4


def stop_after(job, run):
    import os
    import signal

    step = job._step

    def interrupt(index):
        os.kill(os.getpid(), signal.SIGINT)
        return step(index)

    job._step = interrupt
    return run(job)


def test_a_folder_is_never_overwritten_or_resumed_by_mistake(stores, tmp_path):
    folder = tmp_path / "run"
    fit(recipe(stores["upstream"], epochs=1), folder)
    with pytest.raises(FitError, match="is not empty; go on with it with --resume"):
        fit(recipe(stores["upstream"], epochs=1), folder)
    with pytest.raises(FitError, match=r"was started with fit.learning_rate = 0.001, not 0.1"):
        fit(recipe(stores["upstream"], epochs=1, learning_rate=0.1), folder, resume=True)
    with pytest.raises(FitError, match="nothing to resume"):
        fit(recipe(stores["upstream"]), tmp_path / "new", resume=True)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"freeze": ["stem"]},
            RecipeError,
            "the net has no module 'stem'; there are bn0, conv_block1.* backbone .all but fc_audioset. and locs",
        ),
        ({"features": "embeddings"}, RecipeError, "the guide draws conv_block1.conv1.weight and .* such as det-flip"),
        ({"features": "embeddings", "guide": "det-flip"}, RecipeError, r"would change bn0.* freeze = \[\"backbone\"\]"),
        ({"folds": [7]}, StoreError, "no clip is in fold 7; there are 1, 2"),
        ({"guide": "nowhere:guide"}, RecipeError, "cannot be imported"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_made(stores, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        fit(recipe(stores["downstream"], **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_metrics_are_json_lines_with_nll_and_kl_apart(upstream):
    line = json.loads((upstream / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["nll"] > 0
    assert line["kl"] > 1000
    assert line["kl_weight"] == 1.0


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
def test_a_calibrated_posterior_is_tempered_and_kept_so(stores, tmp_path, task):
    store = stores["downstream" if task == "one-of-k" else "many"]
    fitted = fit(recipe(store), tmp_path / "run")
    posterior, clips = load(fitted.folder), ClipSet(store)
    before = list(posterior.draws(torch.from_numpy(clips.waveform(range(4))), 3))
    logits = predict_logits(posterior, clips, 3)
    assert logits.shape == (3, 16, 2)
    found = calibrate(posterior, clips, coverage=0.7, draws=3)
    assert (found.draws, found.clips, found.data) == (3, (8, 8), (clips.stores[0].path.name,))
    assert found.temperature != 1
    after = list(posterior.draws(torch.from_numpy(clips.waveform(range(4))), 3))
    expected = posterior.model.likelihood.probability(torch.from_numpy(logits[0, :4]) / found.temperature)
    torch.testing.assert_close(after[0], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before[0], after[0])
    # The half that the threshold was fitted on holds at least the share it promises.
    half = clips.split(0.5, seed=0)[1]
    evaluation = evaluate_posterior(posterior, [store], draws=3)
    rows = [clips.names.index(name) for name in half.names]
    sets = label_sets(evaluation.uncertainty.probability[rows], found.threshold - 1e-6)
    assert sets[evaluation.target[rows]].mean() >= 0.7
    # It is that of the tempered probabilities, as they are predicted.
    expected = conformal_threshold(evaluation.uncertainty.probability[rows], evaluation.target[rows], 0.7)
    assert found.threshold == pytest.approx(expected, abs=1e-5)

    tensors = (fitted.folder / "posterior" / "guide.safetensors").read_bytes()
    save_calibration(posterior)
    assert (fitted.folder / "posterior" / "guide.safetensors").read_bytes() == tensors
    again = load(fitted.folder)
    assert again.calibration == found
    torch.testing.assert_close(next(again.draws(torch.from_numpy(clips.waveform(range(4))), 3)), after[0])


def test_clips_that_were_held_out_are_what_a_posterior_is_calibrated_on(stores, upstream):
    clips = held_out(upstream)
    assert sorted(clips.names) == sorted(held_out(upstream / "posterior").names)
    fitted = divide(read_run(upstream / "run.toml"))[1]
    assert not set(clips.names) & set(fitted.names)
    assert len(held_out(upstream, [stores["downstream"]], folds=[2])) == 8


def test_too_few_clips_for_a_coverage_are_told(stores, upstream):
    with pytest.raises(StoreError, match="needs at least"):
        calibrate(load(upstream), held_out(upstream), coverage=0.9, draws=2)


def test_a_run_that_held_nothing_out_needs_a_store(stores, tmp_path):
    fit(recipe(stores["downstream"]), tmp_path / "run")
    with pytest.raises(StoreError, match="held no clips out; name a store"):
        held_out(tmp_path / "run")


def test_several_posteriors_are_one_ensemble(stores, tmp_path):
    store = stores["downstream"]
    members = []
    for seed, guide in enumerate(("det", "det", "flip")):
        fit(recipe(store, guide=guide, seed=seed), tmp_path / str(seed))
        members.append(load(tmp_path / str(seed)))
    points = evaluate_posterior(Ensemble(members[:2]), [store], draws=20)
    alone = [evaluate_posterior(each, [store]).uncertainty.probability for each in members[:2]]
    np.testing.assert_allclose(points.uncertainty.probability, np.mean(alone, axis=0), atol=1e-6)
    np.testing.assert_allclose(points.uncertainty.epistemic, np.var(alone, axis=0), atol=1e-6)
    assert points.metrics["draws"] == 0
    assert points.provenance["members"] == [str(each.folder) for each in members[:2]]
    mixed = evaluate_posterior(Ensemble(members), [store], draws=9)
    # A third of the draws, and a whole number of mirrored pairs: 4; and the pass of each of the others as often.
    assert mixed.uncertainty.draws == 12
    clips = ClipSet(store)
    waveform = torch.from_numpy(clips.waveform(np.arange(len(clips))))
    flip = torch.stack(list(members[2].draws(waveform, 4, seed=2))).mean(dim=0).numpy()
    np.testing.assert_allclose(mixed.uncertainty.probability, np.mean([*alone, flip], axis=0), atol=1e-6)
    assert evaluate_posterior(Ensemble(members), [store], draws=0).uncertainty.draws == 3
    with pytest.raises(PosteriorError, match="moments cannot be propagated through an ensemble"):
        evaluate_posterior(Ensemble(members), [store], draws="moments")
    with pytest.raises(PosteriorError, match="needs a posterior"):
        Ensemble([])


def test_members_of_other_labels_are_no_ensemble(stores, upstream, tmp_path):
    fit(recipe(stores["downstream"]), tmp_path / "run")
    with pytest.raises(PosteriorError, match="differ in labels; the members of an ensemble must agree"):
        Ensemble([load(upstream), load(tmp_path / "run")])
