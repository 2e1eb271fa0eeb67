"""Guards of long fits: widths in bounds, clipped gradients, and what is said where something is not finite."""

import math
import os
import signal
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import (
    BayesianNet,
    FanIn,
    FromPosterior,
    Laplace,
    MeanField,
    Normal,
    OneOfK,
    RotatedHead,
    Settings,
    Strategy,
    guide_from_strategy,
    sites,
)
from bayes_panns.clips import ClipSet, Task
from bayes_panns.nets import EmbeddingNet, build
from bayes_panns.svi import METRICS, Features, Fit, FitSettings, GradientClip, ScaleBounds, read_metrics
from bayes_panns.svi.guards import diverged, first_not_finite
from bayes_panns.svi.widths import trained_log_scales
from tests.harness.tones import tones_and_noise
from tests.harness.waiting import PATIENCE, free_port

RATE = 8000
LOW, HIGH = 0.01, 3.0


def small(prior, *, learned=(), init_scale=0.1):
    net = nn.Sequential(nn.Linear(50, 20), nn.Linear(20, 4))
    model = BayesianNet(net, {name: prior(site) for name, site in sites(net).items()}, OneOfK(), learned=learned)
    return model, MeanField(model, init_scale=init_scale)


def upstream(site):
    """A prior of another width for each weight."""
    scales = {site.name: 0.05 + torch.rand(site.shape, generator=torch.Generator().manual_seed(3))}
    return FromPosterior({site.name: torch.zeros(site.shape)}, scales, otherwise=FanIn())(site)


PRIORS = {"normal": Normal(0.5), "fan-in": FanIn(), "laplace": Laplace(2.0), "upstream": upstream}


def ratios(model, guide):
    """Of each weight, s over the standard deviation of its prior."""
    return {
        name: (each.exp() / model.prior(f"net.{name}").variance.sqrt()).detach()
        for name, each in trained_log_scales(guide).items()
    }


@settings(max_examples=40)
@given(
    prior=st.sampled_from(sorted(PRIORS)),
    learned=st.booleans(),
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.1, 3.0, 30.0]),
)
def test_widths_stay_in_bounds_and_those_inside_are_left_alone(prior, learned, seed, spread):
    model, guide = small(PRIORS[prior], learned=("0.weight", "1.bias") if learned else ())
    guide.assign({site: (guide.loc(site), 0.2 * model.prior(site).variance.sqrt()) for site in guide.sites})
    bounds = ScaleBounds(model, guide, (LOW, HIGH))
    bounds.start()
    if learned:
        # Its width moves, and the bounds with it.
        model.set_prior_scale("net.0.weight", 7.0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in trained_log_scales(guide).values():
            each.add_(spread * torch.randn(each.shape, generator=generator))
    before, widths = ratios(model, guide), {name: each.clone() for name, each in trained_log_scales(guide).items()}
    bounds.apply()
    after = ratios(model, guide)
    for name, each in trained_log_scales(guide).items():
        assert after[name].min() >= LOW * (1 - 1e-5)
        assert after[name].max() <= HIGH * (1 + 1e-5)
        inside = (before[name] > LOW * (1 + 1e-5)) & (before[name] < HIGH * (1 - 1e-5))
        assert torch.equal(each[inside], widths[name][inside])
        at_upper = (before[name] >= HIGH).float().mean().item()
        assert bounds.at_upper()[name] == pytest.approx(at_upper, abs=0.002)


def test_a_start_outside_may_stay_and_not_go_further():
    model, guide = small(Normal(0.01), init_scale=0.1)
    bounds = ScaleBounds(model, guide, (LOW, HIGH))
    bounds.start()
    start = {name: each.clone() for name, each in trained_log_scales(guide).items()}
    bounds.apply()
    assert all(torch.equal(each, start[name]) for name, each in trained_log_scales(guide).items())
    with torch.no_grad():
        for each in trained_log_scales(guide).values():
            each += 1
    bounds.apply()
    for each in ratios(model, guide).values():
        torch.testing.assert_close(each, torch.full_like(each, 10.0))


def test_a_fit_that_goes_on_has_the_bounds_that_it_started_with():
    model, guide = small(Normal(0.01), init_scale=0.1)
    first = ScaleBounds(model, guide, (LOW, HIGH))
    first.start()
    with torch.no_grad():
        for each in trained_log_scales(guide).values():
            each += 1
    second = ScaleBounds(model, guide, (LOW, HIGH))
    second.resume(first.limits)
    second.apply()
    assert all(each.max() < 10.001 for each in ratios(model, guide).values())


def test_nothing_is_bounded_where_the_start_is_unknown_or_no_bounds_are_wanted():
    for bounds, start in (((LOW, HIGH), False), ((), True)):
        model, guide = small(Normal(0.01), init_scale=1.0)
        guard = ScaleBounds(model, guide, bounds)
        guard.start() if start else guard.resume(None)
        guard.apply()
        assert guard.limits is None
        assert guard.at_upper() == {}
        torch.testing.assert_close(ratios(model, guide)["0.weight"], torch.full((20, 50), 100.0))


def test_what_is_frozen_or_another_optimiser_s_is_left_out():
    model, guide = small(Normal())
    guide.freeze("0")
    kept = id(trained_log_scales(guide)["1.bias"])
    bounds = ScaleBounds(model, guide, (LOW, HIGH), others={kept})
    bounds.start()
    assert set(bounds.limits) == {"1.weight"}


def test_of_a_rotated_layer_the_weight_is_bounded_and_the_bias_not():
    net = EmbeddingNet(6, 3)
    model = BayesianNet(net, {name: Normal()(site) for name, site in sites(net).items()}, OneOfK())
    guide = RotatedHead(model)
    bounds = ScaleBounds(model, guide, (LOW, HIGH))
    bounds.start()
    (name,) = bounds.limits
    assert name.endswith("weight")
    with torch.no_grad():
        for each in trained_log_scales(guide).values():
            each.fill_(5.0)
    bounds.apply()
    assert sorted(each.max().item() for each in trained_log_scales(guide).values()) == [pytest.approx(math.log(3)), 5]


def test_adam_on_noise_widens_widths_as_the_module_says():
    """The mean of s^2 grows by exp(2 r^2 T); within bounds it does not."""
    rate, steps = 0.1, 100
    generator = torch.Generator().manual_seed(0)
    grown = {}
    for bounded in (False, True):
        net = nn.Sequential(nn.Linear(200, 200, bias=False))
        model = BayesianNet(net, {"0.weight": Normal()(sites(net)["0.weight"])}, OneOfK())
        guide = MeanField(model, init_scale=0.5)
        bounds = ScaleBounds(model, guide, (1e-6, 3.0) if bounded else ())
        bounds.start()
        log_scale = trained_log_scales(guide)["0.weight"]
        adam = torch.optim.Adam([log_scale], lr=rate)
        for _ in range(steps):
            log_scale.grad = torch.randn(log_scale.shape, generator=generator)
            adam.step()
            bounds.apply()
        grown[bounded] = log_scale.detach().exp().square().mean().item() / 0.25
    assert grown[False] == pytest.approx(math.exp(2 * rate**2 * steps), rel=0.25)
    assert grown[True] < 0.8 * grown[False]
    assert log_scale.exp().max() <= 3.0001


def test_a_gradient_is_clipped_as_one_vector():
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(1))]
    clip = GradientClip(parameters, 2.0)
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    clip()
    torch.testing.assert_close(parameters[0].grad[0], torch.tensor(3.0 * 2 / 5))
    torch.testing.assert_close(parameters[1].grad[0, 1], torch.tensor(4.0 * 2 / 5))
    before = [each.grad.clone() for each in parameters[:2]]
    assert clip.taken() == pytest.approx([5.0])
    clip = GradientClip(parameters, 100.0)
    clip()
    assert all(torch.equal(each.grad, kept) for each, kept in zip(parameters[:2], before, strict=True))
    assert clip.taken() == pytest.approx([2.0], rel=1e-5)
    assert clip.taken() == []
    parameters[0].grad[1] = math.inf
    with pytest.raises(FloatingPointError, match="the norm of the gradient is inf"):
        clip()


@pytest.mark.parametrize("bounds", [[1.0], [1.0, 0.5], [0.0, 1.0], [1e-6, math.inf], [1.0, 2.0, 3.0]])
def test_bounds_that_make_no_sense_are_refused(bounds):
    with pytest.raises(ValidationError, match="scale_bounds"):
        FitSettings(scale_bounds=bounds)


class Objective(nn.Module):
    def __init__(self):
        super().__init__()
        self.model, self.guide = small(Normal())


def test_what_is_not_finite_is_named_in_the_order_of_the_network():
    objective = Objective()
    guide = objective.guide
    assert first_not_finite(objective) is None
    guide.loc("net.1.weight").grad = torch.full((4, 20), math.nan)
    assert first_not_finite(objective) == "the gradient of the means of 1.weight"
    assert first_not_finite(objective, gradients=False) is None
    with torch.no_grad():
        trained_log_scales(guide)["1.bias"][2] = math.inf
        assert first_not_finite(objective) == "the widths of 1.bias"
        trained_log_scales(guide)["0.weight"][3, 4] = math.nan
    assert first_not_finite(objective) == "the widths of 0.weight"
    guide.freeze("0")
    assert first_not_finite(objective) == "the widths of 1.bias"


def test_the_end_of_a_fit_is_one_line(tmp_path):
    where = {"here": True, "step": 12, "epoch": 1.5, "checkpoint": tmp_path / "checkpoint.pt"}
    text = str(diverged("the loss is nan", Objective(), FitSettings(learning_rate=0.3), natural=False, **where))
    assert "\n" not in text
    for part in (
        "step 12 (epoch 1.5): the loss is nan; all parameters are finite",
        "fit.learning_rate (it is 0.3)",
        "fit.clip_gradient (none)",
        f"the last good checkpoint is {tmp_path / 'checkpoint.pt'}",
    ):
        assert part in text
    natural = FitSettings(optimizer="natural-gradient", clip_gradient=5.0)
    text = str(diverged("the loss is nan", Objective(), natural, natural=True, **{**where, "checkpoint": None}))
    assert "fit.natural.clip (0.3)" in text
    assert "fit.clip_gradient (5)" in text
    assert text.endswith("no checkpoint yet")


ONE_OF_TWO = """
import torch
from torch import nn
from bayes_panns.ranks import group
from bayes_panns.svi import FitSettings
from bayes_panns.svi.guards import diverged
net = nn.Sequential(nn.Linear(2, 2))
net.requires_grad_(True)
where = {"step": 3, "epoch": 0.5, "natural": False, "checkpoint": None}
print(diverged("the loss is nan", net, FitSettings(), here=group().rank == 1, **where))
"""


@pytest.mark.long
def test_what_is_not_finite_in_one_process_is_said_by_all():
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    first, second = (each.communicate(timeout=PATIENCE)[0] for each in started)
    assert first == second
    assert first.startswith("step 3 (epoch 0.5, process 1 of 2): the loss is nan; all parameters are finite; try ")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tones_and_noise(tmp_path_factory.mktemp("stores") / "tones.h5", 96, 0.25, RATE)


def job(store, folder, *, validation=True, **chosen):
    folder.mkdir(exist_ok=True)
    chosen = FitSettings(**{"epochs": 1, "batch_size": 32, "spec_augment": False, **chosen})
    torch.manual_seed(chosen.seed)
    front_end, strategy = LogMel(RATE), Strategy(default=Settings(estimator="weights"))
    net = build("resnet14-narrow", 3)
    model = BayesianNet.from_strategy(net, strategy, OneOfK(), clips=96, front_end=front_end)
    data = Features(ClipSet(store), front_end, Task.ONE_OF_K)
    return Fit(
        model, guide_from_strategy(model, strategy), data, chosen, folder, validation=data if validation else None
    )


def state(fit):
    return {**fit.model.state_dict(), **fit.guide.state_dict()}


def test_a_guarded_fit_that_is_stopped_goes_on_to_the_same_bits(store, tmp_path):
    # All widths start at the upper bound, so that it holds half of them at each step.
    guarded = {"scale_bounds": [1e-3, 0.1], "clip_gradient": 0.5, "learning_rate": 0.01}
    whole = job(store, tmp_path / "whole", **guarded)
    assert whole.run()
    first = job(store, tmp_path / "parts", **guarded)
    step = first._step

    def interrupt(index):
        os.kill(os.getpid(), signal.SIGINT)
        return step(index)

    first._step = interrupt
    assert not first.run()
    second = job(store, tmp_path / "parts", **guarded)
    second.load_checkpoint()
    assert second.run()
    assert all(torch.equal(value, state(second)[name]) for name, value in state(whole).items())
    lines = [read_metrics(tmp_path / part / METRICS)[-1] for part in ("whole", "parts")]
    assert {**lines[0], "seconds": 0} == {**lines[1], "seconds": 0}
    assert lines[0]["gradient_norm"] > 0
    largest = max(each.max().item() for each in ratios(whole.model, whole.guide).values())
    assert largest <= 0.1001


@pytest.mark.long
def test_the_scales_of_a_fit_explode_without_bounds_and_not_with_the_default(store, tmp_path):
    """Adam's steps along noise: where the KL counts little, nothing else holds the widths."""
    long = {"epochs": 50, "steps_per_epoch": 30, "learning_rate": 0.3, "schedule": "constant", "kl_weight": 1e-6}
    free, held = (
        job(store, tmp_path / name, validation=False, **long, **more)
        for name, more in (("free", {"scale_bounds": []}), ("held", {}))
    )
    assert free.run()
    assert held.run()
    assert max(held._stepper.bounds.at_upper().values()) > 0
    widest = [max(each.max().item() for each in ratios(fit.model, fit.guide).values()) for fit in (free, held)]
    assert widest[0] > 30
    assert widest[1] <= 3.0001
    # Of three labels, chance is log 3.
    assert held.metrics["nll"] < math.log(3)
