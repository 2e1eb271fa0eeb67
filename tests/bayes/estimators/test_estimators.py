"""Estimators change the variance of a gradient, never its expectation."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy.stats import chi2
from torch.nn import functional as F

from bayes_panns.bayes import ESTIMATORS, Estimator
from bayes_panns.bayes.estimators import LazyWeight
from bayes_panns.bayes.estimators.flipout import FlipoutWeight
from bayes_panns.bayes.estimators.shared import SharedWeight

LAYERS = {
    "linear": (F.linear, (5, 3), (4, 3), {}),
    "linear over time": (F.linear, (5, 6, 3), (4, 3), {}),
    "conv1d": (F.conv1d, (5, 3, 9), (4, 3, 3), {"padding": 1}),
    "conv2d": (F.conv2d, (5, 3, 6, 5), (4, 3, 3, 3), {"padding": 1, "stride": 2}),
    "grouped": (F.conv2d, (5, 4, 6, 5), (4, 2, 3, 3), {"groups": 2}),
    "depthwise": (F.conv2d, (5, 4, 6, 5), (4, 1, 3, 3), {"groups": 4, "padding": 1, "stride": 2}),
    "depthwise, two outputs a channel": (F.conv2d, (5, 2, 6, 5), (4, 1, 3, 3), {"groups": 2}),
}


def draw(estimator, loc, scale, name="w"):
    with Estimator(estimator):
        return pyro.sample(name, dist.Normal(loc, scale).to_event(loc.dim()))


CORRELATION = {"weights": 1.0, "flipout": 0.0, "mirrored": -1.0, "local": 0.0}
"""Between the outputs of the first and the last clip, were they the same clip."""


@pytest.mark.parametrize(
    ("layer", "estimator"),
    [(layer, estimator) for layer in LAYERS for estimator in CORRELATION if estimator != "local" or layer == "linear"],
)
def test_each_output_has_the_moments_of_a_drawn_weight(layer, estimator):
    """Each output has the mean and variance that w ~ N(loc, scale) gives it; clips are correlated as they should."""
    function, input_shape, weight_shape, options = LAYERS[layer]
    x, loc, scale = torch.randn(input_shape), torch.randn(weight_shape), torch.rand(weight_shape) * 0.5 + 0.1
    bias, bias_scale = torch.randn(4), torch.full((4,), 0.3)
    x = x[:1].expand_as(x).contiguous()  # the same clip many times over
    mean = function(x, loc, bias, **options)
    variance = function(x**2, scale**2, bias_scale**2, **options)
    draws = torch.stack(
        [
            function(x, draw(estimator, loc, scale), draw(estimator, bias, bias_scale, "b"), **options)
            for _ in range(1500)
        ]
    )
    error = (draws.mean(dim=0) - mean) / (variance / 1500).sqrt()
    assert error.abs().max() < 5
    torch.testing.assert_close(draws.var(dim=0), variance, rtol=0.3, atol=1e-3)
    centred = draws - mean
    between = (centred[:, 0] * centred[:, -1]).mean(dim=0) / variance[0]
    assert (between - CORRELATION[estimator]).abs().max() < 5 / 1500**0.5 * 1.7


def test_weights_draws_one_weight_for_the_batch():
    x = torch.randn(1, 3).expand(4, 3)
    out = F.linear(x, draw("weights", torch.randn(2, 3), torch.ones(2, 3)))
    assert torch.equal(out[0], out[3])
    out = F.linear(x, draw("flipout", torch.randn(2, 3), torch.ones(2, 3)))
    assert not torch.equal(out[0], out[3])


def test_signs_are_shared_over_time_and_frequency():
    """A convolution of a constant input stays constant over time under one weight; signs per pixel would break that."""
    weight = draw("flipout", torch.zeros(4, 3, 1, 1), torch.ones(4, 3, 1, 1))
    out = F.conv2d(torch.ones(6, 3, 5, 7), weight)
    assert (out == out[:, :, :1, :1]).all()


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 5)])
def test_local_is_refused_where_it_would_draw_a_weight_per_place(shape):
    weight = draw("local", torch.zeros(4, 3, *[1] * (len(shape) - 2)), torch.ones(4, 3, *[1] * (len(shape) - 2)))
    with pytest.raises(ValueError, match="use flipout or mirrored"):
        (F.conv1d if len(shape) == 3 else F.conv2d)(torch.randn(shape), weight)
    with pytest.raises(ValueError, match="applied once to each clip"):
        F.linear(torch.randn(2, 5, 3), draw("local", torch.zeros(4, 3), torch.ones(4, 3)))


def test_local_has_a_gradient_where_a_clip_is_all_zero():
    scale = torch.ones(4, 3, requires_grad=True)
    F.linear(torch.zeros(2, 3), draw("local", torch.zeros(4, 3), scale)).sum().backward()
    assert scale.grad.isfinite().all()


def test_a_batch_of_one_and_odd_batches_are_mirrored_too():
    weight = draw("mirrored", torch.zeros(2, 3), torch.ones(2, 3))
    x = torch.randn(1, 3)
    one, three = F.linear(x, weight), F.linear(x.expand(3, 3), weight)
    torch.testing.assert_close(three, torch.cat([one, one, -one]))


def test_estimators_mix_between_a_weight_and_its_bias():
    x = torch.randn(4, 3)
    loc, tiny = torch.randn(2, 3), torch.full((2, 3), 1e-9)
    bias = torch.randn(2)
    for first in ESTIMATORS:
        for second in ESTIMATORS:
            out = F.linear(x, draw(first, loc, tiny), draw(second, bias, torch.full((2,), 1e-9), "b"))
            torch.testing.assert_close(out, F.linear(x, loc, bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_any_other_operation_gets_the_drawn_weight(estimator):
    loc, scale = torch.zeros(4, 3), torch.ones(4, 3)
    weight = draw(estimator, loc, scale)
    assert isinstance(weight, LazyWeight)
    assert weight.shape == (4, 3)
    assert weight.size(0) == len(weight) == 4
    drawn = weight + 0
    assert (drawn.abs() > 0).all()
    for result in (weight + 0, torch.matmul(torch.eye(4), weight), weight.t().t(), weight.clone()):
        assert type(result) is torch.Tensor
        torch.testing.assert_close(result, drawn)
    assert (weight.norm() > 0.1).item()
    # Called by keyword, or on a single clip without a batch, a layer gets the drawn weight as well.
    x = torch.randn(3)
    torch.testing.assert_close(F.linear(x, weight), drawn @ x)
    torch.testing.assert_close(F.linear(input=x[None], weight=weight), (drawn @ x)[None])


def test_the_outermost_estimator_wins():
    with Estimator("weights"):
        assert type(draw("flipout", torch.zeros(2, 2), torch.ones(2, 2))) is SharedWeight
    with Estimator("flipout"):
        assert type(draw("weights", torch.zeros(2, 2), torch.ones(2, 2))) is FlipoutWeight


def test_only_latent_normals_without_a_plate_are_touched():
    def model():
        with pyro.plate("clips", 3):
            local = pyro.sample("local", dist.Normal(torch.zeros(3), 1.0))
        other = pyro.sample("other", dist.Laplace(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("seen", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))
        return local, other

    with Estimator("flipout"):
        trace = poutine.trace(model).get_trace()
    assert not any(isinstance(site["value"], LazyWeight) for site in trace.nodes.values() if site["type"] == "sample")


def test_an_unknown_estimator_names_the_known_ones():
    with pytest.raises(ValueError, match="weights, flipout, mirrored, local"):
        Estimator("antithetic")


def gradients(draws, sample, clips=4):
    """Gradients of a nonlinear loss with respect to loc and scale, by estimator, shape (draws, coordinates)."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(clips, 2, 5, generator=generator)
    target = torch.randn(clips, generator=generator)
    loc = torch.randn(3, 2, 3, generator=generator).mul_(0.5).requires_grad_()
    rho = torch.full((3, 2, 3), 0.4).requires_grad_()
    rows = []
    for _ in range(draws):
        out = torch.tanh(sample(x, loc, rho)).sum(dim=(1, 2))
        loss = F.binary_cross_entropy_with_logits(out, target.sigmoid(), reduction="sum")
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, [loc, rho])]))
    return torch.stack(rows)


def per_example(x, loc, rho):
    """The reference: an independent weight for each clip."""
    weights = loc + rho * torch.randn(len(x), *loc.shape)
    return torch.cat([F.conv1d(x[i : i + 1], weights[i], padding=1) for i in range(len(x))])


def per_pixel(x, loc, rho):
    """What bayesian-torch does: a sign for each output pixel, which draws another weight at each place."""
    noise = rho * torch.randn_like(loc)
    mean = F.conv1d(x, loc, padding=1)
    signs_in, signs_out = torch.randint(0, 2, x.shape) * 2.0 - 1, torch.randint(0, 2, mean.shape) * 2.0 - 1
    return mean + F.conv1d(x * signs_in, noise, padding=1) * signs_out


def disagreement(a, b):
    """P-value of a chi-squared test that two sets of gradients have the same mean, with their full covariance."""
    difference = a.mean(dim=0) - b.mean(dim=0)
    covariance = torch.cov(a.T) / len(a) + torch.cov(b.T) / len(b)
    statistic = difference @ torch.linalg.solve(covariance.double(), difference.double()).float()
    return float(chi2.sf(statistic.item(), len(difference)))


@pytest.fixture(scope="module")
def reference_gradients():
    torch.manual_seed(1)
    return gradients(1500, per_example)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["weights", "flipout", "mirrored"])
def test_gradients_agree_with_a_weight_per_clip_in_expectation(estimator, reference_gradients):
    ours = gradients(1500, lambda x, loc, rho: F.conv1d(x, draw(estimator, loc, rho), padding=1))
    assert disagreement(reference_gradients, ours) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_of_a_linear_layer_agree_with_a_weight_per_clip(estimator):
    def each(x, loc, rho):
        weights = loc.flatten(1) + rho.flatten(1) * torch.randn(len(x), 3, 6)
        return torch.einsum("ni,noi->no", x[:, :, :3].flatten(1), weights)[..., None]

    def ours(x, loc, rho):
        return F.linear(x[:, :, :3].flatten(1), draw(estimator, loc.flatten(1), rho.flatten(1)))[..., None]

    torch.manual_seed(4)
    assert disagreement(gradients(1500, each), gradients(1500, ours)) > 1e-3


@pytest.mark.slow
def test_the_agreement_test_sees_a_biased_estimator(reference_gradients):
    assert disagreement(reference_gradients, gradients(1500, per_pixel)) < 1e-6


def test_flipout_and_mirrored_lower_the_gradients_variance():
    torch.manual_seed(2)
    variance = {
        estimator: gradients(600, lambda x, loc, rho, e=estimator: F.conv1d(x, draw(e, loc, rho), padding=1), clips=24)
        .var(dim=0)
        .sum()
        for estimator in ("weights", "flipout", "mirrored")
    }
    assert max(variance["flipout"], variance["mirrored"]) < 0.7 * variance["weights"]


@pytest.mark.parametrize("estimator", ["weights", "mirrored"])
def test_no_gradient_but_its_own_is_overwritten(estimator):
    """The backward pass reuses memory: other tensors must not notice, nor a clip that is alone in its batch."""
    loc, bias = torch.randn(2, 3, requires_grad=True), torch.randn(2, requires_grad=True)
    others = [torch.randn(shape, requires_grad=True) for shape in [(1, 3), (2, 3), (2,)]]

    def loss(weight, offset):
        x, v, u = others
        return F.linear(x, weight, offset).tanh().sum() + (weight + v).sum() + (weight + v).sum() + (offset + u).sum()

    weight, offset = draw(estimator, loc, torch.ones(2, 3)), draw(estimator, bias, torch.ones(2), "b")
    value = loss(weight, offset)
    plain = [(drawn + 0).detach().requires_grad_() for drawn in (weight, offset)]
    expected = loss(*plain)
    torch.testing.assert_close(value, expected)
    ours = torch.autograd.grad(value, [*others, loc, bias])
    for a, b in zip(ours, torch.autograd.grad(expected, [*others, *plain]), strict=True):
        torch.testing.assert_close(a, b)
