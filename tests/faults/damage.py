"""Faults of what is on disk: flipped bits, and inputs that change between a stop and --resume."""

import json
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayes_panns.clips import Store, write
from tests.faults.cases import HANGS, Bench, Case, NotBorneError, by_name, compare, measure, one_line
from tests.faults.commands import Command, require
from tests.harness.fork_server import ForkServer


@dataclass(frozen=True)
class Artefact:
    """A file whose bits are flipped.

    Attributes:
        name: Its name in the table.
        path: Where it is.
        reader: The command that reads it.
        source: The folder that has it: the inputs, or those after another command.
    """

    name: str
    path: str
    reader: Command
    source: str = "home"


_EVALUATE = Command("evaluate, again", ("evaluate", "run", "--data", "clips.h5", "--draws", "2", "-o", "out"), "out")
_REPORT = Command("report, evaluation", ("report", "run/evaluation", "-o", "out.html"), "out.html")
_VERIFY = Command("inspect --verify", ("inspect", "--verify", "clips.h5"), "none")


def _resumed(name: str) -> Command:
    command = by_name(name)
    return Command(f"{name} --resume", (*command.args, "--resume"), command.output, resumes=True)


READERS = (_EVALUATE, _REPORT)

ARTEFACTS = (
    Artefact("posterior.toml", "run/posterior/posterior.toml", _EVALUATE),
    Artefact("guide.safetensors", "run/posterior/guide.safetensors", _EVALUATE),
    Artefact("fitted-clips.npz", "run/posterior/fitted-clips.npz", _EVALUATE),
    Artefact("store, inspect --verify", "clips.h5", _VERIFY),
    Artefact("store, finetune", "clips.h5", by_name("finetune")),
    Artefact("checkpoint.pt", "out/checkpoint.pt", _resumed("pretrain"), "stopped"),
    Artefact("checkpoint.pt, not the first", "out/checkpoint.pt", by_name("pretrain, often"), "stopped later"),
    Artefact("checkpoint.previous.pt", "out/checkpoint.previous.pt", by_name("pretrain, often"), "stopped later"),
    Artefact("checkpoint.best.pt", "out/checkpoint.best.pt", by_name("pretrain, often"), "stopped later"),
    Artefact("resume.json", "out/resume.json", _resumed("pretrain"), "stopped"),
    Artefact("run.toml", "out/run.toml", _resumed("pretrain"), "stopped"),
    Artefact("features.bin", "out/features.bin", _resumed("pretrain, disk"), "stopped, disk"),
    Artefact("embeddings cache", "clips.embeddings/*.npz", by_name("finetune, embeddings"), "embedded"),
    Artefact("evaluation.json", "run/evaluation/evaluation.json", _REPORT, "evaluated"),
    Artefact("predictions.npz", "run/evaluation/predictions.npz", _REPORT, "evaluated"),
    Artefact(".pth", "net.pth", by_name("import")),
)


def measure_readers(bench: Bench, server: ForkServer, folder: Path) -> None:
    """What the commands that only read artefacts write."""
    for command in READERS:
        place = bench.home.copy(folder / command.name)
        require(bench.home.run(server, by_name("evaluate").args, place))
        measure(bench, server, command, place)
    for name in ("pretrain", "pretrain, disk"):
        bench.wanted[f"{name} --resume"] = bench.wanted[name]


def prepare(bench: Bench, server: ForkServer, folder: Path) -> dict[str, Path]:
    """The folders that artefacts are in, by :attr:`Artefact.source`."""
    made = {"home": bench.home.folder}
    stopped = {
        "stopped": ("pretrain", 1),
        "stopped, disk": ("pretrain, disk", 1),
        "stopped later": ("pretrain, often", 4),
    }
    for name, (command, checkpoints) in stopped.items():
        made[name] = bench.home.copy(folder / name)
        stop(bench, server, by_name(command), made[name], checkpoints)
    for name, command in (("evaluated", by_name("evaluate")), ("embedded", by_name("finetune, embeddings"))):
        made[name] = bench.home.copy(folder / name)
        require(bench.home.run(server, command.args, made[name]))
    # The reading command is to fit again, with the embeddings that are there.
    shutil.rmtree(made["embedded"] / "out")
    return made


def stop(bench: Bench, server: ForkServer, command: Command, folder: Path, checkpoints: int) -> None:
    """Run a fit up to a checkpoint, and kill it."""
    slow = "\nfrom bayes_panns.svi.fit_checkpoints import FitCheckpoints\nsave, done = FitCheckpoints.save, []\n"
    slow += "def stop(self, state, *, wait):\n    save(self, state, wait=True)\n    done.append(state.step)\n"
    slow += f"    if len(done) == {checkpoints}:\n        import os\n        os.kill(os.getpid(), 9)\n"
    slow += "FitCheckpoints.save = stop\n"
    result = server.run(command.args, cwd=folder, before=bench.home.before + slow, timeout=HANGS)
    if result.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the fit was not stopped: {result.stderr}")


def flipped(artefact: Artefact, made: dict[str, Path]) -> Case:
    """One bit of a file is flipped; it is refused, or the result is that of the file as it was."""

    def case(bench: Bench, server: ForkServer, folder: Path, random: random.Random) -> str:
        shutil.copytree(made[artefact.source], folder, dirs_exist_ok=True)
        (path,) = folder.glob(artefact.path)
        content = bytearray(path.read_bytes())
        place, bit = random.randrange(len(content)), random.randrange(8)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        result = bench.home.run(server, artefact.reader.args, folder, timeout=HANGS)
        try:
            one_line(result, 0, 1)
            if result.returncode == 0 and artefact.reader.output != "none":
                compare(bench, artefact.reader, folder)
        except NotBorneError as error:
            raise NotBorneError(f"bit {bit} of byte {place} of {len(content)}: {error}") from error
        return "the same result" if result.returncode == 0 else "refused"

    return case


def _packed_again(**changes: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Pack the store again with something in it changed."""

    def change(folder: Path) -> None:
        path = folder / "clips.h5"
        with Store(path) as store:
            parts = {
                "waveform": store.waveform(np.arange(len(store))),
                "target": store.target(),
                "labels": store.labels,
                "names": store.names,
                "fold": store.folds,
            }
            about = {"task": store.task, "sample_rate": store.sample_rate}
        write(path, **{key: changes.get(key, lambda same: same)(value) for key, value in parts.items()}, **about)

    return change


def _cut(folder: Path) -> None:
    content = (folder / "clips.h5").read_bytes()
    (folder / "clips.h5").write_bytes(content[: len(content) // 2])


def _gone(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).rename(folder / "elsewhere")

    return change


def _edited(name: str, before: str, after: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        if before not in text:
            raise RuntimeError(f"{name} does not hold {before!r}")
        (folder / name).write_text(text.replace(before, after, 1))

    return change


def _other_tensors(folder: Path) -> None:
    path = folder / "run" / "posterior" / "guide.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _other_recorded(folder: Path) -> None:
    path = folder / "out" / "resume.json"
    table = json.loads(path.read_text())
    table["frozen_points"] = False
    path.write_text(json.dumps(table))


CHANGES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "the store's sound": (_packed_again(waveform=lambda sound: sound / 2), False),
    "the store's labels": (_packed_again(target=lambda target: np.roll(target, 1, axis=0)), False),
    "the store's names": (_packed_again(names=lambda names: names[1:] + names[:1]), False),
    "the store's label names": (_packed_again(labels=lambda labels: labels[::-1]), False),
    "the store's folds": (_packed_again(fold=lambda fold: fold + 1), False),
    "the store packed again as it was": (_packed_again(), True),
    "the store cut in half": (_cut, False),
    "the store moved away": (_gone("clips.h5"), False),
    "the upstream moved away": (_gone("run"), False),
    "the upstream's tensors": (_other_tensors, False),
    "the upstream's header": (_edited("run/posterior/posterior.toml", "labels = [", "labels = [ "), True),
    "the upstream's labels": (_edited("run/posterior/posterior.toml", '"high"', '"tall"'), False),
    "the recipe": (_edited("quick.toml", "batch_size = 6", "batch_size = 5"), False),
    "the recipe's epochs, fewer": (_edited("quick.toml", "epochs = 3", "epochs = 2"), False),
    "the recipe's description": (_edited("quick.toml", "[data]", 'description = "mine"\n[data]'), True),
    "run.toml": (_edited("out/run.toml", "batch_size = 6", "batch_size = 5"), False),
    "resume.json": (_other_recorded, False),
}
"""What is changed between a stop and --resume, and whether the fit is to go on all the same."""


def changed(name: str) -> Case:
    """An input changes while a fit is stopped."""
    change, goes_on = CHANGES[name]

    def case(bench: Bench, server: ForkServer, folder: Path, random: random.Random) -> str:
        command = by_name("finetune")
        bench.home.copy(folder)
        stop(bench, server, command, folder, 1)
        change(folder)
        result = bench.home.run(server, (*command.args, "--resume"), folder, timeout=HANGS)
        one_line(result, 0 if goes_on else 1)
        if goes_on:
            compare(bench, command, folder)
        return "went on" if goes_on else "refused"

    return case
