import logging
import os
import subprocess
import sys

import pytest
import torch

from bayes_panns.bayes import BayesianNet, FanIn, MeanField, OneOfK, sites
from bayes_panns.core.choices import Precision
from bayes_panns.nets import build
from bayes_panns.svi import FitSettings, step_memory
from bayes_panns.svi.stepper import Stepper
from tests.svi.test_fit import job, store  # noqa: F401


class Clips:
    embedded = False

    def batch(self, index, device):
        return torch.zeros(len(index), 100, 64), torch.zeros(len(index), dtype=torch.int64)


def counted(estimator="weights", *, clips=8, precision=Precision.FLOAT32, **settings):
    torch.manual_seed(0)
    net = build("resnet14-narrow", 3)
    model = BayesianNet(net, {name: FanIn()(site) for name, site in sites(net).items()}, OneOfK(), clips=24)
    stepper = Stepper(model, MeanField(model, estimator=estimator), FitSettings(**settings), clips=24, embedded=False)
    before = {name: value.clone() for name, value in stepper.objective.state_dict().items()}
    random = torch.get_rng_state()
    found = step_memory.step_memory(
        stepper.objective, stepper.optimizers.values(), Clips(), clips=clips, precision=precision, device="cpu"
    )
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in stepper.objective.state_dict().items())
    return found


def test_parameters_gradients_and_moments_are_counted():
    found = counted()
    bayesian = 619_923
    points = (found.weights - 4 * 2 * bayesian) / 4
    assert 0 < points < 5000
    # Gradients, and Adam's two moments, of each trained number; statistics of BatchNorm are none.
    assert 3 * 4 * 2 * bayesian < found.optimizers < 3 * found.weights
    natural = counted(optimizer="natural-gradient")
    # A gradient and a momentum of each mean.
    assert 2 * 4 * bayesian < natural.optimizers < 2 * 4 * bayesian + 4 * 4 * points
    # The draw of each weight.
    assert found.draws == pytest.approx(4 * bayesian, rel=0.02)


def test_activations_of_a_clip_follow_from_estimator_and_precision():
    plain = counted()
    # The first two layers have maps of 16 channels, 100 frames and 64 mels; each keeps input and output once.
    assert plain.clip > 4 * 4 * 16 * 100 * 64
    assert counted("flipout").clip > 1.2 * plain.clip
    assert counted("mirrored").clip == pytest.approx(plain.clip, rel=0.01)
    assert 0.45 < counted(precision=Precision.BF16).clip / plain.clip < 0.6
    assert counted(clips=16).total - plain.total == 8 * plain.clip


def test_a_fit_that_may_not_fit_says_what_to_do(store, tmp_path, monkeypatch, caplog):  # noqa: F811
    with caplog.at_level(logging.INFO):
        job(store, tmp_path / "fits", epochs=1).run()
    assert "a step needs" not in caplog.text
    monkeypatch.setattr(step_memory, "_free", lambda device: 5 << 20)
    expected = job(store, tmp_path / "plain", epochs=1)
    expected.run()
    (line,) = [each.message for each in caplog.records if "a step needs" in each.message]
    assert "activations of 8 clips" in line
    assert line.endswith(
        "0.0 GiB are free on cpu: it may not fit; fit.accumulate = 2 (it is 1), a smaller fit.batch_size (8), "
        'fit.precision = "bf16" need less'
    )
    caplog.clear()
    job(store, tmp_path / "parts", epochs=1, accumulate=2, precision="bf16").run()
    (line,) = [each.message for each in caplog.records if "a step needs" in each.message]
    assert "activations of 4 clips" in line
    assert "fit.precision" not in line


MEASURED = """
import ctypes, gc, torch
from bayes_panns.bayes import BayesianNet, FanIn, MeanField, OneOfK, sites
from bayes_panns.nets import build
from bayes_panns.svi import FitSettings
from bayes_panns.svi.step_memory import step_memory
from bayes_panns.svi.batches import Batch
from bayes_panns.svi.stepper import Stepper

class Clips:
    embedded = False
    def batch(self, index, device):
        return torch.randn(len(index), 301, 64), torch.zeros(len(index), dtype=torch.int64)

def kilobytes(name):
    (line,) = [each for each in open("/proc/self/status") if each.startswith(name)]
    return int(line.split()[1])

torch.manual_seed(0)
net = build("resnet14-narrow", 3)
model = BayesianNet(net, {name: FanIn()(site) for name, site in sites(net).items()}, OneOfK(), clips=24)
stepper = Stepper(model, MeanField(model, estimator="flipout"), FitSettings(), clips=24, embedded=False)
found = step_memory(stepper.objective, stepper.optimizers.values(), Clips(), clips=32, device="cpu")
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
before = kilobytes("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
model.train()
for _ in range(2):
    stepper.step(Batch(*Clips().batch(torch.arange(32), "cpu")), rate=1.0, kl_weight=1.0)
print((found.total - found.weights) / 1024 / (kilobytes("VmHWM") - before))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_what_is_counted_is_what_a_step_takes():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.8 < float(done.stdout) < 1.2
