import tomllib
from itertools import islice

import numpy as np
import pytest
import tomli_w
import torch
from pyro.infer.autoguide import AutoNormal

from bayes_panns.bayes import MeanField, Settings, Strategy, logits_under, mirrored_draws
from bayes_panns.clips import Task
from bayes_panns.core.errors import PosteriorError, RecipeError, SettingError
from bayes_panns.posterior import Ensemble, Posterior, load, save
from bayes_panns.posterior.header import FORMAT
from bayes_panns.recipes import read_strategy
from bayes_panns.svi import MeanFieldELBO

LABELS = ("cat", "dog", "rain")


def build(strategy=None, labels=LABELS, **options):
    settings = {"net": "resnet14-narrow", "task": Task.ONE_OF_K, "sample_rate": 8000, "clip_seconds": 0.5}
    posterior = Posterior.build(**{**settings, "labels": labels, "strategy": strategy, **options})
    # BatchNorm's scale of 0 at the start would hide the residual branches.
    with torch.no_grad():
        for name, value in posterior.points().items():
            if "bn" in name and name.endswith((".weight", ".bias", "running_mean")):
                value.normal_(1 if name.endswith("weight") else 0, 0.2)
    return posterior


@pytest.fixture
def clips():
    return 0.1 * torch.randn(5, 4000)


def predictions(posterior, clips, draws=3, **options):
    return torch.stack(list(posterior.draws(clips, draws, **options)))


KINDS = ["flip", "det-flip", "drop", "det", "rotated-head", "low-rank-head", "map", "map-head", "last-layer"]


def stirred(name):
    """A posterior of a recipe, with nothing in its guide or its priors at the start."""
    posterior = build(read_strategy(name))
    posterior.guide.prepare(torch.randn(20, 2, 128), None)
    with torch.no_grad():
        for parameter in (*posterior.guide.parameters(), *posterior.model.prior_log_widths.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    return posterior


@pytest.mark.parametrize("name", KINDS)
def test_what_is_saved_is_what_is_loaded(tmp_path, clips, name):
    posterior = stirred(name)
    posterior.provenance, posterior.metrics = {"seed": 3, "upstream": {"folder": "x"}}, {"val/nll": 0.5}
    save(posterior, tmp_path / "posterior")
    loaded = load(tmp_path)
    for draws in (0, 2):
        torch.testing.assert_close(predictions(loaded, clips, draws), predictions(posterior, clips, draws))
    for attribute in ("net", "labels", "task", "sample_rate", "clip_seconds", "strategy", "provenance", "metrics"):
        assert getattr(loaded, attribute) == getattr(posterior, attribute)
    for site in posterior.model.sites:
        torch.testing.assert_close(loaded.model.prior(site).variance, posterior.model.prior(site).variance)
    assert {path.name for path in (tmp_path / "posterior").iterdir()} == {"posterior.toml", "guide.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == {"posterior"}


def test_saving_again_replaces_and_never_harms_another_folder(tmp_path, clips):
    first, second = build(), build()
    save(first, tmp_path / "p")
    save(second, tmp_path / "p")
    torch.testing.assert_close(predictions(load(tmp_path / "p"), clips, 0), predictions(second, clips, 0))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(PosteriorError, match="already exists and is not a posterior"):
        save(first, tmp_path / "mine")


def test_probabilities_are_probabilities(clips):
    one = predictions(build(), clips)
    assert one.shape == (3, 5, 3)
    torch.testing.assert_close(one.sum(dim=-1), torch.ones(3, 5))
    many = predictions(build(task=Task.MULTI_LABEL), clips)
    assert ((many > 0) & (many < 1)).all()


def test_draws_differ_and_repeat(clips):
    posterior = build()
    state = torch.get_rng_state()
    first = predictions(posterior, clips)
    assert torch.equal(torch.get_rng_state(), state), "the global random state is left alone"
    assert first.std(dim=0).min() > 0
    assert torch.equal(first, predictions(posterior, clips))
    assert not torch.equal(first, predictions(posterior, clips, seed=1))


def test_a_clips_prediction_does_not_depend_on_its_company(clips):
    posterior = build()
    together = predictions(posterior, clips, batch_size=2)
    torch.testing.assert_close(together[:, 3:4], predictions(posterior, clips[3:4]), rtol=1e-4, atol=1e-6)


def test_a_memory_bound_makes_batches_smaller_and_changes_nothing(clips):
    posterior = build(read_strategy("flip"))
    sizes = []
    posterior.model.net.register_forward_pre_hook(lambda net, inputs: sizes.append(len(inputs[0])))
    frames = posterior.front_end.frames(clips.shape[1])
    bound = 2 * posterior.model.net.activation_bytes(frames)
    small = predictions(posterior, clips, 2, memory=bound)
    assert sizes == [2, 2, 1, 2, 2, 1]
    torch.testing.assert_close(small, predictions(posterior, clips, 2), rtol=1e-4, atol=1e-5)
    sizes.clear()
    predictions(posterior, clips, 1, memory=1)  # less than any clip needs: one at a time
    assert sizes == [1] * 5


def test_activations_take_about_what_is_said():
    """Peak of live tensors on the way through, by the profiler's account of allocations."""
    posterior = build()
    with torch.no_grad(), torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        posterior.model.net.eval()(torch.randn(8, 400, 64))
    events = sorted(
        (event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    held = torch.tensor([event.nbytes() for event in events]).cumsum(0).max().item()
    said = 8 * posterior.model.net.activation_bytes(400)
    assert 0.5 * said < held <= said


def test_only_the_head_is_run_for_each_draw_where_only_it_is_drawn(clips):
    posterior = build(read_strategy("det-flip"))
    passes = []
    posterior.model.net.resnet.register_forward_hook(lambda *args: passes.append(1))
    together = predictions(posterior, clips, 9)
    assert len(passes) == 1
    weights = islice(mirrored_draws(posterior.guide, 0), 9)
    by_hand = [logits_under(posterior.model, draw, posterior.front_end(clips)).softmax(dim=1) for draw in weights]
    torch.testing.assert_close(together, torch.stack(by_hand), rtol=1e-4, atol=1e-6)


def test_the_mean_pass_is_the_limit_of_narrow_draws(clips):
    narrow = build(Strategy(default=Settings(init_scale=1e-7)))
    torch.testing.assert_close(predictions(narrow, clips, 1)[0], predictions(narrow, clips, 0)[0], rtol=1e-3, atol=1e-5)


def test_drop_draws_by_dropout_and_det_makes_one_pass(clips):
    drop = build(read_strategy("drop"))
    assert predictions(drop, clips, 4).std(dim=0).min() > 0
    assert len(predictions(drop, clips, 0)) == 1
    torch.testing.assert_close(predictions(drop, clips, 0), predictions(drop, clips, 0))
    assert len(predictions(build(read_strategy("det")), clips, 4)) == 1


def test_transfer_takes_locs_and_scales_and_makes_a_new_head():
    upstream = build()
    with torch.no_grad():
        for name, (loc, scale) in upstream.gaussians().items():
            upstream.guide.assign({f"net.{name}": (loc + 1, 3 * scale)})
    downstream = build(labels=("a", "b"))
    head = downstream.gaussians()["fc_audioset.weight"][0].clone()
    inherited = downstream.start_from(upstream)
    assert inherited.new == ("fc_audioset.weight", "fc_audioset.bias")
    assert {"conv_block1.conv1.weight", "bn0.running_mean", "fc1.bias"} <= set(inherited.taken)
    for name, (loc, scale) in downstream.gaussians().items():
        if name not in inherited.new:
            torch.testing.assert_close(loc, upstream.gaussians()[name][0])
            torch.testing.assert_close(scale, upstream.gaussians()[name][1])
    assert torch.equal(downstream.gaussians()["fc_audioset.weight"][0], head)
    assert downstream.gaussians()["fc_audioset.weight"][0].shape == (2, 128)
    for name in ("bn0.running_mean", "bn0.weight"):
        assert torch.equal(downstream.points()[name], upstream.points()[name])


def test_the_same_labels_keep_the_head(clips):
    upstream, downstream = build(), build()
    assert downstream.start_from(upstream).new == ()
    torch.testing.assert_close(predictions(downstream, clips), predictions(upstream, clips))


@pytest.mark.parametrize(
    ("up", "down"),
    [
        ("flip", "det"),
        ("det", "flip"),
        ("flip", "det-flip"),
        ("det-flip", "drop"),
        ("det", "rotated-head"),
        ("rotated-head", "flip"),
        ("rotated-head", "rotated-head"),
        ("low-rank-head", "det"),
        ("flip", "low-rank-head"),
        ("map", "flip"),
        ("flip", "map"),
    ],
)
def test_transfer_goes_between_strategies(clips, up, down):
    upstream, downstream = stirred(up), build(read_strategy(down))
    scale = downstream.gaussians().get("fc1.weight", (None, torch.zeros(1)))[1].clone()
    assert downstream.start_from(upstream).new == ()
    torch.testing.assert_close(predictions(downstream, clips, 0), predictions(upstream, clips, 0))
    if (up, down) == ("det", "flip"):
        torch.testing.assert_close(downstream.gaussians()["fc1.weight"][1], scale)


@pytest.mark.parametrize(("name", "drawn"), [("rotated-head", True), ("low-rank-head", True), ("map", False)])
def test_draws_of_every_kind_come_in_pairs_if_there_are_any(clips, name, drawn):
    posterior = stirred(name)
    assert posterior.stochastic == posterior.mirrored == drawn
    assert len(predictions(posterior, clips)) == (3 if drawn else 1)
    if drawn:
        logits = torch.stack(list(posterior.logits(clips, 4)))
        (at_mean,) = posterior.logits(clips, 0)
        torch.testing.assert_close((logits[0] + logits[1]) / 2, at_mean, atol=1e-4, rtol=1e-4)
        assert logits.std(dim=0).min() > 0
        with pytest.raises(PosteriorError, match="independent weights"):
            posterior.moments(clips)
    else:
        assert posterior.moments(clips)[1].abs().max() == 0


@pytest.mark.parametrize("name", ["rotated-head", "low-rank-head"])
def test_a_last_layer_of_any_kind_can_be_the_prior(name):
    upstream = stirred(name)
    downstream = build(Strategy(default=Settings(prior="upstream")), upstream=upstream)
    mean, std = upstream.gaussians()["fc_audioset.weight"]
    prior = downstream.model.prior("net.fc_audioset.weight")
    torch.testing.assert_close(prior.mean, mean)
    torch.testing.assert_close(prior.variance.sqrt(), std)


def test_the_width_of_a_prior_is_no_weight_and_not_taken_over():
    upstream, downstream = stirred("last-layer"), build(read_strategy("last-layer"))
    assert set(upstream.prior_widths()) == {"fc_audioset.weight"}
    assert not [name for name in upstream.points() if "prior" in name]
    downstream.start_from(upstream)
    assert downstream.prior_widths() == {"fc_audioset.weight": 1.0}


def test_the_upstream_posterior_can_be_the_prior():
    upstream = build()
    strategy = Strategy(default=Settings(prior="upstream", prior_scale=2.0))
    downstream = build(strategy, labels=("a", "b"), upstream=upstream)
    layer = downstream.model.net.fc1._pyro_samples["weight"]
    torch.testing.assert_close(layer.mean, upstream.gaussians()["fc1.weight"][0])
    torch.testing.assert_close(layer.stddev, 2 * upstream.gaussians()["fc1.weight"][1])
    head = downstream.model.net.fc_audioset._pyro_samples["weight"]
    torch.testing.assert_close(head.stddev, torch.full((2, 128), 128**-0.5))


def test_with_the_upstream_prior_the_kl_starts_at_zero(clips):
    upstream = build()
    downstream = build(Strategy(default=Settings(prior="upstream")), upstream=upstream)
    elbo = MeanFieldELBO()
    elbo.loss(downstream.model, downstream.guide, clips, torch.zeros(5).long())
    assert float(elbo.kl) > 1000
    downstream.start_from(upstream)
    elbo.loss(downstream.model, downstream.guide, clips, torch.zeros(5).long())
    assert abs(float(elbo.kl)) < 1


def test_a_fit_with_the_upstream_prior_is_loaded_without_it(tmp_path, clips):
    upstream = build()
    strategy = Strategy(default=Settings(prior="upstream"))
    posterior = build(strategy, upstream=upstream)
    save(posterior, tmp_path / "p")
    loaded = load(tmp_path / "p")
    assert loaded.strategy == strategy
    torch.testing.assert_close(predictions(loaded, clips), predictions(posterior, clips))


def test_another_net_cannot_be_started_from():
    with pytest.raises(PosteriorError, match="sample_rate is 16000, but this run's is 8000"):
        build().start_from(build(sample_rate=16000))


def test_a_number_of_draws_is_a_whole_one_from_0_up(clips):
    single = build()
    for posterior in (single, Ensemble([single, single])):
        for draws in (-1, 2.5, 2.0, True, "2", None):
            with pytest.raises(SettingError, match=f"^draws is {draws!r}: give a whole number from 0 up$"):
                next(posterior.draws(clips, draws))
        for draws in (-1, 2.5, True, "moment"):
            with pytest.raises(SettingError, match=r'give a whole number from 0 up, or "moments"$'):
                posterior.draws_for(draws)
        assert [posterior.draws_for(each) for each in ("moments", np.int64(3))] == ["moments", 3]


def auto_normal(model):
    return AutoNormal(model, init_scale=0.02)


def test_a_guide_of_the_users_own_is_kept_and_needs_their_word_to_be_opened(tmp_path, clips, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "own_guides", __import__("types").ModuleType("own_guides"))
    __import__("own_guides").make = auto_normal
    posterior = build(guide_function="own_guides:make")
    posterior.model.eval()
    posterior.guide(clips, torch.zeros(5).long())
    assert posterior.stochastic
    save(posterior, tmp_path / "p")
    with pytest.raises(PosteriorError, match=r"own_guides:make; name it with --guide"):
        load(tmp_path / "p")
    loaded = load(tmp_path / "p", guide_function="own_guides:make")
    torch.testing.assert_close(predictions(loaded, clips, 2), predictions(posterior, clips, 2))
    with pytest.raises(PosteriorError, match="starting from a posterior with a custom guide is not supported"):
        build().start_from(posterior)
    with pytest.raises(RecipeError, match="nowhere:make: cannot be imported"):
        build(guide_function="nowhere:make")
    with pytest.raises(RecipeError, match="os:getcwd: cannot be called with the model"):
        build(guide_function="os:getcwd")
    with pytest.raises(RecipeError, match="builtins:id: returns int, not a Pyro guide"):
        build(guide_function="builtins:id")


def edited(folder, change):
    table = tomllib.loads((folder / "posterior.toml").read_text())
    del table["digest"]
    change(table)
    (folder / "posterior.toml").write_text(tomli_w.dumps(table))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "posterior.toml").unlink(), "is not a posterior"),
        (lambda p: (p / "guide.safetensors").unlink(), "is missing"),
        (lambda p: (p / "guide.safetensors").write_bytes((p / "guide.safetensors").read_bytes()[:-9]), "truncated"),
        (lambda p: (p / "posterior.toml").write_text("net = "), "is damaged"),
        (lambda p: edited(p, lambda t: t.update(format_version=FORMAT + 1)), "is newer than this bayes_panns reads"),
        (lambda p: edited(p, lambda t: t.pop("labels")), "labels: Field required"),
        (lambda p: edited(p, lambda t: t.update(net="resnet99")), "no such network"),
        (lambda p: edited(p, lambda t: t["labels"].append("snow")), "does not hold what its header says"),
        (lambda p: edited(p, lambda t: t["strategy"].update(default={"posterior": "point"})), "does not hold"),
        (lambda p: edited(p, lambda t: t.update(code="import os")), "code: Extra inputs"),
    ],
)
def test_a_damaged_posterior_is_told_in_one_line(tmp_path, damage, message):
    save(build(), tmp_path / "p")
    damage(tmp_path / "p")
    with pytest.raises(PosteriorError, match=message) as error:
        load(tmp_path / "p")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_older_formats_are_read(tmp_path, version):
    """They knew neither learned widths of priors nor, at first, a calibration; their tensors are the same."""
    posterior = build()
    save(posterior, tmp_path / "p")

    def age(table):
        table["format_version"] = version
        del table["short_clips"], table["strategy"]["points"]
        for settings in (table["strategy"]["default"], *table["strategy"]["rule"]):
            if version < 3:
                settings.pop("learn_prior", None)
        if version >= 2:
            table["calibration"] = {
                "temperature": 1.5,
                "threshold": 0.2,
                "coverage": 0.9,
                "draws": 20,
                "clips": [8, 8],
                "data": ["held.h5"],
            }

    edited(tmp_path / "p", age)
    again = load(tmp_path / "p")
    assert again.strategy == posterior.strategy
    assert (again.calibration is not None) == (version >= 2)
    for name, pair in posterior.gaussians().items():
        for value, other in zip(pair, again.gaussians()[name], strict=True):
            torch.testing.assert_close(value, other)


def test_loading_leaves_the_guide_an_ordinary_pyro_guide(tmp_path):
    save(build(), tmp_path / "p")
    loaded = load(tmp_path / "p")
    (part,) = loaded.guide.parts
    assert isinstance(part, MeanField)
    assert np.isclose(part.scale("net.fc1.weight").mean().item(), 0.1 / 128**0.5)
