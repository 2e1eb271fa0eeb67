"""The commands that fit posteriors, or set their widths without a fit."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bayes_panns.cli import options, resuming
from bayes_panns.cli.guide_option import own_guide
from bayes_panns.cli.led import led
from bayes_panns.cli.main import exit_stopped, main
from bayes_panns.core.files import require_folder

if TYPE_CHECKING:
    from bayes_panns.jobs.run_folder import Resume
    from bayes_panns.predictions import Draws

logger = logging.getLogger(__name__)


def _fit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.argument("run", type=options.RUN, metavar="RUN"),
            options.stores("A store to fit to; repeatable."),
            click.option("--labels", metavar="CSV", help="Label names for stores without them, such as PANNs' packs."),
            click.option(
                "--guide",
                type=options.GUIDE,
                metavar="G",
                callback=own_guide,
                help="A guide recipe, by name or file; or module:function of your own, which is run.",
            ),
            click.option("-o", "--out", type=options.FOLDER, help="The folder of the results [runs/RUN]."),
            options.device,
            options.workers,
            click.option("--seed", type=int, help="Replaces fit.seed."),
            options.changes,
            resuming.resume(
                "Resume the folder's run; with a larger fit.epochs, continue it. auto: if there is one; else start."
            ),
            resuming.limits,
        )
    ):
        command = option(command)
    return command


def _fit(
    run: str,
    stores: tuple[Path, ...],
    labels: str | None,
    guide: str | None,
    out: Path | None,
    device: str,
    seed: int | None,
    changes: tuple[str, ...],
    resume: "Resume",
    upstream: Path | None = None,
    *,
    transfer: bool = False,
    **running: Any,
) -> None:
    from bayes_panns.jobs import fit
    from bayes_panns.recipes import read_run

    recipe = read_run(run, changes, stores=stores, labels=labels, guide=guide, upstream=upstream, seed=seed)
    if transfer and recipe.upstream is None:
        raise click.UsageError("name the posterior to start from with --from")
    folder = out or Path("runs") / Path(run).stem
    fitted = fit(
        recipe,
        folder,
        guide_function=options.function_of(guide),
        device=device,
        resume=resume,
        running=resuming.running(**running),
    )
    if not fitted.complete:
        exit_stopped(f"{folder}/posterior can be used as it is, and --resume continues the fit")
    metrics = fitted.posterior.metrics
    shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name.startswith("val/"))
    logger.info(f"posterior in {folder}/posterior" + (f" ({shown})" if shown else ""))


@main.command()
@_fit_options
def pretrain(**given: Any) -> None:
    """Fit a posterior from scratch, as the recipe RUN says.

    RUN is a file, or the name of a recipe in runs/. With --resume, the fit in the folder continues where it stopped; a
    complete fit continues if --set fit.epochs=N names more epochs than before. Ctrl-C, SIGTERM, SIGUSR1 and the time
    limit end it with a checkpoint; see docs/stopping.md. If the epoch with the lowest val/nll is not the last, its
    posterior is in best/ of the folder.

    \b
    Example:
      bayes-panns pretrain urbansound8k --data stores/us8k.h5 --guide flip -o runs/us8k-flip
      bayes-panns pretrain urbansound8k --data stores/us8k.h5 -o runs/us8k --resume auto --time-limit 23:50
      bayes-panns pretrain audioset --data stores/audioset.h5 --set fit.features=none --workers 4 -o runs/audioset
    """
    _fit(**given)


@main.command()
@_fit_options
@click.option("--from", "upstream", type=options.FOLDER, help="The posterior to start from.")
def finetune(**given: Any) -> None:
    """Fit a posterior that starts from another one.

    Every weight that both share starts from the upstream locs and scales; new labels get a new last layer. --resume is
    as for pretrain.

    \b
    Example:
      bayes-panns finetune esc10 --from runs/us8k-flip --data stores/esc10.h5 --guide flip
    """
    _fit(**given, transfer=True)


@main.command()
@click.argument("posterior", type=options.FOLDER)
@options.stores("A store, with or without labels; repeatable.", required=True)
@click.option("-o", "--out", required=True, type=options.FOLDER, metavar="NEW", help="The folder to write.")
@click.option(
    "--guide",
    type=options.GUIDE,
    metavar="G",
    default="flip",
    show_default=True,
    help="The guide recipe that says which weights have a width, and their priors.",
)
@options.of_widths()
@options.device
def widths(
    posterior: Path,
    stores: tuple[Path, ...],
    out: Path,
    guide: str,
    clips: int | None,
    kl_weight: float | None,
    device: str,
) -> None:
    """Give the weights of a posterior widths from clips, without a fit and without labels.

    The means stay. The widths are those of a Laplace approximation: they follow from the Fisher information of the
    clips and from the prior, as if the means had been fitted to so many clips like these. It takes about as long as an
    epoch over at most 2,000 clips. A fit can start from the result; see docs/published-checkpoints.md.

    \b
    Example:
      bayes-panns widths checkpoints/mn04 --data stores/mine.h5 -o checkpoints/mn04-fisher
      bayes-panns widths runs/esc10-det --data stores/esc10.h5 --guide det-flip --kl-weight 0.1 -o runs/esc10-widths
    """
    from bayes_panns.jobs import unless_fitting, with_fisher_widths
    from bayes_panns.posterior import load, save

    require_folder(out)
    with unless_fitting(out):
        made = with_fisher_widths(
            load(posterior), stores, guide=guide, clips=clips, kl_weight=kl_weight or 1.0, device=device
        )
        save(made, out)
    found = made.provenance["widths"]
    logger.info(
        f"{out}: {len(made.gaussians())} weight tensors with a width, {len(made.points())} others; as of "
        f"{found['clips']} clips, kl_weight {found['kl_weight']:g}"
    )


@main.command()
@click.argument("run", type=options.RUN, metavar="RUN")
@click.option(
    "--from",
    "upstream",
    type=options.FOLDER,
    help="The posterior that every fit starts from; or DIR/GUIDE of another crossval: each from that seed and fold.",
)
@options.stores("A store with folds; repeatable.")
@click.option(
    "--guide",
    "guides",
    multiple=True,
    type=options.GUIDE,
    metavar="G",
    callback=own_guide,
    help="As for pretrain; repeat it to compare guides.",
)
@click.option("--seeds", type=options.Numbers(), help="Fit each with these seeds [the recipe's].")
@options.folds("Score on these folds only.")
@options.ood
@options.draws
@click.option("-o", "--out", type=options.FOLDER, help="The folder of the results [runs/RUN-crossval].")
@options.changes
@resuming.resume("Resume in the folder: complete fits are kept. auto: the same.")
@resuming.limits
@options.device
@options.precision
@options.workers
@led
def crossval(
    run: str,
    upstream: Path | None,
    stores: tuple[Path, ...],
    guides: tuple[str, ...],
    seeds: list[int] | None,
    folds: list[int] | None,
    ood: tuple[Path, ...],
    draws: "Draws | None",
    out: Path | None,
    changes: tuple[str, ...],
    resume: "Resume",
    device: str,
    precision: str,
    **running: Any,
) -> None:
    """Fit to all folds but one and score on that one, for each of the data set's own folds.

    Prints each metric's mean and standard deviation over the folds and the 95 % t interval of the mean; several guides
    stand side by side, with their paired differences. DIR/results.json holds every number and DIR/table.tex a table.
    Each fit is a run in DIR/GUIDE/seed-N/fold-N, where the fits of another crossval can start. Under torchrun every
    process makes whole fits, the next one when it is done with one.

    \b
    Example:
      bayes-panns crossval esc10 --from runs/us8k --data stores/esc10.h5 --guide flip --guide det
      bayes-panns crossval esc10 --from runs/us8k --data stores/esc10.h5 --set data.share=0.25 -o runs/quarter
      torchrun --nproc-per-node 8 -m bayes_panns crossval esc10 --from runs/us8k --data stores/esc10.h5 --resume
      bayes-panns crossval rotated-head --from checkpoints/mn04 --data stores/esc10.h5
      bayes-panns crossval esc10 --from runs/us8k --data stores/esc10.h5 --device cuda --precision bf16
      bayes-panns crossval rotated-widths --from runs/esc10-crossval/det --data stores/esc10.h5
      bayes-panns report runs/esc10-crossval/flip/seed-0
    """
    from bayes_panns.jobs import crossval as cross_validate
    from bayes_panns.jobs import write_results
    from bayes_panns.recipes import read_run
    from bayes_panns.report import crossval_latex, crossval_table

    folder = out or Path("runs") / f"{Path(run).stem}-crossval"
    result = cross_validate(
        read_run(run, changes, stores=stores, upstream=upstream),
        folder,
        guides=guides,
        seeds=seeds or (),
        folds=folds,
        ood=ood,
        draws=draws,
        device=device,
        precision=precision,
        resume=resume,
        running=resuming.running(**running),
    )
    if result is None:
        exit_stopped(f"--resume continues in {folder}")
    write_results(result, folder / "results.json")
    options.write(crossval_latex(result), folder / "table.tex")
    click.echo(crossval_table(result), nl=False)
    logger.info(f"every number is in {folder}/results.json, a LaTeX table in {folder}/table.tex")


@main.command(name="check-start")
@click.argument("run", type=options.FOLDER, metavar="RUN")
@click.option(
    "--factor",
    type=options.Finite(min=0, min_open=True),
    help="How much wider the second fit starts; not 1. [100; 0.01 for natural gradients]",
)
@options.device
def check_start(run: Path, factor: float | None, device: str) -> None:
    """Show how much of a run's widths is where they started, by a second fit.

    RUN is the folder of a complete run. It is fitted again with the same recipe, seed and clips, from widths --factor
    times as large, which takes as long as the first fit. For each weight tensor it prints how much of the factor is
    left at the end, 0 % where the clips decide and 100 % where the start does, and the rank correlation of both fits'
    widths. The result is kept in RUN/start.json, and report shows it; nothing else there changes.

    \b
    Example:
      bayes-panns check-start runs/us8k-flip
    """
    from bayes_panns.jobs import check_start as compare_starts
    from bayes_panns.report import start_table

    if factor == 1:
        raise click.UsageError("--factor 1 would be the same fit again")
    found = compare_starts(run, factor=factor, device=device)
    if found is None:
        exit_stopped(f"{run} is as it was")
    click.echo(start_table(found), nl=False)
    logger.info(f"kept in {run}/start.json")
