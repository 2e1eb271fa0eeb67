"""Time and memory of contenders, which take turns until their ratios to their baselines are known well enough."""

import logging
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.contenders import Contender, Work
from benchmarks.ratios import settled
from benchmarks.worker import ContenderError, NoRoomError, OutOfTimeError, Times, Worker, environment

logger = logging.getLogger(__name__)

SHARE = 0.85
"""The share of the free memory that contenders may fill together by default."""

LEAD = 4
"""A contender sits out a round while it has used this many times the time of the one that has used least."""

SEED = 0
"""Of the order of turns."""


@dataclass(frozen=True)
class Plan:
    """When to stop.

    Attributes:
        rounds: The least number of rounds of a contender.
        most: The largest number, settled or not.
        minutes: The time limit of the whole run, with all setting up.
        memory: GiB that the processes alive together may fill; ``None`` for most of what is free.
    """

    rounds: int
    most: int
    minutes: float
    memory: float | None = None


@dataclass
class Result:
    """The measurements of a contender.

    Attributes:
        steps: The times of each of its steps.
        baseline_steps: Those of the baseline's step in the same round; empty for a baseline.
        peak: Peak memory of its process, GiB.
    """

    steps: list[Times] = field(default_factory=list)
    baseline_steps: list[Times] = field(default_factory=list)
    peak: float = 0.0

    def ratios(self, clock: str) -> list[float]:
        """Its time divided by the baseline's, for each round; empty for a baseline.

        Args:
            clock: ``wall`` or ``cpu``.
        """
        pairs = zip(self.steps, self.baseline_steps, strict=False)
        return [getattr(mine, clock) / getattr(other, clock) for mine, other in pairs]

    def of_minima(self, clock: str) -> float:
        """Its least time divided by the baseline's least, over the same rounds; arguments as for :meth:`ratios`."""
        mine, other = ([getattr(times, clock) for times in each] for each in (self.steps, self.baseline_steps))
        return min(mine) / min(other)

    def settled(self, clocks: tuple[str, ...]) -> bool:
        """Whether the median of its ratios is known well enough on each of the clocks."""
        return all(settled(self.ratios(clock)) for clock in clocks)


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


def clocks(work: Work) -> tuple[str, ...]:
    """The clocks whose ratios must settle. On a GPU the CPU only waits."""
    return ("wall",) if work.device == "cuda" else ("wall", "cpu")


class _Run:
    """Contenders that take turns, with baselines that run throughout."""

    def __init__(self, contenders: Mapping[str, Contender], work: Work, plan: Plan):
        self.contenders, self.work, self.plan = contenders, work, plan
        self.results = {name: Result() for name in contenders}
        self.failed: dict[str, str] = {}
        self.alive: dict[str, Worker] = {}
        self.memory = plan.memory
        self.joining = False
        self.ends = time.monotonic() + 60 * plan.minutes
        self.order = random.Random(SEED)

    def watch(self) -> None:
        """Called while a worker works.

        Raises:
            OutOfTimeError: The time limit is over.
            NoRoomError: A worker that is being set up fills more memory than is left to it.
        """
        if time.monotonic() > self.ends:
            raise OutOfTimeError(f"the time limit of {self.plan.minutes:g} minutes was over before it had answered")
        if self.joining and self.memory is not None:
            held = sum(worker.held for worker in self.alive.values())
            if held > self.memory:
                raise NoRoomError(
                    f"needs more memory than the {self.memory:.1f} GiB that it may fill with its baselines"
                )

    def start(self, name: str, living: ExitStack) -> None:
        """A worker that is set up and warm joins those alive; it is closed with ``living``, or at once if it fails."""
        logger.info(f"{name}: setting up")
        worker = living.enter_context(Worker(self.contenders[name], self.work, self.watch))
        self.alive[name] = worker
        living.callback(self.alive.pop, name, None)
        self.joining = True
        try:
            worker.warm()
        except ContenderError:
            del self.alive[name]
            worker.close()
            raise
        finally:
            self.joining = False
        if self.memory is None:
            self.memory = SHARE * worker.free
        self.results[name].peak = worker.peak

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """A contender that fails is left out, and the others go on."""
        try:
            yield
        except OutOfTimeError:
            # What it has done so far counts.
            self.alive.pop(name).close()
        except ContenderError as error:
            self.leave_out(name, error)

    def leave_out(self, name: str, error: ContenderError) -> None:
        """Say why there is no result."""
        self.failed[name] = str(error)
        logger.warning(f"{name}: left out: {error}")

    def group(self, waiting: list[str], living: ExitStack) -> list[str]:
        """Set up those that are next and fit into memory together, and take them off the list."""
        names: list[str] = []
        while waiting:
            name = waiting[0]
            try:
                self.start(name, living)
                names.append(name)
            except ContenderError as error:
                if names and isinstance(error, NoRoomError):
                    logger.info(f"{name}: does not fit beside the others; it comes later")
                    break
                self.leave_out(name, error)
            waiting.pop(0)
        return names

    def take_turns(self, names: list[str], ends: float) -> None:
        """Rounds of the contenders in random order, until all are settled or a further turn would last too long."""
        used = dict.fromkeys(names, 0.0)
        while going := [name for name in names if self.goes_on(name, ends)]:
            least = min(used[name] for name in going)
            round_ = [name for name in going if used[name] <= LEAD * least]
            self.order.shuffle(round_)
            for name in round_:
                if self.goes_on(name, ends):
                    with self.trying(name):
                        used[name] += self.turn(name)

    def goes_on(self, name: str, ends: float) -> bool:
        """Whether a contender takes another turn, given that it takes as long as the last."""
        if name in self.failed or name not in self.alive:
            return False
        result = self.results[name]
        done = len(result.steps)
        if done >= self.plan.most or (done >= self.plan.rounds and result.settled(clocks(self.work))):
            return False
        return time.monotonic() + self.alive[name].last + self.alive[self.baseline(name)].last <= ends

    def baseline(self, name: str) -> str:
        """A contender's baseline."""
        baseline = self.contenders[name].baseline
        assert baseline is not None
        return baseline

    def turn(self, name: str) -> float:
        """A step of a contender and one of its baseline, in random order; returns the wall time of both, in seconds."""
        pair = [self.alive[name], self.alive[self.baseline(name)]]
        times = {worker: worker.step() for worker in self.order.sample(pair, 2)}
        mine, other = (times[worker] for worker in pair)
        result = self.results[name]
        result.steps.append(mine)
        result.baseline_steps.append(other)
        result.peak = pair[0].peak
        baseline = self.results[self.baseline(name)]
        baseline.steps.append(other)
        baseline.peak = pair[1].peak
        return mine.wall + other.wall

    def measured(self, hardware: str) -> Measured:
        """What the run has found out.

        Raises:
            ContenderError: No contender could be measured.
        """
        for name, result in self.results.items():
            if name not in self.failed and self.contenders[name].baseline is not None and not result.steps:
                self.failed[name] = "the time limit left no round for it"
        done = {name: result for name, result in self.results.items() if result.steps and name not in self.failed}
        if not done:
            raise ContenderError("no contender could be measured")
        return Measured(hardware, done, self.failed)


def measure(contenders: Mapping[str, Contender], work: Work, plan: Plan) -> Measured:
    """Measure contenders, which take turns.

    The baselines run throughout. As many others as fit into memory take turns in rounds; then come the next. A turn is
    a step of the contender and one of its baseline, in random order, so that whatever slows the machine slows both. A
    contender stops when the median ratio of its rounds is known well enough, see :mod:`benchmarks.ratios`.

    Args:
        contenders: By name, with their baselines.
        work: The work of each step.
        plan: When to stop.

    Raises:
        ContenderError: A baseline could not be set up, or every other contender failed.
    """
    run = _Run(contenders, work, plan)
    waiting = [name for name, contender in contenders.items() if contender.baseline is not None]
    with environment(work.threads), ExitStack() as baselines:
        for name, contender in contenders.items():
            if contender.baseline is None:
                run.start(name, baselines)
        hardware = next(iter(run.alive.values())).hardware
        while waiting:
            with ExitStack() as living:
                names = run.group(waiting, living)
                if names:
                    logger.info(f"{', '.join(names)}: taking turns")
                    now = time.monotonic()
                    # Those that still wait get their share of the time.
                    run.take_turns(names, now + (run.ends - now) * len(names) / (len(names) + len(waiting)))
    return run.measured(hardware)
