"""The command ``predict`` on an hour of sound, beside one pass of the same network: whole processes, in turn."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import soundfile
import torch

from bayes_panns.core.choices import CheckpointKind, Task
from bayes_panns.interop import import_checkpoint
from bayes_panns.nets import build
from bayes_panns.posterior import Posterior, save
from bayes_panns.recipes import read_strategy
from bayes_panns.soundscapes import UPSTREAM, soundscapes
from benchmarks.versions import version
from benchmarks.worker import hardware

NET, LABELS, SECONDS = "mn04", 527, 10.0
_MINUTE = 60
_PREDICT = "import sys; from bayes_panns.cli import main; sys.exit(main())"

SUMMARIES = {
    "plain": "torch and torchaudio alone: decode, resample, log-mel, one pass of the network",
    "mean": "`predict --draws 0`: one pass at the posterior mean",
    "draws": "`predict`: draws of the last layer, every part of the uncertainty, JSON",
}
"""What takes turns; the first is what the others are compared with."""


@click.command()
@click.option(
    "--from",
    "checkpoint",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="EfficientAT's mn04, as published. [random weights]",
)
@click.option("--minutes", type=click.FloatRange(min=0.5), default=60.0, show_default=True)
@click.option(
    "--rate", type=click.IntRange(min=8000), default=44100, show_default=True, help="Of the sound file, in Hz."
)
@click.option("--draws", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write OUT.json and OUT.md.")
def hour(checkpoint: Path | None, minutes: float, rate: int, draws: int, rounds: int, out: Path | None) -> None:
    """Time the command predict on a long file, on one core, beside one pass of the same network."""
    with tempfile.TemporaryDirectory() as folder:
        commands = _prepare(Path(folder), checkpoint, minutes, rate, draws)
        turns = [{name: _timed(command) for name, command in commands.items()} for _ in range(rounds)]
    run = {
        "benchmark": "hour",
        "settings": {
            "net": NET,
            "labels": LABELS,
            "window": SECONDS,
            "minutes": minutes,
            "rate": rate,
            "draws": draws,
            "rounds": rounds,
            "weights": "published" if checkpoint else "random",
            "threads": 1,
        },
        "hardware": hardware(on_gpu=False),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "torchaudio", "pyro-ppl", "bayes-panns")},
        "rounds": turns,
    }
    click.echo(table(run), nl=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_name(f"{out.name}.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
        out.with_name(f"{out.name}.md").write_text(table(run), encoding="utf-8")


def table(run: Mapping[str, Any]) -> str:
    """The record as a Markdown table, with what it means."""
    settings, turns = run["settings"], run["rounds"]
    sound = 60 * settings["minutes"]
    what = f"{settings['net']}, {settings['weights']} weights, {settings['labels']} labels"
    long = f"{settings['minutes']:g} minutes of soundscapes at {settings['rate']} Hz"
    where = f"{run['hardware']}, one core, torch {run['versions']['torch']}"
    lines = [
        f"{what}, {settings['draws']} draws; {long} in windows of {settings['window']:g} s; {where}. Whole "
        f"processes, median and range (rounds: {len(turns)}). Ratios are to `plain` of the same round.",
        "",
        "| what | CPU time / plain's | wall time / plain's | times real time | CPU s | peak memory / GiB | meaning |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, summary in SUMMARIES.items():
        mine = [turn[name] for turn in turns]
        ratios = {key: [turn[name][key] / turn["plain"][key] for turn in turns] for key in ("cpu", "wall")}
        lines.append(
            f"| `{name}` | {_spread(ratios['cpu'])} | {_spread(ratios['wall'])} "
            f"| {_spread([sound / each['wall'] for each in mine], 0)} | {_spread([each['cpu'] for each in mine], 1)} "
            f"| {max(each['peak_gib'] for each in mine):.2f} | {summary} |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], digits: int = 2) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}-{high})"


def _prepare(folder: Path, checkpoint: Path | None, minutes: float, rate: int, draws: int) -> dict[str, list[str]]:
    """Write sound, weights and posterior, and say what to run."""
    sound, weights, posterior = folder / "sound.wav", folder / "weights.pt", folder / "posterior"
    seconds = round(_MINUTE * minutes)
    with soundfile.SoundFile(sound, "w", rate, 1, "PCM_16") as file:
        for start in range(0, seconds, _MINUTE):
            clips = min(_MINUTE, seconds - start) // 2
            scenes = soundscapes(UPSTREAM, max(1, clips), seconds=2.0, sample_rate=rate, seed=start)
            file.write(np.concatenate(scenes.waveform))
    torch.manual_seed(0)
    labels = tuple(f"label {number}" for number in range(LABELS))
    state = torch.load(checkpoint, weights_only=True) if checkpoint else build(NET, LABELS).state_dict()
    torch.save(state, weights)
    upstream = import_checkpoint(weights, CheckpointKind.EFFICIENTAT, labels=labels)
    fitted = Posterior.build(
        net=NET,
        labels=labels,
        task=Task.MULTI_LABEL,
        sample_rate=32000,
        clip_seconds=SECONDS,
        strategy=read_strategy("rotated-head"),
    )
    fitted.start_from(upstream)
    save(fitted, posterior)
    predict = [sys.executable, "-c", _PREDICT, "predict", str(posterior), str(sound), "--format", "json"]
    predict += ["--device", "cpu", "-o", str(folder / "tags.json"), "--draws"]
    plain = [sys.executable, "-m", "benchmarks.plain_pass", str(weights), str(sound), str(SECONDS)]
    return {"plain": [*plain, str(folder / "plain.pt")], "mean": [*predict, "0"], "draws": [*predict, str(draws)]}


def _timed(command: Sequence[str]) -> dict[str, float]:
    """Run a command on one core and return its seconds of wall and CPU time, and its peak memory."""
    core = max(os.sched_getaffinity(0))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    started = time.perf_counter()
    with subprocess.Popen(["taskset", "-c", str(core), *command], env=environment, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        message = process.stderr.read().decode(errors="replace")
        # Not wait(): this also gives what the process used.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
    if process.returncode:
        raise click.ClickException(f"{command[-1]}: {(message.strip().splitlines() or ['failed'])[-1]}")
    return {
        "wall": wall,
        "cpu": used.ru_utime + used.ru_stime,
        "peak_gib": used.ru_maxrss / 2**20,
    }
