"""What a posterior shares with the one that it starts from, by its start and by its prior alike."""

import pytest
import torch

from bayes_panns.bayes import Rule, Settings, Strategy
from bayes_panns.clips import Task
from bayes_panns.core.errors import PosteriorError
from bayes_panns.posterior import Posterior, shared_weights
from bayes_panns.recipes import read_strategy

HEAD = ("fc_audioset.weight", "fc_audioset.bias")
UPSTREAM_PRIOR = Strategy(default=Settings(prior="upstream"))


def build(labels=("cat", "dog"), strategy=None, **options):
    settings = {"net": "resnet14-narrow", "task": Task.ONE_OF_K, "sample_rate": 8000, "clip_seconds": 0.5}
    return Posterior.build(**{**settings, "labels": labels, "strategy": strategy, **options})


def fitted(**options):
    """A posterior far from any start."""
    posterior = build(**options)
    with torch.no_grad():
        for parameter in posterior.guide.parameters():
            parameter.add_(0.3 + torch.rand_like(parameter))
    return posterior


@pytest.mark.parametrize("labels", [("owl", "wren"), ("dog", "cat"), ("cat", "dog", "owl")])
def test_a_head_for_other_labels_is_neither_start_nor_prior(labels):
    """As many labels are not the same labels."""
    upstream = fitted()
    downstream = build(labels, UPSTREAM_PRIOR, upstream=upstream)
    assert downstream.start_from(upstream).new == HEAD
    for name in HEAD:
        prior = downstream.model.prior(f"net.{name}")
        assert (prior.mean == 0).all()
        torch.testing.assert_close(prior.stddev, torch.full_like(prior.stddev, 128**-0.5))
        assert not torch.equal(downstream.gaussians()[name][0], upstream.gaussians()[name][0])
    for name in ("fc1.weight", "fc1.bias", "conv_block1.conv1.weight"):
        prior, (loc, scale) = downstream.model.prior(f"net.{name}"), upstream.gaussians()[name]
        torch.testing.assert_close(prior.mean, loc)
        torch.testing.assert_close(prior.stddev, scale)
        torch.testing.assert_close(downstream.gaussians()[name][0], loc)


def test_the_same_labels_share_the_head():
    upstream = fitted()
    downstream = build(strategy=UPSTREAM_PRIOR, upstream=upstream)
    assert downstream.start_from(upstream).new == ()
    for name in HEAD:
        torch.testing.assert_close(downstream.model.prior(f"net.{name}").mean, upstream.gaussians()[name][0])


def test_points_are_shared_without_a_width():
    upstream = fitted(strategy=read_strategy("det-flip"))
    shapes = {name: value.shape for name, value in upstream.points().items()} | {"fc_audioset.bias": torch.Size([2])}
    options = {"net": upstream.net, "sample_rate": 8000, "labels": upstream.labels}
    found = shared_weights(upstream, shapes=shapes, **options)
    assert found["bn0.running_mean"][1] is None
    assert found["fc1.weight"][1] is None
    assert found["fc_audioset.bias"][1] is not None
    assert "fc_audioset.weight" not in found, "no shape is given for it"
    assert "fc1.bias" not in shared_weights(upstream, shapes={**shapes, "fc1.bias": torch.Size([7])}, **options)


@pytest.mark.parametrize("options", [{"sample_rate": 16000}, {"net": "resnet14-coarse"}])
def test_another_network_or_front_end_is_refused_for_both(options):
    upstream = build(**options)
    what = next(iter(options))
    with pytest.raises(PosteriorError, match=f"upstream posterior's {what} is {options[what]}, but this run's is"):
        build(strategy=UPSTREAM_PRIOR, upstream=upstream)
    with pytest.raises(PosteriorError, match=f"upstream posterior's {what} is {options[what]}, but this run's is"):
        build().start_from(upstream)


def test_the_prior_of_a_point_upstream_is_by_fan_in():
    upstream = fitted(strategy=Strategy(default=Settings(posterior="point")))
    strategy = Strategy(
        default=Settings(posterior="point"), rule=[Rule(match="head.*", posterior="normal", prior="upstream")]
    )
    downstream = build(strategy=strategy, upstream=upstream)
    prior = downstream.model.prior("net.fc_audioset.weight")
    torch.testing.assert_close(prior.stddev, torch.full_like(prior.stddev, 128**-0.5))
