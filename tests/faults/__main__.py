"""The fault harness: ``python -m tests.faults [--quick] [--seed N] [--only TEXT]``; ``make faults`` runs it.

Commands are killed, told to end, run on full and read-only disks and beside each other; their inputs change between a
stop and ``--resume``; bits of every file are flipped. Each fault must be recovered from by the next command, with the
result of a run that nothing disturbed and nothing left over, or be refused in one line. A table of the counts is
printed; the exit code is 1 if one fault was not borne.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from tests.faults import cases, damage
from tests.faults.cases import Bench, Case, NotBorneError
from tests.faults.commands import COMMANDS, Home, served
from tests.harness.fork_server import ForkServer

PARTS = (0.0, 0.05, 0.15, 0.25, 0.35, 0.5, 0.65, 0.75, 0.9, 1.0)
"""The sizes of a full disk, as parts of what a command writes and a third more."""

WORKERS = 2


def planned(bench: Bench, made: dict[str, Path], mounts: bool, quick: bool) -> Iterator[tuple[str, str, Case]]:
    """The kind, the command or file, and the case itself."""
    for command in COMMANDS:
        kills = 1 if quick else command.kills
        for kind, number in (("kill -9", signal.SIGKILL), ("SIGTERM", signal.SIGTERM)):
            yield from [(kind, command.name, cases.signalled(command, number))] * kills
        for kind, number in (("Ctrl-C", signal.SIGINT), ("SIGUSR1", signal.SIGUSR1)):
            yield kind, command.name, cases.signalled(command, number)
        for part in PARTS[::3] if quick else PARTS:
            if mounts:
                yield "full disk", command.name, cases.full_disk(command, part)
            else:
                yield "limited files", command.name, cases.limited_files(command, part)
        if mounts:
            yield "read-only disk", command.name, cases.read_only(command)
    for name in damage.CHANGES:
        yield "changed before --resume", name, damage.changed(name)
    for artefact in damage.ARTEFACTS:
        flips = 4 if quick else 50
        yield from [("flipped bit", artefact.name, damage.flipped(artefact, made))] * flips


PAIRS = (
    *[("pretrain", "pretrain")] * 5,
    ("crossval", "crossval"),
    ("pack", "pack"),
    ("pack, several", "pack, several"),
    ("check-start", "calibrate"),
    ("check-start", "evaluate"),
    ("calibrate", "evaluate"),
    ("finetune, embeddings", "finetune, embeddings"),
    ("report", "calibrate"),
)


def main() -> int:
    """Run everything; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a tenth of the cases")
    parser.add_argument("--only", default="", help="only cases whose kind and name contain this text")
    given = parser.parse_args()
    started = time.monotonic()
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as place, served() as port:
        root = Path(place)
        no_disk = cases.can_mount(root)
        if no_disk:
            print(f"no full and no read-only disks: {no_disk}; limits on the size of files stand in", flush=True)
        servers: Queue[ForkServer] = Queue()
        both = [ForkServer() for _ in range(WORKERS)]
        for each in both:
            servers.put(each)
        (root / "home").mkdir()
        bench = cases.measured(both[0], Home(root / "home", both[0], port), root / "measured", COMMANDS)
        damage.measure_readers(bench, both[0], root / "measured")
        made = damage.prepare(bench, both[0], root / "made")

        def tried(number: int, kind: str, name: str, case: Case) -> None:
            folder, server = root / f"case-{number}", servers.get()
            folder.mkdir()
            try:
                borne = case(bench, server, folder, random.Random(f"{given.seed} {number}"))
            except Exception as error:
                known, borne = isinstance(error, NotBorneError), "NOT BORNE"
                failures.append(f"{kind}, {name}, case {number}: {error if known else traceback.format_exc()}")
                print(f"\n{failures[-1]}", flush=True)
            finally:
                servers.put(server)
                shutil.rmtree(folder, ignore_errors=True)
            counts[kind, name][borne] += 1

        wanted = list(planned(bench, made, not no_disk, given.quick))
        with ThreadPoolExecutor(WORKERS) as pool:
            for number, (kind, name, case) in enumerate(wanted):
                if given.only in f"{kind}, {name}":
                    pool.submit(tried, number, kind, name, case)
        for number, (first, second) in enumerate(PAIRS[4:] if given.quick else PAIRS, len(wanted)):
            if given.only in f"two at once, {first}, {second}":
                pair = cases.together(cases.by_name(first), cases.by_name(second))
                name = f"{first} and {second}"
                tried(number, "two at once", name, lambda bench, server, *rest, p=pair: p(bench, *both, *rest))
        for each in both:
            each.close()
    _print(counts)
    total = sum(sum(each.values()) for each in counts.values())
    print(f"\n{total} faults, {len(failures)} not borne, {time.monotonic() - started:.0f} s, seed {given.seed}")
    return 1 if failures else 0


def _print(counts: dict[tuple[str, str], "Counter[str]"]) -> None:
    """One row a kind and a command: how often each fault was borne in which way."""
    wide = max((len(name) for _, name in counts), default=0)
    last = ""
    for (kind, name), each in counts.items():
        if kind != last:
            print(f"\n{kind}")
            last = kind
        found = ", ".join(f"{number} {how}" for how, number in sorted(each.items()))
        print(f"  {name.ljust(wide)}  {sum(each.values()):3}: {found}")


def _in_namespace() -> None:
    """Become root of a user namespace of its own, where that is allowed, so that disks can be made."""
    if os.name != "posix" or os.geteuid() == 0 or "FAULTS_NAMESPACE" in os.environ:
        return
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return
    if allowed:
        os.environ["FAULTS_NAMESPACE"] = "1"
        os.execvp(command[0], [*command, sys.executable, "-m", "tests.faults", *sys.argv[1:]])


if __name__ == "__main__":
    _in_namespace()
    sys.exit(main())
