"""The command ``python -m benchmarks gpu``."""

import logging
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click
import pyro
import torch

from benchmarks.gpu.agreement import agree, golden
from benchmarks.gpu.checks import random_stream, resume, statistics, waiting
from benchmarks.gpu.fitting import fit
from benchmarks.gpu.loading import loading
from benchmarks.gpu.measures import draws, fit_steps, peers, steps
from benchmarks.gpu.profile import shares
from benchmarks.gpu.results import record, table, write
from benchmarks.gpu.run import Outcome, Part, run_parts
from benchmarks.gpu.setting import Setting

PARTS = {
    "golden": Part("Logits of published networks, against those of their authors' code", 20, golden),
    "agree": Part("Logits, NLL, KL and gradients of the same draw, on the device and on a CPU", 50, agree),
    "statistics": Part("Moments of a layer's output under weights and flipout, against closed forms", 10, statistics),
    "random": Part("What random numbers depend on", 5, random_stream),
    "waiting": Part("How often the processor waits for the GPU in a step", 15, waiting),
    "resume": Part("A small fit that is interrupted and goes on", 15, resume),
    "steps": Part("A training step, over that of the network with point weights", 75, steps, measures=True),
    "profile": Part("The share of a step that draws weights and updates them", 25, shares, measures=True),
    "fit-steps": Part("A step of a fit, over one in plain PyTorch", 50, fit_steps, measures=True),
    "draws": Part("Draws of a prediction, over as many passes", 35, draws, measures=True),
    "loader": Part("Clips that are read from a store, beside those that a step takes", 25, loading, measures=True),
    "fit": Part("A fit of the network of a published checkpoint, killed and resumed", 90, fit, measures=True),
    "peers": Part("The same step by other packages", 45, peers, measures=True),
}
"""What is done, in order, with the seconds that each may take."""

MINUTES = 7.5

ONLY_IF_NAMED = {"fit"}
"""What a dry run leaves out unless it is named: it starts three processes."""

RESULTS = Path(__file__).parents[1] / "results"


@click.command()
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--tiny", is_flag=True, help="The smallest networks and clips: a dry run of seconds.")
@click.option("--only", multiple=True, type=click.Choice(list(PARTS)), help="A part; repeatable. [all]")
@click.option(
    "--clips", type=click.IntRange(min=2), default=32, show_default=True, help="Clips a step, for a smaller memory."
)
@click.option("--seconds", type=click.FloatRange(min=0.4), default=10.0, show_default=True, help="A clip's length.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder with golden values of the published networks: formula.py, resnet54_golden.npz, mn04_golden.npz.",
)
@click.option("--minutes", type=click.FloatRange(min=0.1), default=MINUTES, show_default=True, help="For all parts.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Write OUT.json, OUT.md and OUT.png. [on a GPU benchmarks/results/gpu-NAME; else nothing]",
)
def gpu(
    device: str,
    tiny: bool,
    only: tuple[str, ...],
    clips: int,
    seconds: float,
    reference: Path | None,
    minutes: float,
    out: Path | None,
) -> None:
    """Check and measure the GPU that is here, in under eight minutes.

    Every tolerance and target has its verdict: met, missed or not measured. What is found is written as it comes. On a
    CPU, and with --tiny, it is a dry run, whose times are not judged.

    \b
    Example:
      python -m benchmarks gpu
      python -m benchmarks gpu --device cpu --tiny -o dry-run
    """
    started = time.monotonic()
    kind = _chosen(device)
    out = out or (RESULTS / f"gpu-{slug(torch.cuda.get_device_name())}" if kind == "cuda" and not tiny else None)
    names = only or [name for name in PARTS if not (tiny and name in ONLY_IF_NAMED)]
    parts = {name: part for name, part in PARTS.items() if name in names}
    _show_messages()
    with tempfile.TemporaryDirectory() as folder, pyro.validation_enabled(False):
        setting = Setting(kind, tiny, Path(folder), clips, seconds, reference)

        def keep(outcomes: Mapping[str, Outcome]) -> None:
            if out is not None:
                write(record(setting, parts, outcomes), out, picture=False)

        outcomes = run_parts(parts, setting, 60 * minutes - (time.monotonic() - started), keep)
        run = record(setting, parts, outcomes)
    click.echo(table(run), nl=False)
    if out is not None:
        missing = write(run, out, picture=True)
        if missing:
            click.echo(missing, err=True)
    if any(outcome.failed for outcome in outcomes.values()):
        raise click.exceptions.Exit(1)


def slug(name: str) -> str:
    """A device's name as part of a file's.

    Example:
        >>> slug("NVIDIA H100 80GB HBM3")
        'h100-80gb-hbm3'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia")).strip("-")


def _chosen(device: str) -> str:
    """``cpu`` or ``cuda``; the GPU that is named is the current one afterwards."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise click.UsageError(f"--device {device}: write auto, cpu, cuda or cuda:N")
    if device == "cpu":
        return device
    if not torch.cuda.is_available():
        raise click.UsageError(f"--device {device}: torch sees no GPU here; --device cpu --tiny is a dry run")
    number = int(device.removeprefix("cuda:")) if ":" in device else torch.cuda.current_device()
    if number >= torch.cuda.device_count():
        raise click.UsageError(f"--device {device}: torch sees {torch.cuda.device_count()} GPUs here, from cuda:0 on")
    torch.cuda.set_device(number)
    # The networks see clips of one length only.
    torch.backends.cudnn.benchmark = True
    return "cuda"


def _show_messages() -> None:
    logger = logging.getLogger("benchmarks")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    # What the small fits say of their posteriors is of no interest here.
    logging.getLogger("bayes_panns").setLevel(logging.ERROR)
