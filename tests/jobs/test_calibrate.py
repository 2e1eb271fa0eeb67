"""Calibration on held-out clips."""

import importlib

import numpy as np
import pytest
import torch
from scipy.special import softmax

from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core.errors import StoreError
from bayes_panns.jobs import RunFolder, calibrate, divide, evaluate_posterior, fit, held_out
from bayes_panns.metrics import conformal_threshold, fit_temperature, label_sets
from bayes_panns.posterior import Posterior, load, save_calibration
from bayes_panns.predictions import predict_logits
from bayes_panns.recipes import read_strategy

module = importlib.import_module("bayes_panns.jobs.calibrate")


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
def test_a_calibrated_posterior_is_tempered_and_kept_so(stores, tmp_path, task, recipe):
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
    # The half that the threshold was fitted to has at least the coverage.
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


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A posterior that is asked for the logits ``(T, N, K)`` of made-up clips, and gets those given here."""

    def make(logits, label):
        count, labels = logits.shape[1], tuple("abcdefgh"[: logits.shape[2]])
        target = np.eye(len(labels), dtype=bool)[label]
        write(tmp_path / "c.h5", np.zeros((count, 4000)), target, labels, Task.ONE_OF_K, 8000)
        posterior = Posterior.build(
            net="resnet14-narrow",
            labels=labels,
            task=Task.ONE_OF_K,
            sample_rate=8000,
            clip_seconds=0.5,
            strategy=read_strategy("det"),
        )

        def given(asked, clips, draws):
            assert asked is posterior
            return logits[:, [int(name.split()[1]) for name in clips.names]]

        monkeypatch.setattr(module, "predict_logits", given)
        return posterior, ClipSet(tmp_path / "c.h5")

    return make


def random_logits(clips=80, labels=5, draws=3, signal=2.0):
    generator = np.random.default_rng(0)
    label = generator.integers(labels, size=clips)
    logits = generator.normal(size=(draws, clips, labels)) + 1.5 * generator.normal(size=(clips, labels))
    logits[:, np.arange(clips), label] += signal
    return logits.astype(np.float32), label


def test_temperature_and_threshold_are_each_fitted_to_their_own_half(case):
    logits, label = random_logits()
    posterior, clips = case(logits, label)
    found = calibrate(posterior, clips, coverage=0.8, seed=3)
    halves = [[int(name.split()[1]) for name in half.names] for half in clips.split(0.5, seed=3)]
    temperatures = [fit_temperature(logits[:, half], clips.target()[half], "one-of-k") for half in halves]

    def threshold(half):
        probability = softmax(logits[:, half] / found.temperature, axis=2).mean(axis=0)
        return conformal_threshold(probability, clips.target()[half], 0.8)

    thresholds = [threshold(half) for half in halves]
    assert found.temperature == pytest.approx(temperatures[0], rel=1e-6)
    assert found.threshold == pytest.approx(thresholds[1], abs=1e-5)
    # The halves are apart enough for these to tell which was which.
    assert abs(temperatures[0] / temperatures[1] - 1) > 0.03
    assert abs(thresholds[0] - thresholds[1]) > 0.01


def test_a_calibration_before_does_not_matter(case):
    posterior, clips = case(*random_logits())
    once = calibrate(posterior, clips, coverage=0.8)
    assert calibrate(posterior, clips, coverage=0.8) == once == posterior.calibration


def test_a_failed_calibration_leaves_the_one_before(case):
    posterior, clips = case(*random_logits())
    before = calibrate(posterior, clips, coverage=0.8)
    with pytest.raises(StoreError, match="needs at least 99; calibrate on more clips, or ask for less"):
        calibrate(posterior, clips, coverage=0.99)
    assert posterior.calibration == before


def test_a_calibration_that_is_worth_something_has_no_warning(case, caplog):
    posterior, clips = case(*random_logits())
    caplog.clear()
    calibrate(posterior, clips, coverage=0.8)
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize("signal", [8.0, 30.0, 200.0])
def test_clips_that_are_all_classified_correctly_are_warned_of(case, caplog, signal):
    # If every draw is right, the likelihood has no maximum; the larger the margins, the sooner it is 1 in rounding.
    posterior, clips = case(*random_logits(signal=signal))
    caplog.clear()
    found = calibrate(posterior, clips, coverage=0.5)
    _, message = caplog.messages
    assert message.startswith("the 40 clips that the temperature was fitted to are all classified correctly, so ")
    assert f"keeps it at {found.temperature:.3g}" in message
    assert 0.3 < found.temperature <= 1
    assert message.endswith("calibrate on more clips, or on harder ones")


def test_multi_label_clips_that_are_all_classified_correctly_are_warned_of(caplog):
    target = np.random.default_rng(0).integers(2, size=(9, 4)).astype(bool)
    probability = np.where(target, 0.9, 0.1)
    module._warn_if_undetermined(0.5, 0.01, probability, target, Task.MULTI_LABEL)
    assert "the 9 clips that the temperature was fitted to are all classified correctly" in caplog.messages[-1]
    assert "they alone would make it 0.01 or less" in caplog.messages[-1]
    caplog.clear()
    probability[0, 0] = 1 - probability[0, 0]
    module._warn_if_undetermined(0.8, 0.79, probability, target, Task.MULTI_LABEL)
    assert caplog.messages == []
    module._warn_if_undetermined(0.8, 0.7, probability, target, Task.MULTI_LABEL)
    assert (
        "do not determine it: a weak prior (log temperature 0 ± 0.5) keeps it at 0.8, and they alone would make it 0.7"
        in caplog.messages[-1]
    )


def test_clips_that_contradict_the_posterior_are_warned_of(case, caplog):
    posterior, clips = case(*random_logits(signal=-30.0))
    caplog.clear()
    assert 3 < calibrate(posterior, clips, coverage=0.5).temperature < 100
    assert "they alone would make it 100 or more" in caplog.messages[1]
    assert "the 40 clips that the temperature was fitted to contradict the posterior" in caplog.messages[2]


def test_label_sets_of_nearly_all_labels_are_warned_of(case, caplog):
    posterior, clips = case(*random_logits(signal=-2.0))
    caplog.clear()
    calibrate(posterior, clips, coverage=0.95)
    assert "of the 5 labels on average, so they say little; ask for a coverage below 0.95" in caplog.messages[-1]


def test_clips_that_were_held_out_are_what_a_posterior_is_calibrated_on(stores, upstream):
    clips = held_out(upstream)
    assert sorted(clips.names) == sorted(held_out(upstream / "posterior").names)
    fitted = divide(RunFolder(upstream).read_recipe())[1]
    assert not set(clips.names) & set(fitted.names)
    assert len(held_out(upstream, [stores["downstream"]], folds=[2])) == 8


def test_too_few_clips_for_a_coverage_are_refused(stores, upstream):
    with pytest.raises(StoreError, match="needs at least"):
        calibrate(load(upstream), held_out(upstream), coverage=0.9, draws=2)


def test_a_run_that_held_nothing_out_needs_a_store(stores, tmp_path, recipe):
    fit(recipe(stores["downstream"]), tmp_path / "run")
    with pytest.raises(StoreError, match="held no clips out; name a store"):
        held_out(tmp_path / "run")
    with pytest.raises(StoreError, match="held no clips out; name a store"):
        held_out(tmp_path)
