"""A fit from a published checkpoint's shapes by the real commands: killed, resumed, and beside one that was not."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bayes_panns.nets import build
from benchmarks.contenders import CLASSES, Work
from benchmarks.gpu.measures import generated_store
from benchmarks.gpu.setting import Found, Setting

ROOT = Path(__file__).parents[2]

BATCHES, EPOCHS = 2, 8
"""Batches of clips in the store, and passes over them."""

LINES = 2
"""Lines of metrics of a fit, each with a checkpoint. It is killed after the first."""

RESUMED = 0.1
"""The largest difference that a kill may make on a GPU, relative to what the fit moved; on a CPU it is 0.

Kernels add up in no fixed order there, bfloat16 makes a rounding of it, and the first steps of Adam go by signs.
"""

_POLL = 0.02


def fit(setting: Setting, ends: float) -> Iterator[Found]:
    """A fit of VI-PANN's network on generated clips: a whole one, and one that is killed and goes on."""
    work, folder = setting.work(), setting.folder / "fit"
    folder.mkdir()
    published_checkpoint(work.net, folder / "published.pth")
    labels = "".join(f'{index},/m/{index},"label {index}"\n' for index in range(CLASSES))
    (folder / "labels.csv").write_text(f"index,mid,display_name\n{labels}", encoding="utf-8")
    store = generated_store(folder / "clips.h5", work, BATCHES * work.clips)
    _run("import", "vi-pann", folder / "published.pth", "--labels", folder / "labels.csv", "-o", folder / "start")
    (folder / "published.pth").unlink()
    (folder / "run.toml").write_text(_recipe(work), encoding="utf-8")
    device = f"cuda:{torch.cuda.current_device()}" if setting.on_gpu else "cpu"
    options = ("--from", folder / "start", "--data", store, "--device", device)
    command = ("finetune", folder / "run.toml", *options)

    started = time.monotonic()
    _run(*command, "-o", folder / "whole")
    whole = _lines(folder / "whole")
    per_second = work.clips * EPOCHS * BATCHES / LINES / float(whole[-1]["seconds"])
    yield Found("clips a second of the fit", per_second, "clips/s", note="the second half of its steps, with reading")
    yield Found("a fit from start to posterior", time.monotonic() - started, "s", note=f"{EPOCHS * BATCHES} steps")

    _killed_after_a_line(folder / "killed", *command, "-o", folder / "killed")
    _run(*command, "-o", folder / "killed", "--resume")
    killed = _lines(folder / "killed")
    yield Found("steps at the end of the resumed fit", float(killed[-1]["step"]), least=float(EPOCHS * BATCHES))
    start, one, other = (_tensors(folder / name) for name in ("start", "whole/posterior", "killed/posterior"))
    moved = sum(float((one[name] - start[name]).square().sum()) for name in one if name in start)
    apart = sum(float((one[name] - other[name]).square().sum()) for name in one)
    yield Found(
        "posterior of the killed and resumed fit",
        (apart / moved) ** 0.5,
        most=RESUMED if setting.on_gpu else 0,
        note="norm of its difference from the whole fit's, over what that moved",
    )


def _recipe(work: Work) -> str:
    """A recipe that takes 16 steps, with two lines of metrics."""
    return f'''net = "{work.net}"
guide = "flip"

[data]
validation = 0
task = "multi-label"

[fit]
epochs = {EPOCHS}
steps_per_epoch = {EPOCHS * BATCHES // LINES}
batch_size = {work.clips}
precision = "{work.precision}"
learning_rate = 1e-4
kl_weight = 1e-3
features = "none"
'''


def published_checkpoint(net: str, path: Path) -> None:
    """Write a checkpoint as VI-PANN published one: every convolution as mean and width."""
    torch.manual_seed(0)
    held: dict[str, Tensor] = {}
    for name, value in build(net, CLASSES).state_dict().items():
        if value.dim() == 4:
            held[name.replace(".weight", ".mu_kernel")] = value
            held[name.replace(".weight", ".rho_kernel")] = torch.full_like(value, -4.0)
        else:
            held[name] = value
    torch.save({"model": held}, path)


def _environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _command(words: Sequence[object]) -> list[str]:
    # The same interpreter, with or without its site packages.
    flags = ["-S"] if sys.flags.no_site else []
    return [sys.executable, *flags, "-m", "bayes_panns", *map(str, words)]


def _run(*words: object) -> None:
    done = subprocess.run(_command(words), env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"bayes-panns {words[0]} ended with code {done.returncode}: {last}")


def _killed_after_a_line(folder: Path, *words: object) -> None:
    """Start a fit and kill it once a line of metrics and its checkpoint are there."""
    with subprocess.Popen(
        _command(words), env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while process.poll() is None:
                if (folder / "checkpoint.pt").exists():
                    process.kill()
                time.sleep(_POLL)
        finally:
            # The time of the part may be over.
            process.kill()
        if process.returncode == 0:
            raise RuntimeError("the fit ended before it could be killed")
        if process.returncode > 0:
            raise RuntimeError(f"the fit that was to be killed ended with code {process.returncode}")


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def _tensors(posterior: Path) -> dict[str, Tensor]:
    return load_file(posterior / "guide.safetensors")
