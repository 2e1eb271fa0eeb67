"""The command that chooses what to label."""

import logging
from pathlib import Path

import click

from bayes_panns.cli import options
from bayes_panns.cli.led import led
from bayes_panns.cli.main import exit_if_skipped, main
from bayes_panns.core.choices import AcquireStrategy

logger = logging.getLogger(__name__)


@main.command()
@click.argument("posterior", type=options.FOLDER)
@click.argument("folder", type=options.FOLDER)
@click.option("--budget", type=click.IntRange(min=1), default=20, show_default=True, help="How many clips to choose.")
@click.option(
    "--strategy",
    type=click.Choice(AcquireStrategy.words()),
    help=f"How to choose: {AcquireStrategy.described()} [typical].",
)
@click.option("-o", "--out", type=options.FOLDER, default=Path("to-label"), show_default=True, help="A new folder.")
@click.option(
    "--exclude",
    multiple=True,
    type=options.FOLDER,
    metavar="CSV",
    help="A table of clips to leave out, with a column file and perhaps start and end, such as labels.csv or the "
    "chosen.csv of an earlier round; repeatable.",
)
@click.option(
    "--window",
    "--seconds",
    "window",
    type=options.Finite(min=0.001),
    help="Seconds of a clip; longer recordings are cut [the posterior's].",
)
@click.option("--draws", type=click.IntRange(min=2), default=100, show_default=True, help="Posterior draws.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is random.")
@options.channel
@options.device
@options.precision
@options.guide_function
@led
def acquire(
    posterior: Path,
    folder: Path,
    budget: int,
    strategy: str | None,
    out: Path,
    exclude: tuple[Path, ...],
    window: float | None,
    draws: int,
    seed: int,
    channel: str,
    device: str,
    precision: str,
    guide_function: str | None,
) -> None:
    """Choose which clips of a FOLDER of recordings to label next, and make a page to label them on.

    OUT gets chosen.csv, a table of the clips, and label.html, which plays them and takes labels by key or touch. Save
    the labels.csv that the page gives you in FOLDER; pack folder takes it. A file that cannot be read is skipped, and
    the exit code is then 3. Under torchrun several processes look at the recordings.

    \b
    Example:
      bayes-panns acquire runs/mine recordings/ --budget 30
      bayes-panns acquire runs/mine recordings/ --device cuda --precision bf16
      bayes-panns pack folder recordings/labels.csv -o new.h5 --seconds 5 --labels runs/mine
      bayes-panns finetune continue --from runs/mine --data new.h5 -o runs/mine-2
      bayes-panns acquire runs/mine-2 recordings/ --exclude recordings/labels.csv -o to-label-2
    """
    from bayes_panns.core.errors import AudioError
    from bayes_panns.jobs import DEFAULT_STRATEGY, choose_device
    from bayes_panns.jobs import acquire as choose
    from bayes_panns.posterior import load
    from bayes_panns.report.labelling import write_labelling
    from bayes_panns.report.labelling.page import require_new

    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder; name the folder of the recordings")
    require_new(out)
    files = options.sound_files([folder])
    loaded = load(posterior, device=choose_device(device), precision=precision, guide_function=guide_function)
    found = choose(
        loaded,
        files,
        budget,
        folder=folder,
        strategy=DEFAULT_STRATEGY if strategy is None else AcquireStrategy(strategy),
        exclude=exclude,
        window=window,
        channel=channel,
        draws=draws,
        seed=seed,
    )
    for each in found.skipped:
        logger.info(f"skipped {each.reason}")
    for file, note in found.notes:
        logger.warning(f"{file}: {note.text}")
    table, page = write_labelling(found, loaded, out, source=posterior, channel=channel)
    looked = f"{found.windows} windows of {len(files) - len(found.skipped)} files"
    labelled = f", {found.labelled} of them labelled already" if found.labelled else ""
    logger.info(f"{len(found.picks)} clips chosen by {found.strategy} from {looked}{labelled}")
    logger.info(f"{table}: the clips; open {page} in a browser to label them")
    exit_if_skipped(len(found.skipped))
