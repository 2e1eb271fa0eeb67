"""Every network becomes a Pyro model in the same way: sites agree, a step is finite, moments work or are refused."""

from dataclasses import replace
from itertools import islice

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.nn import functional as F

from bayes_panns.bayes import (
    BayesianNet,
    Estimator,
    FanIn,
    MeanField,
    MultiLabel,
    gaussian_weights,
    mirrored_draws,
    moments_under,
    sites,
)
from bayes_panns.nets import NETS, build, cnn, mobilenet, resnet
from bayes_panns.nets.mobilenet import SqueezeExcitation
from bayes_panns.svi import MeanFieldELBO

SEGMENTS = "cnn14-decision-level-max"


def thin(name, classes=3):
    """The network of that name with all its layers, and few channels where it has millions of weights."""
    if name in cnn.ARCHITECTURES:
        found = cnn.ARCHITECTURES[name]
        return cnn.make(replace(found, widths=tuple(width // 16 for width in found.widths)), classes)
    if name in resnet.ARCHITECTURES:
        return resnet.ResNet(replace(resnet.ARCHITECTURES[name], width=8, embedding=16), classes)
    if name in mobilenet.ARCHITECTURES:
        return mobilenet.MobileNet(replace(mobilenet.ARCHITECTURES[name], width=0.1), classes)
    return build(name, classes)


def model_of(net):
    return BayesianNet(net, {name: FanIn()(site) for name, site in sites(net).items()}, MultiLabel(), clips=20)


def features_of(net, clips=2):
    rate = 16000 if getattr(getattr(net, "architecture", None), "sample_rate", None) else 32000
    front_end = net.front_end(rate)
    return front_end(0.1 * torch.randn(clips, 40 * front_end.settings.hop))


@pytest.mark.parametrize("name", NETS)
def test_model_and_guide_have_the_same_sites_and_a_step_is_finite(name):
    net = thin(name)
    weights, features = set(sites(net)), features_of(net)
    model = model_of(net)
    guide = MeanField(model, init_scale=0.1)
    batch = features, torch.rand(2, 3).round()
    drawn = poutine.trace(guide).get_trace(*batch)
    traced = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*batch)
    expected = {f"net.{each}" for each in weights}
    assert {each for each in drawn.stochastic_nodes if each != "clips"} == expected
    assert {each for each in traced.stochastic_nodes if each != "clips"} == expected
    assert traced.observation_nodes == ["label"]
    loss = MeanFieldELBO().differentiable_loss(model, guide, *batch)
    loss.backward()
    assert loss.isfinite()
    for parameter in guide.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any(), "every weight has a KL, so none is out of reach"


@pytest.mark.parametrize("estimator", ["weights", "flipout", "mirrored"])
@pytest.mark.parametrize("name", ["cnn6", "cnn10", SEGMENTS, "mobilenetv1", "mobilenetv2"])
@torch.no_grad()
def test_clips_share_a_draw_with_whom_they_should(name, estimator):
    """weights: with all; mirrored: with their half of the batch; flipout: with none."""
    torch.manual_seed(1)
    net = thin(name)
    clips = torch.randn(6, 64, 64)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    nn.init.normal_(net.fc_audioset.weight, 0, 0.5)
    net(clips)
    model = model_of(net).eval()
    guide = MeanField(model, init_scale=0.1, estimator=estimator)
    logits = poutine.replay(model, trace=poutine.trace(guide).get_trace())(clips[:1].expand(6, -1, -1).contiguous())
    apart = (logits.unsqueeze(0) - logits.unsqueeze(1)).abs().amax(dim=2)
    group = {"weights": torch.zeros(6), "mirrored": torch.tensor([0, 0, 0, 1, 1, 1]), "flipout": torch.arange(6)}
    same = group[estimator].unsqueeze(0) == group[estimator].unsqueeze(1)
    assert apart[same].max() < 1e-4
    if estimator != "weights":
        assert apart[~same].min() > 1e-3


@torch.no_grad()
def test_flipouts_signs_are_a_clips_own_and_the_same_at_all_its_segments():
    """Segments of one input have one output, and two clips of one input have two."""
    x = torch.randn(1, 1, 5).expand(4, 7, 5)
    with Estimator("flipout"):
        weight = pyro.sample("w", dist.Normal(torch.zeros(3, 5), 1.0).to_event(2))
        bias = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    output = F.linear(x, weight, bias)
    torch.testing.assert_close(output, output[:, :1].expand_as(output))
    apart = (output[:, None, 0] - output[None, :, 0]).abs().amax(dim=2)
    assert apart[~torch.eye(4, dtype=bool)].min() > 0.01


def test_local_is_refused_for_a_layer_over_segments():
    net = thin(SEGMENTS)
    model = BayesianNet(net, {name: FanIn()(sites(net)[name]) for name in ("fc_audioset.weight",)}, MultiLabel()).eval()
    guide = MeanField(model, init_scale=0.1, estimator="local")
    with pytest.raises(ValueError, match="applied to each segment of a clip, would see another weight at each place"):
        poutine.replay(model, trace=poutine.trace(guide).get_trace())(torch.randn(2, 64, 64))


@torch.no_grad()
def test_the_frames_of_a_posteriors_net_are_those_of_the_draw():
    """Under each draw the largest logit of the frames is the clip's, and frames differ between draws."""
    net = thin(SEGMENTS)
    features = 3 * torch.randn(2, 100, 64)
    model = model_of(net).eval()
    guide = MeanField(model, init_scale=0.1)
    seen = []
    for weights in islice(mirrored_draws(guide, seed=0), 2):
        frames = poutine.condition(model.net.framewise, data=weights)(features)
        torch.testing.assert_close(frames.amax(dim=1), poutine.condition(model.net, data=weights)(features))
        seen.append(frames.clone())
    assert seen[0].shape == (2, 100, 3)
    assert (seen[0] - seen[1]).abs().max() > 1e-4


class Wrapped(nn.Module):
    """Layers in a row, called as a network is."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x, augment=None):
        return self.layers(x)


class MaximumOverFrames(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x, augment=None):
        return self.layer(x.flatten(2)).amax(dim=1)


REFUSED = {
    "hard-swish": (lambda: Wrapped(nn.Conv2d(2, 4, 3, padding=1), nn.Hardswish()), "hardswish"),
    "ReLU6": (lambda: Wrapped(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU6()), "hardtanh"),
    "squeeze-and-excitation": (lambda: Wrapped(nn.Conv2d(2, 4, 3, padding=1), SqueezeExcitation(4)), "sigmoid"),
    "grouped": (lambda: Wrapped(nn.Conv2d(2, 4, 3, padding=1, groups=2)), "without groups"),
    "depthwise": (lambda: Wrapped(nn.Conv2d(2, 2, 3, padding=1, groups=2)), "without groups"),
    "5 x 5": (lambda: Wrapped(nn.Conv2d(2, 4, 5, padding=2)), "1 x 1 and 3 x 3"),
    "maximum over frames": (MaximumOverFrames, "linear layer over 3 dimensions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_moments_refuse_what_they_cannot_propagate(name):
    make, message = REFUSED[name]
    net = make()
    priors = {each: FanIn()(site) for each, site in sites(net).items()}
    model = BayesianNet(net, priors, MultiLabel()).eval()
    with pytest.raises(NotImplementedError, match=f"moments .*{message}.*use draws"):
        moments_under(model, gaussian_weights(MeanField(model)), torch.randn(2, 2, 4, 4))


def test_moments_refuse_segments():
    """Whichever layer is the first that is drawn."""
    for name in ("fc1.weight", "conv_block6.conv2.weight", "fc_audioset.weight"):
        net = thin(SEGMENTS)
        model = BayesianNet(net, {name: FanIn()(sites(net)[name])}, MultiLabel()).eval()
        with pytest.raises(NotImplementedError, match=r"moments cannot be propagated through .*: use draws"):
            moments_under(model, gaussian_weights(MeanField(model)), torch.randn(2, 64, 64))


@pytest.mark.parametrize("name", ["cnn6", "mobilenetv1", "mobilenetv2", "mn01"])
def test_moments_refuse_the_networks_that_they_cannot_propagate_through(name):
    net = thin(name)
    features = features_of(net)
    model = model_of(net).eval()
    with pytest.raises(NotImplementedError, match=r"moments .*use draws"):
        moments_under(model, gaussian_weights(MeanField(model)), features)


@pytest.mark.parametrize("name", ["cnn10", "cnn14"])
@torch.no_grad()
def test_moments_of_cnns_are_about_those_of_draws(name):
    net = thin(name)
    features = 3 * torch.randn(6, 64, 64)
    model = model_of(net).eval()
    guide = MeanField(model, init_scale=0.05)
    loc, deviations = moments_under(model, gaussian_weights(guide), features)
    nets = (poutine.condition(model.net, data=weights) for weights in islice(mirrored_draws(guide, 0), 200))
    logits = torch.stack([each(features) for each in nets])
    ratio = deviations.square().sum(dim=0).sum() / logits.var(dim=0).sum()
    assert 0.5 < ratio < 2
    assert (loc - logits.mean(dim=0)).abs().mean() < 0.5 * logits.std(dim=0).mean()
