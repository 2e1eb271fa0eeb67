"""Where the widths of a fit started, and the warnings where they say little."""

import math

import pytest
import torch
from torch import nn

from bayes_panns.bayes import (
    BayesianNet,
    Effective,
    EffectiveParameters,
    MeanField,
    Normal,
    OneOfK,
    RotatedHead,
    sites,
)
from bayes_panns.nets import EmbeddingNet
from bayes_panns.svi import FitSettings
from bayes_panns.svi.widths import (
    bound_warning,
    log_widths,
    modules_of,
    prior_warning,
    start_warning,
    trained_log_scales,
    widen,
)


def guide_of(init_scale=0.1):
    net = nn.Sequential(nn.Linear(50, 20), nn.Linear(20, 4))
    priors = {name: Normal()(site) for name, site in sites(net).items()}
    return MeanField(BayesianNet(net, priors, OneOfK()), init_scale=init_scale)


def weights_of(guide):
    return {name: values.numel() for name, values in trained_log_scales(guide).items()}


def moved(guide, by):
    """The widths after each log s has moved by normal numbers of this root mean square."""
    with torch.no_grad():
        for values in trained_log_scales(guide).values():
            values.add_(by * torch.randn_like(values))
    return log_widths(guide)


def test_mean_and_deviation_of_the_log_widths():
    guide = guide_of(0.03)
    start = log_widths(guide)
    assert set(start) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert all(each == pytest.approx((math.log(0.03), 0), abs=1e-6) for each in start.values())
    # Not a rounding error, however many equal widths there are.
    assert all(deviation == 0 for _, deviation in start.values())
    scale = torch.rand(20, 50) + 0.1
    guide.assign({"net.0.weight": (torch.zeros(20, 50), scale)})
    log = scale.double().log()
    expected = (log.mean().item(), log.std(correction=0).item())
    assert log_widths(guide)["0.weight"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("part", ["0", "1"])
def test_frozen_weights_do_not_count(part):
    guide = guide_of()
    guide.freeze(part)
    left = "1" if part == "0" else "0"
    assert set(log_widths(guide)) == {f"{left}.weight", f"{left}.bias"}
    before = guide.scale(f"net.{part}.weight").clone()
    widen(guide, 100)
    assert torch.equal(guide.scale(f"net.{part}.weight"), before)
    assert log_widths(guide)[f"{left}.weight"] == pytest.approx((math.log(10), 0), abs=1e-5)


def test_widths_alone_are_fitted_with_frozen_means():
    guide = guide_of()
    guide.freeze_locs()
    assert len(log_widths(guide)) == 4


def test_a_rotated_layer_is_widened_and_not_judged():
    net = EmbeddingNet(6, 3)
    guide = RotatedHead(BayesianNet(net, {name: Normal()(site) for name, site in sites(net).items()}, OneOfK()))
    assert log_widths(guide) == {}
    widen(guide, 2)
    assert len(trained_log_scales(guide)) == 2
    for values in trained_log_scales(guide).values():
        torch.testing.assert_close(values.detach(), torch.full_like(values, math.log(0.02)))


def test_widths_that_have_hardly_moved_are_the_start():
    guide = guide_of()
    start = log_widths(guide)
    text = start_warning(start, moved(guide, 0.05), weights_of(guide))
    assert "\n" not in text
    assert "moved the widths of 1,104 weights by 5" in text
    assert 'fit.optimizer = "natural-gradient" infers widths' in text
    assert start_warning(start, moved(guide, 0.2), weights_of(guide)) is None


def test_one_small_layer_that_has_moved_does_not_hide_the_others():
    guide = guide_of()
    start = log_widths(guide)
    end = {**start, "1.bias": (start["1.bias"][0] + 0.5, 0.1)}
    assert "hardly" not in start_warning(start, end, weights_of(guide))
    end = {**start, "0.weight": (start["0.weight"][0] + 0.5, 0.1)}
    assert start_warning(start, end, weights_of(guide)) is None


def test_widths_that_know_the_weights_already_may_stay():
    guide = guide_of()
    for site in ("net.0.weight", "net.0.bias"):
        loc = guide.loc(site).detach()
        guide.assign({site: (loc, torch.rand_like(loc) + 0.1)})
    start = log_widths(guide)
    # Most weights started from widths of their own: a new last layer beside them is no reason to warn.
    assert start_warning(start, start, weights_of(guide)) is None
    guide.freeze("0")
    start = log_widths(guide)
    assert "widths of 84 weights by 0 %" in start_warning(start, start, weights_of(guide))


def test_a_posterior_that_is_all_prior():
    small, none = Effective(1000, 9.0, 995), Effective(500, 0.0, 500)
    trained = {"a": (0.0, 0.0)}
    text = prior_warning(EffectiveParameters({"a": small, "frozen": Effective(10**6, 10.0**6, 0)}), trained)
    assert "\n" not in text
    assert "determine 9 of the 1,000 weights that were fitted (0.9 %)" in text
    for remedy in ("kl_weight", "prior_scale", "fewer layers", "rotated-head"):
        assert remedy in text
    assert prior_warning(EffectiveParameters({"a": Effective(1000, 10.0, 995)}), trained) is None
    assert "determine 9 of the 1,500" in prior_warning(
        EffectiveParameters({"a": small, "b": none}), {**trained, "b": (0.0, 0.0)}
    )
    # Nothing of it is known: frozen, or no Normal prior.
    assert prior_warning(EffectiveParameters({"a": none}), {}) is None
    assert prior_warning(EffectiveParameters({}), trained) is None


STAGES = [f"resnet.layer{stage}.{block}.conv{conv}" for stage in (1, 2, 3) for block in (0, 1) for conv in (1, 2)]
LAYERS = ["conv_block1.conv1", *STAGES, "fc1", "head"]


def effective(prior, known=0.5):
    """Layers of 1,000 weights of which the data determine a share; none of those of ``prior``."""
    gammas = {name: 0.0 if name in prior else 1000 * known for name in LAYERS}
    return EffectiveParameters({f"{name}.weight": Effective(1000, gamma) for name, gamma in gammas.items()})


def names(effective):
    return list(effective.by_parameter)


def test_layers_at_their_prior_are_named_by_the_modules_that_hold_them():
    prior = [name for name in LAYERS if ".layer2." in name or ".layer3.0." in name] + ["fc1"]
    found = effective(prior)
    text = prior_warning(found, names(found))
    assert "\n" not in text
    assert text.startswith("resnet.layer2, resnet.layer3.0 and fc1 (7 of 15 layers), 47 % of the weights")
    assert "less than 1 % of their weights" in text
    assert prior_warning(effective([]), names(found)) is None
    # What is not fitted is not said.
    assert prior_warning(found, ["head.weight"]) is None
    # The whole has a warning of its own.
    assert prior_warning(effective(LAYERS[:-1], known=0.1), names(found)).startswith("the posterior is all prior")


def test_many_names_are_counted():
    prior = [name for name in LAYERS if name.endswith("conv1")]
    text = prior_warning(effective(prior), names(effective(prior)))
    assert text.startswith(
        "conv_block1, resnet.layer1.0.conv1, resnet.layer1.1.conv1, resnet.layer2.0.conv1 and 3 more (7 of 15 layers)"
    )


def test_modules_hold_the_layers_and_no_others():
    assert modules_of(LAYERS, LAYERS) == ["conv_block1", "resnet", "fc1", "head"]
    # A name that begins like another is another.
    assert modules_of(["a1.x"], ["a1.x", "a10.x"]) == ["a1"]


def test_widths_at_their_upper_bound_are_told():
    shares = {f"{name}.weight": 0.0 for name in LAYERS} | {"fc1.bias": 0.2, "head.weight": 0.009}
    text = bound_warning(shares, FitSettings(learning_rate=0.05))
    assert text.startswith("widths of fc1 (1 of 15 layers) are at their upper bound, 3 times the prior's")
    assert "fit.learning_rate (0.05)" in text
    assert bound_warning({**shares, "fc1.bias": 0.0}, FitSettings()) is None
    assert bound_warning({}, FitSettings(scale_bounds=[])) is None
