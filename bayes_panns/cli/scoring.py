"""The command that scores found events."""

from pathlib import Path

import click

from bayes_panns.cli import options
from bayes_panns.cli.main import main
from bayes_panns.core.strict_json import defined, dumps


@main.command()
@click.argument("results", type=options.FOLDER)
@click.argument("annotations", type=options.FOLDER)
@click.option(
    "--collar",
    type=options.Finite(min=0),
    default=0.2,
    show_default=True,
    help="Seconds by which an event's onset may be off.",
)
@click.option(
    "--offset-share",
    type=options.Finite(0, 1),
    default=0.5,
    show_default=True,
    help="The share of its length by which its offset may be off, if that is more.",
)
@click.option("--no-offset", is_flag=True, help="Compare onsets only.")
@click.option("--segment", type=options.Finite(min=0.001), default=1.0, show_default=True, help="Seconds of a segment.")
@click.option("--exhaustive", is_flag=True, help="A recording that ANNOTATIONS does not mention holds no event.")
@click.option("--separator", default=";", show_default=True, help="What stands between several labels.")
@click.option("--label-column", help="The column of Raven's tables that holds the labels.")
@click.option("--part", type=options.Finite(min=1), help="Seconds of the parts that intervals resample [recordings].")
@click.option("--no-intervals", is_flag=True, help="Leave the intervals out.")
@click.option("--json", "output", type=options.FOLDER, help="Write the numbers to this file too; - is standard output.")
def score(
    results: Path,
    annotations: Path,
    collar: float,
    offset_share: float,
    no_offset: bool,
    segment: float,
    exhaustive: bool,
    separator: str,
    label_column: str | None,
    part: float | None,
    no_intervals: bool,
    output: Path | None,
) -> None:
    """Score the events that predict found against annotated ones.

    RESULTS is the folder that `predict` wrote, or an events.csv. ANNOTATIONS is a CSV with the columns file, start, end
    and labels (or file, onset, offset and label), a Raven selection table, an Audacity label track, or a folder of
    them. Recordings are found by their names.

    The table has the F1 scores of sed_eval, by segments and by events, and one that lets an event be found in pieces;
    below it is the polyphonic sound detection score of psds_eval. Intervals hold 95 % of a bootstrap over recordings,
    or over 5 minutes of each where there are fewer than 8.

    \b
    Example:
      bayes-panns score results annotations.csv
      bayes-panns score results raven-tables/ --collar 1 --exhaustive --json scores.json
    """
    from bayes_panns.evaluations import Matching
    from bayes_panns.jobs import score as score_results
    from bayes_panns.metrics.bootstrap import RESAMPLES
    from bayes_panns.report import render_event_scores

    printed = output == Path("-")
    if not printed:
        options.require_output(output)
    scores = score_results(
        results,
        annotations,
        matching=Matching(segment, collar, None if no_offset else offset_share),
        exhaustive=exhaustive,
        part=part,
        resamples=0 if no_intervals else RESAMPLES,
        separator=separator,
        label_column=label_column,
    )
    if not printed:
        click.echo(render_event_scores(scores), nl=False)
    if output is not None:
        options.write(dumps(defined(scores.metrics()), indent=2), None if printed else output)
