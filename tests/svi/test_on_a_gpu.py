"""What a GPU must do; without one only the steps on the CPU run."""

import pyro
import pytest
import torch

from bayes_panns.audio.augment import Mixup, SpecAugment
from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import BayesianNet, MultiLabel, OneOfK, Settings, Strategy, guide_from_strategy
from bayes_panns.clips.samples import as_floats
from bayes_panns.devices import sent
from bayes_panns.nets import build
from bayes_panns.svi import FitSettings
from bayes_panns.svi.batches import Batch
from bayes_panns.svi.stepper import Stepper

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
NATURAL = {"optimizer": "natural-gradient", "kl_weight": 1e-3}
CASES = {
    "weights": ({}, "weights"),
    "flipout": ({}, "flipout"),
    "mirrored": ({}, "mirrored"),
    "parts": ({"accumulate": 2}, "mirrored"),
    "natural": (NATURAL, "mirrored"),
    "gauss-newton": (NATURAL | {"natural": {"curvature": "gauss-newton"}}, "flipout"),
    "price": (NATURAL | {"natural": {"curvature": "price"}}, "weights"),
}


def stepper(settings, estimator, likelihood, device):
    torch.manual_seed(0)
    strategy = Strategy(default=Settings(estimator=estimator))
    net = build("resnet14-narrow", 3)
    model = BayesianNet.from_strategy(net, strategy, likelihood, clips=24, front_end=LogMel(8000)).to(device)
    guide = guide_from_strategy(model, strategy).to(device)
    chosen = FitSettings(**{"batch_size": 8, "precision": "bf16", **settings})
    made = Stepper(model, guide, chosen, clips=24, embedded=False)
    model.train()
    return made


def batch(likelihood, device):
    """Waveforms as they lie in a store, on their way to the device."""
    waveform = torch.randint(-3000, 3000, (8, 8000), dtype=torch.int16)
    target = torch.nn.functional.one_hot(torch.arange(8) % 3, 3).float()
    mixup = Mixup.draw(8)
    clips, target = sent(waveform, device), sent(target, device)
    return Batch(clips, mixup(target), spec_augment=SpecAugment(), mixup=mixup)


@cuda
@pytest.mark.parametrize("likelihood", [OneOfK(), MultiLabel()], ids=["one-of-k", "multi-label"])
@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_no_gpu(case, likelihood):
    made = stepper(*CASES[case], likelihood, "cuda")
    # A fit switches Pyro's validation off, which would read every number.
    with pyro.validation_enabled(False):
        # The first step finds the fastest convolutions and makes the optimisers' state.
        made.step(batch(likelihood, "cuda"), rate=1.0, kl_weight=1e-3)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for number in range(3):
                made.step(batch(likelihood, "cuda"), rate=1.0, kl_weight=1e-3, number=number + 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert [each.step for each in made.read(wait=True)] == [0, 1, 2, 3]


@cuda
@pytest.mark.parametrize("case", ["weights", "mirrored"])
def test_the_kl_of_a_step_is_that_of_the_cpu(case):
    settings, estimator = CASES[case]
    kls = []
    for device in ("cpu", "cuda"):
        made = stepper(settings, estimator, OneOfK(), device)
        made.step(batch(OneOfK(), device), rate=1.0, kl_weight=1e-3)
        kls.append(made.kl())
    assert kls[1] == pytest.approx(kls[0], rel=1e-3)


@cuda
def test_16_bit_samples_and_log_mels_on_a_gpu_are_those_of_the_cpu():
    raw = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(8, 8192)
    assert torch.equal(as_floats(raw.cuda()).cpu(), as_floats(raw))
    front_end = LogMel(8000)
    there = LogMel(8000).cuda()(as_floats(raw.cuda())).cpu()
    assert torch.allclose(there, front_end(as_floats(raw)), atol=1e-2)


@pytest.mark.parametrize("likelihood", [OneOfK(), MultiLabel()], ids=["one-of-k", "multi-label"])
def test_a_step_from_16_bit_samples_is_that_from_floats(likelihood):
    losses = []
    for change in (lambda values: values, as_floats):
        made = stepper({}, "mirrored", likelihood, "cpu")
        torch.manual_seed(1)
        clips = batch(likelihood, "cpu")
        made.step(Batch(change(clips.clips), clips.target), rate=1.0, kl_weight=1e-3)
        losses.append(made.read()[0].loss)
    assert losses[0] == losses[1]


def test_log_mels_are_computed_in_float32_within_a_step_of_bfloat16():
    made = stepper({}, "weights", OneOfK(), "cpu")
    model, clips = made.objective.model, batch(OneOfK(), "cpu").clips
    with model.computing_in("bf16"), torch.autocast("cpu", dtype=torch.bfloat16):
        features = model._features(clips)
    assert features.dtype == torch.float32
    assert torch.equal(features, model.front_end(as_floats(clips)))
