"""Frozen weights are drawn only if they have a width from upstream."""

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayes_panns.bayes import Rule, Settings, Strategy, mirrored_draws, sites
from bayes_panns.clips import Task
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import build as build_net
from bayes_panns.posterior import Posterior, load, save
from bayes_panns.posterior.freezing import with_points
from bayes_panns.recipes import read_strategy

NET = build_net("resnet14-narrow", 2)
SITES = tuple(sites(NET))
MODULES = [name for name, _ in NET.named_modules() if name]
FLIP, LAST_STAGE = read_strategy("flip-from-points"), read_strategy("flip-last-stage")


def build(strategy, labels=("cat", "dog"), **options):
    settings = {"net": "resnet14-narrow", "task": Task.ONE_OF_K, "sample_rate": 8000, "clip_seconds": 0.5}
    return Posterior.build(**settings, labels=labels, strategy=strategy, **options)


def stirred(strategy):
    """A posterior far from any start; BatchNorm's scale of 0 there would hide the residual branches."""
    torch.manual_seed(1)
    posterior = build(strategy)
    with torch.no_grad():
        for parameter in posterior.guide.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
        for name, value in posterior.points().items():
            if "bn" in name and name.endswith("weight"):
                value.fill_(1.0)
    return posterior


def started(strategy, upstream, freeze, labels=("owl", "wren")):
    posterior = build(strategy, labels, upstream=upstream, freeze=freeze)
    posterior.start_from(upstream)
    posterior.model.eval()
    return posterior


def drawn(posterior):
    """The sites that two draws of the guide show at other values."""
    one, two = ({site: value.clone() for site, value in posterior.guide().items()} for _ in range(2))
    return {site.removeprefix("net.") for site, value in one.items() if not torch.equal(value, two[site])}


@given(
    parts=st.lists(st.sampled_from(["backbone", "locs", *MODULES]), max_size=4),
    widths=st.sets(st.sampled_from(SITES)),
    guide=st.sampled_from([FLIP, LAST_STAGE, read_strategy("det-flip"), read_strategy("det")]),
)
def test_a_weight_is_a_point_if_it_was_or_if_it_is_frozen_without_a_width(parts, widths, guide):
    modules = [part for part in parts if part not in ("backbone", "locs")]
    if "backbone" in parts:
        modules += [name for name, _ in NET.named_children() if name != "fc_audioset"]
    made = with_points(guide, NET, parts, widths)
    before, after = guide.resolve(NET), made.resolve(NET)
    for site, settings in before.items():
        frozen = any(site.name.startswith(f"{module}.") for module in modules)
        point = settings.posterior == "point" or (frozen and site.name not in widths)
        assert after[site] == settings.model_copy(update={"posterior": "point"} if point else {}), site.name
    assert with_points(made, NET, parts, widths).points == made.points


def test_a_block_that_starts_from_points_is_one_at_every_draw():
    upstream = stirred(read_strategy("det"))
    posterior = started(FLIP, upstream, ["bn0", "conv_block1", "resnet.layer2"])
    frozen = {name for name in SITES if name.startswith(("conv_block1.", "resnet.layer2."))}
    assert drawn(posterior) == set(posterior.gaussians()) == set(SITES) - frozen
    assert posterior.strategy.points == ["conv_block1.*", "resnet.layer2.*"]
    for name in frozen:
        assert torch.equal(posterior.points()[name], upstream.points()[name])
    mirrored = next(mirrored_draws(posterior.guide, seed=0))
    assert {site.removeprefix("net.") for site in mirrored} == set(SITES) - frozen


def test_no_epistemic_uncertainty_comes_from_frozen_points():
    """Everything else is all but certain, so that what a frozen block adds would be all that is seen."""
    narrow = FLIP.model_copy(update={"default": Settings(init_scale=1e-6)})
    noisy = narrow.model_copy(update={"rule": [Rule(match="conv_block1.*", init_scale=1.0)]})
    upstream, clips = stirred(read_strategy("det")), 0.1 * torch.randn(5, 4000)
    for freeze, sees in (([], True), (["conv_block1"], False)):
        posterior = started(noisy, upstream, freeze)
        draws = torch.stack(list(posterior.draws(clips, 4)))
        assert (draws.std(dim=0).max() > 1e-3) == sees
        assert (posterior.moments(clips)[1].abs().max() > 1e-3) == sees


def test_moments_pass_through_points_between_drawn_layers_as_through_widths_near_0():
    upstream, blocks = stirred(read_strategy("det")), ["resnet.layer1", "resnet.layer3"]
    narrow = FLIP.model_copy(update={"rule": [Rule(match=[f"{block}.*" for block in blocks], init_scale=1e-7)]})
    clips = 0.1 * torch.randn(3, 4000)
    points, widths = (
        started(guide, upstream, freeze, labels=upstream.labels).moments(clips)
        for guide, freeze in ((FLIP, blocks), (narrow, []))
    )
    torch.testing.assert_close(points[0], widths[0], rtol=0.02, atol=1e-3)
    # Their random directions are others, so the variances agree but roughly.
    variances = [deviations.square().sum() for _, deviations in (points, widths)]
    torch.testing.assert_close(*variances, rtol=0.3, atol=0)


@pytest.mark.parametrize("guide", ["flip", "flip-upstream-prior"])
def test_inherited_widths_are_kept_and_drawn(guide):
    upstream = stirred(read_strategy("flip"))
    posterior = started(read_strategy(guide), upstream, ["conv_block1"])
    assert posterior.strategy.points == []
    assert drawn(posterior) == set(SITES)
    for name in ("conv_block1.conv1.weight", "conv_block1.conv2.weight"):
        for ours, theirs in zip(posterior.gaussians()[name], upstream.gaussians()[name], strict=True):
            torch.testing.assert_close(ours, theirs)


def test_an_upstream_of_both_kinds_leaves_points_and_widths_where_it_has_them():
    upstream = stirred(LAST_STAGE)
    posterior = started(read_strategy("flip"), upstream, ["backbone"])
    shared = {name for name in upstream.gaussians() if not name.startswith("fc_audioset.")}
    assert 0 < len(shared) < len(SITES) - 2
    assert drawn(posterior) == set(posterior.gaussians()) == shared | {"fc_audioset.weight", "fc_audioset.bias"}


def test_without_an_upstream_frozen_weights_are_points():
    posterior = build(FLIP, freeze=["conv_block1"])
    assert set(posterior.gaussians()) == {name for name in SITES if not name.startswith("conv_block1.")}
    assert not posterior.model.net.conv_block1.conv1.weight.requires_grad


def test_frozen_locs_leave_their_widths_and_frozen_modules_beside_them_are_points():
    upstream = stirred(read_strategy("det"))
    assert set(started(FLIP, upstream, ["locs"]).gaussians()) == set(SITES)
    both = started(FLIP, upstream, ["locs", "conv_block1"])
    assert set(both.gaussians()) == {name for name in SITES if not name.startswith("conv_block1.")}
    assert {name.split(".")[0] for name, value in both.guide.named_parameters() if value.requires_grad} == {"0"}
    assert all("log_scales" in name for name, value in both.guide.named_parameters() if value.requires_grad)


def test_the_prior_of_a_weight_that_became_a_point_has_no_width_to_learn():
    strategy = Strategy(default=Settings(learn_prior=True))
    posterior = started(strategy, stirred(read_strategy("det")), ["conv_block1"])
    assert set(posterior.prior_widths()) == set(posterior.gaussians())
    assert "conv_block1.conv1.weight" not in posterior.prior_widths()


def test_points_under_a_prior_stay_under_it():
    posterior = started(read_strategy("map"), stirred(read_strategy("det")), ["conv_block1"])
    assert posterior.strategy == read_strategy("map")
    assert set(posterior.guide.points()) == {f"net.{name}" for name in SITES}


@pytest.mark.parametrize(("guide", "kept"), [("low-rank-head", False), ("last-layer", True)])
def test_a_frozen_last_layer_is_drawn_if_its_family_takes_over_the_width(guide, kept):
    """A low-rank one takes over the mean alone."""
    upstream = stirred(read_strategy("flip"))
    head = {"fc_audioset.weight", "fc_audioset.bias"}
    posterior = started(read_strategy(guide), upstream, ["fc_audioset"], labels=upstream.labels)
    assert set(posterior.gaussians()) == (head if kept else set())
    found = posterior.points() | {name: mean for name, (mean, _) in posterior.gaussians().items()}
    for name in head:
        assert torch.equal(found[name], upstream.gaussians()[name][0])
    # The same layer for other labels starts from nothing.
    assert started(read_strategy(guide), upstream, ["fc_audioset"]).gaussians() == {}


def test_a_rule_over_frozen_points_alone_is_no_error():
    strategy = Strategy(rule=[Rule(match="conv_block1.*", init_scale=0.5)])
    assert started(strategy, stirred(read_strategy("det")), ["conv_block1"]).strategy.rule == strategy.rule


def test_all_weights_may_be_points():
    posterior = started(FLIP, stirred(read_strategy("det")), ["backbone", "fc_audioset"])
    assert posterior.gaussians() == {}
    clips = 0.1 * torch.randn(2, 4000)
    assert len(list(posterior.draws(clips, 2))) == 1, "as of a posterior of points"


def test_what_is_saved_is_what_is_loaded(tmp_path):
    posterior = started(FLIP, stirred(read_strategy("det")), ["bn0", "conv_block1"])
    save(posterior, tmp_path / "p")
    loaded = load(tmp_path / "p")
    assert loaded.strategy == posterior.strategy
    assert set(loaded.gaussians()) == set(posterior.gaussians())
    clips = 0.1 * torch.randn(3, 4000)
    for ours, theirs in islice(zip(posterior.draws(clips, 4), loaded.draws(clips, 4), strict=True), 4):
        torch.testing.assert_close(ours, theirs)
    # And it is an upstream posterior: what was a point is one again.
    again = started(FLIP, loaded, ["conv_block1"])
    assert again.strategy.points == ["conv_block1.*"]


def test_an_unknown_module_is_told_before_anything_is_built():
    with pytest.raises(RecipeError, match=r"freeze: the net has no module 'stem'; there are bn0, .*backbone"):
        build(FLIP, freeze=["stem"])
