"""The command ``python -m benchmarks hours``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from bayes_panns.core import progress
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.core.strict_json import dumps
from bayes_panns.metrics.bootstrap import RESAMPLES
from benchmarks.foundation_study import backbone_of
from benchmarks.hours.embedded import HOP, WINDOW, Hour, embedded_hour
from benchmarks.hours.finding import Searched, searched
from benchmarks.hours.heads import HEADS, head
from benchmarks.hours.material import EVENTS, RATE, material
from benchmarks.hours.mixing import SECONDS, SNR
from benchmarks.hours.study import compare_heads, examine
from benchmarks.hours.tables import tables
from benchmarks.hours.tuning import COLLAR
from benchmarks.messages import messages

COMPARED = 6
"""Development hours that the heads are compared on; the best one's rules are chosen on all of them."""


@click.command("hours", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--data", required=True, type=click.Path(path_type=Path), help="The folder of esc10/ and urbansound8k/.")
@click.option("--from", "source", required=True, type=click.Path(), help="The network, imported.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder of the study.")
@click.option("--development", type=click.IntRange(min=2), default=12, show_default=True, help="Hours to choose by.")
@click.option("--test", type=click.IntRange(min=2), default=20, show_default=True, help="Hours to test on.")
@click.option("--seconds", type=click.FloatRange(min=60), default=SECONDS, show_default=True, help="Of an hour.")
@click.option("--head", "names", type=click.Choice(list(HEADS)), multiple=True, help="A head; repeatable [all].")
@click.option("--resamples", type=click.IntRange(min=1), default=RESAMPLES, show_default=True)
@click.option("--note", default="", help="What to say above the tables.")
@click.option("--results", type=click.Path(path_type=Path), help="Write RESULTS.json and RESULTS.md as well.")
def main(
    data: Path,
    source: str,
    out: Path,
    development: int,
    test: int,
    seconds: float,
    names: tuple[str, ...],
    resamples: int,
    note: str,
    results: Path | None,
) -> None:
    """Make hours of clips over real background, find the events in them, and count them.

    Everything is kept in OUT, so the same command goes on after an interruption; the sound of an hour is not, but the
    embeddings of its windows are. The heads are fitted to one part of the recordings, the rules chosen on hours of
    another, and tested on hours of a third.

    \b
    Example:
      python -m benchmarks hours --data data/ --from checkpoints/mn04 -o runs/hours
    """
    try:
        with messages(), progress.shown(sys.stderr.isatty()):
            record = _study(data, source, out, development, test, seconds, names or tuple(HEADS), resamples, note)
    except BayesPannsError as error:
        raise click.ClickException(str(error)) from error
    text = tables(record)
    for place in [out / "results", *([] if results is None else [results])]:
        place.with_suffix(".json").write_text(dumps(record, indent=1))
        place.with_suffix(".md").write_text(text)
    click.echo(text, nl=False)


def _study(
    data: Path,
    source: str,
    out: Path,
    development: int,
    test: int,
    seconds: float,
    names: tuple[str, ...],
    resamples: int,
    note: str,
) -> dict[str, Any]:
    labels = tuple(EVENTS)
    fit_to = material(data, "fit")
    heads = {name: head(name, fit_to, source, out) for name in names}
    embeds = backbone_of(source, RATE, WINDOW)

    def hours(part: str, count: int) -> list[Hour]:
        clips = material(data, part)
        return [embedded_hour(embeds, clips, part, number, out / "hours", seconds) for number in range(count)]

    def search(name: str, of: Sequence[Hour]) -> list[Searched]:
        return [searched(heads[name], hour, out / "found" / name / f"{hour.name}.json") for hour in of]

    to_choose, few = hours("development", development), min(development, COMPARED)
    compared = compare_heads({name: search(name, to_choose[:few]) for name in heads}, labels)
    best = max(names, key=lambda name: compared[name]["draws"])
    found, to_test = search(best, to_choose), search(best, hours("test", test))
    events = np.array([len(hour.truth) for hour in to_test])
    return {
        "labels": labels,
        "material": {"development": development, "test": test},
        "events": {"test": float(events.mean()), "least": int(events.min()), "most": int(events.max())},
        "snr": SNR,
        "window": WINDOW,
        "hop": HOP,
        "collar": COLLAR,
        "note": note,
        "heads": compared,
        "heads_on": few,
        "head": best,
        **examine(found, to_test, labels, resamples),
    }
