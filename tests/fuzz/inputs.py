"""An input: a damaged file in a folder of its own, the command that reads it, and what is wrong with the outcome."""

import json
import re
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fuzz.containers import inside_hdf5
from tests.fuzz.kinds import KINDS, Command, Kind
from tests.fuzz.mutations import Mutation, splice
from tests.fuzz.seals import reseal, unseal
from tests.harness.fork_server import ForkServer, Result

SECONDS, BYTES_RESIDENT = 10, 2 << 30
"""What a command may take."""

_LONGEST_LINE = 2000
"""Characters in a line of messages."""


@dataclass(frozen=True)
class Input:
    """A damaged file: everything follows from the kind and the seed.

    Attributes:
        kind: Its kind.
        seed: The seed.
        keep: Which of its mutations to do, in order; all by default.
    """

    kind: Kind
    seed: int
    keep: tuple[int, ...] | None = None

    @property
    def replay(self) -> str:
        """The command that makes and runs it again."""
        kept = "" if self.keep is None else f" --mutations {','.join(map(str, self.keep))}"
        return f"python -m tests.fuzz --kind {self.kind.name} --seed {self.seed}{kept}"

    def write(self, home: Path, folder: Path) -> tuple[Path, Command, tuple[str, ...]]:
        """Make the folder with the damaged file in it; the file, the command and the names of the mutations."""
        rng = np.random.default_rng([zlib.crc32(self.kind.name.encode()), self.seed])
        variants = sorted(path for path in (home / self.kind.trees).iterdir() if path.is_dir())
        tree = variants[rng.integers(len(variants))]
        other = variants[rng.integers(len(variants))]
        shutil.copytree(tree, folder)
        file = next(folder.glob(self.kind.file))
        choices = (*self.kind.mutations, splice(next(other.glob(self.kind.file)).read_bytes()))
        picked = [choices[each] for each in rng.integers(len(choices), size=int(rng.choice([1, 1, 1, 2, 3, 5])))]
        # HDF5's own library changes what is well formed; in a file that is damaged it may crash.
        picked.sort(key=lambda mutate: mutate is not inside_hdf5)
        seeds, fitting = rng.integers(1 << 32, size=len(picked)), rng.random() < 0.5
        if fitting and file.suffix == ".h5":
            unseal(file)
        content, names = file.read_bytes(), []
        for index, (mutate, seed) in enumerate(zip(picked, seeds, strict=True)):
            if self.keep is None or index in self.keep:
                content = mutate(np.random.default_rng(seed), content)
                names.append(_name(mutate))
        file.write_bytes(content)
        if fitting and self.kind.run is not None:
            reseal(folder / self.kind.run)
        command = self.kind.commands[rng.integers(len(self.kind.commands))]
        place = str(file.relative_to(folder))
        words = tuple(word.replace("HOME", str(home)).replace("FILE", place) for word in command)
        return file, words, tuple(names)


def _name(mutate: Mutation) -> str:
    return mutate.__qualname__.partition(".")[0]


@dataclass(frozen=True)
class Outcome:
    """How an input ended.

    Attributes:
        source: The input.
        command: What was run.
        names: The mutations.
        result: How the command ended.
        faults: What is wrong with that; empty where nothing is.
    """

    source: Input
    command: Command
    names: tuple[str, ...]
    result: Result
    faults: tuple[str, ...]


def attempt(source: Input, server: ForkServer, home: Path, folder: Path) -> Outcome:
    """Run an input in ``folder``, which is made."""
    shutil.rmtree(folder, ignore_errors=True)
    _, command, names = source.write(home, folder)
    result, faults = execute(command, server, home, folder)
    return Outcome(source, command, names, result, faults)


def execute(command: Command, server: ForkServer, home: Path, folder: Path) -> tuple[Result, tuple[str, ...]]:
    """Run a command in ``folder``; how it ended and what is wrong with that."""
    scratch = folder.with_name(f"{folder.name}-tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    before = {path.relative_to(folder) for path in folder.rglob("*")}
    environment = {"TMPDIR": str(scratch), "PATH": f"{home / 'bin'}:/usr/bin:/bin"}
    # Address space far beyond what may be resident, so that a huge claim fails and does not harm the machine.
    result = server.run(command, cwd=folder, timeout=SECONDS, memory=4 * BYTES_RESIDENT, env=environment)
    after = {path.relative_to(folder) for path in folder.rglob("*")}
    left = [str(path) for path in scratch.iterdir() if not path.name.startswith("torchinductor_")] + _left_over(
        command, result, after - before
    )
    return result, tuple(faults_of(command, result, left))


def _left_over(command: Command, result: Result, new: set[Path]) -> list[str]:
    """Parts of files, and results of a command that failed. A fit keeps what it has in its folder."""
    parts = [str(path) for path in new if any(part.startswith(".") for part in path.parts)]
    fits = command[0] in ("pretrain", "finetune")
    results = [] if fits or result.returncode in (0, 3) else [str(path) for path in new if path.parts[0][:3] == "out"]
    return sorted({*parts, *results})


def faults_of(command: Command, result: Result, left: Sequence[str]) -> list[str]:
    """What is wrong with the end of a command that left ``left`` behind."""
    found, lines = [], result.stderr.splitlines()
    if result.timed_out:
        return [f"took more than {SECONDS} s"]
    if result.peak_bytes > BYTES_RESIDENT:
        found.append(f"had {result.peak_bytes >> 20} MB resident")
    if result.traceback:
        found.append(f"traceback: {lines[-1][:200]}")
    elif result.returncode not in (0, 1, 2, 3):
        found.append(f"ended with {result.returncode}")
    elif result.returncode == 1:
        ours = [index for index, line in enumerate(lines) if line.startswith("bayes-panns: ")]
        if ours != [len(lines) - 1]:
            found.append(f"no error of one line at the end: {lines[-1:]}")
    elif result.returncode == 2 and not any(line.startswith("Error: ") for line in lines):
        found.append("no word on wrong usage")
    if "out of memory (" in result.stderr:
        found.append(f"asked for too much memory: {lines[-1][:200]}")
    if warned := re.search(r"^.*\.py:\d+: \w*Warning.*$|^HDF5-DIAG.*$|^Exception ignored.*$", result.stderr, re.M):
        found.append(f"a library speaks: {warned[0][:200]}")
    if strange := re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", result.stdout + result.stderr):
        found.append(f"prints the control character {strange[0]!r}")
    if any(len(line) > _LONGEST_LINE for line in lines):
        found.append(f"a message of {max(map(len, lines))} characters")
    if left:
        found.append(f"leaves {', '.join(left[:3])}")
    if result.returncode in (0, 3) and "json" in command:
        found += _not_strict(result.stdout)
    return found


def _not_strict(text: str) -> list[str]:
    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError as error:
        return [f"prints no strict JSON: {error}"]
    return []


def smaller(outcome: Outcome, server: ForkServer, home: Path, folder: Path) -> Outcome:
    """The same failure with fewer mutations, where there is one: each is left out in turn."""
    kept = tuple(range(len(outcome.names)))
    for index in kept:
        fewer = tuple(each for each in kept if each != index)
        if not fewer:
            break
        again = attempt(Input(outcome.source.kind, outcome.source.seed, fewer), server, home, folder)
        if again.faults and again.faults[0][:40] == outcome.faults[0][:40]:
            outcome, kept = again, fewer
    return outcome


def shares(inputs: int, home: Path, *, quick: bool = False, kinds: Sequence[str] = ()) -> dict[str, int]:
    """How many inputs of each kind make ``inputs`` in all.

    Args:
        inputs: The sum.
        home: The good files; kinds that are not there are left out, as what makes them is not installed.
        quick: Only those that are in the short run.
        kinds: Only these.
    """
    chosen = [
        kind
        for kind in KINDS.values()
        if (kind.quick or not quick) and (not kinds or kind.name in kinds) and (home / kind.trees).is_dir()
    ]
    total = sum(kind.weight for kind in chosen)
    ends = np.rint(np.cumsum([kind.weight for kind in chosen]) / total * inputs).astype(int)
    return {kind.name: int(count) for kind, count in zip(chosen, np.diff(ends, prepend=0), strict=True)}
