"""The command that learns from clips without a recipe."""

import sys
from pathlib import Path

import click

from bayes_panns.cli import options
from bayes_panns.cli.main import exit_if_skipped, main
from bayes_panns.core.choices import ClassShares, RecordingsBy


@main.command()
@click.argument("clips", type=options.FOLDER)
@click.option("-o", "--out", required=True, type=options.FOLDER, metavar="DIR", help="Where the posterior goes.")
@click.option(
    "--from",
    "upstream",
    type=options.FOLDER,
    metavar="POSTERIOR",
    help="The network to start from [EfficientAT's mn04, downloaded once].",
)
@click.option(
    "--seconds",
    type=options.Finite(min=0, min_open=True),
    help="Clip length [chosen from how long the recordings are].",
)
@click.option(
    "--recordings",
    type=click.Choice(RecordingsBy.words()),
    default=str(RecordingsBy.AUTO),
    show_default=True,
    help="How clips of one recording are recognised: by a column source, by sub-folders, by names, or every file "
    "is one.",
)
@click.option(
    "--classes",
    type=click.Choice(ClassShares.words()),
    default=str(ClassShares.AS_LABELLED),
    show_default=True,
    help="How frequent the classes are taken to be in the sounds to tag.",
)
@click.option("--precision", type=options.SHARE, help="Decide: the share of each label's calls that is to be right.")
@click.option("--risk", type=options.SHARE, help="Decide: the share of decided windows that may be wrong.")
@click.option("--false-alarms", type=options.Finite(0, min_open=True), help="Decide: wrong calls of a label an hour.")
@click.option("--plan", "only_plan", is_flag=True, help="Print the plan, and do nothing.")
@click.option("--yes", is_flag=True, help="Start without asking.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of folds and fits.")
@options.device
def learn(
    clips: Path,
    out: Path,
    upstream: Path | None,
    seconds: float | None,
    recordings: str,
    classes: str,
    precision: float | None,
    risk: float | None,
    false_alarms: float | None,
    only_plan: bool,
    yes: bool,
    seed: int,
    device: str,
) -> None:
    """Learn to tag the sounds in your own clips, and say how well that works.

    CLIPS is a folder with a sub-folder a class; a CSV of file,labels (several joined by ;); labels with times, as pack
    timed takes them; or a store. First it prints what it will do. The scores are those of clips whose recordings the
    fit has not heard. DIR is a run: predict, report, evaluate and finetune --from take it. After Ctrl-C the same
    command goes on where it stopped.

    \b
    Example:
      bayes-panns learn my_clips/ -o model --plan
      bayes-panns learn my_clips/ -o model
      bayes-panns predict model new-recordings/
    """
    from bayes_panns.interop.learning import learn as learn_clips
    from bayes_panns.interop.learning import plan_learning
    from bayes_panns.report.text.learning import plan_text, result_text

    target, value = options.one_target(precision, risk, false_alarms)
    plan = plan_learning(
        clips, out, upstream=upstream, seconds=seconds, recordings=recordings, classes=classes, seed=seed
    )
    click.echo(plan_text(plan), nl=False)
    if only_plan:
        return
    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        click.confirm("start?", default=True, abort=True)
    learned = learn_clips(clips, out, target=target, value=value, device=device, plan=plan)
    click.echo(result_text(learned, tuple(main.commands)), nl=False)
    exit_if_skipped(len(learned.skipped))
