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
from bayes_panns.svi.widths import log_widths, prior_warning, start_warning, trained_log_scales, widen


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
