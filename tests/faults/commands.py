"""The commands that faults are tried on, and the small inputs that they share."""

import hashlib
import shutil
import threading
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.harness.fork_server import ForkServer, Result

RATE = 8000

SERVED = np.random.default_rng(0).bytes(4_000_000)


@dataclass(frozen=True)
class Command:
    """A command to disturb.

    Attributes:
        name: Its name in the table.
        args: Its arguments; it runs in a folder that holds all inputs.
        output: What it writes, relative to that folder.
        inside: Whether it writes into the run that it reads.
        resumes: Whether --resume goes on with what it left.
        auto: Whether it has ``--resume auto``: then it is run again as it is.
        kills: How often it is killed.
    """

    name: str
    args: tuple[str, ...]
    output: str
    inside: bool = False
    resumes: bool = False
    auto: bool = False
    kills: int = 5

    def again(self, folder: Path) -> tuple[str, ...]:
        """The arguments of the next command, after this one has failed."""
        if self.auto:
            return self.args
        output = folder / self.output
        # A cross-validation goes on in any folder; a fit that had not begun is started again.
        others = {"crossval": "*", "predict, folder": "results.json", "pack, several": "journal.jsonl"}
        begun = others.get(self.name, "run.toml")
        started = self.resumes and any(output.rglob(begun))
        return (*self.args, "--resume") if started else self.args


_FIT = ("quick.toml", "--data", "clips.h5")
_OFTEN = ("--resume", "auto", "--checkpoint-minutes", "0.0001")
_LAST = ("quick.toml", "--data", "clips.h5", "--from", "run", "--guide", "det-flip")
_DISK = ("--set", "fit.features=disk")
_EMBEDDED = ("--set", "fit.features=embeddings", "--set", 'freeze=["backbone"]')

COMMANDS = (
    Command("pretrain", ("pretrain", *_FIT, "-o", "out"), "out", resumes=True, kills=14),
    Command("pretrain, often", ("pretrain", *_FIT, "-o", "out", *_OFTEN), "out", resumes=True, auto=True, kills=14),
    Command("pretrain, disk", ("pretrain", *_FIT, "-o", "out", *_DISK), "out", resumes=True, kills=6),
    Command("finetune", ("finetune", *_FIT, "--from", "run", "-o", "out"), "out", resumes=True),
    Command("finetune, embeddings", ("finetune", *_LAST, "-o", "out", *_EMBEDDED), "out", resumes=True),
    Command("crossval", ("crossval", *_FIT, "-o", "out", "--draws", "2", "--set", "fit.epochs=1"), "out", resumes=True),
    Command("pack", ("pack", "folder", "wavs", "-o", "out.h5", "--seconds", "0.5"), "out.h5", kills=10),
    Command(
        "pack, several",
        ("pack", "folder", "wavs", "-o", "out/a.h5", "--seconds", "0.5", "--clips-per-store", "3"),
        "out",
        resumes=True,
        kills=10,
    ),
    Command("predict", ("predict", "run", "wavs", "--draws", "2", "--format", "csv", "-o", "out.csv"), "out.csv"),
    Command(
        "predict, folder",
        ("predict", "run", "wavs", "--draws", "2", "--format", "csv", "--format", "picture", "-o", "results"),
        "results",
        resumes=True,
        kills=10,
    ),
    Command("embed", ("embed", "run", "wavs", "-o", "out.npz"), "out.npz"),
    Command(
        "evaluate",
        ("evaluate", "run", "--data", "clips.h5", "--draws", "2", "-o", "run/evaluation"),
        "run/evaluation",
        inside=True,
    ),
    Command("calibrate", ("calibrate", "run", "--draws", "2", "--coverage", "0.5"), "run/posterior", inside=True),
    Command("report", ("report", "run", "--data", "clips.h5", "--draws", "2"), "run/report.html", inside=True),
    Command("check-start", ("check-start", "run"), "run/start.json", inside=True),
    Command("widths", ("widths", "run", "--data", "clips.h5", "-o", "out"), "out"),
    Command("import", ("import", "panns", "net.pth", "-o", "out"), "out"),
    Command("export", ("export", "run", "-o", "out.pth"), "out.pth"),
    Command(
        "export, arviz",
        ("export", "run", "-o", "out.nc", "--format", "arviz", "--data", "clips.h5", "--draws", "20"),
        "out.nc",
    ),
    Command("fetch", ("fetch", "net", "-o", "out.bin"), "out.bin"),
)


class Home:
    """The inputs, in ``folder``: a store, sound files, a run, a checkpoint and a recipe; and a server of a file.

    Attributes:
        folder: Where they are.
        seconds: How long the fit of the run took.
        before: What makes ``fetch`` know the server, as :meth:`ForkServer.run` takes it.
    """

    def __init__(self, folder: Path, server: ForkServer, port: int) -> None:
        self.folder = folder
        digest = hashlib.md5(SERVED).hexdigest()
        self.before = (
            "import sys, bayes_panns.interop.fetch\n"
            "fetch = sys.modules['bayes_panns.interop.fetch']\n"
            "fetch.PUBLISHED['net'] = fetch.Published('a net', 'net.bin', 'http://127.0.0.1', "
            f"url='http://127.0.0.1:{port}/net.bin', md5='{digest}', size={len(SERVED)})\n"
        )
        generator = np.random.default_rng(0)
        time, pitches = np.arange(RATE // 2) / RATE, {"low": 400, "high": 1500}
        for label, pitch in pitches.items():
            (folder / "wavs" / label).mkdir(parents=True)
            for number in range(8):
                tone = 0.3 * np.sin(2 * np.pi * pitch * generator.uniform(0.95, 1.05) * time)
                sound = tone + 0.01 * generator.normal(size=len(time))
                soundfile.write(folder / "wavs" / label / f"{number}.wav", sound, RATE)
        _store(folder)
        (folder / "quick.toml").write_text(
            "[data]\nvalidation = 0.25\n[fit]\nepochs = 3\nbatch_size = 6\nspec_augment = false\n"
        )
        self.seconds = require(self.run(server, ("pretrain", *_FIT, "-o", "run"), folder)).seconds
        require(self.run(server, ("export", "run", "-o", "net.pth"), folder))

    def run(self, server: ForkServer, args: Sequence[str], folder: Path, **options: Any) -> Result:
        """Run a command in a folder, with its temporary files in ``tmp`` there."""
        (folder / "tmp").mkdir(exist_ok=True)
        options["env"] = {"TMPDIR": str(folder / "tmp"), **options.get("env", {})}
        return server.run(args, cwd=folder, before=self.before, **options)

    def copy(self, place: Path) -> Path:
        """A copy of all inputs at ``place``, which may be there."""
        return Path(shutil.copytree(self.folder, place, dirs_exist_ok=True))


def require(result: Result) -> Result:
    """Check that a command ended well.

    Raises:
        RuntimeError: It did not.
    """
    if result.returncode != 0:
        raise RuntimeError(f"exit code {result.returncode}: {result.stderr}")
    return result


@contextmanager
def served():
    """A server of :data:`SERVED` on this machine; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(SERVED) - 1}/{len(SERVED)}")
            self.send_header("Content-Length", str(len(SERVED) - start))
            self.end_headers()
            # The reader may have been killed.
            with suppress(OSError):
                self.wfile.write(SERVED[start:])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield running.server_port
        running.shutdown()


def _store(folder: Path) -> None:
    from bayes_panns.clips import Task, write

    files = sorted((folder / "wavs").rglob("*.wav"))
    waveform = np.stack([soundfile.read(path)[0] for path in files])
    labels = sorted({path.parent.name for path in files})
    target = np.array([[path.parent.name == label for label in labels] for path in files])
    write(
        folder / "clips.h5",
        waveform,
        target,
        labels,
        Task.ONE_OF_K,
        RATE,
        names=[f"{path.parent.name}/{path.name}" for path in files],
        fold=np.arange(len(files)) % 2 + 1,
    )
