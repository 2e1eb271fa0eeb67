"""Widths from the Fisher information: of a posterior without a fit, and as the start of one."""

import numpy as np
import pytest
import torch

from bayes_panns.clips import ClipSet, Task, write, write_embeddings
from bayes_panns.core.choices import ShortClips
from bayes_panns.core.errors import PosteriorError, RecipeError, SettingError, StoreError
from bayes_panns.jobs import evaluate_posterior, fit, widths, with_fisher_widths
from bayes_panns.posterior import load, save
from bayes_panns.recipes import read_run

RATE, LABELS = 8000, ("a", "b")


@pytest.fixture(scope="module")
def det(stores, tmp_path_factory, recipe):
    """A multi-label run of points on clips of half a second: its folder."""
    folder = tmp_path_factory.mktemp("runs") / "det"
    fit(recipe(stores["many"], guide="det", epochs=4, learning_rate=1e-2), folder)
    return folder


def unlabelled(path, *, seconds, clips=12, rate=RATE):
    waveform = 0.3 * np.random.default_rng(1).normal(size=(clips, round(seconds * rate)))
    write(path, waveform, np.zeros((clips, 0), dtype=bool), (), Task.UNLABELLED, rate)
    return path


def exact(posterior, waveform):
    """The mean over clips of p (1 - p) x^2 of the last layer's weights, and of p (1 - p)."""
    embedding = posterior.embed(torch.from_numpy(waveform))
    p = next(posterior.draws(torch.from_numpy(waveform), 0))
    variance = p * (1 - p)
    return variance.T @ embedding.square() / len(p), variance.mean(dim=0)


@pytest.mark.parametrize("seconds", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("short", list(ShortClips))
def test_points_get_the_widths_of_a_laplace_approximation_from_clips_of_any_length(det, tmp_path, seconds, short):
    """Clips are shown as they are when they are predicted, so the last layer's widths follow from what is predicted."""
    store = unlabelled(tmp_path / "clips.h5", seconds=seconds)
    points = load(det)
    points.short_clips = short
    made = with_fisher_widths(points, store, guide="det-flip", kl_weight=0.1, clips=40, device="cpu")
    weight, bias = exact(points, ClipSet(store).waveform(np.arange(12)))
    fan_in = weight.shape[1]
    found = made.gaussians()
    for name, value in (("fc_audioset.weight", weight), ("fc_audioset.bias", bias)):
        torch.testing.assert_close(found[name][0], points.points()[name])
        torch.testing.assert_close(found[name][1], (fan_in + 40 / 0.1 * value).rsqrt(), rtol=1e-3, atol=0)
    for name, value in made.points().items():
        assert torch.equal(value, points.points()[name])


def test_the_new_posterior_says_where_its_widths_and_its_means_are_from(det, stores, tmp_path):
    store = unlabelled(tmp_path / "clips.h5", seconds=0.5)
    points = load(det)
    made = with_fisher_widths(points, store)
    save(made, tmp_path / "made")
    again = load(tmp_path / "made")
    widths = again.provenance["widths"]
    assert (widths["rule"], widths["data"]) == ("fisher", ["clips.h5"])
    assert (widths["clips"], widths["kl_weight"], widths["tempered"]) == (12, 1.0, False)
    assert again.provenance["upstream"]["folder"] == "det"
    assert again.provenance["upstream"]["data"] == ["many.h5"]
    assert len(again.gaussians()) == len(again.model.sites) > 10
    assert (again.task, again.labels, again.short_clips) == (Task.MULTI_LABEL, LABELS, points.short_clips)
    # The means have seen these clips, as those of the points have.
    assert evaluate_posterior(again, stores["many"], draws=2).provenance["leaks"] == {"own": 16, "upstream": 0}
    for one, other in zip(
        made.gaussians().values(), with_fisher_widths(points, store).gaussians().values(), strict=True
    ):
        assert torch.equal(one[1], other[1])


def test_many_weights_at_their_priors_widths_are_warned_of(det, tmp_path, caplog, monkeypatch):
    store = unlabelled(tmp_path / "clips.h5", seconds=0.5)
    made = with_fisher_widths(load(det), store)
    assert made.provenance["widths"]["share_at_prior"] > 0.5
    assert "the clips say little of most weights" in caplog.text
    assert f"{made.provenance['widths']['share_at_prior']:.1%} of the weights keep" in caplog.text
    caplog.clear()
    # So short a fit leaves many channels without a gradient.
    monkeypatch.setattr(widths, "_MUCH", 0.9)
    narrow = with_fisher_widths(load(det), store, kl_weight=1e-9).provenance["widths"]["share_at_prior"]
    with_fisher_widths(load(det), store, guide="det-flip")
    assert narrow < 0.9
    assert "the clips say little" not in caplog.text


def test_a_last_layer_on_embeddings_gets_widths_too(tmp_path):
    generator = np.random.default_rng(0)
    vectors, label = generator.normal(size=(40, 6)), np.eye(2, dtype=bool)[np.arange(40) % 2]
    write_embeddings(tmp_path / "x.h5", vectors, label, LABELS, "one-of-k", model="Toy")
    run = read_run(
        "fixed-features", ["data.validation=0", "fit.epochs=2"], stores=[str(tmp_path / "x.h5")], guide="det"
    )
    points = fit(run, tmp_path / "run").posterior
    made = with_fisher_widths(points, tmp_path / "x.h5", guide="det-flip")
    assert set(made.gaussians()) == {"fc.weight", "fc.bias"}
    assert made.embeddings_of == "Toy"
    # The two labels are one and their complement.
    scale = made.gaussians()["fc.weight"][1]
    torch.testing.assert_close(scale[0], scale[1])
    assert scale.max() < 6**-0.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"clips": 0}, SettingError, "clips = 0, kl_weight = 1.0: both must be above 0"),
        ({"kl_weight": 0.0}, SettingError, "kl_weight = 0.0: both must be above 0"),
        ({"kl_weight": float("nan")}, SettingError, "kl_weight = nan: both"),
        ({"guide": "det"}, RecipeError, "guide det: the guide has no mean-field Normal part that is trained"),
        ({"guide": "low-rank-head"}, RecipeError, "guide low-rank-head: the guide has no mean-field Normal part"),
        ({"guide": "laplace.toml"}, RecipeError, "the prior of conv_block1.conv1.weight must be Normal, and it is Lap"),
        ({"guide": "mixed.toml"}, RecipeError, "fc_audioset.weight has a width that only a fit can set; take another"),
        ({"guide": "flip-upstream-prior"}, RecipeError, 'prior "upstream" needs a posterior to start from'),
        ({"stores": "fast"}, StoreError, "sample rate 16000 Hz, but the posterior's is 8000 Hz; pack it again"),
    ],
)
def test_what_does_not_fit_is_one_line(det, stores, tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "laplace.toml").write_text('[default]\nprior = "laplace"\n')
    (tmp_path / "mixed.toml").write_text('[[rule]]\nmatch = "head.*"\nposterior = "low-rank"\n')
    options = dict(options)
    store = stores[options.pop("stores", "many")]
    with pytest.raises(error, match=message):
        with_fisher_widths(load(det), store, **options)


def test_a_prior_from_a_variational_posterior_is_narrowed(upstream, stores, tmp_path):
    flip = load(upstream)
    made = with_fisher_widths(flip, stores["upstream"], guide="flip-upstream-prior", kl_weight=1e-6)
    for name, (loc, scale) in made.gaussians().items():
        assert torch.equal(loc, flip.gaussians()[name][0])
        assert (scale <= flip.gaussians()[name][1] * 1.00001).all()
    assert made.provenance["widths"]["share_at_prior"] < 1
    custom = load(upstream)
    custom.guide.explicit = False
    with pytest.raises(PosteriorError, match="custom guide"):
        with_fisher_widths(custom, stores["upstream"])


def test_long_clips_go_through_in_smaller_batches(det, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(widths, "start_from_fisher", lambda *_, batch_size, **__: sizes.append(batch_size))
    for seconds in (0.5, 40):
        with_fisher_widths(load(det), unlabelled(tmp_path / f"{seconds}.h5", seconds=seconds, clips=2))
    monkeypatch.setattr(widths, "_MEMORY", 1)
    with_fisher_widths(load(det), tmp_path / "0.5.h5")
    assert sizes[0] == 8
    assert sizes[1] < 8
    assert sizes[2] == 1


@pytest.mark.parametrize("optimizer", ["adam", "natural-gradient"])
def test_a_fit_that_starts_there_resumes_exactly(det, stores, tmp_path, recipe, interrupted, optimizer):
    run = recipe(stores["many"], upstream=str(det), start="fisher", optimizer=optimizer)
    whole = fit(run, tmp_path / "whole")
    with interrupted():
        assert not fit(run, tmp_path / "parts").complete
    parts = fit(run, tmp_path / "parts", resume=True)
    assert parts.complete
    other = fit(recipe(stores["many"], upstream=str(det), optimizer=optimizer), tmp_path / "other")
    state, left = parts.posterior.guide.state_dict(), other.posterior.guide.state_dict()
    for name, value in whole.posterior.guide.state_dict().items():
        assert torch.equal(state[name], value), name
        assert not torch.equal(left[name], value), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guide": "laplace.toml"}, 'fit.start = "fisher": the prior of conv_block1.conv1.weight must be Normal'),
    ],
)
def test_a_fit_that_cannot_start_there_is_refused_before_it_begins(
    stores, tmp_path, monkeypatch, recipe, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "laplace.toml").write_text('[default]\nprior = "laplace"\n')
    with pytest.raises(RecipeError, match=message):
        fit(recipe(stores["many"], start="fisher", **options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_widths_start_there_where_the_means_are_frozen(det, stores, tmp_path, recipe):
    options = {"upstream": str(det), "freeze": ["locs"], "epochs": 1, "learning_rate": 1e-12}
    made = fit(recipe(stores["many"], start="fisher", **options), tmp_path / "run").posterior
    expected = with_fisher_widths(load(det), stores["many"], device="cpu")
    for name in ("fc_audioset.weight", "fc_audioset.bias"):
        torch.testing.assert_close(made.gaussians()[name], expected.gaussians()[name])
