"""The command ``python -m benchmarks transfer-study``."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bayes_panns.core import progress
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.core.files import whole_file
from bayes_panns.core.strict_json import write_json
from bayes_panns.metrics.bootstrap import RESAMPLES
from benchmarks.messages import messages
from benchmarks.transfer_study.compare import compare
from benchmarks.transfer_study.design import ARMS, ROWS, Study, stages
from benchmarks.transfer_study.fits import fit_and_score, fitted
from benchmarks.transfer_study.tables import tables


def whole_numbers(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    """The numbers of an option such as 0,1,2."""
    try:
        return [int(item) for item in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r}: write whole numbers with commas, such as 0,1,2") from None


def shares_of(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    """The shares of an option such as 1,0.25."""
    try:
        shares = [float(item) for item in value.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise click.BadParameter(f"{value!r}: write shares above 0 and up to 1 with commas, such as 1,0.25")
    return shares


@click.command("transfer-study", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--data", required=True, type=click.Path(), help="The downstream store, with folds.")
@click.option("--near", required=True, type=click.Path(), help="A store of similar sounds with none of the labels.")
@click.option("--speech", required=True, type=click.Path(), help="A store of speech.")
@click.option("--flip", required=True, type=click.Path(), help="The upstream posterior with variational weights.")
@click.option("--det", required=True, type=click.Path(), help="The upstream posterior with point weights.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder of the study.")
@click.option("--seeds", callback=whole_numbers, metavar="N,...", default="0,1,2", show_default=True)
@click.option(
    "--shares", callback=shares_of, metavar="X,...", default="1,0.25,0.1", show_default=True, help="Of the labels."
)
@click.option("--arm", "arms", type=click.Choice(list(ARMS)), multiple=True, help="Only this arm [both].")
@click.option(
    "--guide",
    "guides",
    type=click.Choice([row.guide for row in ROWS]),
    multiple=True,
    help="Only this row; repeatable [all].",
)
@click.option("--no-fit", is_flag=True, help="Compare the rows that are fitted so far.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Replace a recipe value in every fit.")
@click.option(
    "--resamples", type=click.IntRange(min=1), default=RESAMPLES, show_default=True, help="For bootstrap intervals."
)
@click.option("--results", type=click.Path(path_type=Path), help="Write the results to RESULTS.json and .md as well.")
def main(
    data: str,
    near: str,
    speech: str,
    flip: str,
    det: str,
    out: Path,
    seeds: list[int],
    shares: list[float],
    arms: tuple[str, ...],
    guides: tuple[str, ...],
    no_fit: bool,
    changes: tuple[str, ...],
    resamples: int,
    results: Path | None,
) -> None:
    """Fit, score and compare every strategy from upstream posteriors and from scratch.

    Prints the tables, and writes them and every number to OUT/results.md and OUT/results.json. After Ctrl-C, the same
    command continues.

    \b
    Example:
      python -m benchmarks transfer-study --data stores/esc10.h5 --near stores/near.h5 --speech stores/speech.h5 \\
          --flip runs/us8k-both-flip --det runs/us8k-both-det -o runs/study --seeds 0 --shares 1
    """
    study = Study(out, data, near, speech, {"flip": flip, "det": det}, changes, resamples)
    todo = stages(seeds, shares, arms, guides)
    try:
        if no_fit and not (todo := fitted(study, todo)):
            raise BayesPannsError(f"{out}: no row of the study is fitted on every fold yet; leave out --no-fit")
        with messages(), progress.shown(sys.stderr.isatty()):
            found = fit_and_score(study, todo)
            if found is None:
                click.echo("interrupted; run the same command again to continue", err=True)
                click.get_current_context().exit(130)
            record = compare(study, found, todo)
    except BayesPannsError as error:
        raise click.ClickException(str(error)) from error
    write_and_show(record, tables(record), [out / "results", *([results] if results else [])])


def write_and_show(record: Mapping[str, Any], text: str, places: Sequence[Path]) -> None:
    """Write a study's numbers to PLACE.json and its tables to PLACE.md, for each place, and print the tables."""
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, place.with_name(f"{place.name}.json"))
        with whole_file(place.with_name(f"{place.name}.md")) as fresh:
            fresh.write_text(text, encoding="utf-8")
    click.echo(text, nl=False)
