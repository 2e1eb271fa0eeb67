"""The natural-gradient step: its fixed points, against closed forms and a long fit by Adam, and what it refuses."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.infer import TraceMeanField_ELBO
from torch import nn
from torch.nn import functional as F

from bayes_panns.bayes import BayesianNet, FanIn, FromPosterior, Laplace, MeanField, Normal, OneOfK, Site, sites
from bayes_panns.core.choices import Curvature, Task
from bayes_panns.svi import MeanFieldELBO, NaturalGradient

CLIPS, FEATURES, NOISE = 200, 6, 0.7


class Gaussian:
    """A regression with known noise."""

    task = Task.ONE_OF_K

    def __call__(self, logits, target=None):
        return dist.Normal(logits.squeeze(-1), NOISE, validate_args=False)

    def probability(self, logits):
        return logits


class Wrapped(nn.Module):
    """A network whose features are vectors; a third dimension keeps the model from taking them for waveforms."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, features, augment=None):
        return self.layers(features.squeeze(-1))


def bayesian(net, prior, likelihood, clips=CLIPS, **kwargs):
    return BayesianNet(net, {name: prior(site) for name, site in sites(net).items()}, likelihood, clips=clips, **kwargs)


def regression(prior):
    """A linear model, whose posterior is known, with inputs on scales up to a factor of 10 apart."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(CLIPS, FEATURES, generator=generator) * torch.logspace(-1, 0, FEATURES)
    target = inputs @ torch.randn(FEATURES, generator=generator) + NOISE * torch.randn(CLIPS, generator=generator)
    return bayesian(Wrapped(nn.Linear(FEATURES, 1, bias=False)), prior, Gaussian()), inputs[:, :, None], target


WEIGHT = "net.layers.0.weight"


def fitted(model, inputs, target, *, steps=800, batch=20, kl_weight=1.0, rate=0.1, elbo=None, init_scale=0.1, **kwargs):
    """A guide after natural gradients whose rate falls to 0 and whose memory grows, so that they settle."""
    torch.manual_seed(1)
    guide = MeanField(model, estimator="weights", init_scale=init_scale)
    loss = elbo or MeanFieldELBO(kl_weight)
    objective = loss(model, guide)
    optimizer = NaturalGradient(model, guide, clips=len(inputs), kl_weight=kl_weight, **kwargs)
    if kwargs.get("adds_kl"):
        loss.without_kl = optimizer.without_kl
    with pyro.validation_enabled(False):
        for step in range(steps):
            index = torch.randint(len(inputs), (batch,))
            (group,) = optimizer.param_groups
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            group["memory"] = 1 - max(0.05 * (1 - 2 * step / steps), 0.002)
            optimizer.zero_grad()
            (objective(inputs[index], target[index]) / len(inputs)).backward(retain_graph=optimizer.samples_labels)
            sampled = None
            if optimizer.samples_labels:
                sampled = torch.autograd.grad(loss.sampled_nll() / len(inputs), optimizer.locs)
            optimizer.step(batch, sampled)
    return guide


def conjugate(inputs, target, prior_loc, prior_scale, kl_weight):
    """Mean and standard deviation of the best mean-field Normal for the (tempered) posterior of the linear model.

    The posterior's precision is X'X / (noise^2 c) + 1 / s0^2; a mean-field Normal has its diagonal.
    """
    x = inputs.squeeze(-1)
    data = x.T @ x / NOISE**2 / kl_weight
    precision = data + torch.diag(prior_scale.expand(FEATURES) ** -2)
    right = x.T @ target / NOISE**2 / kl_weight + prior_loc * prior_scale**-2
    return torch.linalg.solve(precision, right), precision.diagonal().rsqrt()


@pytest.mark.parametrize("adds_kl", [False, True])
@pytest.mark.parametrize(
    ("curvature", "kl_weight", "tolerance"),
    [
        # Few batches are within the memory, and the labels are what they are: 200 clips know a variance to 10 %.
        (Curvature.SQUARED_GRADIENTS, 1.0, 0.2),
        (Curvature.GAUSS_NEWTON, 1.0, 0.06),
        (Curvature.GAUSS_NEWTON, 0.1, 0.06),
        (Curvature.PRICE, 1.0, 0.15),
    ],
)
def test_it_finds_the_mean_field_posterior_of_a_linear_model(curvature, kl_weight, tolerance, adds_kl):
    model, inputs, target = regression(Normal(0.5))
    guide = fitted(model, inputs, target, curvature=curvature, kl_weight=kl_weight, adds_kl=adds_kl)
    loc, scale = (each[0] for each in guide.gaussians()[WEIGHT])
    mean, width = conjugate(inputs, target, 0.0, torch.tensor(0.5), kl_weight)
    assert (scale / width).log().abs().max() < tolerance
    # The noise of the batches is left in the means, in proportion to the last learning rates.
    assert ((loc - mean) / width).abs().max() < (0.6 if kl_weight == 1 else 1.2)


def test_it_takes_a_prior_with_means_and_widths_of_its_own():
    site = Site("layers.0.weight", torch.Size((1, FEATURES)), FEATURES)
    locs, scales = torch.linspace(-1, 1, FEATURES)[None], torch.logspace(-1.5, 0.5, FEATURES)[None]
    prior = FromPosterior({site.name: locs}, {site.name: scales}, otherwise=FanIn())
    model, inputs, target = regression(prior)
    loc, scale = (
        each[0] for each in fitted(model, inputs, target, curvature="gauss-newton", clip=10.0).gaussians()[WEIGHT]
    )
    mean, width = conjugate(inputs, target, locs[0], scales[0], 1.0)
    assert (scale / width).log().abs().max() < 0.05
    assert ((loc - mean) / width).abs().max() < 0.6


def test_it_works_beside_pyros_own_elbo():
    model, inputs, target = regression(Normal(0.5))
    ours = fitted(model, inputs, target, steps=50)
    stock = fitted(model, inputs, target, steps=50, elbo=TraceMeanField_ELBO())
    for own, other in zip(ours.gaussians()[WEIGHT], stock.gaussians()[WEIGHT], strict=True):
        assert torch.allclose(own, other, rtol=1e-4, atol=1e-6)


def classes(seed=0):
    """A small net on 120 clips of three classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(120) % 3
    inputs = torch.randn(120, 8, generator=generator) + 1.2 * F.one_hot(target, 8).float()
    torch.manual_seed(seed)
    net = Wrapped(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 3))
    return bayesian(net, FanIn(), OneOfK(), clips=120), inputs[:, :, None], target


def expected_loss(model, guide, inputs, target, draws=200):
    """NLL + KL of the whole set in nats: mean and standard error over draws."""
    torch.manual_seed(2)
    elbo = MeanFieldELBO()
    with torch.no_grad(), pyro.validation_enabled(False):
        found = torch.tensor([elbo.loss(model, guide, inputs, target) for _ in range(draws)])
    return found.mean().item(), found.std().item() / draws**0.5


@pytest.mark.long
def test_it_reaches_what_adam_reaches_in_ten_times_as_many_steps():
    model, inputs, target = classes()
    natural = fitted(model, inputs, target, steps=200, curvature="gauss-newton", init_scale=0.01)
    torch.manual_seed(1)
    adam = MeanField(model, estimator="weights", init_scale=0.1)
    objective, steps = MeanFieldELBO()(model, adam), 2000
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
    with pyro.validation_enabled(False):
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.01 * 0.5 * (1 + math.cos(math.pi * step / steps))
            index = torch.randint(len(inputs), (20,))
            optimizer.zero_grad()
            (objective(inputs[index], target[index]) / len(inputs)).backward()
            optimizer.step()
    ours, error = expected_loss(model, natural, inputs, target)
    theirs, other = expected_loss(model, adam, inputs, target)
    assert ours < theirs + 0.02 * theirs + 3 * (error + other)


@pytest.mark.long
def test_widths_forget_where_they_started():
    """From two starts a factor of 100 apart."""
    model, inputs, target = classes()
    starts = (0.003, 0.3)
    guides = [fitted(model, inputs, target, steps=400, init_scale=start) for start in starts]
    for (_, narrow), (_, wide) in zip(*(guide.gaussians().values() for guide in guides), strict=True):
        left = (wide / narrow).log().mean() / math.log(100)
        assert abs(left) < 0.05


@settings(max_examples=20)
@given(scale=st.floats(1e-3, 1.0), grad=st.floats(-10, 10), batch=st.integers(1, 64), kl_weight=st.floats(1e-3, 1))
def test_a_width_never_exceeds_its_prior_by_squares(scale, grad, batch, kl_weight):
    model = bayesian(Wrapped(nn.Linear(2, 1, bias=False)), Normal(0.5), Gaussian())
    guide = MeanField(model, estimator="weights", init_scale=scale)
    optimizer = NaturalGradient(model, guide, clips=CLIPS, kl_weight=kl_weight, memory=0.5)
    for _ in range(40):
        optimizer.locs[0].grad = torch.full((1, 2), grad)
        optimizer.step(batch)
    loc, now = guide.gaussians()[WEIGHT]
    assert torch.isfinite(loc).all()
    assert (now > 0).all()
    assert (now <= 0.5 * (1 + 1e-5)).all()


def test_a_step_is_bounded_in_units_of_the_prior():
    """A large gradient beside no curvature."""
    model, _, _ = regression(Normal(0.5))
    guide = MeanField(model, estimator="weights", init_scale=0.01)
    optimizer = NaturalGradient(model, guide, clips=CLIPS, learning_rate=0.1, clip=0.3, curvature="gauss-newton")
    before = guide.means()[WEIGHT].clone()
    optimizer.locs[0].grad = torch.full((1, FEATURES), 1e6)
    optimizer.step(1, [torch.zeros(1, FEATURES)])
    moved = before - guide.means()[WEIGHT]
    assert torch.allclose(moved, torch.tensor(0.1 * 0.3 * 0.5), rtol=1e-4)


def test_the_first_step_is_a_share_of_a_newton_step():
    """The momentum is young, and corrected for it."""
    model, _, _ = regression(Normal(0.5))
    guide = MeanField(model, estimator="weights")
    optimizer = NaturalGradient(model, guide, clips=CLIPS, learning_rate=0.1, clip=10.0, curvature="gauss-newton")
    before = guide.means()[WEIGHT].clone()
    gradient = torch.linspace(-1e-3, 1e-3, FEATURES)[None]
    optimizer.locs[0].grad = gradient.clone()
    optimizer.step(1, [torch.full((1, FEATURES), 0.1)])
    # h = 0.1^2, and d = 1 / (N s0^2) with kl_weight 1.
    expected = 0.1 * gradient / (0.1**2 + 1 / (CLIPS * 0.5**2))
    assert torch.allclose(before - guide.means()[WEIGHT], expected, rtol=1e-3, atol=1e-7)


def test_the_widths_follow_a_prior_that_is_learned():
    """A change of the prior's width between two steps leaves the curvature as it is."""
    net = Wrapped(nn.Linear(FEATURES, 1, bias=False))
    model = bayesian(net, Normal(0.5), Gaussian(), learned=["layers.0.weight"])
    guide = MeanField(model, estimator="weights", init_scale=0.05)
    optimizer = NaturalGradient(model, guide, clips=CLIPS, memory=0.9, trusts_start=True, adds_kl=True)
    with torch.no_grad():
        guide.loc(WEIGHT).zero_()
    for scale in (0.5, 2.0, 0.1):
        model.set_prior_scale(WEIGHT, scale)
        optimizer.locs[0].grad = torch.zeros(1, FEATURES)
        optimizer.step(1)
    # From h a = 1 / 0.05^2 - 1 / 0.5^2, kept at 0.9 three times while no gradient adds to it.
    kept = (0.05**-2 - 0.5**-2) * 0.9**3
    _, scale = guide.gaussians()[WEIGHT]
    assert torch.allclose(scale, torch.tensor((kept + 0.1**-2) ** -0.5).expand(1, FEATURES), rtol=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": Laplace()}, "prior of layers.0.weight must be Normal, and it is Laplace"),
        ({"freeze": ("locs",)}, "its mean is frozen"),
        ({"freeze": ("locs", "log_scales")}, "no mean-field Normal part that is trained"),
        ({"kl_weight": 0.0}, "kl_weight above 0"),
        ({"learning_rate": 2.0}, "learning_rate 2.0 must be in"),
        ({"memory": 1.0}, "memory 1.0"),
    ],
)
def test_what_it_cannot_fit_is_refused(change, message):
    options = dict(change)
    model, _, _ = regression(options.pop("prior", Normal()))
    guide = MeanField(model)
    for group in options.pop("freeze", ()):
        getattr(guide, group).requires_grad_(False)
    with pytest.raises(ValueError, match=message):
        NaturalGradient(model, guide, **{"clips": CLIPS, **options})


def test_gradients_at_sampled_labels_must_be_given_where_they_are_needed():
    model, _, _ = regression(Normal())
    optimizer = NaturalGradient(model, MeanField(model), clips=CLIPS, curvature="gauss-newton")
    with pytest.raises(ValueError, match="gauss-newton takes sampled"):
        optimizer.step(1)


def test_the_scales_take_no_gradient():
    model, inputs, target = regression(Normal())
    guide = MeanField(model, estimator="weights")
    optimizer = NaturalGradient(model, guide, clips=CLIPS)
    MeanFieldELBO()(model, guide)(inputs, target).backward()
    assert optimizer.locs[0].grad is not None
    assert [name for name, each in guide.named_parameters() if each.requires_grad] == [
        "locs.net.layers.0.weight_unconstrained"
    ]


@pytest.mark.parametrize("estimator", ["weights", "mirrored", "flipout"])
def test_the_gradient_of_a_mean_is_the_same_with_and_without_that_of_its_scale(estimator):
    model, inputs, target = classes()
    grads = []
    for scales in (True, False):
        guide = MeanField(model, estimator=estimator)
        guide.log_scales.requires_grad_(scales)
        torch.manual_seed(3)
        MeanFieldELBO()(model, guide)(inputs, target).backward()
        grads.append([guide.locs.get_parameter(f"{site}_unconstrained").grad for site in guide.sites])
    for with_scales, without in zip(*grads, strict=True):
        assert torch.allclose(with_scales, without, rtol=1e-5, atol=1e-6)


def test_a_start_wider_than_the_prior_lasts_one_draw():
    model, _, _ = regression(Normal(0.5))
    guide = MeanField(model, estimator="weights", init_scale=50.0)
    optimizer = NaturalGradient(model, guide, clips=CLIPS, memory=0.95, trusts_start=True)
    optimizer.locs[0].grad = torch.zeros(1, FEATURES)
    optimizer.step(1)
    assert torch.allclose(guide.gaussians()[WEIGHT][1], torch.tensor(0.5))
