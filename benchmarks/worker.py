"""A contender in a process of its own, under the same conditions as every other."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyro
import torch

from benchmarks.contenders import Contender, Step, Work

GIB = 2**30

LEAST_WARM_UP, MOST_WARM_UP = 2, 6
"""Steps that are not counted. The first one makes the optimiser's state; only the second has its full size."""

FRESH = 0.01
"""A contender is warm when a step takes less new memory from the system than this share of its peak."""

_POLL = 0.2
"""Seconds between two looks at a worker that has not answered."""


class ContenderError(Exception):
    """A contender that could not be set up, or failed in a step; the message is one line."""


class NoRoomError(ContenderError):
    """A contender that does not fit into memory beside those already there."""


class OutOfTimeError(ContenderError):
    """A contender that had not answered when the time limit was over."""


class Times(NamedTuple):
    """The seconds of one step.

    Attributes:
        wall: Of the clock.
        cpu: Of all threads of the process together.
    """

    wall: float
    cpu: float


class _Answer(NamedTuple):
    times: Times
    fresh: float
    peak: float


@contextmanager
def environment(threads: int) -> Iterator[None]:
    """What workers started in this block inherit before they import torch. It is put back at the end.

    Args:
        threads: OpenMP's threads in each.
    """
    wanted = {
        "OMP_NUM_THREADS": str(threads),
        # Idle threads must sleep: spinning slows whoever else works, and would count as CPU time.
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        # glibc keeps all that is freed. By default it gives large tensors back to the system at once and takes them
        # again, zeroed page by page, in the next step: a quarter of a training step, and its least steady part.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**60),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Worker:
    """A contender in its own process, which makes one step when asked and sleeps otherwise.

    Attributes:
        hardware: The processor or accelerator that it runs on, once it is warm.
        free: The free memory before it was set up, GiB, once it is warm.
        peak: Its peak memory so far, GiB.
        last: The wall time of its last step, in seconds.

    Args:
        contender: What it runs.
        work: The work of a step.
        watch: Called again and again while it works; what it raises ends the waiting, and the worker is of no more use.
    """

    def __init__(self, contender: Contender, work: Work, watch: Callable[[], None]):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, contender.make, work), daemon=True)
        self._process.start()
        other.close()
        self._watch, self._on_gpu = watch, work.device == "cuda"
        self.hardware, self.free, self.peak, self.last = "", 0.0, 0.0, 0.0

    def warm(self) -> None:
        """Set it up, and make steps until they need no new memory: at least 2, at most 6.

        Raises:
            ContenderError: It cannot be set up, or failed in a step.
        """
        self.hardware, self.free = self._answer()
        for done in range(1, MOST_WARM_UP + 1):
            fresh = self._step().fresh
            self._watch()
            if done >= LEAST_WARM_UP and fresh < FRESH * self.peak:
                return

    def step(self) -> Times:
        """Do one step and return what it took.

        Raises:
            ContenderError: It failed.
        """
        return self._step().times

    @property
    def held(self) -> float:
        """The memory that it holds now, GiB; on a GPU its peak so far."""
        if self._on_gpu:
            return self.peak
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            # It has ended.
            return 0.0
        return pages * resource.getpagesize() / GIB

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _step(self) -> _Answer:
        try:
            self._pipe.send("step")
        except OSError:
            self._ended()
        answer: _Answer = self._answer()
        self.peak, self.last = answer.peak, answer.times.wall
        return answer

    def _answer(self) -> Any:
        while not self._pipe.poll(_POLL):
            self._watch()
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._ended()
        if isinstance(answer, ContenderError):
            raise answer
        return answer

    def _ended(self) -> None:
        self._process.join()
        raise ContenderError(f"its process ended with code {self._process.exitcode} (out of memory?)") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


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
            pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            started, worked = time.perf_counter(), time.process_time()
            step()
            if on_gpu:
                torch.cuda.synchronize()
            times = Times(time.perf_counter() - started, time.process_time() - worked)
            pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - pages
            pipe.send(_Answer(times, pages * resource.getpagesize() / GIB, _peak(on_gpu)))
    except EOFError:
        # The parent is gone.
        return
    except Exception as error:
        kind = NoRoomError if isinstance(error, torch.OutOfMemoryError) else ContenderError
        pipe.send(kind(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"))


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
