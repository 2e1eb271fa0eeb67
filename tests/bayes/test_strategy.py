import pyro.distributions as dist
import pytest
import torch
from pydantic import ValidationError

from bayes_panns.bayes import BayesianNet, OneOfK, Rule, Settings, Strategy, guide_from_strategy, sites
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import build
from bayes_panns.recipes import names, read_strategy


def net():
    return build("resnet14-narrow", 5)


def test_flip_makes_every_convolution_and_linear_layer_variational():
    resolved = read_strategy("flip").resolve(net())
    assert {site.name for site in resolved} == set(sites(net()))
    assert {(chosen.posterior, chosen.estimator) for chosen in resolved.values()} == {("normal", "flipout")}


def test_det_flip_is_a_point_backbone_with_a_variational_head():
    resolved = read_strategy("det-flip").resolve(net())
    variational = {site.name for site, chosen in resolved.items() if chosen.posterior == "normal"}
    assert variational == {"fc_audioset.weight", "fc_audioset.bias"}


@pytest.mark.parametrize(("name", "dropout"), [("drop", "always"), ("det", "fit")])
def test_drop_and_det_have_points_only(name, dropout):
    strategy = read_strategy(name)
    assert {chosen.posterior for chosen in strategy.resolve(net()).values()} == {"point"}
    assert strategy.dropout == dropout


def test_every_recipe_fits_the_published_networks():
    for name in names("guides"):
        with torch.device("meta"):
            read_strategy(name).resolve(build("resnet54", 527))


def test_rules_add_up_setting_by_setting():
    strategy = Strategy(
        default=Settings(prior_scale=2.0),
        rule=[Rule(match="fc*", prior="laplace"), Rule(match=["fc_audioset.*", "conv*"], init_scale=0.5)],
    )
    chosen = strategy.settings("fc_audioset.weight")
    assert (chosen.prior, chosen.prior_scale, chosen.init_scale) == ("laplace", 2.0, 0.5)
    assert strategy.settings("fc1.weight").init_scale == Settings().init_scale


def test_two_rules_may_say_the_same():
    strategy = Strategy(rule=[Rule(match="fc*", prior="laplace"), Rule(match="fc1.*", prior="laplace")])
    assert strategy.settings("fc1.bias").prior == "laplace"


def test_rules_that_contradict_name_the_site_and_themselves():
    strategy = Strategy(rule=[Rule(match="fc*", prior="laplace"), Rule(match="*.bias", prior="normal")])
    with pytest.raises(RecipeError, match=r"fc1.bias: prior is both 'laplace' and 'normal'.*'fc\*', '\*.bias'"):
        strategy.resolve(net())


def test_a_rule_that_matches_nothing_shows_the_sites():
    with pytest.raises(RecipeError, match=r"'stem\.\*': no such site; the sites are conv_block1.conv1.weight, "):
        Strategy(rule=[Rule(match="stem.*", posterior="point")]).resolve(net())


def test_local_is_refused_on_convolutions_and_taken_on_linear_layers():
    with pytest.raises(RecipeError, match=r"conv_block1.conv1.weight: the estimator local is for a linear layer"):
        Strategy(default=Settings(estimator="local")).resolve(net())
    Strategy(rule=[Rule(match="fc*", estimator="local")]).resolve(net())


def test_the_upstream_prior_needs_an_upstream():
    strategy = Strategy(default=Settings(prior="upstream"))
    with pytest.raises(RecipeError, match="finetune --from"):
        BayesianNet.from_strategy(net(), strategy, OneOfK())


@pytest.mark.parametrize("wrong", [{"prior": "cauchy"}, {"init_scale": -1.0}, {"prior_scale": "wide"}, {"scale": 1.0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_the_guide_starts_at_the_recipes_scales_and_the_nets_weights():
    strategy = Strategy(default=Settings(init_scale=0.2), rule=[Rule(match="fc1.*", init_scale=0.5)])
    network = net()
    weights = {name: value.clone() for name, value in network.named_parameters()}
    model = BayesianNet.from_strategy(network, strategy, OneOfK())
    guide = guide_from_strategy(model, strategy)
    for name, site in model.sites.items():
        factor = 0.5 if site.name.startswith("fc1.") else 0.2
        loc, scale = guide.gaussians()[name]
        assert scale.min().item() == pytest.approx(factor / site.fan_in**0.5, rel=1e-5)
        assert (loc == weights[site.name]).all()


@pytest.mark.parametrize("number", [0.0, -1.0, float("inf"), float("nan")])
def test_scales_are_finite_and_positive(number):
    for key in ("prior_scale", "init_scale"):
        with pytest.raises(ValidationError):
            Settings(**{key: number})
        with pytest.raises(ValidationError):
            Rule(match="*", **{key: number})


@pytest.mark.parametrize(
    ("prior", "deviation"), [("fan-in", 3 / 128**0.5), ("normal", 3.0), ("laplace", 3 / 128**0.5), ("upstream", 6.0)]
)
def test_each_prior_is_the_one_that_is_named(prior, deviation):
    site = sites(net())["fc1.weight"]
    upstream = {"fc1.weight": (torch.full(site.shape, 0.5), torch.full(site.shape, 2.0))}
    made = Settings(prior=prior, prior_scale=3.0).make_prior(upstream)
    assert made(site).stddev.flatten()[0].item() == pytest.approx(deviation)
    assert made(site).mean.flatten()[0].item() == (0.5 if prior == "upstream" else 0.0)
    other = sites(net())["fc_audioset.weight"]
    if prior == "upstream":
        assert made(other).stddev.flatten()[0].item() == pytest.approx(128**-0.5)
    assert isinstance(made(site).base_dist, dist.Laplace) == (prior == "laplace")


def test_defaults_are_flip():
    default = Settings()
    assert (default.posterior, default.prior, default.estimator) == ("normal", "fan-in", "flipout")
    assert (default.prior_scale, default.init_scale, default.learn_prior) == (1.0, 0.1, False)
    assert Strategy().dropout == "off"


def test_head_is_the_last_layer_and_nothing_that_begins_like_it():
    rule = Rule(match="head.*")
    assert rule.matches("classifier.5.weight", "classifier.5")
    assert not rule.matches("classifier.50.weight", "classifier.5")
    assert not Rule(match="head*").matches("classifier.50.weight", "classifier.5")
    assert not rule.matches("classifier.4.weight", "classifier.5")
    assert not rule.matches("classifier.5.weight")
    assert Rule(match=["x", "head.bias"]).matches("fc.bias", "fc")
    assert not Rule(match="head.bias").matches("fc.weight", "fc")


def test_a_family_of_the_last_layer_needs_both_its_sites():
    for match in ("head.weight", "head.bias"):
        with pytest.raises(RecipeError, match='posterior "low-rank" is for the last layer'):
            Strategy(default=Settings(posterior="point"), rule=[Rule(match=match, posterior="low-rank")]).resolve(net())


def test_local_is_no_matter_for_sites_of_another_family():
    Strategy(default=Settings(posterior="point", estimator="local")).resolve(net())


def test_points_are_points_whatever_the_default_and_the_rules_say():
    strategy = Strategy(
        rule=[Rule(match="head.*", posterior="low-rank")], points=["conv_block1.*", "head.*", "fc1.bias"]
    )
    resolved = {site.name: chosen.posterior for site, chosen in strategy.resolve(net()).items()}
    points = {name for name, posterior in resolved.items() if posterior == "point"}
    head = {"fc_audioset.weight", "fc_audioset.bias"}
    assert points == {"conv_block1.conv1.weight", "conv_block1.conv2.weight", "fc1.bias"} | head
    assert set(resolved.values()) == {"point", "normal"}
    with pytest.raises(RecipeError, match=r"points = 'stem\.\*': no such site; the sites are conv_block1"):
        Strategy(points=["fc1.*", "stem.*"]).resolve(net())
