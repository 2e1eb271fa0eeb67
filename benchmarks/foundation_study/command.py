"""The command ``python -m benchmarks foundation-study``."""

import sys
from pathlib import Path

import click

from bayes_panns.core import progress
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.metrics.bootstrap import RESAMPLES
from benchmarks.foundation_study.compare import compare
from benchmarks.foundation_study.design import ROWS, Study, stages
from benchmarks.foundation_study.embedded import embedded
from benchmarks.foundation_study.fits import fit_and_score
from benchmarks.foundation_study.tables import tables
from benchmarks.messages import messages
from benchmarks.transfer_study.command import shares_of, whole_numbers, write_and_show


@click.command("foundation-study", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--data", required=True, type=click.Path(), help="A store with folds and one label a clip.")
@click.option("--near", required=True, type=click.Path(), help="A store of similar sounds with none of the labels.")
@click.option("--speech", type=click.Path(), help="A store of speech.")
@click.option("--from", "source", type=click.Path(), help="The network, imported; not for stores of embeddings.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder of the study.")
@click.option(
    "--shares", callback=shares_of, metavar="X,...", default="1,0.25,0.1", show_default=True, help="Of the labels."
)
@click.option(
    "--seeds", callback=whole_numbers, metavar="N,...", default="0,1,2", show_default=True, help="Which labels."
)
@click.option(
    "--row",
    "names",
    type=click.Choice([row.name for row in ROWS]),
    multiple=True,
    help="Only this row; repeatable [all].",
)
@click.option(
    "--resamples", type=click.IntRange(min=1), default=RESAMPLES, show_default=True, help="For bootstrap intervals."
)
@click.option("--note", default="", help="What to say of the data above the tables.")
@click.option("--results", type=click.Path(path_type=Path), help="Write the results to RESULTS.json and .md as well.")
def main(
    data: str,
    near: str,
    speech: str | None,
    source: str | None,
    out: Path,
    shares: list[float],
    seeds: list[int],
    names: tuple[str, ...],
    resamples: int,
    note: str,
    results: Path | None,
) -> None:
    """Fit, score and compare last layers on the embeddings of a published network, beside logistic regression.

    Prints the tables, and writes them and every number to OUT/results.md and OUT/results.json. After Ctrl-C, the same
    command continues.

    \b
    Example:
      python -m benchmarks foundation-study --data stores/esc10.h5 --near stores/near.h5 --from mn04 \\
          -o runs/foundation --shares 1
    """
    try:
        with messages(), progress.shown(sys.stderr.isatty()):
            stores = [
                None if each is None else embedded(each, data, source, out / "embedded")
                for each in (data, near, speech)
            ]
            study = Study(out, str(stores[0]), str(stores[1]), stores[2], resamples)
            todo = stages(seeds, shares, names)
            found = fit_and_score(study, todo)
            if found is None:
                click.echo("interrupted; run the same command again to continue", err=True)
                click.get_current_context().exit(130)
            record = compare(study, found, todo, note)
    except BayesPannsError as error:
        raise click.ClickException(str(error)) from error
    write_and_show(record, tables(record), [out / "results", *([results] if results else [])])
