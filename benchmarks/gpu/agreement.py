"""Checks that the device computes what the published networks, and what a CPU, compute."""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from bayes_panns.bayes import guide_from_strategy
from bayes_panns.nets import build
from bayes_panns.svi import MeanFieldELBO
from benchmarks.contenders import Work, bayesian
from benchmarks.gpu.setting import SMALL, Found, Setting, Skipped, exact

FLOAT32, BF16 = "float32", "bf16"

GOLDEN = 1e-3
"""The largest error of a published network's logits, in float32 without TF32; the tests on a CPU have 1e-4."""

LOGITS = {FLOAT32: 1e-3, BF16: 0.1}
"""The largest difference of logits at the posterior mean, in their standard deviations over labels and clips."""

NLL = {FLOAT32: 1e-4, BF16: 1e-3}
"""The largest relative difference of the NLL at the same draw."""

KL = 1e-5
"""That of the KL, which is float32 in either precision."""

GRADIENT = {FLOAT32: 1e-2, BF16: 0.2}
"""That of the gradient of all means and widths: the norm of the difference over the norm."""

MN04 = "mn04_as_mAP_432.pt"


def golden(setting: Setting, ends: float) -> Iterator[Found]:
    """Logits of the published ResNet-54 and mn04 on the device, against those of their authors' code."""
    folder = setting.reference
    if folder is None:
        raise Skipped("no golden values: give --reference DIR, a folder with formula.py and *_golden.npz")
    formula = _formula(folder)
    with exact():
        values = np.load(folder / "resnet54_golden.npz")
        shapes = json.loads(str(values["keys"]))
        state = {
            name: torch.from_numpy(formula.tensor(name, shape))
            for name, shape in shapes.items()
            if not name.startswith(("spectrogram", "logmel"))
        }
        yield _golden_row(setting, "resnet54", state, formula, values)
        weights = folder / MN04
        if not weights.is_file():
            yield Found("mn04: logits against the published code", note=f"left out: the folder has no {MN04}")
            return
        state = torch.load(weights, weights_only=True)
        yield _golden_row(setting, "mn04", state, formula, np.load(folder / "mn04_golden.npz"))


def _golden_row(setting: Setting, name: str, state: dict[str, Tensor], formula: ModuleType, values: Any) -> Found:
    net = build(name, 527).eval()
    net.load_state_dict(state)
    net, front_end = net.to(setting.device), net.front_end(32000).to(setting.device)
    with torch.no_grad():
        logits = net(front_end(torch.from_numpy(formula.waveform(2, 64000)).to(setting.device))).cpu()
    error = float((logits - torch.from_numpy(values["logits"])).abs().max())
    return Found(f"{name}: logits against the published code", error, most=GOLDEN, note="largest difference, float32")


def _formula(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("formula", folder / "formula.py")
    if spec is None or spec.loader is None or not (folder / "formula.py").is_file():
        raise Skipped(f"no golden values: {folder} has no formula.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def agree(setting: Setting, ends: float) -> Iterator[Found]:
    """Logits at the mean, then NLL, KL and gradients at the same draw, on the device and on the CPU."""
    threads = torch.get_num_threads()
    for net in setting.checked_nets:
        with exact():
            yield from _logits(setting, net)
    # A draw in one thread asks for its numbers in order.
    torch.set_num_threads(1)
    try:
        with exact():
            yield from _at_the_same_draw(setting, setting.net, "weights", (FLOAT32, BF16))
            for estimator in ("mirrored", "flipout"):
                yield from _at_the_same_draw(setting, SMALL, estimator, (FLOAT32,))
    finally:
        torch.set_num_threads(threads)


def _logits(setting: Setting, name: str) -> Iterator[Found]:
    here = replace(setting.checked(net=name), device="cpu")
    net = here.network().eval()
    _liven(net)
    waveforms = here.waveforms()
    with torch.no_grad():
        expected = net(here.front_end()(waveforms))
        net = net.to(setting.device)
        for precision in (FLOAT32, BF16):
            there = setting.checked(precision, net=name)
            logmel = there.front_end()(waveforms.to(setting.device))
            with there.autocast():
                found = net(logmel).float().cpu()
            error = float((found - expected).abs().max() / expected.std())
            note = "largest difference, in standard deviations of the logits, from float32 on a CPU"
            yield Found(f"{name}: logits at the mean, {precision}", error, most=LOGITS[precision], note=note)


def _liven(net: nn.Module) -> None:
    """Give BatchNorm values as after a fit: at its first ones the residual branches are 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.is_floating_point() and value.dim() == 1:
                if name.endswith(("weight", "running_var")):
                    value.uniform_(0.7, 1.1, generator=generator)
                else:
                    value.normal_(0, 0.1, generator=generator)


@contextmanager
def _same_noise() -> Iterator[None]:
    """A block in which Normal and uniform numbers are the same on every device, if they are asked for in order.

    They are those of NumPy's generator, whose order does not depend on how many are taken at a time.
    """
    source = np.random.default_rng(0)

    def normal_(values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        drawn = source.standard_normal(values.numel(), dtype=np.float32)
        return values.copy_(torch.from_numpy(drawn).view(values.shape))

    def rand(*size: Any, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Tensor:
        shape = size if isinstance(size[0], int) else tuple(size[0])
        return torch.from_numpy(source.random(shape, dtype=np.float32)).to(device, dtype)

    with patch.object(Tensor, "normal_", normal_), patch.object(torch, "rand", rand):
        yield


def _at_the_same_draw(setting: Setting, net: str, estimator: str, precisions: tuple[str, ...]) -> Iterator[Found]:
    here = replace(setting.checked(net=net), device="cpu")
    torch.manual_seed(0)
    logmel, target = here.labelled()
    model, strategy = bayesian(here, estimator)
    _liven(model.net)
    guide = guide_from_strategy(model, strategy)
    model.initial.clear()
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def evaluated(work: Work, training: bool) -> tuple[float, float, Tensor]:
        # BatchNorm's statistics move in a pass.
        model.load_state_dict(state)
        elbo = MeanFieldELBO()
        objective = elbo(model.to(work.device), guide.to(work.device))
        objective.train(training)
        objective.zero_grad(set_to_none=True)
        with _same_noise(), work.autocast():
            loss = objective(logmel.to(work.device), target.to(work.device))
        loss.backward()
        gradients = [each.grad.flatten() for each in guide.parameters() if each.grad is not None]
        return float(elbo.nll), float(elbo.kl), torch.cat(gradients).cpu()

    for precision in precisions:
        # In bfloat16 the statistics of few clips, and with them the gradient, differ beyond comparison.
        training = precision == FLOAT32
        nll, kl, gradient = evaluated(here, training)
        found = evaluated(setting.checked(precision, net=net), training)
        what = f"{net}, {estimator}, {precision}"
        yield Found(f"{what}: NLL", abs(found[0] / nll - 1), most=NLL[precision], note="relative difference")
        yield Found(f"{what}: KL", abs(found[1] / kl - 1), most=KL, note="relative difference")
        error = float((found[2] - gradient).norm() / gradient.norm())
        note = "norm of the difference over the norm, of the gradient of means and widths"
        yield Found(f"{what}: gradient", error, most=GRADIENT[precision], note=note)
