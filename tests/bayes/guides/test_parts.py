"""What every family of posteriors keeps to, how they compose, and what their constructors refuse."""

import math
import warnings
from itertools import islice

import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.optim import ClippedAdam
from scipy.stats import norm

from bayes_panns.bayes import (
    BayesianNet,
    ComposedGuide,
    CustomGuide,
    FanIn,
    LowRankHead,
    MeanField,
    OneOfK,
    Point,
    RotatedHead,
    Settings,
    Strategy,
    draw_weights,
    guide_from_strategy,
    mirrored_draws,
    sites,
)
from bayes_panns.core.errors import PosteriorError, RecipeError
from bayes_panns.nets import build

K = 3
WEIGHT, BIAS = "net.fc_audioset.weight", "net.fc_audioset.bias"
FAMILIES = [MeanField, Point, RotatedHead, LowRankHead]


def model_of(*names):
    """The narrow network with a prior on weights by name; on those of the last layer by default."""
    net = build("resnet14-narrow", K)
    found = sites(net)
    names = names or ("fc_audioset.weight", "fc_audioset.bias")
    return BayesianNet(net, {name: FanIn()(found[name]) for name in names}, OneOfK(), clips=4).eval()


def stirred(family, model=None):
    part = family(model or model_of())
    part.prepare(torch.randn(30, 2, 128) @ torch.randn(128, 128) / 5, None)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return part


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_a_pyro_guide_by_itself(family):
    model = model_of()
    part = family(model)
    batch = torch.randn(4, 128), torch.tensor([0, 1, 2, 1])
    svi = SVI(model, part, ClippedAdam({"lr": 1e-2}), TraceMeanField_ELBO())
    assert all(math.isfinite(svi.step(*batch, embedded=True)) for _ in range(3))
    drawn = Predictive(model, guide=part, num_samples=3, return_sites=("_RETURN",))(batch[0], embedded=True)
    assert drawn["_RETURN"].shape == (3, 4, K)
    assert tuple(part.sites) == (WEIGHT, BIAS)


@pytest.mark.parametrize("family", FAMILIES)
def test_mean_deviation_and_quantiles_are_those_of_its_factors(family):
    """Against the linear map from factors to weights, written out as a matrix."""
    part = stirred(family)
    factors = {name: (loc.detach(), scale.detach()) for name, (loc, scale) in part.factors().items()}
    means, gaussians = part.means(), part.gaussians()
    assert set(means) == {WEIGHT, BIAS}
    zero = {name: torch.zeros_like(loc) for name, (loc, _) in factors.items()}
    with torch.no_grad():
        offset = part.weights(zero)
        mean = part.weights({name: loc for name, (loc, _) in factors.items()})
        for site in (WEIGHT, BIAS):
            torch.testing.assert_close(means[site], mean[site])
        variance = {site: torch.zeros_like(value) for site, value in offset.items()}
        for name, (loc, scale) in factors.items():
            for index in range(loc.numel()):
                unit = {**zero, name: torch.zeros_like(loc)}
                unit[name].view(-1)[index] = scale.flatten()[index]
                for site, value in part.weights(unit).items():
                    variance[site] += (value - offset[site]) ** 2
    for site in (WEIGHT, BIAS):
        if family is Point:
            assert not gaussians
            deviation = torch.zeros_like(means[site])
        else:
            deviation = gaussians[site][1]
            torch.testing.assert_close(gaussians[site][0], means[site])
            torch.testing.assert_close(deviation, variance[site].sqrt(), rtol=1e-3, atol=1e-6)
        levels = [0.025, 0.5, 0.9]
        found = part.quantiles(levels)[site]
        for level, value in zip(levels, found, strict=True):
            torch.testing.assert_close(value, means[site] + norm.ppf(level) * deviation, rtol=1e-4, atol=1e-5)
        median = part.median()[site]
        torch.testing.assert_close(median, means[site])
        assert median.data_ptr() != means[site].data_ptr(), "a copy, that may be changed"


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_are_taken_back_and_are_all_there_is(family):
    model = model_of()
    part, other = stirred(family, model), family(model)
    tensors = {name: value.detach().clone() for name, value in part.tensors().items()}
    left = {**tensors, "more": torch.zeros(1)}
    other.load_tensors(left)
    assert left.keys() == {"more"}
    for name, value in other.tensors().items():
        torch.testing.assert_close(value, tensors[name])
    first = next(iter(tensors))
    with pytest.raises(KeyError):
        other.load_tensors({name: value for name, value in tensors.items() if name != first})
    with pytest.raises(RuntimeError, match="is of shape"):
        other.load_tensors({**tensors, first: torch.zeros(1, 7)})


@pytest.mark.parametrize("family", FAMILIES)
def test_assigned_means_are_the_means(family):
    part = family(model_of())
    weight, bias = torch.randn(K, 128), torch.randn(K)
    part.assign({WEIGHT: (weight, torch.full((K, 128), 0.3)), BIAS: (bias, None)})
    torch.testing.assert_close(part.means()[WEIGHT], weight)
    torch.testing.assert_close(part.means()[BIAS], bias)
    if family in (MeanField, RotatedHead):
        torch.testing.assert_close(part.gaussians()[WEIGHT][1], torch.full((K, 128), 0.3))
        torch.testing.assert_close(part.gaussians()[BIAS][1], torch.full((K,), 0.01))
    with pytest.raises(ValueError, match=r"no site net\.fc1\.bias"):
        part.assign({"net.fc1.bias": (torch.zeros(128), None)})


@pytest.mark.parametrize("family", FAMILIES)
def test_freezing_stops_a_site_or_every_mean(family):
    part = family(model_of())
    part.freeze("fc1", "resnet")
    assert all(parameter.requires_grad for parameter in part.parameters())
    part.freeze_locs()
    trained = {name for name, value in part.named_parameters() if value.requires_grad}
    assert not any("loc" in name.replace("log_", "") for name in trained)
    assert bool(trained) == (family is not Point)
    part.freeze("fc_audioset")
    assert not any(parameter.requires_grad for parameter in part.parameters())


def mixed():
    strategy = Strategy(
        rule=[
            {"match": ["fc1.*", "conv_block1.*"], "posterior": "map"},
            {"match": "fc1.bias", "estimator": "weights"},
            {"match": "head.*", "posterior": "rotated"},
        ]
    )
    model = BayesianNet.from_strategy(build("resnet14-narrow", K), strategy, OneOfK(), clips=4).eval()
    return model, guide_from_strategy(model, strategy)


def test_a_recipes_guide_is_made_of_parts_in_the_models_order():
    model, guide = mixed()
    assert [type(part) for part in guide.parts] == [Point, MeanField, Point, RotatedHead]
    assert guide.sites == tuple(model.sites)
    assert (guide.stochastic, guide.independent, guide.explicit, guide.needs_embeddings) == (True, False, True, True)
    assert set(guide.gaussians()) | set(guide.points()) == set(guide.sites)
    assert not set(guide.gaussians()) & set(guide.points())
    batch = torch.randn(2, 40, 64), torch.tensor([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TraceMeanField_ELBO().loss(model, guide, *batch)
    assert guide.part_of(WEIGHT) is guide.parts[-1]
    with pytest.raises(ValueError, match=r"no site net\.x"):
        guide.part_of("net.x")


def test_a_composed_guide_asks_its_parts():
    _, guide = mixed()
    whole = {name: value for part in guide.parts for name, value in part.tensors().items()}
    assert guide.tensors().keys() == whole.keys()
    new = {site: (torch.randn_like(mean), None) for site, mean in guide.means().items()}
    guide.assign(new)
    for site, mean in guide.median().items():
        torch.testing.assert_close(mean, new[site][0])
    assert guide.quantiles([0.5]).keys() == set(guide.sites)
    pair = [{site: value.clone() for site, value in draw.items()} for draw in islice(mirrored_draws(guide, 0), 2)]
    for site in guide.sites:
        torch.testing.assert_close((pair[0][site] + pair[1][site]) / 2, new[site][0], atol=1e-5, rtol=1e-4)
    guide.freeze("fc1", "resnet")
    frozen = {name for name, value in guide.named_parameters() if not value.requires_grad}
    assert frozen == {name for name, _ in guide.named_parameters() if ".fc1." in name or ".resnet." in name}


def test_parts_must_cover_the_model_once():
    model = model_of()
    head = MeanField(model)
    for parts in ([], [MeanField(model, sites=[WEIGHT])], [head, MeanField(model, sites=[BIAS])]):
        with pytest.raises(ValueError, match="cover every site of the model once"):
            ComposedGuide(model, parts)
    two = ComposedGuide(model, [MeanField(model, sites=[WEIGHT]), Point(model, sites=[BIAS])])
    assert set(draw_weights(two)) == {WEIGHT, BIAS}
    none = ComposedGuide(BayesianNet(build("resnet14-narrow", K), {}, OneOfK()), [])
    assert (none.explicit, none.independent, none.stochastic, none.needs_embeddings) == (True, True, False, False)
    assert none() == none.means() == none.gaussians() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "antithetic"}, "estimator 'antithetic': no such estimator; there are weights, flipout"),
        ({"estimator": {WEIGHT: "flipout", BIAS: "x"}}, "estimator 'x'"),
        ({"estimator": {WEIGHT: "flipout"}}, f"no value is given for the site {BIAS}"),
        ({"init_scale": {WEIGHT: 0.1}}, f"no value is given for the site {BIAS}"),
        ({"init_scale": 0.0}, f"site {WEIGHT}: init_scale 0.0 must be finite and positive"),
        ({"init_scale": -1.0}, "must be finite and positive"),
        ({"init_scale": math.nan}, "must be finite and positive"),
        ({"init_scale": math.inf}, "must be finite and positive"),
        ({"sites": ["net.fc1.bias"]}, "the model has no site net.fc1.bias; it has"),
    ],
)
def test_a_constructor_refuses_what_it_does_not_know(options, message):
    with pytest.raises(ValueError, match=message):
        MeanField(model_of(), **options)


@pytest.mark.parametrize("family", [RotatedHead, LowRankHead])
def test_families_of_the_last_layer_refuse_other_sites(family):
    with pytest.raises(ValueError, match=r"this family is for net\.fc_audioset\.weight and net\.fc_audioset\.bias"):
        family(model_of(), sites=[WEIGHT])
    with pytest.raises(ValueError, match="no site"):
        family(model_of("fc1.bias", "fc1.weight"))
    with pytest.raises(ValueError, match="must be finite and positive"):
        family(model_of(), init_scale=-0.1)
    with pytest.raises(ValueError, match="takes its axes from embeddings"):
        RotatedHead(model_of()).prepare(None, None)


def own(model):
    guide = AutoGuideList(model)
    guide.append(AutoNormal(poutine.block(model, expose=[WEIGHT]), init_scale=0.1))
    guide.append(AutoNormal(poutine.block(model, expose=[BIAS]), init_scale=0.1))
    return guide


def test_a_guide_of_the_users_own_is_a_part():
    model = model_of()
    guide = ComposedGuide(model, [CustomGuide(model, own(model))])
    batch = torch.randn(4, 128), torch.tensor([0, 1, 2, 1])
    SVI(model, guide, ClippedAdam({"lr": 1e-2}), TraceMeanField_ELBO()).step(*batch, embedded=True)
    assert (guide.stochastic, guide.explicit, guide.independent) == (True, False, False)
    assert set(draw_weights(guide, *batch)) == {WEIGHT, BIAS}
    assert set(guide.median(*batch)) == {WEIGHT, BIAS}
    assert guide.quantiles([0.1, 0.9])[WEIGHT][0].shape == (K, 128)
    other = ComposedGuide(model, [CustomGuide(model, own(model))])
    with torch.no_grad():
        other(*batch, embedded=True)
    tensors = {name: value.clone() for name, value in guide.tensors().items()}
    assert all(name.startswith("guide/0.locs") or "scales" in name or "guide/1" in name for name in tensors)
    other.load_tensors(tensors)
    assert not tensors
    for name, value in guide.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    assert guide.gaussians() == {}
    assert guide.points() == {}


def test_what_a_custom_guide_cannot_do_is_refused():
    model = model_of()
    guide = ComposedGuide(model, [CustomGuide(model, own(model))])
    for call in (lambda: guide.freeze("fc1"), guide.freeze_locs):
        with pytest.raises(RecipeError, match="freeze is not supported with a custom guide"):
            call()
    with pytest.raises(PosteriorError, match="weights cannot be set in a custom guide"):
        guide.assign({WEIGHT: (torch.zeros(K, 128), None)})


def test_a_rule_may_name_the_head_by_either_name():
    for match in ("head.*", "fc_audioset.*"):
        strategy = Strategy(default=Settings(posterior="point"), rule=[{"match": match, "posterior": "low-rank"}])
        model = BayesianNet.from_strategy(build("resnet14-narrow", K), strategy, OneOfK())
        assert [type(part) for part in guide_from_strategy(model, strategy).parts] == [LowRankHead]
