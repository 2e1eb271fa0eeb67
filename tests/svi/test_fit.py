import json
import os
import random
import resource
import signal
import threading

import numpy as np
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import (
    BayesianNet,
    CustomGuide,
    MeanField,
    MultiLabel,
    OneOfK,
    Settings,
    Strategy,
    guide_from_strategy,
)
from bayes_panns.clips import ClipSet, Sampler, Task, write
from bayes_panns.core.digests import unsealed
from bayes_panns.core.errors import FitError, StoreError
from bayes_panns.nets import build
from bayes_panns.svi import METRICS, Features, Fit, FitSettings, read_metrics
from bayes_panns.svi.metrics import append_metrics
from tests.harness.tones import tones_and_noise

RATE = 8000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tones_and_noise(tmp_path_factory.mktemp("stores") / "tones.h5", 24, 0.5, RATE)


def job(store, folder, *, strategy=None, validation=False, task=Task.ONE_OF_K, keep="memory", **settings):
    folder.mkdir(exist_ok=True)
    chosen = FitSettings(**{"epochs": 2, "batch_size": 8, "spec_augment": False, "features": keep, **settings})
    torch.manual_seed(chosen.seed)
    front_end = LogMel(RATE)
    strategy = strategy or Strategy()
    likelihood = OneOfK() if task is Task.ONE_OF_K else MultiLabel()
    model = BayesianNet.from_strategy(build("resnet14-narrow", 3), strategy, likelihood, clips=24, front_end=front_end)
    data = Features(ClipSet(store), front_end, task, keep=keep)
    return Fit(
        model,
        guide_from_strategy(model, strategy),
        data,
        chosen,
        folder,
        validation=data if validation else None,
    )


def metrics(folder):
    return [unsealed(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def state(fit):
    return {**fit.model.state_dict(), **fit.guide.state_dict()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_to_tell_tones_apart(store, tmp_path):
    fit = job(store, tmp_path / "run", validation=True, epochs=12, learning_rate=5e-3, kl_weight=1e-4, kl_warmup=3)
    assert fit.run()
    lines = metrics(tmp_path / "run")
    assert [line["epoch"] for line in lines] == list(range(1, 13))
    assert lines[-1]["nll"] < 0.5 * lines[0]["nll"]
    assert lines[-1]["val/accuracy"] > 0.9
    assert [line["kl_weight"] for line in lines[:4]] == pytest.approx([1e-4 / 3, 2e-4 / 3, 1e-4, 1e-4])
    assert all(line["kl"] > 0 for line in lines)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mixup": True, "spec_augment": True},
        {"keep": "none"},
        {"sampling": "balanced", "mixup": True},
        {"sampling": "alternate"},
        {"accumulate": 3, "mixup": True, "spec_augment": True},
        {"precision": "bf16"},
    ],
)
def test_a_resumed_fit_is_the_fit_that_never_stopped(store, tmp_path, options):
    whole = job(store, tmp_path / "whole", **options)
    whole.run()

    first = job(store, tmp_path / "parts", **options)
    step = first._step

    def interrupt(index):
        if first.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(index)

    first._step = interrupt
    assert not first.run()
    assert first.step == 5

    torch.randn(17)
    second = job(store, tmp_path / "parts", **options)
    second.load_checkpoint()
    assert second.step == 5
    assert second.run()
    assert same(state(whole), state(second))
    assert [line["step"] for line in metrics(tmp_path / "parts")] == [3, 6]
    for resumed, line in zip(metrics(tmp_path / "parts"), metrics(tmp_path / "whole"), strict=True):
        assert {**resumed, "seconds": 0} == {**line, "seconds": 0}


def test_the_seed_decides_everything(store, tmp_path):
    fits = [job(store, tmp_path / str(n), epochs=1, seed=seed, mixup=True) for n, seed in enumerate((0, 0, 1))]
    for n, fit in enumerate(fits):
        torch.randn(n)
        fit.run()
    assert same(state(fits[0]), state(fits[1]))
    assert not same(state(fits[0]), state(fits[2]))


def test_validation_leaves_no_trace_in_the_fit(store, tmp_path):
    fits = [job(store, tmp_path / str(on), validation=on) for on in (False, True)]
    for fit in fits:
        fit.run()
    assert same(state(fits[0]), state(fits[1]))


def test_where_features_are_kept_does_not_matter(store, tmp_path):
    fits = [job(store, tmp_path / keep, epochs=1, keep=keep) for keep in ("memory", "disk", "none")]
    for fit in fits:
        fit.run()
    reference = state(fits[0])
    for fit in fits[1:]:
        for name, value in state(fit).items():
            torch.testing.assert_close(value, reference[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("when", ["loss", "weight"])
def test_a_fit_that_diverges_keeps_its_last_good_checkpoint(store, tmp_path, when):
    folder = tmp_path / "run"
    fit = job(store, folder, epochs=3)
    step = fit._step

    def poison(index):
        if fit.step == (4 if when == "loss" else 5):
            with torch.no_grad():
                fit.guide.gaussians()["net.fc1.weight"][0].fill_(torch.nan)
            if when == "weight":
                fit._state.step += 1
                return 0.0
        return step(index)

    fit._step = poison
    expected = "the loss is nan" if when == "loss" else "weights are no longer finite"
    with pytest.raises(FitError, match=expected) as error:
        fit.run()
    assert f"step {4 if when == 'loss' else 6} " in str(error.value)
    assert "the first that is not finite is the means of fc1.weight" in str(error.value)
    assert "fit.learning_rate" in str(error.value)
    resumed = job(store, folder, epochs=3)
    resumed.load_checkpoint()
    assert resumed.step == 3
    assert all(value.isfinite().all() for value in state(resumed).values())


def test_point_weights_are_fitted_without_a_kl(store, tmp_path):
    fit = job(store, tmp_path / "run", strategy=Strategy(default=Settings(posterior="point")), epochs=1)
    fit.run()
    assert metrics(tmp_path / "run")[0]["kl"] == 0


def test_the_scales_of_every_bayesian_weight_are_logged(store, tmp_path):
    fit = job(store, tmp_path / "run")
    fit.run()
    logged = {name: value for name, value in metrics(tmp_path / "run")[-1].items() if name.startswith("scale/")}
    assert set(logged) == {f"scale/{site.removeprefix('net.')}" for site in fit.guide.sites}
    scale = fit.guide.gaussians()["net.fc1.weight"][1]
    assert logged["scale/fc1.weight"] == pytest.approx(scale.log().mean().exp().item(), rel=1e-5)
    assert not any(name.startswith("scale/") for name in fit.metrics)


def test_multi_label_is_scored_by_mean_average_precision(store, tmp_path):
    fit = job(store, tmp_path / "run", task=Task.MULTI_LABEL, validation=True, epochs=1)
    fit.run()
    assert 0 < metrics(tmp_path / "run")[0]["val/map"] <= 1


@pytest.mark.parametrize("sampling", ["random", "balanced", "alternate"])
def test_the_sampling_decides_which_clips_a_step_sees(store, tmp_path, sampling):
    seen = []
    fit = job(store, tmp_path / "run", sampling=sampling, seed=5)
    step = fit._step
    fit._step = lambda index: seen.append(index) or step(index)
    fit.run()
    sampler = Sampler(fit.data.target, 8, sampling=sampling, seed=5)
    assert len(seen) == 6
    assert all(torch.equal(index, sampler.batch(number)) for number, index in enumerate(seen))


def test_metrics_and_checkpoints_can_come_more_often(store, tmp_path):
    job(store, tmp_path / "run", steps_per_epoch=2).run()
    assert [line["step"] for line in metrics(tmp_path / "run")] == [2, 4, 6]


def test_it_runs_outside_the_main_thread(store, tmp_path):
    fit = job(store, tmp_path / "run", epochs=1)
    done = []
    thread = threading.Thread(target=lambda: done.append(fit.run()))
    thread.start()
    thread.join()
    assert done == [True]


def test_one_of_k_needs_one_label_a_clip(tmp_path):
    path = tmp_path / "many.h5"
    write(path, np.zeros((2, 4000)) + 0.1, np.ones((2, 3), bool), ("a", "b", "c"), Task.MULTI_LABEL, RATE)
    with pytest.raises(StoreError, match="has 3 labels, and 1 more clips do not have exactly one"):
        Features(ClipSet(path), LogMel(RATE), Task.ONE_OF_K)


def test_a_half_written_line_of_metrics_does_not_stop_a_resume(store, tmp_path):
    folder = tmp_path / "run"
    job(store, folder, epochs=1).run()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2.0, "st')
    job(store, folder, epochs=1).load_checkpoint()
    assert [line["step"] for line in metrics(folder)] == [3]


def test_nothing_to_train_is_told(store, tmp_path):
    front_end = LogMel(RATE)
    strategy = Strategy(default=Settings(posterior="point"))
    model = BayesianNet.from_strategy(build("resnet14-narrow", 3), strategy, OneOfK(), front_end=front_end)
    model.net.requires_grad_(False)
    with pytest.raises(FitError, match="nothing to train"):
        Fit(
            model,
            MeanField(model),
            Features(ClipSet(store), front_end, Task.ONE_OF_K),
            FitSettings(),
            tmp_path,
        )


def test_a_damaged_or_foreign_checkpoint_is_told(store, tmp_path):
    folder = tmp_path / "run"
    job(store, folder, epochs=1).run()
    longer = job(store, tmp_path / "longer", epochs=2)
    longer.run()
    (folder / "longer.pt").write_bytes((tmp_path / "longer" / "checkpoint.pt").read_bytes())
    kept = (folder / "checkpoint.pt").read_bytes()
    (folder / "checkpoint.pt").write_bytes((folder / "longer.pt").read_bytes())
    with pytest.raises(FitError, match="belongs to a fit of 6 steps; this fit has 3"):
        job(store, folder, epochs=1).load_checkpoint()
    (folder / "checkpoint.pt").write_bytes(kept)
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FitError, match="cannot be resumed from"):
        job(store, folder, epochs=1).load_checkpoint()
    path.unlink()
    with pytest.raises(FitError, match="no checkpoint"):
        job(store, folder, epochs=1).load_checkpoint()


def test_a_run_that_is_stopped_after_every_step_has_the_metrics_of_one_that_never_was(store, tmp_path):
    """The mean NLL of an epoch is over all its steps, whoever made them."""
    job(store, tmp_path / "whole", validation=True).run()
    folder, done = tmp_path / "parts", False
    while not done:
        fit = job(store, folder, validation=True)
        if fit.checkpointed:
            fit.load_checkpoint()
        step = fit._step

        def interrupt(index, step=step):
            os.kill(os.getpid(), signal.SIGTERM)
            return step(index)

        fit._step = interrupt
        done = fit.run()
    lines, expected = metrics(folder), metrics(tmp_path / "whole")
    assert [{**line, "seconds": 0} for line in lines] == [{**line, "seconds": 0} for line in expected]
    assert all(line["seconds"] > 0 for line in lines)


def test_validation_without_a_positive_leaves_out_the_precision(tmp_path):
    """Rare labels: the held-out clips may have none."""
    path = tmp_path / "rare.h5"
    target = np.zeros((24, 3), bool)
    target[:2, 0] = True
    write(path, np.random.default_rng(0).normal(size=(24, RATE // 2)), target, ("a", "b", "c"), Task.MULTI_LABEL, RATE)
    front_end = LogMel(RATE)
    model = BayesianNet.from_strategy(
        build("resnet14-narrow", 3), Strategy(), MultiLabel(), clips=24, front_end=front_end
    )
    guide = guide_from_strategy(model, Strategy())
    held = tmp_path / "held.h5"
    write(held, 0.1 * np.ones((4, RATE // 2)), np.zeros((4, 3), bool), ("a", "b", "c"), Task.MULTI_LABEL, RATE)
    data, held = (Features(ClipSet(each), front_end, Task.MULTI_LABEL) for each in (path, held))
    settings = FitSettings(epochs=2, batch_size=8, spec_augment=False)
    assert Fit(model, guide, data, settings, tmp_path, validation=held).run()
    assert all("val/nll" in line and "val/map" not in line for line in metrics(tmp_path))


def test_validation_can_be_asked_for_at_any_time_and_changes_no_mode(store, tmp_path):
    fit = job(store, tmp_path / "run", validation=True, epochs=1)
    fit.run()
    assert not fit.model.training
    state = torch.get_rng_state()
    assert fit.validate() == {name: value for name, value in fit.metrics.items() if name.startswith("val/")}
    assert torch.equal(torch.get_rng_state(), state)
    assert not fit.model.training


@pytest.mark.parametrize(
    "text", ["", "\n\n", "null\n[1, 2]\n7\n", '{"epoch": 1.0}\n', '{"step": "three"}\n', "\x00\x01", "{"]
)
def test_a_damaged_file_of_metrics_is_read_as_far_as_it_goes(store, tmp_path, text):
    folder = tmp_path / "run"
    job(store, folder, epochs=1).run()
    path = folder / METRICS
    good = path.read_text()
    path.write_text(text + "\n" + good)
    assert [line["step"] for line in read_metrics(path)] == [3]
    path.write_bytes(b"\xff\xfe" + path.read_bytes())
    assert [line["step"] for line in read_metrics(path)] == [3]
    job(store, folder, epochs=1).load_checkpoint()
    assert path.read_text() == good
    path.unlink()
    assert read_metrics(path) == []
    job(store, folder, epochs=1).load_checkpoint()


def test_metrics_are_json_that_every_reader_takes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, {"step": 3, "nll": 1.5, "val/map": float("nan"), "kl": float("inf")})
    (line,) = path.read_text().splitlines()
    assert unsealed(json.loads(line, parse_constant=lambda word: pytest.fail(word))) == {"step": 3, "nll": 1.5}


def test_a_line_of_metrics_that_was_changed_is_left_out(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    for epoch in (1.0, 2.0):
        append_metrics(path, {"epoch": epoch, "step": int(epoch), "nll": 1.5})
    with path.open("a") as file:
        file.write('{"epoch": 3.0, "step": 3, "nll": 1.5}\n')
    path.write_text(path.read_text().replace('"step": 2', '"step": 7'))
    assert [line["step"] for line in read_metrics(path)] == [1, 3], "earlier versions wrote no digest"
    assert "1 damaged line is left out" in caplog.text


def test_a_guide_of_the_users_own_is_fitted_and_resumed(store, tmp_path):
    def own():
        fit_model = job(store, tmp_path / "unused").model
        torch.manual_seed(3)
        guide = CustomGuide(fit_model, AutoNormal(fit_model, init_scale=0.01))
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        data = Features(ClipSet(store), LogMel(RATE), Task.ONE_OF_K)
        return Fit(
            fit_model, guide, data, FitSettings(epochs=1, batch_size=8, spec_augment=False), folder, validation=data
        )

    first = own()
    assert first.run()
    second = own()
    second.load_checkpoint()
    assert same(state(first), state(second))
    assert metrics(tmp_path / "own")[0]["val/nll"] > 0
    assert not any(name.startswith("scale/") for name in metrics(tmp_path / "own")[0])


def test_the_checkpoint_of_a_fit_that_trains_other_parts_is_told(store, tmp_path):
    job(store, tmp_path / "run").run()
    other = job(store, tmp_path / "run")
    other.model.net.requires_grad_(False)
    frozen = Fit(other.model, other.guide, other.data, other.settings, tmp_path / "run")
    with pytest.raises(FitError, match="other parameters are trained"):
        frozen.load_checkpoint()


@pytest.mark.parametrize("keep", ["tape", "embeddings"])
def test_features_are_kept_in_one_of_three_places(store, keep):
    with pytest.raises(ValueError, match=r"tape|use Embeddings"):
        Features(ClipSet(store), LogMel(RATE), Task.ONE_OF_K, keep=keep)


def test_a_line_of_metrics_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, {"epoch": 1.0, "step": 1})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large|disk is full") as caught:
            append_metrics(path, {"epoch": 2.0, "step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before


def test_a_flipped_bit_in_a_checkpoint_is_refused_or_changes_nothing(store, tmp_path):
    first = job(store, tmp_path, epochs=2)
    first.run()
    path = tmp_path / "checkpoint.pt"
    (tmp_path / "checkpoint.previous.pt").unlink()
    whole, chosen, refused = path.read_bytes(), random.Random(0), 0
    before, again = state(first), job(store, tmp_path, epochs=2)
    for _ in range(50):
        changed = bytearray(whole)
        changed[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        path.write_bytes(changed)
        try:
            again.load_checkpoint()
        except FitError as error:
            refused += "delete it to start again" in str(error)
            continue
        assert all(torch.equal(before[name], value) for name, value in state(again).items())
    assert refused > 25
