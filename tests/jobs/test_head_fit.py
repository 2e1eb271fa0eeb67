"""The default last layer through a run: fitted by natural gradients, calibrated from its own training clips."""

import json

import numpy as np
import pytest
import torch

from bayes_panns.clips import ClipSet, Task, write_embeddings
from bayes_panns.core.errors import RecipeError, SettingError
from bayes_panns.jobs import RunFolder, calibrate, crossval, evaluate_clips, evaluate_posterior, fit, held_out
from bayes_panns.metrics import apply_power, nll
from bayes_panns.posterior import Ensemble, load, read_header
from bayes_panns.posterior.header import FORMAT
from bayes_panns.predictions import predict
from bayes_panns.recipes import read_run
from bayes_panns.svi import MeanFieldELBO, read_metrics

WIDTH, LABELS = 24, ("bee", "frog", "owl")


def store(path, *, recordings=36, task=Task.ONE_OF_K, sources=True, seed=0, distance=4.0):
    """A store of embeddings: two clips of each recording, in three folds."""
    generator = np.random.default_rng(seed)
    label = np.arange(recordings) % 3
    x = distance * np.eye(3, WIDTH)[label] + generator.normal(size=(recordings, WIDTH))
    x = np.repeat(x, 2, axis=0) + 0.05 * generator.normal(size=(2 * recordings, WIDTH))
    target = np.eye(3, dtype=bool)[np.repeat(label, 2)]
    if task is Task.MULTI_LABEL:
        target[::5, 0] = True
    source = [f"tape-{index // 2}" for index in range(len(x))] if sources is True else sources
    fold = np.repeat(np.arange(recordings) // 3 % 3 + 1, 2)
    write_embeddings(path, x, target, LABELS, task, model="toy", fold=fold, source=source)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return store(tmp_path_factory.mktemp("stores") / "clips.h5")


@pytest.fixture(scope="module")
def fitted(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "head"
    return fit(read_run("rotated-head", ["data.folds=[1, 2]"], stores=[clips]), folder)


def test_a_run_keeps_what_was_chosen_and_the_power(fitted):
    posterior, folder = fitted.posterior, fitted.folder
    assert {path.name for path in folder.iterdir()} == {"posterior", "metrics.jsonl", "run.toml", "resume.json"}
    candidates = posterior.provenance["selection"]
    assert {(each["prior_scale"], each["kl_weight"]) for each in candidates} == {
        (scale, weight) for scale in (0.1, 0.15, 0.2, 0.3, 0.5) for weight in (1.0, 0.3, 0.1)
    }
    assert posterior.provenance["kl_weight"] in (1.0, 0.3, 0.1)
    assert posterior.provenance["tempered"] == (posterior.provenance["kl_weight"] != 1)
    assert posterior.power.exponent[0] > 1
    assert posterior.power.nll[1] < posterior.power.nll[0]
    assert posterior.power.clips == 48
    again = load(folder)
    assert again.power == posterior.power
    assert read_header(folder / "posterior")["format_version"] == FORMAT
    (line,) = read_metrics(folder / "metrics.jsonl")
    assert line["step"] == posterior.provenance["steps"] < 100


def test_predictions_are_the_mean_of_the_draws_at_the_power(fitted, clips):
    posterior = load(fitted.folder)
    inputs = torch.from_numpy(ClipSet(clips).inputs(np.arange(6)))
    mean = torch.stack(list(posterior.draws(inputs, 50))).double().mean(dim=0).numpy()
    got = predict(posterior, ClipSet(clips), 50)
    wanted = apply_power(mean, np.array(posterior.power.exponent), "one-of-k")
    np.testing.assert_allclose(got.probability[:6], wanted, atol=1e-6)
    np.testing.assert_allclose(got.mean[:6], mean, atol=1e-6)


def test_a_pass_at_the_mean_has_no_power(fitted, clips):
    posterior = load(fitted.folder)
    inputs = torch.from_numpy(ClipSet(clips).inputs(np.arange(6)))
    (mean,) = posterior.draws(inputs, 0)
    got = predict(posterior, ClipSet(clips), 0)
    np.testing.assert_allclose(got.probability[:6], mean.double(), atol=1e-6)
    assert got.mean is None


def test_the_power_calibrates_clips_that_no_fit_has_seen(fitted, clips):
    evaluation = evaluate_posterior(load(fitted.folder), clips, folds=[3])
    assert evaluation.draws == 200
    before = nll(evaluation.uncertainty.mean, evaluation.target, "one-of-k")
    assert evaluation.metrics["cal/nll"] < 0.7 * before


def test_the_guide_is_the_optimum_of_pyros_elbo_for_the_recipe(fitted, clips):
    # The natural-gradient fit and the ELBO that Pyro states for the same model agree, and no small step improves it.
    posterior = load(fitted.folder)
    chosen = ClipSet(clips, folds=[1, 2])
    x, target = torch.from_numpy(chosen.inputs(np.arange(48))), torch.from_numpy(chosen.target().argmax(1))
    posterior.model.clips = 48
    elbo = MeanFieldELBO(num_particles=1)
    elbo.kl_weight = posterior.provenance["kl_weight"]

    def objective(repeats=400):
        torch.manual_seed(0)
        losses = [elbo.loss(posterior.model, posterior.guide, x, target, embedded=True) for _ in range(repeats)]
        return np.mean(losses)

    here = objective()
    assert elbo.kl == pytest.approx(posterior.metrics["kl"], rel=0.05)
    part = posterior.guide.parts[0]
    parameters = dict(part.named_parameters())
    for name, change in (("log_scales", 0.3), ("log_scales", -0.3)):
        with torch.no_grad():
            moved = [value for key, value in parameters.items() if name in key]
            for value in moved:
                value.add_(change)
            assert objective() > here, (name, change)
            for value in moved:
                value.sub_(change)


def test_a_resumed_run_starts_again_and_ends_at_the_same_posterior(fitted, clips, tmp_path):
    recipe = read_run("rotated-head", ["data.folds=[1, 2]"], stores=[clips])
    run = tmp_path / "run"

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bayes_panns.svi.last_layer.fit.infer_head", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, run)
    assert not (run / "posterior").exists()
    again = fit(recipe, run, resume=True).posterior
    for name, (loc, scale) in again.gaussians().items():
        assert torch.equal(loc, fitted.posterior.gaussians()[name][0])
        assert torch.equal(scale, fitted.posterior.gaussians()[name][1])
    assert again.power == fitted.posterior.power
    assert RunFolder(run).complete
    before = (run / "posterior" / "posterior.toml").stat().st_mtime_ns
    fit(recipe, run, resume=True)
    assert (run / "posterior" / "posterior.toml").stat().st_mtime_ns == before


def test_a_crossval_pools_folds_with_and_without_a_power(clips, tmp_path):
    recipe = read_run("rotated-head", stores=[clips])
    result = crossval(recipe, tmp_path / "cv")
    folds = next(iter(result.evaluations["rotated-head"].values()))
    run = tmp_path / "cv" / "rotated-head" / "seed-0" / "fold-1"
    posterior = load(run)
    posterior.power = None
    plain = evaluate_posterior(posterior, clips, folds=[1])
    assert plain.uncertainty.mean is None
    pooled = type(plain).pool([plain, folds[2], folds[3]])
    assert pooled.uncertainty.mean.shape == pooled.uncertainty.probability.shape
    # Kept predictions are read back with their mean before the power.
    read = type(plain).load(tmp_path / "cv" / "rotated-head" / "seed-0" / "fold-2" / "evaluation")
    np.testing.assert_array_equal(read.uncertainty.mean, folds[2].uncertainty.mean)


def test_calibrate_goes_on_top_of_the_power(fitted, clips, tmp_path):
    posterior = load(fitted.folder)
    power = posterior.power
    calibration = calibrate(posterior, ClipSet(clips, folds=[3]), coverage=0.8, draws=50)
    assert posterior.power == power
    got = predict(posterior, ClipSet(clips, folds=[3]), 50)
    inputs = torch.from_numpy(ClipSet(clips, folds=[3]).inputs(np.arange(24)))
    draws = torch.stack(list(posterior.logits(inputs, 50))) / calibration.temperature
    mean = draws.softmax(-1).double().mean(dim=0).numpy()
    np.testing.assert_allclose(got.probability, apply_power(mean, np.array(power.exponent), "one-of-k"), atol=1e-6)


def test_an_ensemble_mixes_its_members_at_their_powers(fitted, clips, tmp_path):
    other = fit(read_run("rotated-head", ["data.folds=[1, 2]", "data.share=0.5"], stores=[clips], seed=1), tmp_path)
    members = [load(fitted.folder), load(other.folder)]
    ensemble = Ensemble(members)
    got = predict(ensemble, ClipSet(clips), 40)
    each = []
    for number, member in enumerate(members):
        inputs = torch.from_numpy(ClipSet(clips).inputs(np.arange(72)))
        mean = torch.stack(list(member.draws(inputs, 20, seed=number))).double().mean(dim=0).numpy()
        power = member.exponent(20)
        each.append(mean if power is None else apply_power(mean, power, "one-of-k"))
    np.testing.assert_allclose(got.probability, np.mean(each, axis=0), atol=1e-6)
    assert got.draws == 40
    assert evaluate_posterior(ensemble, clips, folds=[3], draws=40).metrics["cls/accuracy"] > 0.8


def test_multi_label_clips(tmp_path):
    path = store(tmp_path / "m.h5", task=Task.MULTI_LABEL)
    posterior = fit(read_run("rotated-head", stores=[path]), tmp_path / "run").posterior
    got = predict(load(tmp_path / "run"), ClipSet(path))
    assert got.probability.shape == (72, 3)
    if posterior.power is not None:
        assert len(posterior.power.exponent) in (1, 3)
    np.testing.assert_allclose(got.total, got.probability * (1 - got.probability), atol=1e-12)


def test_clips_of_one_recording_get_no_power(tmp_path, caplog):
    path = store(tmp_path / "one.h5", recordings=6, sources=["tape"] * 12)
    posterior = fit(read_run("rotated-head", stores=[path]), tmp_path / "run").posterior
    assert posterior.power is None
    assert "all clips are of one recording" in caplog.text


def test_without_a_cross_validation_the_elbo_chooses_the_width(clips, tmp_path, caplog):
    changes = ["fit.selection.folds=0", "fit.selection.prior_scales=[0.01, 0.3, 30.0]"]
    posterior = fit(read_run("rotated-head", changes, stores=[clips]), tmp_path / "run").posterior
    assert posterior.power is None
    assert "selection" not in posterior.provenance
    x = ClipSet(clips).inputs(np.arange(72))
    spread = np.sqrt(((x - x.mean(0)) ** 2).mean())
    width = posterior.model.prior(posterior.model.head_sites[0]).variance.mean().sqrt().item()
    assert width * spread == pytest.approx(0.3, rel=1e-4)


def test_validation_clips_are_scored_once(clips, tmp_path):
    posterior = fit(read_run("own-clips", stores=[clips]), tmp_path / "run").posterior
    assert posterior.metrics["val/accuracy"] > 0.8
    assert posterior.provenance["clips"] < 72


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["guide=det-flip"], "it is for the guide recipe rotated-head"),
        (['freeze=["locs"]'], "fits means and widths"),
        (["fit.features=memory"], 'set fit.features = "embeddings"'),
        (["fit.learning_rate=0.5"], "learning_rate is a setting of steps over batches"),
        (["fit.scale_bounds=[0.1, 2]"], "scale_bounds is a setting of steps over batches"),
        (["fit.selection.folds=1"], "two folds or more"),
        (["fit.optimizer=adam", "fit.selection.folds=3"], "selection is for natural gradients"),
        (["fit.optimizer=newton"], "natural-gradient"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(clips, tmp_path, changes, message):
    with pytest.raises((RecipeError, SettingError), match=message) as caught:
        fit(read_run("rotated-head", changes, stores=[clips]), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_prior_that_is_not_normal_is_refused(clips, tmp_path):
    guide = tmp_path / "laplace.toml"
    guide.write_text(
        '[default]\nposterior = "point"\n[[rule]]\nmatch = "head.*"\nposterior = "rotated"\nprior = "laplace"'
    )
    with pytest.raises(RecipeError, match=r"must be Normal with mean 0, and it is Laplace"):
        fit(read_run("rotated-head", stores=[clips], guide=str(guide)), tmp_path / "run")


def test_metrics_are_plain_json(fitted):
    (line,) = [json.loads(text) for text in (fitted.folder / "metrics.jsonl").read_text().splitlines()]
    assert {"epoch", "step", "nll", "kl", "kl_weight", "seconds"} <= line.keys()
    assert any(name.startswith("prior/") for name in line)


@pytest.mark.parametrize(("clips", "recordings"), [(3, 3), (4, 4), (11, 2), (12, 3)])
def test_very_few_clips_are_fitted_with_a_warning(tmp_path, caplog, clips, recordings):
    generator = np.random.default_rng(clips)
    label = np.arange(clips) % 2 if clips == 4 else np.minimum(np.arange(clips) * recordings // clips, 2)
    target = np.eye(3, dtype=bool)[label]
    source = [f"tape-{min(index * recordings // clips, recordings - 1)}" for index in range(clips)]
    write_embeddings(
        tmp_path / "s.h5", generator.normal(size=(clips, 8)), target, LABELS, "one-of-k", model="toy", source=source
    )
    posterior = fit(read_run("rotated-head", stores=[tmp_path / "s.h5"]), tmp_path / "run").posterior
    assert np.isfinite(predict(posterior, ClipSet(tmp_path / "s.h5")).probability).all()
    assert "few clips were scored" in caplog.text or "no label has clips of two recordings" in caplog.text
    assert load(tmp_path / "run").labels == LABELS


def test_clips_that_are_the_same_are_of_one_recording(tmp_path, caplog):
    generator = np.random.default_rng(0)
    x = np.repeat(generator.normal(size=(20, 8)), 3, axis=0)
    target = np.eye(3, dtype=bool)[np.repeat(np.arange(20) % 3, 3)]
    write_embeddings(tmp_path / "s.h5", x, target, LABELS, "one-of-k", model="toy")
    fit(read_run("rotated-head", stores=[tmp_path / "s.h5"]), tmp_path / "run")
    assert "over 20 recordings, 60 of 60 clips scored" in caplog.text


def test_embeddings_that_are_all_the_same_say_nothing(tmp_path):
    target = np.eye(3, dtype=bool)[np.arange(30) % 3]
    write_embeddings(tmp_path / "s.h5", np.full((30, 8), 0.1), target, LABELS, "one-of-k", model="toy")
    posterior = fit(read_run("rotated-head", stores=[tmp_path / "s.h5"]), tmp_path / "run").posterior
    np.testing.assert_allclose(predict(posterior, ClipSet(tmp_path / "s.h5")).probability, 1 / 3, atol=0.1)


def test_held_out_clips_are_scored_as_they_are_predicted(tmp_path):
    run, clips = tmp_path / "run", store(tmp_path / "hard.h5", distance=2.0)
    made = fit(read_run("own-clips", stores=[clips]), run).posterior
    assert made.power is not None
    scored = evaluate_clips(load(run), held_out(run)).metrics
    assert made.metrics["val/nll"] == pytest.approx(scored["cal/nll"], rel=0.15)
    assert made.metrics["val/accuracy"] == pytest.approx(scored["cls/accuracy"], abs=0.1)


def test_label_sets_for_many_draws_warn_of_few(fitted, clips, caplog):
    posterior = load(fitted.folder)
    calibrate(posterior, ClipSet(clips, folds=[3]), coverage=0.8)
    evaluate_posterior(posterior, clips, folds=[3], draws=100)
    assert "do not hold what they promise" not in caplog.text
    evaluate_posterior(posterior, clips, folds=[3], draws=0)
    assert "the label sets are calibrated for 200 draws, and with a single pass they do not hold" in caplog.text


def test_a_fit_that_has_not_converged_says_so(clips, tmp_path, caplog):
    posterior = fit(read_run("rotated-head", ["fit.epochs=4"], stores=[clips]), tmp_path / "run").posterior
    assert "has not converged in fit.epochs = 4 steps" in caplog.text
    assert not posterior.provenance["converged"]


def test_a_kl_weight_of_0_is_refused(clips, tmp_path):
    with pytest.raises(SettingError, match="kl_weight above 0") as caught:
        fit(read_run("rotated-head", ["fit.kl_weight=0"], stores=[clips]), tmp_path / "run")
    assert "{" not in str(caught.value)
