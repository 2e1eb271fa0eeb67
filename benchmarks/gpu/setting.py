"""What a run is given, the rows that it finds, and how a step is timed."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.contenders import Step, Work
from benchmarks.ratios import interval

GIB = 2**30

SMALL = "resnet14-narrow"
"""The network where size does not matter."""

LEAST_ROUNDS, MOST_ROUNDS = 6, 20
"""Rounds of a ratio: fewer have no interval."""

STEPS_A_TURN = 4
"""Steps between two events on a GPU: the processor is ahead of it, as in a fit."""

WARM_UP = 3
"""Steps that are not counted: cuDNN chooses algorithms, optimisers make their state."""


class Skipped(Exception):  # noqa: N818 -- it is no error
    """A part, or a row of one, that cannot be done here; the message says why."""


@dataclass(frozen=True)
class Found:
    """A row of the results.

    Attributes:
        name: What was found.
        value: The number; None where there is none.
        unit: Its unit; empty for a ratio.
        interval: Its 95 % confidence interval, where it is a median of rounds.
        most: The largest value that is right, a tolerance or a target.
        least: The smallest.
        note: What more there is to say, or why there is no value.
        judged: Whether the target is for this run: a time on a CPU says nothing of a GPU.
        details: Whatever else the record should hold.
    """

    name: str
    value: float | None = None
    unit: str = ""
    interval: tuple[float, float] | None = None
    most: float | None = None
    least: float | None = None
    note: str = ""
    judged: bool = True
    details: dict[str, object] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """``met``, ``missed`` or ``not measured``; empty where there is no target."""
        if self.most is None and self.least is None:
            return ""
        if self.value is None or not self.judged:
            return "not measured"
        # Not the other way round: no comparison with NaN is true.
        met = (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)
        return "met" if met else "missed"


@dataclass(frozen=True)
class Setting:
    """What every part is given.

    Attributes:
        device: ``cpu`` or ``cuda``, which is then the current GPU.
        tiny: Whether this is a dry run: the smallest networks and clips, for seconds on a CPU.
        folder: An empty folder for what a part writes.
        clips: Clips of a measured step.
        seconds: Their length.
        reference: The folder with golden values of the published networks, if there is one.
    """

    device: str
    tiny: bool
    folder: Path
    clips: int = 32
    seconds: float = 10.0
    reference: Path | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self.device == "cuda"

    @property
    def judged(self) -> bool:
        """Whether times are held against their targets: not those of a dry run."""
        return self.on_gpu and not self.tiny

    @property
    def net(self) -> str:
        """The network of the measurements."""
        return SMALL if self.tiny else "resnet54"

    @property
    def checked_nets(self) -> tuple[str, ...]:
        """The networks that are checked."""
        return (SMALL,) if self.tiny else ("resnet54", "mn04")

    @property
    def draws(self) -> int:
        """Draws of a prediction."""
        return 4 if self.tiny else 20

    def work(self) -> Work:
        """The work of the measured steps, in bf16."""
        clips, seconds = (2, 0.4) if self.tiny else (self.clips, self.seconds)
        return Work(self.net, clips, seconds, self.device, torch.get_num_threads(), "bf16")

    def checked(self, precision: str = "float32", *, net: str | None = None) -> Work:
        """The work of the checks, which a CPU does as well: 2 clips of 1 s."""
        seconds = 0.4 if self.tiny else 1.0
        return Work(net or self.net, 2, seconds, self.device, torch.get_num_threads(), precision)

    def time(self, step: Step, steps: int | None = None) -> float:
        """Seconds a step, by the GPU's own clock."""
        steps = steps or (STEPS_A_TURN if self.on_gpu else 1)
        if not self.on_gpu:
            started = time.perf_counter()
            for _ in range(steps):
                step()
            return (time.perf_counter() - started) / steps
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(steps):
            step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000 / steps

    def allocated(self) -> float:
        """GiB that tensors fill on the GPU; 0 on a CPU."""
        return torch.cuda.memory_allocated() / GIB if self.on_gpu else 0.0


@dataclass
class Ratio:
    """Times of a step and of its baseline, taken in turn.

    Attributes:
        seconds: Of each round, a step.
        baseline: The baseline's.
        peak: The most GiB on the GPU while the step was made, less what was there before it was set up; 0 on a CPU.
    """

    seconds: list[float]
    baseline: list[float]
    peak: float

    @property
    def ratios(self) -> list[float]:
        """One for each round."""
        return [mine / other for mine, other in zip(self.seconds, self.baseline, strict=True)]

    @property
    def value(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of that."""
        return interval(self.ratios)

    def details(self) -> dict[str, object]:
        """Every time, as a record holds it."""
        return {"seconds": self.seconds, "baseline_seconds": self.baseline, "peak_gib": self.peak}


def compared(
    setting: Setting,
    make: Callable[[], Step],
    baseline: Step,
    ends: float,
    *,
    rounds: tuple[int, int] = (LEAST_ROUNDS, MOST_ROUNDS),
    steps: int | None = None,
) -> Ratio:
    """Time a step beside its baseline: both in each round, in random order.

    Args:
        setting: Where.
        make: Sets the step up. It is gone afterwards.
        baseline: The baseline's step, warm.
        ends: When to stop, on the clock of :func:`time.monotonic`; one round is always made.
        rounds: The least and the most.
        steps: Steps a turn; by default 4 on a GPU.
    """
    order, before = random.Random(0), setting.allocated()
    if setting.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    step = make()
    for _ in range(1 if setting.tiny else WARM_UP):
        step()
    peak = torch.cuda.max_memory_allocated() / GIB - before if setting.on_gpu else 0.0
    found = Ratio([], [], peak)
    least, most = (1, 1) if setting.tiny else rounds
    while len(found.seconds) < most:
        if len(found.seconds) >= 1 and time.monotonic() > ends:
            break
        if len(found.seconds) >= least and _narrow(found):
            break
        turn = [(step, found.seconds), (baseline, found.baseline)]
        for what, seconds in order.sample(turn, 2):
            seconds.append(setting.time(what, steps))
    return found


def _narrow(found: Ratio) -> bool:
    ends = found.interval
    return ends is not None and ends[1] - ends[0] < 0.02 * found.value


@contextmanager
def room() -> Iterator[None]:
    """A block whose memory on a GPU is free for others afterwards, and which finds free what a failure has left."""
    _free()
    try:
        yield
    finally:
        _free()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def exact() -> Iterator[None]:
    """A block in which products of float32 numbers are made in float32, not in TF32."""
    products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions


@contextmanager
def repeatable() -> Iterator[None]:
    """A block in which cuDNN adds up in a fixed order."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
