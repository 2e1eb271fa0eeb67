"""Devices without float64: what needs it is computed on the CPU, to the same bits, and nothing else is float64."""

from unittest.mock import patch

import numpy as np
import pyro
import pytest
import torch
from safetensors.torch import load_file

from bayes_panns.bayes import MultiLabel, OneOfK
from bayes_panns.core.choices import Task
from bayes_panns.devices import as_float64, has_float64, widest_float
from bayes_panns.jobs import fit
from bayes_panns.jobs.memory import compared
from bayes_panns.jobs.predict import _digest
from bayes_panns.predictions import UncertaintyAccumulator
from bayes_panns.recipes import read_run, read_strategy
from bayes_panns.svi.last_layer.axes import realigned
from bayes_panns.svi.last_layer.inference import find_axes, infer_head
from tests.harness.no_float64 import a_cpu_without_float64, a_device_without_float64
from tests.jobs.test_head_fit import store
from tests.posterior.test_posterior import build
from tests.svi.test_on_a_gpu import CASES, batch, stepper


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def same(work):
    """Whether ``work`` on a device without float64 gives tensors there, with the bits that they have on a CPU."""
    here = work(torch.device("cpu"))
    with a_device_without_float64() as device:
        there = work(device)
        assert {each.device for each in there} == {device}
        there = [each.cpu() for each in there]
    return all(torch.equal(one, other) for one, other in zip(here, there, strict=True))


def test_the_stand_in_has_no_float64_and_does_not_mix_devices():
    with a_device_without_float64() as device:
        ones = torch.ones(3).to(device)
        assert ones.device == device
        assert torch.equal((ones + 1).cpu(), torch.full((3,), 2.0))
        for wide in (ones.double, lambda: ones.sum(dtype=torch.float64), lambda: torch.zeros(2).double().to(device)):
            with pytest.raises(TypeError, match="the device has no float64"):
                wide()
        with pytest.raises(RuntimeError, match="two devices"):
            ones + torch.ones(3)
    with pytest.raises(TypeError, match="makes float64"), a_cpu_without_float64():
        torch.ones(2).double()


def test_what_is_computed_in_float64_is_on_the_cpu():
    assert [has_float64(each) for each in ("cpu", "cuda:1", "mps", "mps:0")] == [True, True, False, False]
    with a_device_without_float64() as device:
        wide = as_float64(torch.ones(3).to(device))
        assert (wide.device.type, wide.dtype) == ("cpu", torch.float64)
        assert (widest_float(device), widest_float("cpu")) == (torch.float32, torch.float64)


@pytest.mark.parametrize(
    "likelihood", [OneOfK(), pytest.param(MultiLabel(), marks=pytest.mark.long)], ids=Task.words()[:2]
)
def test_a_last_layer_over_all_clips(likelihood):
    views, labels = random(30, 2, 8), torch.arange(30) % 3
    target = labels if isinstance(likelihood, OneOfK) else torch.nn.functional.one_hot(labels).float()

    def work(device):
        there, truth = views.to(device), target.to(device)
        axes, *start = find_axes(there, truth, 3, likelihood)
        found = infer_head(there, truth, likelihood, axes, [1.0, 2.0], [1.0, 1.0], start=tuple(start), steps=6)
        free = torch.arange(8).to(device) > 4
        moved = realigned(type(axes)(axes.left, axes.right.float().to(device), axes.centre, 1.0), free, there[:, 0])
        return [
            *(found.loc, found.scale, found.bias_loc, found.nll, found.kl),
            *(found.probability(there[:, 0], likelihood, draws=4), axes.outside(there[:, 0]), moved.right),
        ]

    assert same(work)


@pytest.mark.parametrize("given", ["with labels", pytest.param("as it is", marks=pytest.mark.long)])
def test_the_start_of_a_rotated_last_layer(given):
    views, target = random(20, 2, 128), torch.arange(20) % 3

    def work(device):
        torch.manual_seed(0)
        posterior = build(read_strategy("rotated-head"))
        posterior.model.to(device)
        posterior.guide.to(device)
        posterior.guide.prepare(views.to(device), target.to(device) if given == "with labels" else None)
        return list(posterior.guide.tensors().values())

    assert same(work)


def test_predictions_and_their_digest():
    clips = 0.1 * random(3, 4000)

    def predicted(device):
        torch.manual_seed(0)
        posterior = build(read_strategy("det-flip"))
        posterior.model.to(device)
        posterior.guide.to(device)
        accumulator = UncertaintyAccumulator("one-of-k")
        (mean,) = posterior.draws(clips, 0)
        for factor in (0.9, 1.0, 0.8):
            accumulator.update((factor * mean).to(device))
        found = accumulator.result()
        return _digest(posterior), found.probability, found.epistemic, found.mutual_information

    here = predicted("cpu")
    with a_device_without_float64() as device:
        there = predicted(device)
    assert here[0] == there[0]
    for one, other in zip(here[1:], there[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_left_of_a_start():
    before, after = {"w": random(5, 4)}, {"w": random(4, 5).view(5, 4)}
    here = compared(before, after, 100.0)
    with a_device_without_float64() as device:
        assert compared(before, {"w": after["w"].to(device)}, 100.0) == here


@pytest.mark.parametrize(
    "case", ["natural", *(pytest.param(each, marks=pytest.mark.long) for each in CASES if each != "natural")]
)
def test_a_step_makes_no_float64(case):
    likelihood = OneOfK()
    made = stepper(*CASES[case], likelihood, "cpu")
    with a_cpu_without_float64(), pyro.validation_enabled(False):
        made.step(batch(likelihood, "cpu"), rate=1.0, kl_weight=1e-3)
        made.kl()


@pytest.mark.long
def test_a_run_that_fits_a_last_layer_by_natural_gradients(tmp_path):
    clips = store(tmp_path / "clips.h5")
    changes = ["fit.selection.folds=2", "fit.selection.kl_weights=[1.0, 0.3]", "fit.selection.prior_scales=[0.2, 0.5]"]
    recipe = read_run("rotated-head", [*changes, "data.validation=0.2"], stores=[clips])
    fit(recipe, tmp_path / "here", device="cpu")
    with a_device_without_float64() as device, patch("bayes_panns.jobs.fit.choose_device", lambda _: device):
        fit(recipe, tmp_path / "there", device="cpu")
    one, other = (load_file(tmp_path / each / "posterior" / "guide.safetensors") for each in ("here", "there"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
