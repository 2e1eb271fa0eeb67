"""The commands on clips and on what is on disk."""

import logging
from pathlib import Path
from typing import Any

import click

from bayes_panns.cli import options
from bayes_panns.cli.main import main
from bayes_panns.core.files import require_folder

logger = logging.getLogger(__name__)

_SHOWN = 10
"""The skipped files that are named."""

_OPTIONS = {
    "min_count": ("folder", "embeddings"),
    "esc10": ("esc50",),
    "split": ("audioset",),
    "model": ("embeddings",),
}
"""The catalogs that an option is for."""


@main.command()
@click.argument("catalog", type=options.CATALOG)
@click.argument("source", type=options.FOLDER)
@click.option("-o", "--out", required=True, type=options.FOLDER, help="The store to write.")
@click.option("--seconds", type=options.Finite(min=0, min_open=True), help="Clip length [the catalog's].")
@click.option(
    "--sample-rate", type=click.Choice(["32000", "16000", "8000"]), help="In Hz, one of PANNs' three [32000]."
)
@click.option(
    "--exclude",
    default="",
    metavar="GLOB,...",
    help="Leave out clips by file name, path or source recording, such as '114587,*-3-0-0.ogg'.",
)
@click.option(
    "--min-count",
    type=click.IntRange(min=1),
    default=1,
    help="For folder and embeddings: drop labels with fewer clips.",
)
@click.option("--esc10", is_flag=True, help="For esc50: only the clips of ESC-10.")
@click.option("--split", type=options.SPLIT, help="For audioset: balanced, unbalanced or eval [all that are there].")
@click.option("--model", metavar="NAME", help="For embeddings: the model that made them [what the file says].")
def pack(
    catalog: str,
    source: Path,
    out: Path,
    seconds: float | None,
    sample_rate: str | None,
    exclude: str,
    min_count: int,
    esc10: bool,
    split: str | None,
    model: str | None,
) -> None:
    """Pack a data set into a store, PANNs' HDF5 layout.

    CATALOG is the layout of SOURCE: audioset, esc50 (also ESC-10), urbansound8k, dcase2013, or folder, which is one
    folder per class, a CSV of files and labels (several joined by ;), or recordings without labels. docs/data/ has a
    page on each. Files that are missing or cannot be read are skipped and counted. With embeddings, SOURCE is a file of
    vectors that another model has made: .npz, Parquet, CSV, or a database of perch-hoplite.

    \b
    Example:
      bayes-panns pack esc50 ESC-50-master -o stores/esc10.h5 --esc10
      bayes-panns pack audioset audioset -o stores/balanced.h5 --split balanced
      bayes-panns pack folder tags.csv -o stores/tagged.h5 --min-count 20
      bayes-panns pack embeddings birds.npz -o stores/birds.h5 --model "BirdNET 2.4"
    """
    from bayes_panns.clips import CATALOGS, embeddings, pack_embeddings
    from bayes_panns.clips import pack as pack_catalog
    from bayes_panns.clips.catalogs.embeddings import NAME

    given = {"min_count": min_count if min_count > 1 else None, "esc10": esc10 or None, "split": split, "model": model}
    extras: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    of_sound = {"seconds": seconds, "sample_rate": sample_rate}
    of_catalog = {name: (catalog != NAME) for name, value in of_sound.items() if value is not None}
    of_catalog |= {name: catalog in _OPTIONS[name] for name in extras}
    for name, known in of_catalog.items():
        if not known:
            raise click.UsageError(f"--{name.replace('_', '-')} is not for the catalog {catalog}")
    require_folder(out.parent)
    patterns = [pattern for pattern in exclude.split(",") if pattern]
    if catalog == NAME:
        report = pack_embeddings(embeddings(source, **extras), out, exclude=patterns)
    else:
        report = pack_catalog(
            CATALOGS[catalog](source, **extras),
            out,
            sample_rate=int(sample_rate or 32000),
            seconds=seconds,
            exclude=patterns,
        )
    for name, reason in report.skipped[:_SHOWN]:
        logger.info(f"skipped {name}: {reason}")
    if len(report.skipped) > _SHOWN:
        logger.info(f"skipped {len(report.skipped) - _SHOWN} more")
    logger.info(f"{out}: {report.packed} clips packed, {len(report.skipped)} skipped, {report.excluded} excluded")


@main.command()
@click.argument("path", type=options.FOLDER)
@click.option("--verify", is_flag=True, help="Read all of it, and check it against its digests.")
@click.pass_context
def inspect(ctx: click.Context, path: Path, verify: bool) -> None:
    """Show what is in a store, a posterior or a run, or check that it is what was written.

    With --verify the exit code is 1 if anything is damaged.

    \b
    Example:
      bayes-panns inspect stores/esc10.h5
      bayes-panns inspect stores/esc10.h5 --verify
    """
    if not verify:
        from bayes_panns.report import describe

        click.echo(describe(path), nl=False)
        return
    from bayes_panns.jobs import verify as verified

    found = verified(path)
    click.echo("\n".join(found.lines))
    if not found.whole:
        ctx.exit(1)


@main.command()
@click.argument("store", type=options.FOLDER)
@click.option("-o", "--out", required=True, type=options.FOLDER, help="The store to write.")
@click.option(
    "--sample-rate", type=click.IntRange(min=1), help="In Hz: that of its clips, if the store does not say it."
)
@click.option("--labels", type=options.FOLDER, help="A CSV of label names, if it has none.")
def repack(store: Path, out: Path, sample_rate: int | None, labels: Path | None) -> None:
    """Write a store of another program again, with what it does not say and with digests.

    Clips, labels, folds and recordings stay as they are; nothing is resampled.

    \b
    Example:
      bayes-panns repack gtzan.h5 -o stores/gtzan.h5 --sample-rate 32000
    """
    from bayes_panns.clips import read_labels
    from bayes_panns.clips import repack as again

    require_folder(out.parent)
    made = again(store, out, sample_rate=sample_rate, labels=None if labels is None else read_labels(labels))
    logger.info(f"{out}: {len(made)} clips, {made.contents}")
