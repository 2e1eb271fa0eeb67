"""The commands on clips and on what is on disk."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bayes_panns.cli import options
from bayes_panns.cli.main import SKIPPED, main
from bayes_panns.core.files import require_folder
from bayes_panns.core.processes import cores

if TYPE_CHECKING:
    from bayes_panns.clips import Catalog

logger = logging.getLogger(__name__)

_SHOWN = 10
"""The skipped files that are named."""

_OPTIONS = {
    "min_count": ("folder", "timed", "embeddings"),
    "separator": ("folder", "timed", "embeddings"),
    "context": ("folder", "timed"),
    "exhaustive": ("folder", "timed"),
    "label_column": ("folder", "timed"),
    "allow_outside": ("folder", "timed"),
    "esc10": ("esc50",),
    "split": ("audioset",),
    "model": ("embeddings",),
}
"""The catalogs that an option is for."""

_FLAGS = {"context": "no-context"}
"""Options that are called otherwise on the command line."""

_LENGTHS = ("folder", "timed")
"""The catalogs that cut recordings into clips, and so need to know their length."""


@main.command()
@click.argument("catalog", type=options.CATALOG)
@click.argument("source", type=options.FOLDER)
@click.option("-o", "--out", required=True, type=options.FOLDER, help="The store to write.")
@click.option("--seconds", type=options.Finite(min=0, min_open=True), help="Clip length [the catalog's].")
@click.option(
    "--sample-rate", type=click.Choice(["32000", "16000", "8000"]), help="In Hz, one of PANNs' three [32000]."
)
@click.option("--channel", type=options.Channel(), help="Which channel of the files; mix is the mean of all [mix].")
@click.option(
    "--exclude",
    default="",
    metavar="GLOB,...",
    help="Leave out clips by file name, path or source recording, such as '114587,*-3-0-0.ogg'.",
)
@click.option(
    "--labels",
    type=options.FOLDER,
    metavar="FILE",
    help="A fixed set of labels, so that some may have no clip: a text with a name a line, a CSV with index and "
    "display_name, another store, or a posterior.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    help="Make N folds of whole recordings, for data without; with one label a clip, each label in proportion.",
)
@click.option("--seed", type=click.IntRange(min=0), help="For --folds [0].")
@click.option(
    "--min-count",
    type=click.IntRange(min=1),
    default=1,
    help="For folder, timed and embeddings: drop labels with fewer clips.",
)
@click.option(
    "--separator",
    metavar="SIGN",
    help="For folder, timed and embeddings: what stands between several labels, such as ',' [;].",
)
@click.option(
    "--exhaustive",
    is_flag=True,
    help="For labels with times: all is labelled, so clips from between have no label.",
)
@click.option(
    "--no-context",
    is_flag=True,
    help="For labels with times: fill short clips with silence, not with the sound around them.",
)
@click.option("--label-column", metavar="NAME", help="For Raven's tables: the column of the labels.")
@click.option(
    "--allow-outside",
    is_flag=True,
    help="For folder and timed: let a table name files outside its folder.",
)
@click.option("--esc10", is_flag=True, help="For esc50: only the clips of ESC-10.")
@click.option("--split", type=options.SPLIT, help="For audioset: balanced, unbalanced or eval [all that are there].")
@click.option("--model", metavar="NAME", help="For embeddings: the model that made them [what the file says].")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes that decode [one for each core].")
@click.option("--resume", is_flag=True, help="Go on with a pack that was interrupted.")
@click.option(
    "--clips-per-store",
    type=click.IntRange(min=1),
    metavar="N",
    help="Write several stores, NAME-00.h5 and on, each of N listed clips; recordings stay whole.",
)
@click.pass_context
def pack(
    ctx: click.Context,
    catalog: str,
    source: Path,
    out: Path,
    seconds: float | None,
    sample_rate: str | None,
    channel: str | None,
    exclude: str,
    labels: Path | None,
    folds: int | None,
    seed: int | None,
    min_count: int,
    separator: str | None,
    exhaustive: bool,
    no_context: bool,
    label_column: str | None,
    allow_outside: bool,
    esc10: bool,
    split: str | None,
    model: str | None,
    jobs: int | None,
    resume: bool,
    clips_per_store: int | None,
) -> None:
    """Pack a data set into a store, PANNs' HDF5 layout.

    CATALOG is the layout of SOURCE: audioset, esc50 (also ESC-10), urbansound8k, fsd50k, dcase2013, or folder, which is
    one folder per class, a CSV of files and labels (several joined by ;), or recordings without labels. With timed,
    SOURCE says when something is heard: a CSV with start and end, a Raven selection table, an Audacity label track,
    crowsetta's CSV, or a folder of recordings with such files beside them; folder takes these too where that is clear.
    docs/data/ has a page on each. Files that are missing or cannot be read are skipped and counted, and the exit code
    is then 3. With embeddings, SOURCE is a file of vectors that another model has made: .npz, Parquet, CSV, or a
    database of perch-hoplite.

    A pack that is interrupted keeps what is done in the folder OUT.part, and --resume goes on with it. docs/stores.md
    tells of large packs.

    \b
    Example:
      bayes-panns pack esc50 ESC-50-master -o stores/esc10.h5 --esc10
      bayes-panns pack audioset audioset -o stores/balanced.h5 --split balanced
      bayes-panns pack audioset audioset -o stores/audioset.h5 --clips-per-store 50000 --resume
      bayes-panns pack folder tags.csv -o stores/tagged.h5 --min-count 20
      bayes-panns pack timed selections/ -o stores/birds.h5 --seconds 3 --folds 5
      bayes-panns pack folder test/ -o stores/test.h5 --labels runs/mine
      bayes-panns pack embeddings birds.npz -o stores/birds.h5 --model "BirdNET 2.4"
    """
    from bayes_panns.clips import CATALOGS, embeddings, pack_embeddings
    from bayes_panns.clips import pack as pack_catalog
    from bayes_panns.clips.catalogs.embeddings import NAME

    given = {
        "min_count": min_count if min_count > 1 else None,
        "separator": separator,
        "context": False if no_context else None,
        "exhaustive": exhaustive or None,
        "label_column": label_column,
        "allow_outside": allow_outside or None,
        "esc10": esc10 or None,
        "split": split,
        "model": model,
    }
    extras: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    of_running = {"jobs": jobs, "resume": resume or None, "clips_per_store": clips_per_store}
    of_sound = {"seconds": seconds, "sample_rate": sample_rate, "channel": channel, **of_running}
    of_catalog = {name: (catalog != NAME) for name, value in of_sound.items() if value is not None}
    of_catalog |= {name: catalog in _OPTIONS[name] for name in extras}
    for name, known in of_catalog.items():
        if not known:
            flag = _FLAGS.get(name, name.replace("_", "-"))
            raise click.UsageError(f"--{flag} is not for the catalog {catalog}")
    if separator == "":
        raise click.UsageError("--separator is empty; name the sign between two labels")
    if seed is not None and folds is None:
        raise click.UsageError("--seed is for --folds")
    if labels is not None and min_count > 1:
        raise click.UsageError("--min-count drops labels, and --labels keeps all of a set; give one of them")
    require_folder(out.parent)
    options.require_other(out, [source, *([] if labels is None else [labels])])
    patterns = [pattern for pattern in exclude.split(",") if pattern]
    if catalog == NAME:
        table = embeddings(source, **extras)
        table = replace(table, catalog=_refined(table.catalog, labels, folds, seed))
        report = pack_embeddings(table, out, exclude=patterns)
    else:
        if seconds is not None and catalog in _LENGTHS:
            extras["seconds"] = seconds
        sound: dict[str, Any] = {} if channel is None else {"channel": channel}
        clips = _refined(CATALOGS[catalog](source, **extras), labels, folds, seed)
        options.require_other(out, [clip.path for clip in clips.clips])
        report = pack_catalog(
            clips,
            out,
            sample_rate=int(sample_rate or 32000),
            seconds=seconds,
            exclude=patterns,
            jobs=jobs or cores(),
            resume=resume,
            clips_per_store=clips_per_store,
            **sound,
        )
    for name, reason in report.skipped[:_SHOWN]:
        logger.info(f"skipped {name}: {reason}")
    if len(report.skipped) > _SHOWN:
        logger.info(f"skipped {len(report.skipped) - _SHOWN} more")
    counts = [f"{report.packed} clips packed", f"{len(report.skipped)} skipped", f"{report.excluded} excluded"]
    stores = f" in {len(report.stores)} stores" if clips_per_store is not None else ""
    counts[0] += stores
    logger.info(f"{out}: {', '.join([*counts, report.noted] if report.noted else counts)}")
    if report.skipped:
        ctx.exit(SKIPPED)


def _refined(catalog: "Catalog", labels: Path | None, folds: int | None, seed: int | None) -> "Catalog":
    """The catalog with the labels and the folds that were asked for."""
    from bayes_panns.clips import with_folds, with_labels

    if labels is not None:
        from bayes_panns.jobs import label_set

        catalog = with_labels(catalog, *label_set(labels))
    return catalog if folds is None else with_folds(catalog, folds, seed or 0)


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
