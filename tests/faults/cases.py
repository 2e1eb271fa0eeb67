"""The faults: each is a function that disturbs a command, and says how it was borne."""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.commands import COMMANDS, Command, Home, require
from tests.faults.content import content, leftovers
from tests.harness.fork_server import ForkServer, Result

HANGS = 300
"""Seconds after which a command counts as hanging."""


ENDED = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}
"""The exit codes after signals."""


class NotBorneError(Exception):
    """A fault that was not borne: what is wrong."""


@dataclass(frozen=True)
class Bench:
    """What a case needs.

    Attributes:
        home: The inputs.
        wanted: What each command writes if nothing disturbs it, by its name.
        seconds: How long it takes then.
        sizes: The bytes of what it writes.
    """

    home: Home
    wanted: dict[str, Any]
    seconds: dict[str, float]
    sizes: dict[str, int]


Case = Callable[[Bench, ForkServer, Path, random.Random], str]
"""A case, in an empty folder; returns how the fault was borne, or raises :class:`NotBorneError`."""


def measured(server: ForkServer, home: Home, folder: Path, commands: Iterable[Command]) -> Bench:
    """Every command, undisturbed: what it writes and how long it takes."""
    bench = Bench(home, {}, {}, {"home": size_of(home.folder)})
    for command in commands:
        measure(bench, server, command, home.copy(folder / command.name))
    return bench


def measure(bench: Bench, server: ForkServer, command: Command, place: Path) -> None:
    """One command, undisturbed, in a folder that is removed afterwards."""
    before = size_of(place)
    result = require(bench.home.run(server, command.args, place, timeout=HANGS))
    bench.wanted[command.name] = content(place / command.output)
    bench.seconds[command.name] = result.seconds
    bench.sizes[command.name] = max(size_of(place) - before, 100_000)
    shutil.rmtree(place)


def size_of(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def one_line(result: Result, *codes: int) -> None:
    """Check that a command failed in one line, with one of the exit codes."""
    if result.timed_out:
        raise NotBorneError(f"hangs: no end in {HANGS} s")
    if result.traceback or result.returncode not in codes:
        raise NotBorneError(f"exit code {result.returncode}: {result.stderr[-1500:]}")
    told = [line for line in result.stderr.splitlines() if line.startswith(("bayes-panns: ", "Error: "))]
    # What `inspect --verify` finds is its result.
    told += [line for line in result.stdout.splitlines() if ": damaged: " in line]
    if result.returncode in (1, 2) and len(told) != 1:
        raise NotBorneError(f"{len(told)} lines of errors: {result.stderr[-1500:]}")


def recovered(bench: Bench, server: ForkServer, command: Command, folder: Path, args: tuple[str, ...]) -> None:
    """Check that the next command ends well, with the result of an undisturbed one, and nothing is left over."""
    result = bench.home.run(server, args, folder, timeout=HANGS)
    if result.returncode != 0 or result.timed_out:
        raise NotBorneError(f"the next command: exit code {result.returncode}: {result.stderr[-1500:]}")
    compare(bench, command, folder)
    if left := [each for each in leftovers(folder) if each != "tmp"]:
        raise NotBorneError(f"left over: {', '.join(left)}")


def compare(bench: Bench, command: Command, folder: Path) -> None:
    """Check that the output is that of an undisturbed command."""
    found, wanted = content(folder / command.output), bench.wanted[command.name]
    if found != wanted:
        raise NotBorneError(f"another result: {_difference(wanted, found)}")


def _difference(wanted: Any, found: Any) -> str:
    if isinstance(wanted, dict) and isinstance(found, dict):
        names = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
        return f"{names[0]}: {_difference(wanted.get(names[0]), found.get(names[0]))}"
    return f"{str(wanted)[:300]} became {str(found)[:300]}"


def signalled(command: Command, number: int) -> Case:
    """The command is sent a signal at a random moment, and run again."""

    def case(bench: Bench, server: ForkServer, folder: Path, random: random.Random) -> str:
        bench.home.copy(folder)
        after = random.uniform(0, bench.seconds[command.name])
        result = bench.home.run(server, command.args, folder, timeout=HANGS, signals=[(after, number)])
        ended = (ENDED[number], 0)
        if result.traceback or result.timed_out or result.returncode not in ended:
            # Before its first line and after its last, a process has no handler of its own.
            early = result.returncode in (-number, 1) and after < 0.3 and "Traceback" not in result.stderr
            late = result.returncode == -number and content(folder / command.output) == bench.wanted[command.name]
            if not (early or late):
                raise NotBorneError(f"exit code {result.returncode} after {after:.2f} s: {result.stderr[-1500:]}")
        # A file that is there is a whole one.
        content(folder / command.output)
        recovered(bench, server, command, folder, command.again(folder))
        return "finished before" if result.returncode == 0 else "recovered"

    return case


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes at ``folder``."""
    _mount("-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        with suppress(subprocess.CalledProcessError):
            _mount("-o", "remount,rw", str(folder))
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def full_disk(command: Command, part: float) -> Case:
    """The disk has room for a part of what the command writes; then it is given more."""

    def case(bench: Bench, server: ForkServer, folder: Path, random: random.Random) -> str:
        if bench.sizes["home"] > 64 << 20:
            raise NotBorneError("the inputs are too large for a small disk")
        room = int(part * 1.3 * bench.sizes[command.name])
        with small_disk(folder, 1 << 30):
            bench.home.copy(folder)
            (folder / "tmp").mkdir(exist_ok=True)
            before = content(folder / command.output)
            used = shutil.disk_usage(folder).used
            _mount("-o", f"remount,size={max(used + room, 4096)}", str(folder))
            result = bench.home.run(server, command.args, folder, timeout=HANGS)
            one_line(result, 0, 1)
            if result.returncode == 0:
                compare(bench, command, folder)
            elif not command.resumes and content(folder / command.output) != before:
                raise NotBorneError("what was there has changed")
            _mount("-o", "remount,size=1g", str(folder))
            recovered(bench, server, command, folder, command.again(folder))
        return "had room" if result.returncode == 0 else "refused"

    return case


def read_only(command: Command) -> Case:
    """The disk cannot be written; then it can."""

    def case(bench: Bench, server: ForkServer, folder: Path, random: random.Random) -> str:
        with small_disk(folder, 1 << 30):
            bench.home.copy(folder)
            (folder / "tmp").mkdir(exist_ok=True)
            _mount("-o", "remount,ro", str(folder))
            one_line(bench.home.run(server, command.args, folder, timeout=HANGS), 1)
            _mount("-o", "remount,rw", str(folder))
            recovered(bench, server, command, folder, command.args)
        return "refused"

    return case


def limited_files(command: Command, part: float) -> Case:
    """A weaker stand-in for a full disk: no file may be larger than a part of what the command writes."""

    def case(bench: Bench, server: ForkServer, folder: Path, random: random.Random) -> str:
        bench.home.copy(folder)
        limit = int(part * bench.sizes[command.name])
        result = bench.home.run(server, command.args, folder, timeout=HANGS, file_size=limit)
        one_line(result, 0, 1)
        recovered(bench, server, command, folder, command.again(folder))
        return "had room" if result.returncode == 0 else "refused"

    return case


def together(first: Command, second: Command) -> Callable[[Bench, ForkServer, ForkServer, Path, random.Random], str]:
    """Two commands at once in one folder: both end well, or one of them is refused; the result is a whole one."""

    def case(bench: Bench, server: ForkServer, other: ForkServer, folder: Path, random: random.Random) -> str:
        bench.home.copy(folder)
        with ThreadPoolExecutor(2) as pool:
            runs = [
                pool.submit(bench.home.run, each, command.args, folder, timeout=2 * HANGS)
                for each, command in ((server, first), (other, second))
            ]
            results = [run.result() for run in runs]
        for result in results:
            one_line(result, 0, 1)
        refused = [result for result in results if result.returncode == 1]
        if len(refused) == 2:
            raise NotBorneError(f"both were refused: {refused[0].stderr[-300:]}")
        for command, result in zip((first, second), results, strict=True):
            if result.returncode == 0 and first is second:
                compare(bench, command, folder)
        if left := [each for each in leftovers(folder) if each != "tmp"]:
            raise NotBorneError(f"left over: {', '.join(left)}")
        return "one refused" if refused else "both ended well"

    return case


def by_name(name: str) -> Command:
    """The command of that name."""
    return next(each for each in COMMANDS if each.name == name)


def can_mount(folder: Path) -> str:
    """Why no small disk can be made; empty if one can."""
    if os.geteuid() != 0:
        return "not root, not even in a user namespace"
    place = folder / "mount"
    place.mkdir()
    try:
        with small_disk(place, 1 << 20):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"a tmpfs cannot be mounted ({error})"
