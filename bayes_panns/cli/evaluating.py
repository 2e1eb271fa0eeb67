"""The commands that score and calibrate posteriors."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bayes_panns.cli import options
from bayes_panns.cli.led import led
from bayes_panns.cli.main import main
from bayes_panns.core.files import require_folder
from bayes_panns.core.strict_json import defined, dumps

if TYPE_CHECKING:
    from bayes_panns.metrics import Interval
    from bayes_panns.predictions import Draws


@main.command()
@click.argument("posteriors", nargs=-1, required=True, type=options.FOLDER, metavar="POSTERIOR...")
@options.stores("A labelled store; repeatable.", required=True)
@options.folds("Score these folds only.")
@options.ood
@options.draws
@click.option("--json", "output", type=options.FOLDER, help="Write the metrics to this file too; - is standard output.")
@click.option("-o", "--out", type=options.FOLDER, help="Keep the predictions and the truth in this folder.")
@click.option("--intervals", is_flag=True, help="A 95 % bootstrap interval for each metric, over recordings.")
@click.option("--covariance", is_flag=True, help="Keep the epistemic covariance between labels too; for -o.")
@options.device
@options.precision
@options.guide_function
@led
def evaluate(
    posteriors: tuple[Path, ...],
    stores: tuple[Path, ...],
    folds: list[int] | None,
    ood: tuple[Path, ...],
    draws: "Draws | None",
    output: Path | None,
    out: Path | None,
    intervals: bool,
    covariance: bool,
    device: str,
    precision: str,
    guide_function: str | None,
) -> None:
    """Score a posterior: how often it is right, and whether its uncertainty tells when it is wrong.

    Labels are matched by name; a store may lack some of the posterior's. Several posteriors of the same labels are
    scored as one ensemble and share the --draws. Where the posterior has decisions, dec/coverage is the share of the
    clips that they decide, dec/precision the share of their calls that are right, and dec/outside that of the clips
    marked as unlike the held-out ones. Under torchrun several processes share the clips.

    \b
    Example:
      bayes-panns evaluate runs/esc10 --data stores/esc10.h5 --folds 5 --ood stores/fsdd.h5
      bayes-panns evaluate runs/esc10 --data stores/esc10.h5 --folds 5 --intervals -o runs/esc10/evaluation
      bayes-panns evaluate runs/det-0 runs/det-1 runs/det-2 --data stores/esc10.h5 --folds 5
      bayes-panns evaluate runs/esc10 --data stores/esc10.h5 --folds 5 --device cuda --precision bf16
    """
    from bayes_panns.evaluations import require_place
    from bayes_panns.jobs import choose_device, evaluate_posterior, unless_fitting
    from bayes_panns.posterior import load_all

    printed = output == Path("-")
    if not printed:
        options.require_output(output)
    if out is not None:
        require_folder(out)
        require_place(out)
    # A fit in the run would leave the evaluation of a posterior that is no more.
    with nullcontext() if out is None else unless_fitting(out):
        evaluation = evaluate_posterior(
            load_all(posteriors, device=choose_device(device), precision=precision, guide_function=guide_function),
            stores,
            folds=folds,
            ood=ood,
            draws=draws,
            covariance=covariance,
        )
        if out is not None:
            evaluation.save(out)
    bounds = evaluation.intervals() if intervals else {}
    ends = {f"{name}/{end}": getattr(each, end) for name, each in bounds.items() for end in ("low", "high")}
    # A flat object: metrics that are undefined are left out.
    text = dumps(defined({**evaluation.metrics, **ends}), indent=2)
    for line in [] if printed else _lines(defined(evaluation.metrics), bounds):
        click.echo(line)
    if output is not None:
        options.write(text, None if printed else output)


@main.command()
@click.argument("run", type=options.FOLDER, metavar="POSTERIOR")
@options.stores("A store to calibrate on [the run's validation clips].")
@options.folds("Calibrate on these folds only.")
@click.option(
    "--coverage",
    type=options.Finite(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="The share of true labels that the label sets are to contain.",
)
@click.option("--precision", type=options.SHARE, help="Decide: the share of each label's calls that is to be right.")
@click.option(
    "--risk", type=options.SHARE, help="Decide: the share of decided windows that may be wrong; for one-of-K."
)
@click.option("--false-alarms", type=options.Finite(0, min_open=True), help="Decide: wrong calls of a label an hour.")
@click.option(
    "--confidence",
    type=options.SHARE,
    default=0.9,
    show_default=True,
    help="How sure it is to be that decisions keep to that.",
)
@click.option("--draws", type=click.IntRange(min=0), help="Posterior draws [as for predict].")
@options.device
@options.guide_function
@led
def calibrate(
    run: Path,
    stores: tuple[Path, ...],
    folds: list[int] | None,
    coverage: float,
    precision: float | None,
    risk: float | None,
    false_alarms: float | None,
    confidence: float,
    draws: int | None,
    device: str,
    guide_function: str | None,
) -> None:
    """Fit a temperature, label sets and decisions to held-out clips, and keep them with the posterior.

    Afterwards its probabilities are divided by the temperature, and predict adds to each window a set of labels that
    contains the true one as often as --coverage says. By default the clips are those that the run held out for
    validation. They must not include clips that the posterior was fitted to, or that it will be scored on.

    With --precision, --risk or --false-alarms it also fits thresholds, one a label, by which windows are decided or
    left to a person. A threshold is used only if these clips show, with the --confidence, that it keeps what was asked
    for; a label with too few clips shares one with others, and a label without any is never decided. `inspect` shows
    them.

    \b
    Example:
      bayes-panns calibrate runs/esc10 --coverage 0.9
      bayes-panns calibrate runs/birds --data stores/birds.h5 --folds 4 --precision 0.95
      bayes-panns calibrate runs/birds --data stores/birds.h5 --folds 4 --false-alarms 2
      bayes-panns calibrate runs/esc10/posterior --data stores/esc10.h5 --folds 4
    """
    from bayes_panns.jobs import calibrate as fit_calibration
    from bayes_panns.jobs import choose_device, held_out, unless_fitting
    from bayes_panns.posterior import load, save_calibration

    target, value = options.one_target(precision, risk, false_alarms)
    with unless_fitting(run):
        loaded = load(run, device=choose_device(device), guide_function=guide_function)
        clips = held_out(run, stores, folds=folds)
        fit_calibration(
            loaded, clips, coverage=coverage, draws=draws, target=target, value=value, confidence=confidence
        )
        save_calibration(loaded)


@main.command()
@click.argument("runs", nargs=-1, required=True, type=options.FOLDER, metavar="RUN...")
@click.option("-o", "--out", type=options.FOLDER, help="The file to write [RUN/report.html].")
@options.stores("Score now, on this store; repeatable.")
@options.folds("Score these folds only.")
@options.ood
@options.draws
@options.device
@options.precision
@options.guide_function
def report(
    runs: tuple[Path, ...],
    out: Path | None,
    stores: tuple[Path, ...],
    folds: list[int] | None,
    ood: tuple[Path, ...],
    draws: "Draws | None",
    device: str,
    precision: str,
    guide_function: str | None,
) -> None:
    """Write an HTML report on a run, with clips to look at and listen to; or compare several runs.

    RUN is the folder of a run, a posterior, an evaluation or a cross-validation. Without --data the report shows the
    run's evaluation, or else scores the clips that the run held out. It is one file and needs no network.

    \b
    Example:
      bayes-panns report runs/esc10 --data stores/esc10.h5 --folds 5 --ood stores/fsdd.h5
      bayes-panns report runs/esc10-flip runs/esc10-drop -o comparison.html
      bayes-panns report runs/esc10 --data stores/esc10.h5 --folds 5 --device cuda --precision bf16
    """
    from bayes_panns.report import write_report

    path = write_report(
        runs,
        out,
        stores=stores,
        folds=folds,
        ood=ood,
        draws=draws,
        device=device,
        precision=precision,
        guide_function=guide_function,
    )
    click.echo(path)


def _lines(metrics: Mapping[str, Any], intervals: "Mapping[str, Interval]") -> Iterator[str]:
    """A line for each metric, with its interval if there is one."""
    width = max(map(len, metrics))
    for name, value in metrics.items():
        line = f"{name.ljust(width)}  " + (f"{value:.4f}" if isinstance(value, float) else str(value))
        found = intervals.get(name)
        yield line if found is None else f"{line}  ({found.low:.4f} to {found.high:.4f})"
