"""Propagated moments against closed forms and against draws."""

from itertools import islice

import pytest
import torch
from pyro import poutine
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from bayes_panns.bayes import (
    BayesianNet,
    FanIn,
    MeanField,
    OneOfK,
    gaussian_weights,
    logits_under,
    mirrored_draws,
    moments_under,
    sites,
)
from bayes_panns.nets import build


class Wrapped(nn.Module):
    """Layers in a row, called as a network is."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x, augment=None):
        return self.layers(x)


def make(net, scale=0.2, drawn=lambda name: True):
    priors = {name: FanIn()(site) for name, site in sites(net).items() if drawn(name)}
    model = BayesianNet(net, priors, OneOfK()).eval()
    return model, MeanField(model, init_scale=scale)


def narrow(**options):
    torch.manual_seed(0)
    net = build("resnet14-narrow", 5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            # A scale of 0 at the start would hide the residual branches.
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return make(net, **options)


def moments(model, guide, x):
    loc, deviations = moments_under(model, gaussian_weights(guide), x)
    return loc, deviations.square().sum(dim=0)


def drawn(model, guide, x, count):
    with torch.no_grad():
        nets = (poutine.condition(model.net, data=weights) for weights in islice(mirrored_draws(guide, 0), count))
        return torch.stack([net(x) for net in nets])


def test_a_linear_layer_is_exact():
    model, guide = make(Wrapped(nn.Linear(6, 20)))
    x = torch.randn(4, 6)
    loc, variance = moments(model, guide, x)
    torch.testing.assert_close(loc, F.linear(x, guide.loc("net.layers.0.weight"), guide.loc("net.layers.0.bias")))
    torch.testing.assert_close(variance, ((x**2).sum(dim=1, keepdim=True) + 1).expand(4, 20) * 0.2**2)


def test_two_layers_and_a_rectifier_have_the_moments_of_draws():
    torch.manual_seed(0)
    model, guide = make(Wrapped(nn.Linear(6, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 3)), scale=0.1)
    x = torch.randn(10, 6)
    loc, variance = moments(model, guide, x)
    logits = drawn(model, guide, x, 4000)
    torch.testing.assert_close(loc, logits.mean(dim=0), atol=0.04, rtol=0.05)
    torch.testing.assert_close(variance, logits.var(dim=0), atol=0.0, rtol=0.3)


def test_point_weights_have_no_variance_and_the_networks_own_logits():
    model, guide = narrow(drawn=lambda name: False)
    x = torch.randn(3, 100, 64)
    loc, deviations = moments_under(model, gaussian_weights(guide), x)
    torch.testing.assert_close(loc, logits_under(model, {}, x))
    assert not deviations.any()


def test_narrow_scales_give_the_mean_pass():
    model, guide = narrow(scale=1e-7)
    x = torch.randn(3, 100, 64)
    loc, variance = moments(model, guide, x)
    torch.testing.assert_close(loc, logits_under(model, guide.median(), x), rtol=1e-3, atol=1e-3)
    assert variance.max() < 1e-6


def test_a_head_alone_is_exact():
    model, guide = narrow(scale=0.05, drawn=lambda name: name.startswith("fc_audioset"))
    x = torch.randn(3, 100, 64)
    loc, variance = moments(model, guide, x)
    torch.testing.assert_close(loc, logits_under(model, guide.median(), x), rtol=1e-4, atol=1e-4)
    expected = 0.05**2 * ((model.embed(x) ** 2).sum(dim=1, keepdim=True) + 1)
    torch.testing.assert_close(variance, expected.expand_as(variance), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_whole_network_ranks_clips_as_draws_do():
    """Clips from silence to loud noise: where draws vary more, so do the moments, by no more than a factor of two."""
    model, guide = narrow(scale=0.01)
    x = 10 * torch.randn(24, 64, 64) * torch.linspace(0.05, 1, 24)[:, None, None] - 40
    loc, variance = moments(model, guide, x)
    logits = drawn(model, guide, x, 80)
    theirs = logits.var(dim=0).sum(dim=1)
    assert spearmanr(variance.sum(dim=1), theirs)[0] > 0.9
    assert 0.5 < variance.sum() / theirs.sum() < 2
    assert (loc - logits.mean(dim=0)).abs().mean() < 0.5 * theirs.sum().div(len(x) * 5).sqrt()


def test_the_same_posterior_has_the_same_moments_in_any_batch():
    model, guide = narrow(scale=0.02)
    x = torch.randn(5, 64, 64)
    together, variance = moments(model, guide, x)
    alone, own = moments(model, guide, x[3:4])
    torch.testing.assert_close(alone[0], together[3], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(own[0], variance[3], rtol=1e-3, atol=1e-3)


def test_what_has_no_rule_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x, augment=None):
            return self.layer(x).softmax(dim=1)

    model, guide = make(Odd())
    with pytest.raises(NotImplementedError, match=r"softmax.*use draws"):
        moments(model, guide, torch.randn(2, 4))
