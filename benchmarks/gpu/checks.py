"""Checks of statistics, random streams, waiting and resuming on the device."""

import math
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn import functional as F

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import BayesianNet, Estimator, OneOfK, Settings, Strategy, guide_from_strategy
from bayes_panns.bayes.estimators.draw_and_kl import draw
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.nets import build
from bayes_panns.posterior import Posterior
from bayes_panns.svi import Features, Fit, FitSettings
from benchmarks.contenders import TRAIN, Step
from benchmarks.gpu.measures import FITS, fit_step
from benchmarks.gpu.setting import SMALL, Found, Setting, Skipped, exact, repeatable, room

DRAWS = 2000
"""Of a layer, for its moments."""

SIGMAS = 5.0
"""The largest deviation of a moment, in its standard errors: one of 600 outputs is beyond it in a run of 3,000."""

RESUMED = 1e-2
"""The largest difference that an interruption may make on a GPU, relative to what a fit moved; on a CPU it is 0."""

RATE = 8000


def statistics(setting: Setting, ends: float) -> Iterator[Found]:
    """Mean and variance of a convolution's outputs under weights and flipout, against their closed forms."""
    device = setting.device
    inputs = torch.randn(1, 3, 6, 5, device=device).expand(5, -1, -1, -1).contiguous()
    loc = torch.randn(4, 3, 3, 3, device=device)
    scale = 0.1 + 0.5 * torch.rand(4, 3, 3, 3, device=device)
    mean = F.conv2d(inputs.double(), loc.double(), padding=1)
    variance = F.conv2d(inputs.double() ** 2, scale.double() ** 2, padding=1)
    draws = DRAWS // 10 if setting.tiny else DRAWS
    for estimator in ("weights", "flipout"):
        total, squares = torch.zeros_like(mean), torch.zeros_like(mean)
        for _ in range(draws):
            with Estimator(estimator), exact():
                weight = pyro.sample("w", dist.Normal(loc, scale, validate_args=False).to_event(4))
                deviation = F.conv2d(inputs, weight, padding=1).detach().double() - mean
            total += deviation
            squares += deviation**2
        of_mean = (total / draws / (variance / draws).sqrt()).abs().max()
        of_variance = ((squares / draws / variance - 1) / math.sqrt(2 / draws)).abs().max()
        note = f"largest deviation of {mean.numel()} outputs from the closed form, {draws} draws"
        yield Found(f"{estimator}: mean of an output", float(of_mean), "standard errors", most=SIGMAS, note=note)
        yield Found(f"{estimator}: variance", float(of_variance), "standard errors", most=SIGMAS, note=note)


def random_stream(setting: Setting, ends: float) -> Iterator[Found]:
    """The seed decides on a step's draws; a prediction's depend on their number alone and leave torch's state."""
    loc = torch.zeros(100_003, device=setting.device)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return draw(loc, loc - 1, "sum", None)[0]

    first, again, other = drawn(1), drawn(1), drawn(2)
    yield Found("a weight drawn from the same seed: elements that differ", float((first != again).sum()), most=0)
    share = float((first == other).float().mean())
    yield Found("from another seed: share of elements that are equal", share, most=1e-3)
    work = setting.checked(net=SMALL)
    posterior = Posterior.build(
        net=SMALL,
        labels=("a", "b", "c"),
        task=Task.ONE_OF_K,
        sample_rate=work.sample_rate,
        clip_seconds=work.seconds,
        strategy=Strategy(default=Settings.model_validate({"estimator": "weights"})),
    )
    posterior.model.to(setting.device)
    posterior.guide.to(setting.device)
    waveforms, before = 0.1 * torch.randn(4, round(work.seconds * work.sample_rate)), _states(setting)
    with exact():
        whole = torch.stack(list(posterior.draws(waveforms, 3, seed=5)))
        halves = torch.cat([torch.stack(list(posterior.draws(part, 3, seed=5))) for part in waveforms.split(2)], dim=1)
    moved = sum(not torch.equal(mine, other) for mine, other in zip(before, _states(setting), strict=True))
    yield Found("predictions: random states that they move", float(moved), most=0)
    error = float((whole - halves).abs().max())
    yield Found("draws of a batch and of its halves", error, most=1e-3, note="largest difference of a probability")


def _states(setting: Setting) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if setting.on_gpu else [])]


def waiting(setting: Setting, ends: float) -> Iterator[Found]:
    """How often the processor waits for the GPU in a step, as CUDA's debug mode counts it."""
    if not setting.on_gpu:
        raise Skipped("there is no GPU to wait for")
    for name in ("deterministic", "weights", "mirrored", "flipout", "natural-gradient"):
        with room():
            step = TRAIN[name].make(setting.checked("bf16"))
            yield Found(f"{name}: waits in a step", float(waits(step)), most=0)
    for name, (strategy, options) in FITS.items():
        with room():
            step = fit_step(setting, setting.checked("bf16"), strategy, options)
            yield Found(f"fit, {name}: waits in a step", float(waits(step)), most=0)


def waits(step: Step) -> int:
    """How often a step waits for the GPU; two steps before it are not counted."""
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in caught)


def resume(setting: Setting, ends: float) -> Iterator[Found]:
    """A small fit that is interrupted and goes on, against one that never stopped; by Adam and natural gradients."""
    for optimizer in ("adam", "natural-gradient"):
        settings = {"optimizer": optimizer, "epochs": 1 if setting.tiny else 3}
        folder = setting.folder / f"resume-{optimizer}"
        with repeatable():
            whole = tones(setting, folder / "whole", **settings)
            start = _flat(whole)
            whole.run()
            first = tones(setting, folder / "parts", **settings)
            _interrupt_at(first, first.steps // 2)
            if first.run():
                raise RuntimeError("the fit was not interrupted")
            second = tones(setting, folder / "parts", **settings)
            second.load_checkpoint()
            second.run()
        error = float((_flat(whole) - _flat(second)).norm() / (_flat(whole) - start).norm())
        yield Found(
            f"{optimizer}: interrupted and resumed",
            error,
            most=RESUMED if setting.on_gpu else 0,
            note=f"norm of the difference over what {whole.steps} steps moved",
        )


def tones(setting: Setting, folder: Path, **settings: object) -> Fit:
    """A small fit, of half a second each of low tones, high tones and noise."""
    store = setting.folder / "tones.h5"
    if not store.exists():
        _write_tones(store)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = FitSettings.model_validate({"batch_size": 8, "spec_augment": True, "features": "none", **settings})
    strategy = Strategy(default=Settings.model_validate({"estimator": "weights"}))
    torch.manual_seed(0)
    front_end = LogMel(RATE)
    model = BayesianNet.from_strategy(build(SMALL, 3), strategy, OneOfK(), clips=24, front_end=front_end)
    data = Features(ClipSet(store), front_end, Task.ONE_OF_K, keep="none")
    return Fit(model, guide_from_strategy(model, strategy), data, chosen, folder, device=setting.device)


def _write_tones(path: Path) -> None:
    generator, time = np.random.default_rng(0), np.arange(RATE // 2) / RATE
    label = np.arange(24) % 3
    pitch = np.where(label == 0, 400, 2000)[:, None] * generator.uniform(0.9, 1.1, (24, 1))
    sound = np.where(label[:, None] == 2, generator.normal(size=(24, len(time))), np.sin(2 * np.pi * pitch * time))
    write(path, 0.3 * sound, np.eye(3, dtype=bool)[label], ("low", "high", "noise"), Task.ONE_OF_K, RATE)


def _flat(fit: Fit) -> Tensor:
    return torch.cat([each.detach().flatten().double().cpu() for each in fit.guide.parameters()])


def _interrupt_at(fit: Fit, step: int) -> None:
    make: Callable[[Tensor], float] = fit._step

    def interrupting(index: Tensor) -> float:
        if fit.step == step - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return make(index)

    fit._step = interrupting  # type: ignore[method-assign]
