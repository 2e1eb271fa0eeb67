"""Estimators on what MobileNets are made of: depthwise and grouped convolutions, hard-swish, squeeze-and-excitation."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy.stats import chi2
from torch import nn
from torch.nn import functional as F

from bayes_panns.bayes import BayesianNet, Estimator, FanIn, MeanField, OneOfK, sites
from bayes_panns.nets import build

FOR_CONVOLUTIONS = ("weights", "flipout", "mirrored")
BLOCKS = {
    "depthwise": {"convolution": (2, 1, 3, 3), "squeeze": (2, 2), "excite": (2, 2)},
    "grouped": {"convolution": (4, 2, 1, 3), "squeeze": (1, 4), "excite": (4, 1)},
    "segments": {"convolution": (2, 1, 1, 1), "last": (4, 2)},
}
"""The weights of a block of two channels, of one of four in two groups, and of one whose last layer tags segments."""


def drawn(estimator, name, loc, scale):
    with Estimator(estimator):
        return pyro.sample(name, dist.Normal(loc, scale).to_event(loc.dim()))


def block(x, weights):
    """A convolution in two groups, hard-swish, and squeeze-and-excitation or the largest logits of all segments."""
    x = F.hardswish(grouped(x, weights["convolution"]))
    return largest(F.linear(segments(x), weights["last"])) if "last" in weights else excited(x, weights)


def grouped(x, weight):
    return F.conv2d(x, weight, None, 1, (weight.shape[2] // 2, weight.shape[3] // 2), 1, 2)


def segments(x):
    """Each place of a map as a segment of the clip, ``(batch, segments, channels)``."""
    return x.flatten(2).transpose(1, 2)


def largest(logits):
    return logits.amax(dim=1)[:, :, None, None]


def excited(x, weights):
    scale = F.linear(F.relu(F.linear(x.mean(dim=(2, 3)), weights["squeeze"])), weights["excite"]).sigmoid()
    return x * scale[:, :, None, None]


def gradients(draws, run, kind, clips=3):
    """Gradients of a nonlinear loss for every loc and every scale, shape ``(draws, coordinates)``."""
    generator = torch.Generator().manual_seed(3)
    shapes = BLOCKS[kind]
    channels = shapes["convolution"][0]
    x = torch.randn(clips, channels, 5, 4, generator=generator)
    target = torch.rand(clips, generator=generator)
    locs = {name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in shapes.items()}
    scales = {name: torch.full(shape, 0.4).requires_grad_() for name, shape in shapes.items()}
    rows = []
    for _ in range(draws):
        logit = run(x, locs, scales).sum(dim=(1, 2, 3)).div(channels)
        loss = F.binary_cross_entropy_with_logits(logit, target, reduction="sum")
        found = torch.autograd.grad(loss, [*locs.values(), *scales.values()])
        rows.append(torch.cat([each.flatten() for each in found]))
    return torch.stack(rows).double()


def of_each_clip(x, locs, scales):
    """The reference: every clip has independent weights of its own."""
    outputs = []
    for clip in x.split(1):
        outputs.append(block(clip, {name: loc + scales[name] * torch.randn_like(loc) for name, loc in locs.items()}))
    return torch.cat(outputs)


def by(estimator):
    return lambda x, locs, scales: block(
        x, {name: drawn(estimator, name, loc, scales[name]) for name, loc in locs.items()}
    )


def of_each_place(x, locs, scales):
    """Signs per pixel instead of per channel, and outputs drawn for each segment: another weight at each place."""
    weights = {name: drawn("weights", name, loc, scales[name]) for name, loc in locs.items()}
    if "last" in weights:
        x = segments(F.hardswish(grouped(x, weights["convolution"])))
        mean, variance = F.linear(x, locs["last"]), F.linear(x**2, scales["last"] ** 2)
        return largest(mean + (variance + 1e-12).sqrt() * torch.randn_like(mean))
    noise = scales["convolution"] * torch.randn_like(locs["convolution"])
    mean, signs = grouped(x, locs["convolution"]), torch.randn_like(x).sign()
    flipped = grouped(x * signs, noise) * torch.randn_like(mean).sign()
    return excited(F.hardswish(mean + flipped), weights)


def p_value(a, b):
    """Of a chi-squared test that two sets of gradients have the same mean, with their full covariance."""
    difference = a.mean(dim=0) - b.mean(dim=0)
    covariance = torch.cov(a.T) / len(a) + torch.cov(b.T) / len(b)
    return float(chi2.sf((difference @ torch.linalg.solve(covariance, difference)).item(), len(difference)))


@pytest.fixture(scope="module", params=BLOCKS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def reference_gradients(kind):
    torch.manual_seed(1)
    return gradients(1000, of_each_clip, kind)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", FOR_CONVOLUTIONS)
def test_gradients_agree_with_weights_per_clip_in_expectation(estimator, kind, reference_gradients):
    assert p_value(reference_gradients, gradients(1000, by(estimator), kind)) > 1e-3


@pytest.mark.slow
def test_the_agreement_test_sees_another_weight_at_each_place(kind, reference_gradients):
    assert p_value(reference_gradients, gradients(1000, of_each_place, kind)) < 1e-6


@pytest.mark.parametrize(("channels", "groups"), [(4, 4), (6, 3)])
def test_flipouts_signs_keep_each_weights_distribution_and_decorrelate_clips(channels, groups):
    """The responses to impulses are each clip's kernels: loc + sign * noise, with one fair sign for a clip's kernel.

    A Normal's noise has the same distribution with either sign. Signs of all kernels, and of all clips, are
    uncorrelated.
    """
    clips, inputs = 4000, channels // groups
    loc = torch.randn(channels, inputs, 3, 3)
    weight = drawn("flipout", "w", loc, torch.rand(loc.shape) + 0.5)
    # Input j of each group has its impulse in the middle of the j-th of several squares.
    x = torch.zeros(clips, groups, inputs, 5, 5 * inputs)
    for j in range(inputs):
        x[:, :, j, 2, 5 * j + 2] = 1
    response = F.conv2d(x.flatten(1, 2), weight, None, 1, 1, 1, groups)
    kernels = torch.stack([response[:, :, 1:4, 5 * j + 1 : 5 * j + 4] for j in range(inputs)], dim=2).flip(3, 4)
    noise = (weight + 0) - loc
    sign = ((kernels - loc) / noise).mean(dim=(3, 4))
    torch.testing.assert_close(kernels, loc + sign.round()[..., None, None] * noise, rtol=1e-3, atol=1e-4)
    sign = sign.round().flatten(1).double()
    assert set(sign.unique().tolist()) == {-1.0, 1.0}
    bound = 5 / clips**0.5
    assert sign.mean(dim=0).abs().max() < bound
    between_kernels = sign.T @ sign / clips - torch.eye(channels * inputs)
    assert between_kernels.abs().max() < bound
    between_clips = (sign[1:] * sign[:-1]).mean(dim=0)
    assert between_clips.abs().max() < bound


def tagger(estimator):
    """mn01 in eval mode, all its weights uncertain, and one clip six times over."""
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(1)
    net = build("mn01", 3)
    clips = torch.randn(6, 16, 128, generator=generator)
    # BatchNorm's statistics of these clips, and a last layer whose logits are of order 1.
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    nn.init.normal_(net.classifier[2].weight, 0, 0.1)
    nn.init.normal_(net.classifier[5].weight, 0, 0.1)
    net(clips)
    model = BayesianNet(net, {name: FanIn()(site) for name, site in sites(net).items()}, OneOfK()).eval()
    return model, MeanField(model, init_scale=0.1, estimator=estimator), clips[:1].expand(6, -1, -1).contiguous()


def run(model, guide, clips):
    return poutine.replay(model, trace=poutine.trace(guide).get_trace())(clips)


@torch.no_grad()
@pytest.mark.parametrize("estimator", FOR_CONVOLUTIONS)
def test_clips_share_a_draw_of_the_whole_network_with_whom_they_should(estimator):
    """weights: with all; mirrored: with their half of the batch; flipout: with none."""
    logits = run(*tagger(estimator))
    apart = (logits.unsqueeze(0) - logits.unsqueeze(1)).abs().amax(dim=2)
    group = {"weights": torch.zeros(6), "mirrored": torch.tensor([0, 0, 0, 1, 1, 1]), "flipout": torch.arange(6)}
    same = group[estimator].unsqueeze(0) == group[estimator].unsqueeze(1)
    assert apart[same].max() < 1e-4
    if estimator != "weights":
        assert apart[~same].min() > 0.01
