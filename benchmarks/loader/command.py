"""The command ``python -m benchmarks loader``."""

import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks import report
from benchmarks.loader.contenders import CONTENDERS
from benchmarks.loader.material import SECONDS, shards_of, store_of
from benchmarks.loader.tables import table, write
from benchmarks.loader.turn import Spec
from benchmarks.messages import messages
from benchmarks.worker import hardware

logger = logging.getLogger(__name__)

_TURN = "import sys; from benchmarks.loader.turn import main; main(sys.argv[1])"
"""Not a module, which each process that reads would import again."""

_CLIP_BYTES = 2 * 32000

_TINY = {"gigabytes": 0.004, "seconds": 0.5, "batch": 4, "workers": (1,), "read": 0.2, "rounds": 1}


@click.command("loader", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--gigabytes",
    type=click.FloatRange(min=0.001),
    default=3.0,
    show_default=True,
    help="Of the store; as much again is written for WebDataset. Both are deleted at the end.",
)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="On which disk. [temporary files]")
@click.option("--workers", type=int, multiple=True, default=(1, 2, 4), show_default=True, help="Repeatable.")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Clips a batch.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How often each takes a turn.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.01),
    default=20.0,
    show_default=True,
    help="No round begins that would not end in time; there is one at least.",
)
@click.option("--only", multiple=True, type=click.Choice(list(CONTENDERS)), help="A contender; repeatable. [all]")
@click.option("--tiny", is_flag=True, help="A few clips of half a second, to see that it runs.")
@click.option("--note", default="", help="What to say above the tables.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write OUT.json, OUT.md and OUT.png.")
def main(
    gigabytes: float,
    folder: Path | None,
    workers: tuple[int, ...],
    batch: int,
    rounds: int,
    minutes: float,
    only: tuple[str, ...],
    tiny: bool,
    note: str,
    out: Path | None,
) -> None:
    """Read clips of 10 s from disk as a fit does, beside other ways, from a cold and from a warm page cache.

    It writes a store of noise, and the same clips as tar files. Each turn is a process of its own. Before a cold turn
    the files are put out of the page cache, which is checked; during it each clip is put out again once it has been
    read, as if the store were larger than the page cache. Ratios are within a round. Then memory is watched over a
    whole cold pass.

    \b
    Example:
      python -m benchmarks loader -o benchmarks/results/loader
      python -m benchmarks loader --folder /data --gigabytes 2 --rounds 1
      python -m benchmarks loader --tiny
    """
    started, seconds, read = time.monotonic(), SECONDS, 3.0
    if tiny:
        gigabytes, seconds, batch, workers, read, rounds = _TINY.values()  # type: ignore[assignment]
    names = _installed(only or tuple(CONTENDERS))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    clips = max(8 * batch, round(gigabytes * 1e9 / (_CLIP_BYTES * seconds)))
    with messages(), tempfile.TemporaryDirectory(dir=folder, prefix="loader-") as place:
        needed = clips * _CLIP_BYTES * seconds * (2 if "webdataset" in names else 1)
        if shutil.disk_usage(place).free < 1.2 * needed:
            raise click.ClickException(f"{place}: has no room for {needed / 1e9:.1f} GB; name another --folder")
        store = store_of(Path(place) / "clips.h5", clips, seconds)
        if "webdataset" in names:
            shards_of(store, store.with_suffix(".shards"))
        logger.info(f"{clips} clips written in {time.monotonic() - started:.0f} s")
        done: list[dict[str, Any]] = []
        turns = _turns(names, workers)
        # The last part of the time is for memory.
        until, took = started + 60 * minutes * 0.9, 0.0
        while not done or (len(done) < rounds and time.monotonic() + took < until):
            begun = time.monotonic()
            done.append(
                {
                    _key(name, count, cold): _turn(Spec(name, str(store), count, batch, cold, read))
                    for cold in (True, False)
                    for name, count in turns
                }
            )
            took = time.monotonic() - begun
            logger.info(f"round {len(done)}: {took:.0f} s")
        watched = {
            name: _turn(Spec(name, str(store), min(2, max(workers)), batch, True, 600.0, memory=True))
            for name in names
            if name == "random" or (name in ("panns", "webdataset") and not tiny)
        }
    run = {
        "benchmark": "loader",
        "note": note,
        "settings": {
            "clips": clips,
            "seconds": seconds,
            "gigabytes": clips * _CLIP_BYTES * seconds / 1e9,
            "batch": batch,
            "workers": list(workers),
            "read_seconds": read,
            "watched_workers": min(2, max(workers)),
        },
        "hardware": hardware(on_gpu=False),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {
            "python": platform.python_version(),
            **{name: report.version(name) for name in ("torch", "h5py", "bayes-panns", "webdataset")},
        },
        "rounds": done,
        "memory": watched,
    }
    click.echo(table(run), nl=False)
    if out is not None:
        write(run, out)


def _installed(names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        package = CONTENDERS[name].package
        if package is None or report.version(package) is not None:
            found.append(name)
        else:
            click.echo(f"{name}: left out: {package} is not installed; pip install -e '.[bench]'", err=True)
    return found


def _turns(names: Sequence[str], workers: Sequence[int]) -> list[tuple[str, int]]:
    """Who reads with how many workers, in turn: those with as many follow each other."""
    several = [(name, count) for count in workers for name in names if not CONTENDERS[name].alone]
    return several + [(name, 0) for name in names if CONTENDERS[name].alone]


def _key(name: str, workers: int, cold: bool) -> str:
    return f"{name} {workers} {'cold' if cold else 'warm'}"


def _turn(spec: Spec) -> dict[str, Any]:
    """Run a turn in a process of its own."""
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", _TURN, json.dumps(asdict(spec))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise click.ClickException(f"{spec.contender}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
