"""The effective parameters, against closed forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bayes_panns.bayes import (
    BayesianNet,
    ComposedGuide,
    CustomGuide,
    Effective,
    FanIn,
    FromPosterior,
    Laplace,
    LowRankHead,
    MeanField,
    Normal,
    OneOfK,
    Point,
    RotatedHead,
    effective_parameters,
    sites,
)
from bayes_panns.nets import EmbeddingNet

INPUTS, OUTPUTS = 5, 3
SITE = "net.0.weight"


HALF = Normal(0.5)


def model_of(prior=HALF, learned=(), names=("0.weight", "0.bias"), net=None):
    net = nn.Sequential(nn.Linear(INPUTS, OUTPUTS)) if net is None else net
    priors = {name: prior(site) for name, site in sites(net).items() if name in names}
    return BayesianNet(net, priors, OneOfK(), learned=learned)


def by_hand(scale, prior_scale):
    return (1 - (scale / prior_scale).square()).sum().item()


def test_a_posterior_that_is_the_prior_has_no_effective_parameter():
    model = model_of(Normal(0.5))
    found = effective_parameters(model, MeanField(model, init_scale=0.5))
    assert found.total.weights == (INPUTS + 1) * OUTPUTS
    assert found.total.gamma == pytest.approx(0, abs=1e-5)
    assert found.total.at_prior_share == 1


def test_a_posterior_without_width_determines_every_weight():
    model = model_of(Normal(0.5))
    found = effective_parameters(model, MeanField(model, init_scale=1e-9)).total
    assert found.gamma == found.weights
    assert found.share == 1
    assert found.at_prior == 0


def test_data_that_double_the_precision_are_the_bound_of_the_priors_width():
    model = model_of(Normal(1.0), names=("0.bias",))
    guide = MeanField(model)
    # 1 / s^2 = 1 / s0^2 + what the data add, here 0.99, 1 and 1.01 times the prior's precision.
    widths = (1 + torch.tensor([0.99, 1.001, 1.01])).rsqrt()
    guide.assign({"net.0.bias": (torch.zeros(3), widths)})
    assert effective_parameters(model, guide).total.at_prior == 1


def test_layers_and_parameters_add_up():
    model = model_of(FanIn())
    guide = MeanField(model, init_scale={SITE: 0.1, "net.0.bias": 0.4})
    found = effective_parameters(model, guide)
    weight = OUTPUTS * INPUTS * (1 - 0.1**2 * INPUTS)
    bias = OUTPUTS * (1 - 0.4**2 * INPUTS)
    assert found.by_parameter["0.weight"].gamma == pytest.approx(weight, rel=1e-5)
    assert found.by_parameter["0.bias"].gamma == pytest.approx(bias, rel=1e-5)
    assert found.by_layer == {"0": found.total}
    assert found.total == Effective(18, found.total.gamma, 3)
    assert found.total.gamma == pytest.approx(weight + bias, rel=1e-5)


@given(
    logs=st.lists(st.floats(-6, 3), min_size=15, max_size=15),
    prior=st.floats(0.05, 20),
    factor=st.floats(0.1, 10),
)
def test_it_is_the_sum_over_the_weights_and_counts_wide_ones_below_zero(logs, prior, factor):
    model = model_of(Normal(prior), learned=("0.weight",), names=("0.weight",))
    model.set_prior_scale(SITE, prior * factor)
    guide = MeanField(model)
    scale = torch.tensor(logs).exp().view(OUTPUTS, INPUTS)
    guide.assign({SITE: (torch.zeros_like(scale), scale)})
    found = effective_parameters(model, guide).total
    ratio = (scale.double() / (prior * factor)).square()
    assert found.gamma == pytest.approx(15 - ratio.sum().item(), rel=1e-4, abs=1e-4)
    assert found.gamma <= found.weights
    near = (ratio - 0.5).abs() < 1e-3
    assert abs(found.at_prior - int((ratio > 0.5).sum())) <= int(near.sum())
    if (ratio > 1).all():
        assert found.gamma < 0


def test_a_learned_prior_counts_at_its_present_width():
    model = model_of(Normal(0.5), learned=("0.weight",))
    guide = MeanField(model, init_scale=0.5)
    model.set_prior_scale(SITE, 1.0)
    found = effective_parameters(model, guide).by_parameter
    assert found["0.weight"].share == pytest.approx(0.75, abs=1e-5)
    assert found["0.bias"].share == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("learned", [(), ("0.weight",)])
def test_an_upstream_posterior_is_a_prior_weight_by_weight(learned):
    scales = {"0.weight": torch.rand(OUTPUTS, INPUTS) + 0.1}
    prior = FromPosterior({"0.weight": torch.randn(OUTPUTS, INPUTS)}, scales, Normal(), widen=2.0)
    model = model_of(prior, learned=learned)
    guide = MeanField(model, init_scale=0.3)
    found = effective_parameters(model, guide).by_parameter["0.weight"]
    assert found.gamma == pytest.approx(by_hand(torch.tensor(0.3), 2 * scales["0.weight"]), rel=1e-5)
    guide.assign({SITE: (torch.zeros(OUTPUTS, INPUTS), 2 * scales["0.weight"])})
    assert effective_parameters(model, guide).by_parameter["0.weight"].gamma == pytest.approx(0, abs=1e-5)


def test_a_prior_in_another_memory_order_meets_its_own_weights():
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    scale = torch.rand(4, 3, 3, 3) + 0.1
    model = model_of(FromPosterior({"0.weight": torch.zeros(4, 3, 3, 3)}, {"0.weight": scale}, Normal()), net=net)
    guide = MeanField(model)
    wide = torch.rand(4, 3, 3, 3) + 0.1
    guide.assign({SITE: (torch.zeros(4, 3, 3, 3), wide)})
    found = effective_parameters(model, guide).by_parameter["0.weight"]
    assert found.gamma == pytest.approx(by_hand(wide, scale), rel=1e-4)


def test_a_large_weight_is_the_sum_of_its_blocks():
    net = nn.Sequential(nn.Linear(2000, 700))
    model = model_of(Normal(1.0), net=net, names=("0.weight",))
    guide = MeanField(model, init_scale=0.9)
    found = effective_parameters(model, guide).total
    assert found.gamma == pytest.approx(1.4e6 * (1 - 0.81), rel=1e-5)
    assert found.at_prior == 1_400_000


def test_other_priors_and_families_are_left_out():
    model = model_of(Laplace())
    assert effective_parameters(model, MeanField(model)).by_parameter == {}
    model = model_of()
    assert effective_parameters(model, Point(model)).total == Effective()
    guide = ComposedGuide(model, [MeanField(model, sites=[SITE]), Point(model, sites=["net.0.bias"])])
    assert list(effective_parameters(model, guide).by_parameter) == ["0.weight"]
    assert effective_parameters(model, guide).total.weights == INPUTS * OUTPUTS


def head(prior):
    net = EmbeddingNet(INPUTS, OUTPUTS)
    return BayesianNet(net, {name: prior(site) for name, site in sites(net).items()}, OneOfK())


def test_a_rotated_layer_counts_along_its_own_axes():
    model = head(Normal(0.5))
    guide = RotatedHead(model)
    left, right = (torch.linalg.qr(torch.randn(size, size)).Q for size in (OUTPUTS, INPUTS))
    scale = 0.5 * torch.rand(OUTPUTS, INPUTS)
    guide.set_factors(
        left=left,
        right=right,
        centre=torch.randn(INPUTS),
        loc=torch.randn(OUTPUTS, INPUTS),
        scale=scale,
        bias_loc=torch.randn(OUTPUTS),
        bias_scale=torch.rand(OUTPUTS),
    )
    found = effective_parameters(model, guide)
    weight, _ = model.head_sites
    assert list(found.by_parameter) == [weight.removeprefix("net.")]
    # The trace of 1 - posterior covariance times prior precision, over the whole weight.
    axes = torch.kron(left, right)
    covariance = axes @ torch.diag(scale.flatten().square()) @ axes.T
    assert found.total.gamma == pytest.approx(
        torch.trace(torch.eye(len(axes)) - covariance / 0.25).item(), rel=1e-4, abs=1e-4
    )
    assert found.total.at_prior == int((scale.square() > 0.125).sum())


def test_a_rotated_layer_is_left_out_where_its_prior_is_not_the_same_for_all_weights():
    upstream = {f"{EmbeddingNet.head}.weight": torch.rand(OUTPUTS, INPUTS) + 0.1}
    prior = FromPosterior({name: torch.zeros_like(value) for name, value in upstream.items()}, upstream, Normal())
    model = head(prior)
    assert effective_parameters(model, RotatedHead(model)).by_parameter == {}
    assert effective_parameters(head(Normal()), LowRankHead(head(Normal()))).by_parameter == {}


def test_a_guide_of_ones_own_has_none():
    model = model_of()
    guide = CustomGuide(model, nn.Module())
    assert effective_parameters(model, guide).total == Effective()


def test_in_words():
    assert str(Effective(1_000_000, 990_000.4, 0)) == (
        "by their widths, the data determine 990,000 of 1,000,000 weights (99 %); 0 % are at the prior's width"
    )
    assert "determine -0.5 of 100 weights (-0.5 %)" in str(Effective(100, -0.5, 100))
    assert Effective().share == Effective().at_prior_share == 0
