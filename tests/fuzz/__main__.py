"""Run damaged files of every kind through the commands, and print what came out.

python -m tests.fuzz                              2,400 inputs
python -m tests.fuzz --kind wav --inputs 100      100 of one kind
python -m tests.fuzz --kind wav --seed 17         one input again, in full
python -m tests.fuzz --hostile                    the files made to harm, alone
python -m tests.fuzz --quick                      150 inputs in one process, as in `make test`
"""

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.together import Together
    from tests.harness.fork_server import ForkServer


def main() -> int:
    options = _options()
    # Before torch is imported, here and in the workers.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("MPLBACKEND", "agg")
    with _folder(options.work) as work:
        home = _material(work)
        if options.seed is not None and options.inputs is None:
            return _one(options, home, work)
        return _all(options, home, work)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Run damaged files through the commands.")
    parser.add_argument("--kind", action="append", default=[], help="only this kind; repeatable")
    parser.add_argument("--inputs", type=int, help="how many [2400]")
    parser.add_argument("--seed", type=int, help="the first seed of each kind [0]; without --inputs, this input alone")
    parser.add_argument("--mutations", help="of that input, only these of its mutations, counted from 0")
    parser.add_argument(
        "--quick", action="store_true", help="150 inputs of quick kinds, and good files, in one process"
    )
    parser.add_argument("--hostile", action="store_true", help="only the files made to harm")
    parser.add_argument("--jobs", type=int, default=2, help="processes [2]")
    parser.add_argument("--work", type=Path, help="a folder to keep the files in [a temporary one]")
    parser.add_argument("--failures", type=Path, help="where to keep inputs that fail [WORK/failures]")
    return parser.parse_args()


@contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        yield Path(folder)


def _material(work: Path) -> Path:
    """The good files, made by the package as it is now."""
    import logging

    from tests.fuzz import material

    logging.getLogger("bayes_panns").setLevel(logging.ERROR)
    home = work / "material"
    shutil.rmtree(home, ignore_errors=True)
    material.make(home)
    return home


def _one(options: argparse.Namespace, home: Path, work: Path) -> int:
    """Run one input and show everything; it stays in ``work`` where that was named."""
    from tests.fuzz.inputs import Input, attempt
    from tests.fuzz.kinds import KINDS
    from tests.harness.fork_server import ForkServer

    keep = None if options.mutations is None else tuple(map(int, options.mutations.split(",")))
    with ForkServer() as server:
        outcome = attempt(Input(KINDS[options.kind[0]], options.seed, keep), server, home, work / "input")
    print(f"mutations  {', '.join(outcome.names)}\ncommand    bayes-panns {' '.join(outcome.command)}")
    print(f"exit code  {outcome.result.returncode}, {outcome.result.seconds:.2f} s, ", end="")
    print(f"{outcome.result.peak_bytes >> 20} MB\n--- stdout\n{outcome.result.stdout[:5000]}")
    print(f"--- stderr\n{outcome.result.stderr[:20000]}\n---\n{'; '.join(outcome.faults) or 'nothing is wrong'}")
    return int(bool(outcome.faults))


def _all(options: argparse.Namespace, home: Path, work: Path) -> int:
    from tests.fuzz.hostile import CHEAP, HOSTILE
    from tests.fuzz.inputs import shares
    from tests.fuzz.kinds import KINDS

    if unknown := [name for name in options.kind if name not in KINDS]:
        sys.exit(f"no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    inputs = options.inputs or (150 if options.quick else 2400)
    counts = {} if options.hostile else shares(inputs, home, quick=options.quick, kinds=options.kind)
    first = options.seed or 0
    tasks = [(name, first + index) for name, count in counts.items() for index in range(count)]
    if not options.kind:
        tasks += [("hostile", index) for index, name in enumerate(HOSTILE) if name in CHEAP or not options.quick]
    failures = options.failures or work / "failures"
    print(f"{len(tasks)} inputs, seeds from {first}", flush=True)
    started, done, failed, slowest = time.monotonic(), Counter(), Counter(), Counter()
    for kind, code, seconds, text in (_in_turn if options.quick else _at_once)(
        tasks, options.jobs, home, work, failures
    ):
        done[kind, "ok" if code in (0, 3) else "refused"] += 1
        slowest[kind] = max(slowest[kind], seconds)
        if text:
            failed[kind] += 1
            print(text, flush=True)
        if (ended := done.total()) % 200 == 0:
            print(f"{ended} inputs after {time.monotonic() - started:.0f} s", flush=True)
    print(_table(done, failed, slowest))
    print(f"{len(tasks)} inputs in {time.monotonic() - started:.0f} s, {sum(failed.values())} failures")
    return int(bool(failed))


_End = tuple[str, int, float, str]
"""How an input ended: its kind, the exit code, seconds, and what to say of a failure."""


def _in_turn(tasks: Sequence[tuple[str, int]], jobs: int, home: Path, work: Path, failures: Path) -> Iterator[_End]:
    """Run the inputs in this process."""
    from tests.fuzz.together import Together

    server = Together(work)
    for name, seed in tasks:
        # What crashes this process is the last one named.
        (work / "last").write_text(f"{name} {seed}")
        yield _run(name, seed, server, home, work / "input", failures)


def _at_once(tasks: Sequence[tuple[str, int]], jobs: int, home: Path, work: Path, failures: Path) -> Iterator[_End]:
    """Run the inputs in processes of their own, ``jobs`` at a time."""
    with _servers(jobs) as servers, ThreadPoolExecutor(jobs) as pool:
        ends = [pool.submit(_work, name, seed, servers, home, work, failures) for name, seed in tasks]
        for end in as_completed(ends):
            yield end.result()


@contextmanager
def _servers(count: int) -> Iterator[SimpleQueue]:
    """Fork servers, of which each input takes one."""
    from tests.harness.fork_server import ForkServer

    with ExitStack() as stack:
        servers: SimpleQueue = SimpleQueue()
        for _ in range(count):
            servers.put(stack.enter_context(ForkServer()))
        yield servers


def _work(name: str, seed: int, servers: SimpleQueue, home: Path, work: Path, failures: Path) -> _End:
    server = servers.get()
    try:
        return _run(name, seed, server, home, work / f"input-{threading.get_ident()}", failures)
    finally:
        servers.put(server)


def _run(name: str, seed: int, server: "ForkServer | Together", home: Path, folder: Path, failures: Path) -> _End:
    from tests.fuzz.hostile import run_hostile
    from tests.fuzz.inputs import Input, attempt, smaller
    from tests.fuzz.kinds import KINDS

    if name == "hostile":
        return name, *run_hostile(seed, server, home, folder)
    outcome = attempt(Input(KINDS[name], seed), server, home, folder)
    if outcome.result.timed_out:
        # A machine that is busy with other things is no hang.
        outcome = attempt(Input(KINDS[name], seed), server, home, folder)
    result = outcome.result
    if not outcome.faults:
        return name, result.returncode, result.seconds, ""
    if len(outcome.names) > 1 and result.seconds < 3:
        outcome = smaller(outcome, server, home, folder)
        outcome = attempt(outcome.source, server, home, folder)
    kept = failures / f"{name}-{seed}"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept, symlinks=True)
    kept.with_suffix(".txt").write_text(outcome.result.stderr, encoding="utf-8", errors="replace")
    text = (
        f"FAILED {outcome.source.replay}\n       {', '.join(outcome.names)}: bayes-panns {' '.join(outcome.command)}\n"
        f"       {'; '.join(outcome.faults)}"
    )
    return name, result.returncode, result.seconds, text


def _table(done: Counter, failed: Counter, slowest: Counter) -> str:
    rows = [("kind", "inputs", "ok", "refused", "failures", "slowest")]
    for kind in dict.fromkeys(kind for kind, _ in done):
        ok, refused = done[kind, "ok"], done[kind, "refused"]
        rows.append((kind, str(ok + refused), str(ok), str(refused), str(failed[kind]), f"{slowest[kind]:.1f} s"))
    ok, refused = (sum(count for (_, end), count in done.items() if end == word) for word in ("ok", "refused"))
    rows.append(("all", str(ok + refused), str(ok), str(refused), str(sum(failed.values())), ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_row(row, widths) for row in rows)


def _row(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
    )


if __name__ == "__main__":
    sys.exit(main())
