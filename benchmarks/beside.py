"""The commands ``train`` and ``predict``: this package beside its peers."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import torch

from bayes_panns.nets import NETS
from benchmarks import report
from benchmarks.contenders import PREDICT, TRAIN, Contender, Work
from benchmarks.measure import Plan, measure
from benchmarks.messages import messages
from benchmarks.versions import version
from benchmarks.worker import ContenderError


def _options(contenders: Mapping[str, Contender], *, minutes: float) -> Callable[[Callable], Callable]:
    choosable = [name for name, contender in contenders.items() if contender.baseline is not None]

    def decorate(command: Callable) -> Callable:
        for option in reversed(
            (
                click.option(
                    "--only", multiple=True, type=click.Choice(choosable), help="A contender; repeatable. [all]"
                ),
                click.option("--net", type=click.Choice(list(NETS)), default="resnet54", show_default=True),
                click.option(
                    "--clips", type=click.IntRange(min=2), default=4, show_default=True, help="Clips a batch."
                ),
                click.option("--seconds", type=click.FloatRange(min=0.1), default=2.0, show_default=True),
                click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
                click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [all cores allowed]"),
                click.option(
                    "--precision", type=click.Choice(["float32", "bf16"]), default="float32", show_default=True
                ),
                click.option(
                    "--rounds",
                    type=click.IntRange(min=1),
                    default=10,
                    show_default=True,
                    help="The least number of rounds; a contender goes on until its time ratios are known within 10 %.",
                ),
                click.option(
                    "--max-rounds", type=click.IntRange(min=1), default=50, show_default=True, help="The largest."
                ),
                click.option(
                    "--minutes",
                    type=click.FloatRange(min=0, min_open=True),
                    default=minutes,
                    show_default=True,
                    help="The time limit of the whole run.",
                ),
                click.option(
                    "--memory",
                    type=click.FloatRange(min=0, min_open=True),
                    help="GiB that the processes alive together may fill. [85 % of what is free]",
                ),
                click.option(
                    "-o", "--out", type=click.Path(path_type=Path), help="Write OUT.json, OUT.md and OUT.png."
                ),
            )
        ):
            command = option(command)
        return command

    return decorate


def _run(
    command: str,
    contenders: Mapping[str, Contender],
    *,
    only: tuple[str, ...],
    net: str,
    clips: int,
    seconds: float,
    device: str,
    threads: int | None,
    precision: str,
    rounds: int,
    max_rounds: int,
    minutes: float,
    memory: float | None,
    out: Path | None,
) -> None:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: torch sees no GPU here")
    if max_rounds < rounds:
        raise click.UsageError(f"--max-rounds {max_rounds}: is less than --rounds {rounds}")
    wanted = {}
    for name in only or [name for name, contender in contenders.items() if contender.baseline is not None]:
        package = contenders[name].package
        if package is None or version(package) is not None:
            wanted[name] = contenders[name]
        else:
            click.echo(f"{name}: left out: {package} is not installed; pip install -e '.[bench]'", err=True)
    if not wanted:
        raise click.ClickException("no contender is left to measure")
    baselines = {contender.baseline for contender in wanted.values()}
    chosen = {name: contender for name, contender in contenders.items() if name in baselines or name in wanted}
    threads = threads or len(os.sched_getaffinity(0))
    work = Work(net, clips, seconds, device, threads, precision)
    plan = Plan(rounds, max_rounds, minutes, memory)
    try:
        with messages():
            measured = measure(chosen, work, plan)
    except ContenderError as error:
        raise click.ClickException(str(error)) from error
    run = report.record(command, work, plan, chosen, measured)
    click.echo(report.table(run), nl=False)
    if out is not None:
        report.write(run, out)


@click.command()
@_options(TRAIN, minutes=30.0)
def train(**options: object) -> None:
    """Compare a training step, from log-mels to updated weights, with that of the deterministic network."""
    _run("train", TRAIN, **options)  # type: ignore[arg-type]


@click.command()
@_options(PREDICT, minutes=4.5)
def predict(**options: object) -> None:
    """Compare a prediction, from waveforms to probabilities, with passes of the deterministic network."""
    _run("predict", PREDICT, **options)  # type: ignore[arg-type]
