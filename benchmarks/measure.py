"""Time and memory of contenders. Each has its own process and takes turns with its baseline."""

import logging
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyro
import torch

from benchmarks.contenders import Contender, Step, Work

logger = logging.getLogger(__name__)

WARM_UP = 2
"""Steps that are not counted. The first one makes the optimiser's state; only the second has its full size."""

SHARE = 0.85
"""The share of the free memory that contenders may fill together by default."""

GIB = 2**30


class ContenderError(Exception):
    """A contender that could not be set up, or failed in a step; the message is one line."""


@dataclass
class Result:
    """The measurements of a contender.

    Attributes:
        seconds: The time of each of its steps.
        baseline_seconds: The time of the baseline's step right before each; empty for a baseline.
        peak: Peak memory of its process, GiB.
    """

    seconds: list[float] = field(default_factory=list)
    baseline_seconds: list[float] = field(default_factory=list)
    peak: float = 0.0

    @property
    def ratios(self) -> list[float]:
        """Its time divided by the baseline's, for each round; empty for a baseline."""
        return [mine / other for mine, other in zip(self.seconds, self.baseline_seconds, strict=False)]


@dataclass
class Measured:
    """A run's results, by the contenders' names.

    Attributes:
        hardware: The processor or the accelerator.
        results: The contenders that were measured.
        failed: The reasons why others were not.
    """

    hardware: str
    results: dict[str, Result]
    failed: dict[str, str]


class Worker:
    """A contender in its own process, which makes one step when asked and sleeps otherwise.

    Attributes:
        hardware: The processor or accelerator that it runs on.
        free: The free memory before it was set up, GiB.
        peak: Its peak memory so far, GiB.

    Raises:
        ContenderError: It cannot be set up.
    """

    def __init__(self, contender: Contender, work: Work):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, contender.make, work), daemon=True)
        self._process.start()
        other.close()
        self.peak = 0.0
        self.hardware, self.free = self._answer()

    def step(self) -> float:
        """Do one step and return its seconds.

        Raises:
            ContenderError: It failed.
        """
        self._pipe.send("step")
        seconds, self.peak = self._answer()
        return seconds

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise ContenderError(f"its process ended with code {self._process.exitcode} (out of memory?)") from None
        if isinstance(answer, str):
            raise ContenderError(answer)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, make: Callable[[Work], Step], work: Work) -> None:
    """The loop of a worker process: one step for each message, until it is killed."""
    # The parent process handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    # As in a fit of this package: Pyro's and torch's checks would read every weight again.
    pyro.enable_validation(False)
    on_gpu = work.device == "cuda"
    try:
        pipe.send((hardware(on_gpu), _free(on_gpu)))
        step = make(work)
        while True:
            pipe.recv()
            started = time.perf_counter()
            step()
            if on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            pipe.send((seconds, _peak(on_gpu)))
    except EOFError:
        # The parent is gone.
        return
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def hardware(on_gpu: bool) -> str:
    """The name of the processor or the accelerator."""
    if on_gpu:
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def _free(on_gpu: bool) -> float:
    if on_gpu:
        return torch.cuda.mem_get_info()[0] / GIB
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024 / GIB


def _peak(on_gpu: bool) -> float:
    if on_gpu:
        return torch.cuda.max_memory_allocated() / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def together(peaks: Mapping[str, float], memory: float) -> list[list[str]]:
    """Names in groups, in order. Each group fits into ``memory`` GiB; what is larger is a group by itself."""
    groups: list[list[str]] = []
    for name, peak in peaks.items():
        if groups and sum(peaks[other] for other in groups[-1]) + peak <= memory:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


class _Run:
    """Contenders that take turns, with baselines that run throughout."""

    def __init__(self, contenders: Mapping[str, Contender], work: Work):
        self.contenders, self.work = contenders, work
        self.results = {name: Result() for name in contenders}
        self.failed: dict[str, str] = {}
        self.baselines: dict[str, Worker] = {}

    @contextmanager
    def worker(self, name: str) -> Iterator[Worker]:
        """A worker that is set up and warm."""
        with Worker(self.contenders[name], self.work) as worker:
            for _ in range(WARM_UP):
                worker.step()
            yield worker

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """A contender that fails is left out, and the others go on."""
        try:
            yield
        except ContenderError as error:
            self.failed[name] = str(error)
            logger.warning(f"{name}: left out: {error}")

    def peaks(self, names: Sequence[str]) -> dict[str, float]:
        """The memory of each by itself, GiB. It is not measured for a single one."""
        found = dict.fromkeys(names, 0.0)
        for name in names if len(names) > 1 else ():
            logger.info(f"{name}: measuring its memory alone")
            with self.trying(name), self.worker(name) as worker:
                found[name] = worker.peak
        return {name: peak for name, peak in found.items() if name not in self.failed}

    def take_turns(self, names: Sequence[str], rounds: int) -> None:
        """In each round, for each contender, a step of its baseline and then its own."""
        logger.info(f"{', '.join(names)}: taking turns")
        with ExitStack() as living:
            workers = {}
            for name in names:
                with self.trying(name):
                    workers[name] = living.enter_context(self.worker(name))
            for _ in range(rounds):
                for name, worker in workers.items():
                    if name not in self.failed:
                        with self.trying(name):
                            self._turn(name, worker)

    def _turn(self, name: str, worker: Worker) -> None:
        baseline = self.contenders[name].baseline
        assert baseline is not None
        before = self.baselines[baseline].step()
        mine, other = self.results[name], self.results[baseline]
        mine.seconds.append(worker.step())
        mine.baseline_seconds.append(before)
        other.seconds.append(before)
        mine.peak, other.peak = worker.peak, self.baselines[baseline].peak


def measure(contenders: Mapping[str, Contender], work: Work, *, rounds: int, memory: float | None) -> Measured:
    """Measure contenders, which take turns.

    The baselines run throughout. Each other contender is first run alone, to measure its memory. Then as many as fit
    into memory take turns, each right after a step of its baseline, so that whatever slows the machine slows both.

    Args:
        contenders: By name, with their baselines.
        work: The work of each step.
        rounds: The number of steps of each that are counted.
        memory: GiB that all processes together may fill; by default most of the free memory.

    Raises:
        ContenderError: A baseline failed, or every other contender did.
    """
    # Idle processes must sleep, not spin. Workers inherit this before they import torch.
    os.environ.update(OMP_NUM_THREADS=str(work.threads), OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME="0")
    run = _Run(contenders, work)
    others = [name for name, contender in contenders.items() if contender.baseline is not None]
    with ExitStack() as living:
        for name in contenders:
            if name not in others:
                logger.info(f"{name}: setting up")
                run.baselines[name] = living.enter_context(run.worker(name))
        first, *_ = run.baselines.values()
        left = (memory or SHARE * first.free) - sum(worker.peak for worker in run.baselines.values())
        for group in together(run.peaks(others), left):
            run.take_turns(group, rounds)
    done = {name: result for name, result in run.results.items() if result.seconds and name not in run.failed}
    if not done:
        raise ContenderError("no contender could be measured")
    return Measured(first.hardware, done, run.failed)
