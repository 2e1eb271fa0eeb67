"""One turn of a contender, in a process of its own."""

import json
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.loader.contenders import CONTENDERS
from benchmarks.loader.material import Forgetting, forget, places_of, remember, resident


@dataclass(frozen=True)
class Spec:
    """What a turn does.

    Attributes:
        contender: Its name.
        store: The store.
        workers: How many processes read.
        batch: Clips a batch.
        cold: Whether the files are put out of the page cache before, and each clip again once it has been read.
        seconds: How long to read at most, from the first batches on.
        memory: Whether memory is watched.
    """

    contender: str
    store: str
    workers: int
    batch: int
    cold: bool
    seconds: float
    memory: bool = False


@dataclass(frozen=True)
class Turn:
    """What a turn has found.

    Attributes:
        rate: Clips a second.
        clips: How many were timed.
        first: Seconds to the first batch.
        resident: The share of the files that was in the page cache before.
        left: The share of them that was there at the end.
        memory: Seconds, and the MiB of all processes at that time (PSS: shared pages are shared out), and how many
            clips had been read.
    """

    rate: float
    clips: int
    first: float
    resident: float
    left: float
    memory: list[tuple[float, float, int]]


def run(spec: Spec) -> Turn:
    """Read until the time or the clips are over."""
    store, contender = Path(spec.store), CONTENDERS[spec.contender]
    files = sorted(store.with_suffix(".shards").glob("*.tar")) if spec.contender == "webdataset" else [store]
    # It reads the files, so it comes before they are put out of the page cache.
    forgetting = Forgetting(places_of(store, files if files != [store] else ())) if spec.cold else None
    there = [(forget if spec.cold else remember)(path) for path in files]
    watch = _Watch() if spec.memory else None
    started = begun = ended = time.perf_counter()
    first, timed = 0.0, 0
    # What has been read before the first batch is taken does not count.
    skipped = 1 if contender.alone else 1 + 2 * spec.workers
    for number, (values, _, clips) in enumerate(contender.make(store, spec.workers, spec.batch)):
        ended = time.perf_counter()
        if number == 0:
            first = ended - started
        if watch is not None:
            watch.clips += len(values)
        if forgetting is not None:
            forgetting.add(clips)
        if number < skipped:
            begun = ended
            continue
        timed += len(values)
        if ended - begun > spec.seconds:
            break
    curve = [] if watch is None else watch.end()
    if forgetting is not None:
        forgetting.end()
    left = sum(map(resident, files)) / len(files)
    return Turn(timed / max(ended - begun, 1e-9), timed, first, sum(there) / len(there), left, curve)


class _Watch:
    """Looks at the memory of this process and those that it has started."""

    def __init__(self) -> None:
        self.clips, self._curve, self._over = 0, list[tuple[float, float, int]](), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        started = time.perf_counter()
        while not self._over.wait(0.25):
            self._curve.append((round(time.perf_counter() - started, 2), round(_memory(os.getpid()), 1), self.clips))

    def end(self) -> list[tuple[float, float, int]]:
        self._over.set()
        self._thread.join()
        return self._curve


def _memory(process: int) -> float:
    """The PSS of a process and its children, in MiB."""
    found, folder = 0.0, Path(f"/proc/{process}")
    try:
        lines = (folder / "smaps_rollup").read_text().splitlines()
        found = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        children = [int(each) for task in folder.glob("task/*/children") for each in task.read_text().split()]
    except OSError:
        return found
    return found + sum(map(_memory, children))


def main(spec: str) -> None:
    """Run a turn and print what it has found.

    Args:
        spec: A :class:`Spec` as JSON.
    """
    print(json.dumps(asdict(run(Spec(**json.loads(spec))))), flush=True)
