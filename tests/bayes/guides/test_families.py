"""The posteriors of a site beside the mean-field Normal, and priors whose width is learned."""

import copy
from itertools import islice

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal
from pyro.optim import ClippedAdam
from torch.nn import functional as F

from bayes_panns.bayes import (
    BayesianNet,
    MeanField,
    Normal,
    OneOfK,
    RotatedNormal,
    Settings,
    Strategy,
    draw_weights,
    guide_from_strategy,
    kronecker_gaussian,
    mirrored_draws,
    sites,
)
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import build
from bayes_panns.svi import MeanFieldELBO

HEAD = ("net.fc_audioset.weight", "net.fc_audioset.bias")
K = 3


def head_of(kind, *, clips=None, init_scale=3.0, **settings):
    """A model whose last layer alone has a prior, and its guide."""
    strategy = Strategy(
        default=Settings(posterior="point"),
        rule=[{"match": "fc_audioset.*", "posterior": kind, "init_scale": init_scale, **settings}],
    )
    model = BayesianNet.from_strategy(build("resnet14-narrow", K), strategy, OneOfK(), clips=clips).eval()
    return model, guide_from_strategy(model, strategy)


def only_part(guide):
    (part,) = guide.parts
    return part


def views(clips=40, count=3):
    mean = torch.randn(128).abs()
    return mean + torch.randn(clips, 1, 128) @ torch.randn(128, 128) / 11 + 0.1 * torch.randn(clips, count, 128)


def wild(kind):
    """A guide of the last layer with nothing left at its start."""
    model, guide = head_of(kind)
    if kind == "rotated":
        guide.prepare(views(), torch.arange(40) % K)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model, guide


def stacked(draws):
    draws = list(draws)
    return {site: torch.stack([draw[site] for draw in draws]) for site in HEAD}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "rotated", "low-rank"])
def test_every_way_to_draw_has_the_same_law(kind):
    _, guide = wild(kind)
    count, embedding = 2000, torch.cat([torch.ones(1, 128), views(1, 1)[0]])
    sampled = stacked(draw_weights(guide, torch.zeros(1, 128)) for _ in range(count))
    mirrored = stacked(
        {site: value.clone() for site, value in draw.items()} for draw in islice(mirrored_draws(guide, 0), count)
    )
    gaussians = guide.gaussians()
    for draws in (sampled, mirrored):
        for site, (mean, std) in gaussians.items():
            assert (draws[site].mean(dim=0) - mean).div(std / count**0.5).abs().max() < 5.5
            torch.testing.assert_close(draws[site].std(dim=0) / std, torch.ones_like(std), atol=0.1, rtol=0)
    # Weights and bias together: the logits of two embeddings.
    moments = []
    for draws in (sampled, mirrored):
        logits = torch.stack([F.linear(embedding, *pair) for pair in zip(*draws.values(), strict=True)]).flatten(1)
        moments.append((logits.mean(dim=0), logits.T.cov()))
    width = moments[0][1].diag().sqrt()
    assert (moments[0][0] - moments[1][0]).div(width).abs().max() < 0.1
    assert (moments[0][1] - moments[1][1]).div(torch.outer(width, width)).abs().max() < 0.12


@pytest.mark.parametrize("kind", ["normal", "map", "rotated", "low-rank"])
def test_median_and_quantiles_are_those_of_the_weights(kind):
    _, guide = wild(kind)
    median, quantiles = guide.median(), guide.quantiles([0.5, 0.8413447])
    for site in HEAD:
        torch.testing.assert_close(quantiles[site][0], median[site])
        width = guide.gaussians()[site][1] if kind != "map" else torch.zeros(())
        torch.testing.assert_close(
            quantiles[site][1] - median[site], width.expand(median[site].shape), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("kind", ["normal", "map", "rotated", "low-rank"])
@pytest.mark.parametrize("learned", [False, True])
def test_the_elbo_is_pyros_and_its_kl_right(kind, learned):
    model, guide = wild(kind)
    if learned:
        model, _ = head_of(kind, learn_prior=True)
        model.set_prior_scale(HEAD[0], 0.3)
    batch = torch.randn(4, 128), torch.tensor([0, 1, 2, 1])
    values = []
    for elbo in (TraceMeanField_ELBO(), ours := MeanFieldELBO()):
        torch.manual_seed(3)
        values.append(elbo.differentiable_loss(model, guide, *batch, embedded=True).item())
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    prior = {site: model.prior(site) for site in HEAD}
    if kind == "map":
        expected = -sum(prior[site].log_prob(guide.points()[site]) for site in HEAD)
        torch.testing.assert_close(ours.kl, expected.detach())
        return
    with torch.no_grad():
        kls, sampled = [], []
        for _ in range(200):
            ours.loss(model, guide, *batch, embedded=True)
            kls.append(ours.kl)
            trace = poutine.trace(guide).get_trace(*batch, embedded=True)
            if kind == "normal":
                continue
            own = sum(node["fn"].log_prob(node["value"]) for node in trace.nodes.values() if node["type"] == "sample")
            sampled.append(own - sum(prior[site].log_prob(trace.nodes[site]["value"]) for site in HEAD))
    if kind != "normal":
        torch.testing.assert_close(torch.stack(kls).mean(), torch.stack(sampled).mean(), rtol=0.03, atol=0)


def test_align_takes_over_the_mean_and_the_width_of_the_prior():
    model, guide = head_of("rotated", clips=40, learn_prior=True)
    before = guide.median()
    width = only_part(guide).align(views())
    after = guide.median()
    for site in HEAD:
        torch.testing.assert_close(after[site], before[site], atol=1e-5, rtol=1e-4)
    assert model.prior(HEAD[0]).variance.mean().sqrt().item() == pytest.approx(width, rel=1e-5)
    assert width != pytest.approx(128**-0.5)
    left, right = only_part(guide).axes.left, only_part(guide).axes.right
    torch.testing.assert_close(left @ left.T, torch.eye(K), atol=1e-5, rtol=0)
    torch.testing.assert_close(right @ right.T, torch.eye(128), atol=1e-5, rtol=0)
    fixed, guide = head_of("rotated")
    assert only_part(guide).align(views()) == pytest.approx(128**-0.5, rel=1e-5)
    assert fixed.learned == ()


def test_align_starts_from_the_kronecker_factored_approximation():
    model, guide = head_of("rotated")
    clips, part = views(), only_part(guide)
    weight, bias = (part.median()[site] for site in HEAD)
    found = kronecker_gaussian(clips, weight, bias, model.likelihood, prior_scale=128**-0.5, bias_prior_scale=128**-0.5)
    part.align(clips)
    torch.testing.assert_close(part.scale(HEAD[0]), found.scale, rtol=1e-4, atol=0)
    torch.testing.assert_close(part.scale(HEAD[1]), found.bias_scale, rtol=1e-4, atol=0)
    for name in ("left", "right", "centre"):
        torch.testing.assert_close(getattr(part.axes, name), getattr(found, name))


def test_align_fits_a_new_layer_to_the_targets():
    _, guide = head_of("rotated")
    target = torch.arange(40) % K
    clips = views()
    clips[..., :K] += 2 * F.one_hot(target, K)[:, None]
    guide.prepare(clips, target)
    logits = F.linear(clips[:, 0], *guide.median().values())
    assert (logits.argmax(dim=1) == target).float().mean() > 0.95


def test_a_rotated_layer_is_of_its_factors_and_the_bias_counts_from_the_centre():
    _, guide = wild("rotated")
    trace = poutine.trace(guide).get_trace()
    weight, bias = (trace.nodes[site]["fn"] for site in HEAD)
    assert isinstance(weight, RotatedNormal)
    axes = only_part(guide).axes
    at_centre = F.linear(axes.centre[None], *(trace.nodes[site]["value"] for site in HEAD))[0]
    torch.testing.assert_close(
        axes.left.T @ at_centre, _factors(bias, trace.nodes[HEAD[1]]["value"]), atol=2e-3, rtol=1e-3
    )


def _factors(rotation, value):
    return rotation.left.T @ (value - rotation.shift)


def test_a_low_rank_part_is_pyros_own():
    _, guide = head_of("low-rank")
    assert type(only_part(guide).low_rank) is AutoLowRankMultivariateNormal
    assert only_part(guide).low_rank.rank == round((K * 129) ** 0.5)
    names = {name for name, _ in guide.named_parameters()}
    assert names == {"0.low_rank.loc", "0.low_rank.cov_factor", "0.low_rank.scale_unconstrained"}


@pytest.mark.parametrize("kind", ["normal", "rotated", "low-rank"])
def test_a_recipes_widths_go_by_the_fan_in(kind):
    """A covariance of low rank is random at the start: the mean of its widths is known to a few per cent."""
    _, guide = head_of(kind, init_scale=3.0)
    assert guide.gaussians()[HEAD[0]][1].mean().item() == pytest.approx(3 / 128**0.5, rel=0.05)


@pytest.mark.parametrize("kind", ["map", "rotated", "low-rank"])
def test_a_frozen_layer_has_no_gradients(kind):
    model, guide = head_of(kind, learn_prior=True)
    for each in (model, guide):
        each.freeze("fc_audioset")
    trained = [name for each in (model, guide) for name, value in each.named_parameters() if value.requires_grad]
    assert not [name for name in trained if not name.startswith("net.")]


@pytest.mark.parametrize(
    ("rules", "kind"),
    [
        ([{"match": "fc*", "posterior": "rotated"}], "rotated"),
        ([{"match": "*.bias", "posterior": "low-rank"}], "low-rank"),
    ],
)
def test_kinds_for_the_last_layer_are_refused_elsewhere(rules, kind):
    with pytest.raises(RecipeError, match=rf'posterior "{kind}" is for the last layer, weight and bias'):
        Strategy(rule=rules).resolve(build("resnet14-narrow", K))


def learning(prior=None):
    net = build("resnet14-narrow", K)
    found = sites(net)
    names = ("fc1.bias", "fc_audioset.weight", "fc_audioset.bias")
    priors = {name: Normal(0.5)(found[name]) for name in names}
    return BayesianNet(net, priors | (prior or {}), OneOfK(), learned=names[:2], clips=4).eval()


@pytest.mark.parametrize("elbo_of", [MeanFieldELBO, TraceMeanField_ELBO])
def test_the_learned_width_of_a_prior_is_the_one_that_fits_a_given_posterior(elbo_of):
    upstream = dist.Normal(torch.randn(128), 0.1 + torch.rand(128)).to_event(1)
    model = learning({"fc1.bias": upstream})
    guide = MeanField(model, init_scale=0.2)
    guide.assign({site: (torch.randn_like(guide.loc(site)), None) for site in guide.sites})
    guide.requires_grad_(False)
    model.net.requires_grad_(False)
    batch = torch.randn(4, 40, 64), torch.tensor([0, 1, 2, 1])

    def slopes():
        model.zero_grad()
        torch.manual_seed(0)
        elbo_of()(model, guide)(*batch).backward()
        return {site: value.grad.item() for site, value in model.prior_log_widths.named_parameters()}

    at_start, factors = slopes(), {}
    for site, value in model.prior_log_widths.named_parameters():
        base, loc, scale = model.prior(site), guide.loc(site), guide.scale(site)
        squares = (loc - base.mean).square() + scale.square()
        factors[site] = (squares / base.variance).mean().sqrt()
        assert factors[site] > 1.5
        value.data.copy_(factors[site].log())
        torch.testing.assert_close(model.prior(site).mean, base.mean)
        torch.testing.assert_close(model.prior(site).variance, base.variance * factors[site] ** 2)
    assert factors.keys() == {"net.fc1.bias", HEAD[0]}
    assert all(slope < 0 for slope in at_start.values())
    assert all(abs(slope) < 1e-4 * abs(at_start[site]) for site, slope in slopes().items())


def test_pyros_svi_learns_the_widths_too():
    model = learning()
    guide = MeanField(model, init_scale=1.0)
    svi = SVI(model, guide, ClippedAdam({"lr": 1e-2}), TraceMeanField_ELBO())
    for _ in range(2):
        svi.step(torch.randn(4, 40, 64), torch.tensor([0, 1, 2, 1]))
    widths = {name: value.item() for name, value in model.prior_log_widths.named_parameters()}
    assert widths.keys() == {"net.fc1.bias", "net.fc_audioset.weight"}
    assert all(value > 0 for value in widths.values())


def test_learned_priors_follow_the_model_to_a_copy_and_another_type():
    model = learning()
    other = copy.deepcopy(model).to(torch.float64)
    other.set_prior_scale(HEAD[0], 2.0)
    assert other.prior(HEAD[0]).mean.dtype == torch.float64
    torch.testing.assert_close(other.prior(HEAD[0]).variance.sqrt()[0, 0].item(), 2.0)
    torch.testing.assert_close(model.prior(HEAD[0]).variance.sqrt()[0, 0].item(), 0.5)


def test_only_widths_of_normal_and_laplace_priors_are_learned():
    model = learning({"fc1.bias": dist.Cauchy(torch.zeros(128), 1.0).to_event(1)})
    with pytest.raises(ValueError, match="can be learned for Normal and Laplace, not for Cauchy"):
        model.prior("net.fc1.bias")
