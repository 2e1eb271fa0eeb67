"""Scoring posteriors on labelled clips."""

import types

import numpy as np
import pytest
import torch

from bayes_panns.clips import ClipSet, Store, Task, write
from bayes_panns.core.errors import PosteriorError, StoreError
from bayes_panns.jobs import RunFolder, divide, evaluate_clips, evaluate_posterior, fit
from bayes_panns.jobs.leaks import count_leaks, record_fitted_clips
from bayes_panns.posterior import Ensemble, load
from bayes_panns.posterior.disk import read_header
from bayes_panns.posterior.fitted_clips import FittedClips


def test_held_out_folds_and_out_of_distribution_clips_are_scored(downstream, stores):
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


def test_an_evaluation_says_which_posterior_it_is_of(upstream, stores):
    posterior = load(upstream)
    provenance = evaluate_posterior(posterior, [stores["upstream"]], draws=0).provenance
    assert provenance["posterior"] == str((upstream / "posterior").resolve())
    assert provenance["sha256"] == read_header(upstream / "posterior")["sha256"]


def test_one_store_needs_no_list(upstream, stores):
    posterior, store = load(upstream), stores["upstream"]
    alone = evaluate_posterior(posterior, store, ood=str(store), draws=0)
    assert alone.metrics == evaluate_posterior(posterior, [store], ood=[store], draws=0).metrics


def test_labels_may_be_in_another_order(downstream, stores):
    straight = evaluate_posterior(downstream.posterior, [stores["downstream"]], draws=0).metrics
    swapped = evaluate_posterior(downstream.posterior, [stores["swapped"]], draws=0).metrics
    assert straight["cls/accuracy"] == swapped["cls/accuracy"] == 1


@pytest.mark.parametrize("task", [Task.ONE_OF_K, Task.MULTI_LABEL])
def test_a_test_set_may_lack_labels_of_the_posterior(stores, upstream, tmp_path, caplog, task):
    store = Store(stores["upstream"])
    rows = np.flatnonzero(store.target()[:, [0, 2]].any(axis=1))
    target = store.target()[rows][:, [2, 0]]
    write(tmp_path / "two.h5", store.waveform(rows), target, ("high", "low"), task, store.sample_rate)
    posterior = load(upstream)
    if task == Task.MULTI_LABEL:
        # One label per clip is a case of any number of labels, but not the other way round.
        with pytest.raises(StoreError, match="its task is multi-label, but the posterior's is one-of-k"):
            evaluate_posterior(posterior, [tmp_path / "two.h5"])
        return
    caplog.clear()
    found = evaluate_posterior(posterior, [tmp_path / "two.h5"], draws=0)
    np.testing.assert_array_equal(found.target, np.stack([target[:, 1], np.zeros(len(rows), bool), target[:, 0]], 1))
    assert found.labels == ("low", "mid", "high")
    assert "two.h5: lacks 1 of the posterior's 3 labels (mid); they are scored as absent" in caplog.text
    # The clips that are there are scored as they are among all of them.
    whole = evaluate_posterior(posterior, [stores["upstream"]], draws=0)
    np.testing.assert_allclose(found.uncertainty.probability, whole.uncertainty.probability[rows], atol=1e-5)
    assert np.isfinite(found.metrics["cls/map"])


def test_a_multi_label_test_set_may_lack_labels_too(stores, tmp_path, recipe):
    posterior = fit(recipe(stores["many"], epochs=1), tmp_path / "run").posterior
    store = Store(stores["many"])
    write(tmp_path / "b.h5", store.waveform(range(16)), store.target()[:, 1:], ("b",), Task.MULTI_LABEL, 8000)
    found = evaluate_posterior(posterior, [tmp_path / "b.h5"], draws=0)
    assert found.target.sum(axis=0).tolist() == [0, 8]
    assert np.isfinite(found.metrics["cls/map"])


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("other", r"other.h5: the posterior does not know c; it knows a, b"),
        ("many", "its task is multi-label, but the posterior's is one-of-k"),
        ("fast", "sample rate 16000 Hz, but the posterior's is 8000 Hz"),
    ],
)
def test_a_store_that_does_not_fit_is_refused(downstream, stores, store, message):
    with pytest.raises(StoreError, match=message):
        evaluate_posterior(downstream.posterior, [stores[store]])


def test_clips_without_labels_or_without_their_names_are_refused(downstream, tmp_path):
    import h5py

    waveform = np.zeros((4, 4000))
    write(tmp_path / "none.h5", waveform, np.zeros((4, 0), bool), (), Task.UNLABELLED, 8000)
    with pytest.raises(StoreError, match=r"none.h5: its clips have no labels to score"):
        evaluate_posterior(downstream.posterior, [tmp_path / "none.h5"])
    write(tmp_path / "three.h5", waveform, np.eye(4, 3, dtype=bool), ("x", "y", "z"), Task.MULTI_LABEL, 8000)
    with h5py.File(tmp_path / "three.h5", "r+") as file:
        del file["label_names"]
        del file.attrs["task"], file.attrs["sha256"]
    posterior = types.SimpleNamespace(task=Task.MULTI_LABEL, labels=("a", "b"), sample_rate=8000)
    with pytest.raises(StoreError, match=r"three.h5: has 3 labels without names, but the posterior has 2"):
        evaluate_clips(posterior, ClipSet(tmp_path / "three.h5"))


def test_several_posteriors_are_one_ensemble(stores, tmp_path, recipe):
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
    # A third of the draws, rounded up to mirrored pairs, is 4. Each other member passes once.
    assert (mixed.uncertainty.draws, mixed.metrics["draws"], mixed.draws) == (6, 6, 6)
    # Each member draws with a seed of its own.
    flip = np.mean(
        [
            each.numpy()
            for each in members[2].draws(torch.from_numpy(Store(store).waveform(range(len(Store(store))))), 4, seed=2)
        ],
        axis=0,
    )
    np.testing.assert_allclose(mixed.uncertainty.probability, np.mean([*alone, flip], axis=0), atol=1e-6)
    at_mean = evaluate_posterior(Ensemble(members), [store], draws=0)
    assert (at_mean.uncertainty.draws, at_mean.metrics["draws"]) == (3, 0)
    with pytest.raises(PosteriorError, match="moments cannot be propagated through an ensemble"):
        evaluate_posterior(Ensemble(members), [store], draws="moments")
    with pytest.raises(PosteriorError, match="needs a posterior"):
        Ensemble([])


def test_posteriors_of_other_labels_are_no_ensemble(stores, upstream, tmp_path, recipe):
    fit(recipe(stores["downstream"]), tmp_path / "run")
    with pytest.raises(PosteriorError, match="differ in labels"):
        Ensemble([load(upstream), load(tmp_path / "run")])


def fitted_to(posterior, clips, upstream=None):
    """``posterior`` as if it had been fitted to ``clips``."""
    record_fitted_clips(posterior, clips, upstream)
    return posterior


def test_scored_clips_that_the_posterior_was_fitted_to_are_counted(stores, upstream, tmp_path, caplog):
    held, clips = divide(RunFolder(upstream).read_recipe())
    before = fitted_to(types.SimpleNamespace(), held)
    posterior = fitted_to(load(upstream), clips, before)
    everything = ClipSet(stores["upstream"])
    caplog.clear()
    found = evaluate_clips(posterior, everything, draws=0).provenance["leaks"]
    assert found == {"own": len(clips), "upstream": len(held)}
    assert f"{len(clips)} of the 16 scored clips are among those that the posterior was fitted to" in caplog.text
    assert f"{len(held)} of the 16 scored clips are among those that a posterior that it started from" in caplog.text
    assert count_leaks(posterior, clips.select(indices=[0])) == {"own": 1, "upstream": 0}
    # Neither the clips' names nor their order matters, and other clips are not counted.
    shuffled = Store(stores["upstream"]).waveform(range(16))[::-1]
    target = everything.target()[::-1]
    labels, task, names = everything.labels, everything.task, list("abcdefghijklmnop")
    write(tmp_path / "renamed.h5", shuffled, target, labels, task, 8000, names=names)
    assert count_leaks(posterior, ClipSet(tmp_path / "renamed.h5")) == found
    write(tmp_path / "new.h5", shuffled * 0.5, target, labels, task, 8000)
    assert count_leaks(posterior, ClipSet(tmp_path / "new.h5")) == {"own": 0, "upstream": 0}


def test_an_ensemble_leaks_what_any_member_does(stores, upstream):
    halves = divide(RunFolder(upstream).read_recipe())
    members = [fitted_to(load(upstream), half) for half in halves]
    assert count_leaks(Ensemble(members), ClipSet(stores["upstream"])) == {"own": 16, "upstream": 0}


def test_a_posterior_that_recorded_no_clips_has_no_count(stores, upstream):
    posterior = load(upstream)
    posterior.fitted_clips = FittedClips()
    assert count_leaks(posterior, ClipSet(stores["upstream"])) is None
    assert "leaks" not in evaluate_posterior(posterior, [stores["upstream"]], draws=0).provenance


def test_a_fit_records_its_clips_and_hands_its_upstreams_on(stores, tmp_path, recipe):
    first = fit(recipe(stores["upstream"], validation=0.25, epochs=1), tmp_path / "first").posterior
    held, clips = divide(RunFolder(tmp_path / "first").read_recipe())
    assert count_leaks(first, clips) == {"own": 12, "upstream": 0}
    assert count_leaks(first, held) == {"own": 0, "upstream": 0}
    second = fitted_to(types.SimpleNamespace(), ClipSet(stores["downstream"]), first)
    assert count_leaks(second, ClipSet(stores["upstream"])) == {"own": 0, "upstream": 12}
