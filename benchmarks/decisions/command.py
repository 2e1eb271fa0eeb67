"""The command ``python -m benchmarks decisions``."""

import logging
import sys
from pathlib import Path
from typing import Any

import click

from bayes_panns import __version__
from bayes_panns.core import progress
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.metrics.bootstrap import RESAMPLES
from benchmarks.decisions.design import CHOSEN_ON, DIVISIONS, splits
from benchmarks.decisions.measured import (
    ASKED,
    RULES,
    counts_of,
    false_alarms_of_the_test,
    near_sounds,
    table,
)
from benchmarks.decisions.predicted import HEAD, LOGISTIC, divided, head_run, logistic_run
from benchmarks.decisions.shifts import NONE, SHIFTS, embedded
from benchmarks.decisions.tables import tables
from benchmarks.messages import messages
from benchmarks.transfer_study.command import write_and_show

logger = logging.getLogger(__name__)


@click.command("decisions", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--esc10", required=True, type=click.Path(), help="A store of ESC-10 with its folds.")
@click.option("--us8k", required=True, type=click.Path(), help="A store of UrbanSound8K with folds 1, 2, 3 and 10.")
@click.option("--near", required=True, type=click.Path(), help="A store of sounds near ESC-10 with none of its labels.")
@click.option("--from", "source", required=True, type=click.Path(), help="The network, imported.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder of the study.")
@click.option(
    "--resamples", type=click.IntRange(min=1), default=RESAMPLES, show_default=True, help="For bootstrap intervals."
)
@click.option("--results", type=click.Path(path_type=Path), help="Write the results to RESULTS.json and .md as well.")
def main(esc10: str, us8k: str, near: str, source: str, out: Path, resamples: int, results: Path | None) -> None:
    """Fit decisions to held-out folds, and see what they keep on other folds, at other rates and in noise.

    Prints the tables, and writes them and every number to OUT/results.md and OUT/results.json. What is made is kept:
    after Ctrl-C, the same command continues.

    \b
    Example:
      python -m benchmarks decisions --esc10 stores/esc10.h5 --us8k stores/us8k.h5 \\
          --near stores/near.h5 --from runs/mn04 -o runs/decisions
    """
    try:
        with messages(), progress.shown(sys.stderr.isatty()):
            kept = out / "embedded"
            for store, like in ((esc10, esc10), (us8k, us8k)):
                for shift in SHIFTS:
                    embedded(store, like, source, kept, shift)
            embedded(near, esc10, source, kept, NONE)
            record = _measured(out, resamples)
    except BayesPannsError as error:
        raise click.ClickException(str(error)) from error
    write_and_show(record, tables(record), [out / "results", *([results] if results else [])])


def _measured(out: Path, resamples: int) -> dict[str, Any]:
    """Every number of the study, for JSON."""
    found: dict[str, Any] = {
        "bayes_panns": __version__,
        "chosen_on": CHOSEN_ON,
        "resamples": resamples,
        "divisions": {},
    }
    for division in DIVISIONS:
        stores = divided(division, out / "embedded", out / "stores")
        heads, regressions = [], []
        for split in splits(division):
            logger.info(f"{division.name}, tested on fold {split.test}")
            heads.append(head_run(stores, split, out / "heads" / division.name.replace(" ", "_")))
            regressions.append(logistic_run(stores, split))
        rows = [
            {"model": HEAD, **row} for asked in ASKED for rule in RULES for row in table(heads, asked, rule, resamples)
        ]
        rows += [{"model": LOGISTIC, **row} for asked in ASKED for row in table(regressions, asked, "bound", resamples)]
        found["divisions"][division.name] = {
            "rows": rows,
            "near": near_sounds(heads),
            "test": {shift: false_alarms_of_the_test(heads, shift) for shift in SHIFTS},
            "counts": {shift: counts_of(heads, shift) for shift in SHIFTS},
        }
    return found
