import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from bayes_panns.bayes import FanIn, FromPosterior, Laplace, Normal, sites
from bayes_panns.bayes.priors import stretched
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


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_cannot_be_is_refused(scale):
    for make in (Normal, FanIn, Laplace, lambda value: FromPosterior({}, {}, otherwise=FanIn(), widen=value)):
        with pytest.raises(ValueError, match="must be finite and positive"):
            make(scale)


def test_a_posterior_of_another_shape_is_no_prior(net):
    wrong = torch.ones(8, 3, 3)
    prior = FromPosterior({"0.weight": wrong}, {"0.weight": wrong}, otherwise=FanIn())
    with pytest.raises(ValueError, match=r"prior of 0\.weight: the posterior's is of shape \(8, 3, 3\)"):
        prior(sites(net)["0.weight"])


def test_priors_are_centred(net):
    for prior in (Normal(0.3), FanIn(), Laplace()):
        assert (prior(sites(net)["0.weight"]).mean == 0).all()


@pytest.mark.parametrize("family", [dist.Normal, dist.Laplace])
def test_a_stretched_prior_keeps_its_mean(family):
    prior = family(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 2.0])).to_event(1)
    wider = stretched(prior, torch.tensor(3.0))
    assert (wider.batch_shape, wider.event_shape) == ((), (2,))
    torch.testing.assert_close(wider.mean, prior.mean)
    torch.testing.assert_close(wider.stddev, 3 * prior.stddev)


def test_sites_of_every_kind_of_layer():
    found = sites(nn.ModuleDict({"a": nn.Conv1d(3, 5, 7), "b": nn.Linear(4, 2, bias=False), "c": nn.LayerNorm(3)}))
    assert {name: site.fan_in for name, site in found.items()} == {"a.weight": 21, "a.bias": 21, "b.weight": 4}
    assert found["a.weight"].shape == (5, 3, 7)
    assert list(sites(nn.Linear(3, 2))) == ["weight", "bias"]
