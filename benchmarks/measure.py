"""Time and memory of contenders, each in a process of its own, taking turns with their baselines."""

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

WARM_UP = 2
"""Steps that are not counted: the first makes the optimiser's state, so the second is the first of full size."""

SHARE = 0.85
"""How much of the free memory contenders may fill together, unless the user says how much."""

GIB = 2**30


class ContenderError(Exception):
    """A contender that could not be set up, or failed in a step; the message is one line."""


@dataclass
class Result:
    """What was measured of a contender.

    Attributes:
        seconds: The time of each of its steps.
        baseline_seconds: The time of the baseline's step right before each; empty for a baseline.
        peak: Most memory that its process held, GiB.
    """

    seconds: list[float] = field(default_factory=list)
    baseline_seconds: list[float] = field(default_factory=list)
    peak: float = 0.0

    @property
    def ratios(self) -> list[float]:
        """Its time over the baseline's, round by round; none for a baseline."""
        return [mine / other for mine, other in zip(self.seconds, self.baseline_seconds, strict=False)]


@dataclass
class Measured:
    """A run's results, by the contenders' names.

    Attributes:
        hardware: The processor or the accelerator.
        results: Those that were measured.
        failed: Why others were not.
    """

    hardware: str
    results: dict[str, Result]
    failed: dict[str, str]


class Worker:
    """A contender in a process of its own, which does one step when asked and sleeps otherwise.

    Attributes:
        hardware: What it computes on.
        free: The memory that was free there before it was set up, GiB.
        peak: Most memory that it has held so far, GiB.

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
    """What a worker process runs: a step for each message, until it is killed."""
    # Ctrl-C is the parent's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    # As in a fit of this package: Pyro's and torch's checks would read every weight again.
    pyro.enable_validation(False)
    on_gpu = work.device == "cuda"
    try:
        pipe.send((_hardware(on_gpu), _free(on_gpu)))
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


def _hardware(on_gpu: bool) -> str:
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


def together(peaks: Mapping[str, float], room: float) -> list[list[str]]:
    """Names in groups, in order, each of which fits ``room`` GiB; what is larger than that is a group by itself."""
    groups: list[list[str]] = []
    for name, peak in peaks.items():
        if groups and sum(peaks[other] for other in groups[-1]) + peak <= room:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


class _Run:
    """Contenders that take turns, the baselines alive all the while."""

    def __init__(self, contenders: Mapping[str, Contender], work: Work, say: Callable[[str], None]):
        self.contenders, self.work, self.say = contenders, work, say
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
            self.say(f"{name}: left out: {error}")

    def peaks(self, names: Sequence[str]) -> dict[str, float]:
        """The memory that each needs by itself, GiB; one alone need not be asked."""
        found = dict.fromkeys(names, 0.0)
        for name in names if len(names) > 1 else ():
            self.say(f"{name}: its memory, by itself")
            with self.trying(name), self.worker(name) as worker:
                found[name] = worker.peak
        return {name: peak for name, peak in found.items() if name not in self.failed}

    def take_turns(self, names: Sequence[str], rounds: int) -> None:
        """In each round, for each contender, a step of its baseline and then its own."""
        self.say(f"{', '.join(names)}: taking turns")
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


def measure(
    contenders: Mapping[str, Contender], work: Work, *, rounds: int, memory: float | None, say: Callable[[str], None]
) -> Measured:
    """Measure contenders, which take turns.

    The baselines live all the while. Each other contender is first run by itself, to see what memory it needs; then as
    many as fit live together and take turns, each right after a step of its baseline, so that what slows the machine
    down slows both.

    Args:
        contenders: By name, with their baselines.
        work: What all are given.
        rounds: How many steps of each are counted.
        memory: GiB that all living processes may fill; by default most of what is free.
        say: Called with a line when something is done.

    Raises:
        ContenderError: A baseline failed, or every other contender did.
    """
    # Idle processes must sleep, not spin. Workers inherit this before they import torch.
    os.environ.update(OMP_NUM_THREADS=str(work.threads), OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME="0")
    run = _Run(contenders, work, say)
    others = [name for name, contender in contenders.items() if contender.baseline is not None]
    with ExitStack() as living:
        for name in contenders:
            if name not in others:
                say(f"{name}: setting up")
                run.baselines[name] = living.enter_context(run.worker(name))
        first, *_ = run.baselines.values()
        room = (memory or SHARE * first.free) - sum(worker.peak for worker in run.baselines.values())
        for group in together(run.peaks(others), room):
            run.take_turns(group, rounds)
    done = {name: result for name, result in run.results.items() if result.seconds and name not in run.failed}
    if not done:
        raise ContenderError("no contender could be measured")
    return Measured(first.hardware, done, run.failed)
