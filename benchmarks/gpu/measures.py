"""What steps and draws cost on the device, over what the same network costs with point weights."""

import statistics
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bayes_panns.audio.front_end import FrontEnd
from bayes_panns.bayes import Settings, Strategy
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.svi import Features, Fit, FitSettings
from benchmarks.contenders import CLASSES, TRAIN, Step, Work, deterministic_passes, posterior_draws, posterior_of
from benchmarks.gpu.setting import WARM_UP, Found, Ratio, Setting, compared, room
from benchmarks.versions import version

TARGETS = {"weights": 1.15, "mirrored": 1.2, "flipout": 2.1, "natural-gradient": 1.1}
"""The largest ratio of a step to the deterministic one."""

DRAWS_TARGET = 1.1
"""The largest ratio of draws to as many passes."""

FIT_TARGET = 1.3
"""The largest ratio of a step of :class:`~bayes_panns.svi.Fit` to one in plain PyTorch."""

PEERS = ("auto-normal", "bt-reparameterization", "bt-flipout")
"""Contenders of :data:`benchmarks.contenders.TRAIN` that come from other packages, fastest first."""

FITS: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "point weights, Adam": ({"posterior": "point"}, {}),
    "weights, Adam": ({"estimator": "weights"}, {}),
    "weights, natural gradients": ({"estimator": "weights"}, {"optimizer": "natural-gradient"}),
}
"""Fits whose step is timed: what their guide and their run recipe say."""


def steps(setting: Setting, ends: float) -> Iterator[Found]:
    """A training step in bf16 of each estimator and of natural gradients, over that of point weights with autocast."""
    work = setting.work()
    before = setting.allocated()
    if setting.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    baseline = _warm(TRAIN["deterministic"].make(work), setting)
    seconds = [setting.time(baseline) for _ in range(1 if setting.tiny else 5)]
    median = statistics.median(seconds)
    peak = _peak(setting) - before
    yield Found("deterministic: a step", 1000 * median, "ms", details={"seconds": seconds}, note=_setting(work))
    yield Found("deterministic: clips a second", work.clips / median, "clips/s")
    if setting.on_gpu:
        yield Found("deterministic: peak memory", peak, "GiB")
    yield from _beside(setting, tuple(TARGETS), baseline, ends)


def peers(setting: Setting, ends: float) -> Iterator[Found]:
    """The same step by other packages."""
    work = setting.work()
    baseline = _warm(TRAIN["deterministic"].make(work), setting)
    yield from _beside(setting, PEERS, baseline, ends)


def _beside(setting: Setting, names: tuple[str, ...], baseline: Step, ends: float) -> Iterator[Found]:
    work = setting.work()
    for number, name in enumerate(names):
        package = TRAIN[name].package
        target = TARGETS.get(name)
        if package is not None and version(package) is None:
            yield Found(f"{name} / deterministic", most=target, note=f"left out: {package} is not installed")
            continue
        now = time.monotonic()
        try:
            with room():
                found = compared(
                    setting, partial(TRAIN[name].make, work), baseline, now + (ends - now) / (len(names) - number)
                )
        except torch.OutOfMemoryError:
            yield Found(f"{name} / deterministic", most=target, note="left out: does not fit into memory")
            continue
        yield ratio(setting, f"{name} / deterministic", found, target, TRAIN[name].summary)
        if setting.on_gpu:
            yield Found(f"{name}: peak memory", found.peak, "GiB")


def ratio(setting: Setting, name: str, found: Ratio, target: float | None, note: str) -> Found:
    """A row of a ratio of times, which a dry run does not judge."""
    return Found(
        name,
        found.value,
        interval=found.interval,
        most=target,
        note=f"rounds: {len(found.seconds)}; {note}",
        judged=setting.judged,
        details=found.details(),
    )


def draws(setting: Setting, ends: float) -> Iterator[Found]:
    """Draws of every weight, over as many passes with point weights; both from waveforms to probabilities."""
    work, count = setting.work(), setting.draws
    baseline = deterministic_passes(work, passes=count)
    baseline()
    make = partial(posterior_draws, work, guide="flip", draws=count)
    found = compared(setting, make, baseline, ends, steps=1)
    yield ratio(setting, f"{count} draws / {count} passes", found, DRAWS_TARGET, _setting(work))
    per_second = work.clips / statistics.median(found.seconds)
    yield Found(f"prediction with {count} draws", per_second, "clips/s")


def fit_steps(setting: Setting, ends: float) -> Iterator[Found]:
    """A step of a fit, from int16 waveforms on the device, over the same network in plain PyTorch with autocast."""
    work = setting.work()
    baseline = _warm(plain_step(work), setting)
    for number, (name, (strategy, options)) in enumerate(FITS.items()):
        now = time.monotonic()
        share = now + (ends - now) / (len(FITS) - number)
        try:
            with room():
                found = compared(setting, partial(fit_step, setting, work, strategy, options), baseline, share)
        except torch.OutOfMemoryError:
            yield Found(f"fit, {name} / plain PyTorch", most=FIT_TARGET, note="left out: does not fit into memory")
            continue
        yield ratio(setting, f"fit, {name} / plain PyTorch", found, FIT_TARGET, "from waveforms, log-mels included")
        if setting.on_gpu:
            yield Found(f"fit, {name}: peak memory", found.peak, "GiB")


def plain_step(work: Work) -> Step:
    """What one would write with torch alone: log-mels, network, autocast, one fused Adam."""
    net, front_end, waveforms = work.network(), work.front_end(), work.waveforms()
    target = (torch.rand(work.clips, CLASSES, device=work.device) < 0.01).float()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logmel = front_end(waveforms)
        with work.autocast():
            loss = F.binary_cross_entropy_with_logits(net(logmel), target)
        loss.backward()
        optimizer.step()

    return step


class _Held(Features):
    """Clips whose only batch is on the device already: what a step costs if nothing has to be read."""

    def __init__(self, clips: ClipSet, front_end: FrontEnd, task: Task, device: str):
        super().__init__(clips, front_end, task, keep="none")
        self._held = super().batch(torch.arange(len(clips)), device)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """The clips at ``index``, of those that are held."""
        return tuple(each[: len(index)] for each in self._held)  # type: ignore[return-value]


def fit_step(setting: Setting, work: Work, strategy: Mapping[str, str], options: Mapping[str, str]) -> Step:
    """A step of a fit of clips that are on the device."""
    posterior = posterior_of(work, Strategy(default=Settings.model_validate(strategy)), work.clips)
    clips = ClipSet(generated_store(setting.folder / f"held-{work.clips}-{work.seconds:g}.h5", work, work.clips))
    data = _Held(clips, posterior.front_end, posterior.task, work.device)
    settings = {"batch_size": work.clips, "epochs": 1000, "features": "none", "spec_augment": False}
    chosen = FitSettings.model_validate({**settings, "precision": work.precision, **options})
    job = Fit(posterior.model, posterior.guide, data, chosen, setting.folder, device=work.device)
    job.model.train()
    index = torch.arange(work.clips)
    return lambda: job._step(index)


def generated_store(path: Path, work: Work, clips: int) -> Path:
    """A store of noise, int16 as every store, with a few of 527 labels a clip."""
    if not path.exists():
        generator = np.random.default_rng(0)
        sound = 0.1 * generator.standard_normal((clips, round(work.seconds * work.sample_rate)), dtype=np.float32)
        target = generator.random((clips, CLASSES)) < 0.01
        target[np.arange(clips), np.arange(clips) % CLASSES] = True
        labels = tuple(f"label {label}" for label in range(CLASSES))
        write(path, sound, target, labels, Task.MULTI_LABEL, work.sample_rate)
    return path


def _warm(step: Step, setting: Setting) -> Step:
    for _ in range(1 if setting.tiny else WARM_UP):
        step()
    return step


def _peak(setting: Setting) -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if setting.on_gpu else 0.0


def _setting(work: Work) -> str:
    return f"{work.net}, {work.clips} clips of {work.seconds:g} s, {work.precision}"
