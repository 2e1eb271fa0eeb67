"""The one pass gives a draw, its KL and both gradients as torch's own formulas do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from bayes_panns.bayes.estimators.blocks import BLOCK
from bayes_panns.bayes.estimators.draw_and_kl import NormalPrior, draw, standard_normal_

SHAPES = [(5,), (4, 3), (3, 5, 2), (6, 4, 3, 3), (700, 800)]
PRIORS = ["none", "centred", "number", "elementwise", "other layout"]


def prior_of(kind, like):
    if kind == "none":
        return None
    if kind in ("centred", "number"):
        return NormalPrior(None if kind == "centred" else like.new_tensor(0.3), like.new_tensor(0.7))
    loc, scale = torch.randn_like(like), torch.rand_like(like) + 0.2
    if kind == "other layout":
        loc, scale = (
            torch.empty(like.shape[::-1], dtype=like.dtype).permute(*range(like.dim())[::-1]).copy_(t)
            for t in (loc, scale)
        )
    return NormalPrior(loc, scale)


def reference(loc, log_scale, e, form, prior):
    noise = e * log_scale.exp()
    parts = {"sum": (loc + noise,), "mirrored": (loc + noise, loc - noise), "separate": (loc, noise)}[form]
    if prior is None:
        return parts
    centre = torch.zeros(()) if prior.loc is None else prior.loc
    return (*parts, kl_divergence(Normal(loc, log_scale.exp()), Normal(centre, prior.scale)).sum())


@pytest.mark.parametrize("prior_kind", PRIORS)
@pytest.mark.parametrize("form", ["sum", "mirrored", "separate"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_formulas(shape, form, prior_kind):
    torch.manual_seed(0)
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    loc = torch.randn(shape, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    log_scale = (0.3 * torch.randn(shape, dtype=torch.float64) - 2).requires_grad_()  # another layout than loc
    prior = prior_of(prior_kind, loc.detach())
    drawn = draw(loc, log_scale, form, prior)
    noise = {"sum": lambda: drawn[0] - loc, "mirrored": lambda: drawn[0] - loc, "separate": lambda: drawn[1]}[form]()
    e = (noise / log_scale.exp()).detach()
    expected = reference(loc, log_scale, e, form, prior)
    for ours, theirs in zip(drawn, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    weights = [torch.randn_like(part) for part in expected]
    slopes = [
        torch.autograd.grad(sum((w * part).sum() for w, part in zip(weights, parts, strict=True)), [loc, log_scale])
        for parts in (drawn, expected)
    ]
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_noise_is_standard_normal_and_new_in_each_block_and_draw():
    size = 3 * BLOCK
    first, second = (standard_normal_(torch.empty(size), seed) for seed in (1, 10**6))
    for values in (first, second):
        assert abs(values.mean()) < 5 / size**0.5
        assert abs(values.var() - 1) < 5 * (2 / size) ** 0.5
        assert abs(values.pow(4).mean() - 3) < 5 * (96 / size) ** 0.5
    blocks = torch.cat([first.view(3, -1), second.view(3, -1)])
    correlation = torch.corrcoef(blocks) - torch.eye(6)
    assert correlation.abs().max() < 5 / BLOCK**0.5


def test_a_draw_is_the_same_on_any_number_of_threads():
    loc, log_scale = torch.randn(1500, 800), torch.full((1500, 800), -3.0)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            torch.manual_seed(7)
            results.append(draw(loc, log_scale, "sum", NormalPrior(None, torch.tensor(0.1))))
    finally:
        torch.set_num_threads(threads)
    for weight, kl in results[1:]:
        assert torch.equal(weight, results[0][0])
        assert torch.equal(kl, results[0][1])


def test_torchs_seed_decides_and_moves_on():
    loc, log_scale = torch.zeros(10), torch.zeros(10)
    torch.manual_seed(3)
    first, second = (draw(loc, log_scale, "sum", None)[0] for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(draw(loc, log_scale, "sum", None)[0], first)
    assert not torch.equal(first, second)


@settings(max_examples=30)
@given(scale=st.floats(1e-6, 1e-1), loc=st.floats(-10, 10))
def test_in_single_precision_the_kl_holds_seven_digits(scale, loc):
    size = (1000, 300)
    *_, kl = draw(
        torch.full(size, loc), torch.full(size, scale).log(), "separate", NormalPrior(None, torch.tensor(0.5))
    )
    exact = kl_divergence(
        Normal(torch.tensor(loc).double(), torch.tensor(scale).log().double().exp()),
        Normal(0.0, torch.tensor(0.5).double()),
    )
    assert kl.item() == pytest.approx(exact.item() * 300_000, rel=2e-6)


def test_a_posterior_that_equals_its_prior_has_no_kl():
    loc, log_scale = torch.randn(600, 700), torch.randn(600, 700) - 4
    _, kl = draw(loc, log_scale, "sum", NormalPrior(loc, log_scale.exp()))
    assert abs(kl.item()) < 0.05  # of 420,000 weights
