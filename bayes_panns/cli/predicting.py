"""The commands that tag sounds."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bayes_panns.cli import options
from bayes_panns.cli.main import main
from bayes_panns.core.choices import TagFormat

if TYPE_CHECKING:
    from bayes_panns.predictions import Draws

logger = logging.getLogger(__name__)

_LENGTH = options.Finite(min=0.001)


@main.command()
@click.argument("posterior", type=options.FOLDER)
@click.argument("files", nargs=-1, required=True, type=options.FOLDER, metavar="FILE...")
@click.option(
    "--with",
    "others",
    multiple=True,
    type=options.FOLDER,
    metavar="POSTERIOR",
    help="Another posterior of the same labels, for an ensemble; repeatable.",
)
@options.draws
@click.option(
    "--format",
    "form",
    type=click.Choice(TagFormat.words()),
    default=str(TagFormat.TABLE),
    show_default=True,
    help="How to write the tags.",
)
@click.option("-o", "--out", type=options.FOLDER, help="The file to write, instead of standard output.")
@click.option("--window", type=_LENGTH, help="Seconds of a window [the clips' length].")
@click.option("--hop", type=_LENGTH, help="Seconds from one window to the next [the window].")
@options.device
@options.guide_function
def predict(
    posterior: Path,
    files: tuple[Path, ...],
    others: tuple[Path, ...],
    draws: "Draws | None",
    form: str,
    out: Path | None,
    window: float | None,
    hop: float | None,
    device: str,
    guide_function: str | None,
) -> None:
    """Tag sound files, or folders of them, with the uncertainty of each tag.

    A file that is longer than the posterior's clips is cut into windows. Several posteriors share the --draws.

    \b
    Example:
      bayes-panns predict runs/esc10 dog.wav rain.mp3
      bayes-panns predict runs/esc10 recordings/ --format csv -o tags.csv
      bayes-panns predict runs/det-0 --with runs/det-1 --with runs/det-2 dog.wav
    """
    from bayes_panns.audio.files import find
    from bayes_panns.posterior import choose_device, load_all
    from bayes_panns.predictions import tag
    from bayes_panns.report import render_tags

    options.require_output(out)
    paths = [path for file in files for path in (find(file) if file.is_dir() else [file])]
    if form == TagFormat.AUDACITY and len(paths) > 1:
        raise click.UsageError("--format audacity makes a label track of one file; name one")
    loaded = load_all([posterior, *others], device=choose_device(device), guide_function=guide_function)
    tags = tag(loaded, paths, draws, window=window, hop=hop)
    for _, reason in tags.skipped:
        logger.info(f"skipped {reason}")
    options.write(render_tags(tags, form), out)
    if tags.skipped:
        logger.info(f"{len(paths) - len(tags.skipped)} files tagged, {len(tags.skipped)} skipped")


@main.command()
@click.argument("posterior", type=options.FOLDER)
@click.argument("files", nargs=-1, required=True, type=options.FOLDER, metavar="FILE...")
@click.option("-o", "--out", required=True, type=options.FOLDER, help="The file to write: .npz, .parquet or .csv.")
@click.option("--window", type=_LENGTH, help="Seconds of a window [the clips' length].")
@click.option("--hop", type=_LENGTH, help="Seconds from one window to the next [the window].")
@options.device
@options.guide_function
def embed(
    posterior: Path,
    files: tuple[Path, ...],
    out: Path,
    window: float | None,
    hop: float | None,
    device: str,
    guide_function: str | None,
) -> None:
    """Write the embeddings of sound files, folders or stores: what the posterior's last layer takes, a row a window.

    The rows have the file, the window's start and end in seconds, and the embedding. From stores, names, labels, folds
    and recordings come along. `pack embeddings` makes a store of the file.

    \b
    Example:
      bayes-panns embed runs/us8k recordings/ -o recordings.npz
      bayes-panns embed runs/us8k stores/esc10.h5 -o esc10.npz
      bayes-panns pack embeddings esc10.npz -o stores/esc10-embedded.h5
    """
    from bayes_panns.audio.files import find
    from bayes_panns.jobs import choose_device
    from bayes_panns.jobs import embed as embed_to_file
    from bayes_panns.posterior import load

    options.require_output(out)
    paths = [path for file in files for path in (find(file) if file.is_dir() else [file])]
    loaded = load(posterior, device=choose_device(device), guide_function=guide_function)
    embedded = embed_to_file(loaded, paths, out, window=window, hop=hop)
    for _, reason in embedded.skipped:
        logger.info(f"skipped {reason}")
    rows, width = embedded.embedding.shape
    logger.info(f"{out}: {rows} rows of {width} numbers, {len(embedded.skipped)} files skipped")
