"""Natural-gradient fits through recipes: which weights they fit, how they resume, and what is refused."""

import numpy as np
import pytest
import torch

from bayes_panns.core.errors import RecipeError, SettingError
from bayes_panns.jobs import fit
from bayes_panns.posterior import load
from bayes_panns.svi import Natural, read_metrics

NATURAL = {"optimizer": "natural-gradient", "kl_weight": 1e-3}


def weights(posterior):
    found = {f"{name}.loc": loc for name, (loc, _) in posterior.gaussians().items()}
    return found | {f"{name}.scale": scale for name, (_, scale) in posterior.gaussians().items()} | posterior.points()


def kl(posterior):
    """The KL of the weights from their priors, in nats, by torch."""
    pairs = (
        (torch.distributions.Normal(loc, scale), posterior.model.prior(f"net.{name}").base_dist)
        for name, (loc, scale) in posterior.gaussians().items()
    )
    return sum(torch.distributions.kl_divergence(own, prior).sum().item() for own, prior in pairs)


@pytest.mark.parametrize("curvature", ["squared-gradients", "gauss-newton", "price"])
@pytest.mark.parametrize("start", ["guide", "fisher"])
def test_a_fit_that_is_resumed_has_the_same_bits(stores, tmp_path, recipe, interrupted, curvature, start):
    settings = {**NATURAL, "natural": Natural(curvature=curvature), "start": start}
    run = recipe(stores["downstream"], guide="flip", **settings)
    whole = fit(run, tmp_path / "whole")
    with interrupted():
        assert not fit(run, tmp_path / "parts").complete
    resumed = fit(run, tmp_path / "parts", resume=True)
    assert resumed.complete
    expected, found = (weights(load(each.folder)) for each in (whole, resumed))
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    kept = ("step", "nll", "kl", "learning_rate")
    lines = [
        [{name: line[name] for name in kept} for line in read_metrics(each.folder / "metrics.jsonl")]
        for each in (whole, resumed)
    ]
    assert lines[0] == lines[1]


def test_means_and_widths_move_and_batchnorm_is_adams(stores, upstream, tmp_path, recipe):
    posterior = fit(recipe(stores["downstream"], upstream=str(upstream), **NATURAL), tmp_path / "run").posterior
    before = load(upstream)
    for name, (loc, scale) in posterior.gaussians().items():
        old_loc, old_scale = before.gaussians()[name]
        if loc.shape == old_loc.shape:
            assert not torch.equal(loc, old_loc), name
            assert not torch.equal(scale, old_scale), name
    assert not torch.equal(posterior.points()["conv_block1.bn1.weight"], before.points()["conv_block1.bn1.weight"])


def test_the_kl_in_the_metrics_is_that_of_the_posterior(stores, tmp_path, recipe):
    fitted = fit(recipe(stores["downstream"], **NATURAL), tmp_path / "run")
    assert fitted.posterior.metrics["kl"] == pytest.approx(kl(fitted.posterior), rel=1e-4)


def test_a_learned_prior_learns(stores, tmp_path, recipe):
    """Its KL stays in the loss, whose gradient is the only one that its width has."""
    guide = tmp_path / "learned.toml"
    guide.write_text('[default]\nlearn_prior = true\nestimator = "weights"\n')
    settings = {**NATURAL, "epochs": 4, "kl_weight": 0.1, "learning_rate": 0.01}
    fitted = fit(recipe(stores["downstream"], guide=str(guide), **settings), tmp_path / "run")
    factors = torch.stack(list(fitted.posterior.prior_widths().values()))
    assert (factors != 1).all()
    assert factors.log().abs().median() > 0.01
    # The loss's own KL is of the last step's start.
    assert fitted.posterior.metrics["kl"] == pytest.approx(kl(fitted.posterior), rel=0.05)


def test_the_prior_start_is_in_units_of_the_weights(stores, upstream, tmp_path, recipe):
    guide = tmp_path / "start.toml"
    guide.write_text('[default]\nprior = "start"\nprior_scale = 0.5\nestimator = "weights"\n')
    fitted = fit(recipe(stores["downstream"], upstream=str(upstream), guide=str(guide), **NATURAL), tmp_path / "run")
    known = load(upstream).gaussians()
    for posterior in (fitted.posterior, load(fitted.folder)):
        for name in ("conv_block1.conv1.weight", "fc1.weight"):
            expected = 0.5 * known[name][0].square().mean().sqrt()
            assert np.allclose(posterior.model.prior(f"net.{name}").stddev, expected, rtol=1e-5), name
        # A new layer and biases have no size yet.
        for name, fan_in in (("fc_audioset.weight", 128), ("fc1.bias", 128)):
            assert np.allclose(posterior.model.prior(f"net.{name}").stddev, 0.5 / fan_in**0.5, rtol=1e-5), name


@pytest.mark.parametrize("guide", ["det", "map"])
def test_a_guide_of_points_is_adams(stores, tmp_path, recipe, guide):
    """A recipe with natural gradients goes with any guide."""
    kinds = {"natural-gradient": {"optimizer": "natural-gradient", "start": "fisher"}, "adam": {}}
    found = [
        weights(fit(recipe(stores["upstream"], guide=guide, kl_weight=1e-3, **kind), tmp_path / name).posterior)
        for name, kind in kinds.items()
    ]
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ["locs"]}, "fits means and widths"),
        ({"freeze": ["backbone"], "features": "embeddings", "guide": "low-rank-head"}, "is for the guide recipe"),
    ],
)
def test_what_it_cannot_fit_is_refused(stores, upstream, tmp_path, recipe, settings, message):
    run = recipe(stores["upstream"], upstream=str(upstream), **NATURAL, **settings)
    with pytest.raises(RecipeError, match=message) as caught:
        fit(run, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_prior_that_is_not_normal_is_refused_with_a_reason(stores, tmp_path, recipe):
    guide = tmp_path / "laplace.toml"
    guide.write_text('[default]\nprior = "laplace"\n')
    with pytest.raises(RecipeError, match=r"the prior of .* must be Normal, and it is Laplace"):
        fit(recipe(stores["downstream"], guide=str(guide), **NATURAL), tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_weight": 0.0}, "need a kl_weight above 0"),
        ({"kl_warmup": 2.0}, "kl_warmup is a setting of Adam"),
        ({"optimizer": "adam", "natural": Natural(memory=0.9)}, "natural is for natural gradients"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(stores, tmp_path, recipe, settings, message):
    with pytest.raises((SettingError, ValueError), match=message):
        recipe(stores["downstream"], **{**NATURAL, **settings})
