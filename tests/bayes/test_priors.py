import math

import pytest
import torch
from torch import nn

from bayes_panns.bayes import FanIn, FromPosterior, Laplace, Normal, sites
from bayes_panns.nets import build


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4))


def test_sites_are_the_weights_of_layers_and_never_batchnorm(net):
    found = sites(net)
    assert list(found) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert [site.fan_in for site in found.values()] == [27, 27, 8, 8]
    assert not any("bn" in name for name in sites(build("resnet14-narrow", 3)))


@pytest.mark.parametrize(
    ("prior", "deviation"),
    [(Normal(0.3), 0.3), (FanIn(2.0), 2 / math.sqrt(27)), (Laplace(2.0), 2 / math.sqrt(27))],
)
def test_a_prior_covers_the_whole_weight_with_its_standard_deviation(net, prior, deviation):
    distribution = prior(sites(net)["0.weight"])
    assert distribution.batch_shape == ()
    assert distribution.event_shape == (8, 3, 3, 3)
    torch.testing.assert_close(distribution.stddev.flatten()[0].item(), deviation)
    draws = torch.stack([distribution.sample() for _ in range(200)])
    assert draws.std() == pytest.approx(deviation, rel=0.03)
    assert distribution.log_prob(draws[0]).shape == ()


def test_laplace_has_the_heavier_tail(net):
    site = sites(net)["0.weight"]
    far = torch.full(site.shape, 4.0)
    assert Laplace()(site).log_prob(far) > FanIn()(site).log_prob(far)


def test_a_posterior_is_the_prior_of_what_it_holds(net):
    found = sites(net)
    loc, scale = torch.randn(8, 3, 3, 3), torch.rand(8, 3, 3, 3) + 0.1
    prior = FromPosterior({"0.weight": loc}, {"0.weight": scale}, otherwise=FanIn(), widen=3.0)
    held = prior(found["0.weight"])
    torch.testing.assert_close(held.mean, loc)
    torch.testing.assert_close(held.stddev, 3 * scale)
    new = prior(found["3.weight"])
    torch.testing.assert_close(new.stddev, FanIn()(found["3.weight"]).stddev)
