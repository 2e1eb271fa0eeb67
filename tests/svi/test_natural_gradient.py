"""The fixed points of the natural-gradient step, against closed forms and against long fits by Adam."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from bayes_panns.bayes import BayesianNet, MeanField, Normal, sites
from bayes_panns.core.choices import Curvature, Task
from bayes_panns.svi import MeanFieldELBO, NaturalGradient

CLIPS, FEATURES = 200, 6
NOISE = 0.7


class Gaussian:
    """A regression with known noise: the labels' distribution is Normal(output, NOISE)."""

    task = Task.ONE_OF_K

    def __call__(self, logits, target=None):
        return dist.Normal(logits.squeeze(-1), NOISE)

    def probability(self, logits):
        return logits


def regression(prior, *, seed=0):
    """A linear model whose posterior is known; inputs on scales a factor of 10 apart."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(CLIPS, FEATURES, generator=generator) * torch.logspace(-1, 0, FEATURES)
    truth = torch.randn(FEATURES, generator=generator)
    target = inputs @ truth + NOISE * torch.randn(CLIPS, generator=generator)
    net = nn.Linear(FEATURES, 1, bias=False)
    net = Wrapped(net)
    priors = {name: prior(site) for name, site in sites(net).items()}
    return BayesianNet(net, priors, Gaussian(), clips=CLIPS), inputs[:, :, None], target


class Wrapped(nn.Module):
    """A network for :class:`BayesianNet`: its features are the inputs."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, features, augment=None):
        return self.layer(features.squeeze(-1))


def fitted(model, inputs, target, *, steps=1500, batch=20, kl_weight=1.0, elbo=None, init_scale=0.01, **settings):
    torch.manual_seed(1)
    guide = MeanField(model, estimator="weights", init_scale=init_scale)
    loss = elbo or MeanFieldELBO(kl_weight)
    objective = loss(model, guide)
    optimizer = NaturalGradient(model, guide, clips=len(inputs), kl_weight=kl_weight, **settings)
    for step in range(steps):
        index = torch.randint(len(inputs), (batch,))
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * 0.5 * (1 + math.cos(math.pi * step / steps))
            # A longer and longer memory averages over more batches.
            group["memory"] = 1 - max(0.05 * (1 - step / steps), 0.002)
        optimizer.zero_grad()
        (objective(inputs[index], target[index]) / len(inputs)).backward(retain_graph=optimizer.samples_labels)
        sampled = None
        if optimizer.samples_labels:
            sampled = torch.autograd.grad(loss.sampled_nll() / len(inputs), optimizer.locs)
        optimizer.step(batch, sampled)
    return guide


@pytest.mark.parametrize("kl_weight", [1.0, 0.1])
@pytest.mark.parametrize("curvature", list(Curvature))
def test_it_finds_the_mean_field_posterior_of_a_linear_model(curvature, kl_weight):
    model, inputs, target = regression(Normal(0.5))
    guide = fitted(model, inputs, target, curvature=curvature, kl_weight=kl_weight)
    loc, scale = guide.gaussians()["net.layer.weight"]

    # The tempered posterior: precision (X'X / noise^2) / kl_weight + 1 / s0^2; a mean-field Normal has its diagonal.
    x = inputs.squeeze(-1)
    precision = x.T @ x / NOISE**2 / kl_weight + torch.eye(FEATURES) / 0.5**2
    mean = torch.linalg.solve(precision, x.T @ target / NOISE**2 / kl_weight)
    width = precision.diagonal().rsqrt()
    print(((loc[0] - mean) / width), (scale[0] / width).log())
    assert ((loc[0] - mean) / width).abs().max() < 0.15
    assert (scale[0] / width).log().abs().max() < 0.1


def test_x():
    pass
