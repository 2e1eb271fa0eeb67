"""Draws in place: each exactly of the posterior, in pairs that mirror each other, in rotations without correlation."""

from itertools import islice

import pytest
import torch
from torch.nn import functional as F

from bayes_panns.bayes import BayesianNet, MeanField, Normal, OneOfK, head_logits, logits_under, mirrored_draws, sites
from bayes_panns.nets import build


def make(*names):
    net = build("resnet14-narrow", 3)
    priors = {name: Normal()(site) for name, site in sites(net).items() if not names or name in names}
    model = BayesianNet(net, priors, OneOfK()).eval()
    guide = MeanField(model, init_scale=0.3)
    with torch.no_grad():
        for parameter in guide.log_scales.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model, guide


def several(guide, count, seed=0):
    """Standardised noise of each draw by site, shape (draws, *weight)."""
    draws = [
        {site: weight.clone() for site, weight in weights.items()}
        for weights in islice(mirrored_draws(guide, seed), count)
    ]
    return {
        site: (torch.stack([draw[site] for draw in draws]) - guide.loc(site).detach()) / guide.scale(site).detach()
        for site in guide.sites
    }


def test_each_draw_is_of_the_posterior():
    torch.manual_seed(0)
    _, guide = make()
    everything = torch.cat([e.flatten(1) for e in several(guide, 10).values()], dim=1)
    size = everything.shape[1]
    assert (everything.mean(dim=1).abs() < 5 / size**0.5).all()
    assert ((everything.var(dim=1) - 1).abs() < 5 * (2 / size) ** 0.5).all()
    assert ((everything.pow(4).mean(dim=1) - 3).abs() < 5 * (96 / size) ** 0.5).all()


def test_pairs_mirror_and_pairs_of_a_group_are_uncorrelated_exactly():
    torch.manual_seed(0)
    _, guide = make("conv_block1.conv2.weight", "fc1.bias", "fc_audioset.bias")
    for site, e in several(guide, 16).items():
        torch.testing.assert_close(e[1::2], -e[::2], rtol=1e-3, atol=1e-4)
        pairs = e[::2].flatten(1)
        if site != "net.fc_audioset.bias":  # 3 elements: the rotations do not close
            # e' J_m' J_n e = 0 for any e: each pair of a group of four is orthogonal to the others.
            products = pairs @ pairs.T / pairs.shape[1]
            for group in (products[:4, :4], products[4:, 4:]):
                assert (group - torch.diag(group.diagonal())).abs().max() < 1e-3
        assert not torch.allclose(pairs[0], pairs[4])


def test_a_linear_function_takes_independent_values_in_a_group():
    """Over many groups, what a linear function makes of the four pairs has no correlation, and the right variance."""
    torch.manual_seed(0)
    _, guide = make("fc_audioset.weight")
    scale = guide.scale("net.fc_audioset.weight").detach()
    slope = torch.randn_like(scale)
    values = (
        torch.stack(
            [
                (several(guide, 8, seed)["net.fc_audioset.weight"] * scale * slope).sum(dim=(1, 2))[::2]
                for seed in range(600)
            ]
        )
        / (scale * slope).norm()
    )
    covariance = values.T @ values / 600
    assert (covariance - torch.eye(4)).abs().max() < 5 * (2 / 600) ** 0.5


def test_the_same_seed_gives_the_same_draws_and_draw_t_whatever_comes_after():
    _, guide = make()
    short, long, other = several(guide, 3), several(guide, 11), several(guide, 3, seed=1)
    for site in guide.sites:
        assert torch.equal(short[site], long[site][:3])
        assert not torch.equal(short[site], other[site])


@pytest.mark.parametrize(
    "drawn", [("fc_audioset.weight",), ("fc_audioset.bias",), ("fc_audioset.weight", "fc_audioset.bias")]
)
def test_head_logits_are_the_heads(drawn):
    model, guide = make(*drawn)
    assert model.only_head
    embedding = torch.randn(5, 128)
    points = dict(model.net.named_parameters())
    for draw in islice(mirrored_draws(guide, 0), 3):
        weight, bias = (
            draw.get(f"net.fc_audioset.{name}", points.get(f"fc_audioset.{name}")) for name in ("weight", "bias")
        )
        expected = F.linear(embedding, weight, bias)
        torch.testing.assert_close(head_logits(model, draw, embedding), expected)
        torch.testing.assert_close(logits_under(model, draw, embedding, embedded=True), expected)
