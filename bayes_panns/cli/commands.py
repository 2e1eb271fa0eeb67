"""The commands. Heavy modules are imported inside them, so that ``--help`` answers at once."""

import json
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bayes_panns import __version__
from bayes_panns.cli.guide_option import own_guide
from bayes_panns.core import progress
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.core.files import whole_file

if TYPE_CHECKING:
    from bayes_panns.predictions import Draws


class _Commands(click.Group):
    """Prints a user's mistake as one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        package = logging.getLogger("bayes_panns")
        handler = _ToStandardError()
        package.addHandler(handler)
        package.setLevel(logging.INFO)
        try:
            with progress.shown(sys.stderr.isatty()):
                return super().invoke(ctx)
        except BrokenPipeError:
            # The reader, such as head, has what it wants; click ends quietly.
            raise
        except (BayesPannsError, OSError) as error:
            click.echo(f"bayes-panns: {str(error).splitlines()[0]}", err=True)
            ctx.exit(1)
        finally:
            package.removeHandler(handler)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="bayes-panns")
def main() -> None:
    """Tag sounds, and say how sure the tags are: Bayesian PANNs in Pyro.

    \b
    A first look, on sounds made on the spot:
      bayes-panns demo
    Your own recordings, one sub-folder a class:
      bayes-panns pack folder recordings/ -o clips.h5
      bayes-panns pretrain scratch --data clips.h5 -o runs/mine
      bayes-panns predict runs/mine new-recording.wav
    """


class _ToStandardError(logging.Handler):
    """Prints messages as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _write(text: str, output: Path | None) -> None:
    """To standard output, or to a file, whole or not at all."""
    if output is None:
        click.echo(text, nl=False)
        return
    if not output.parent.is_dir():
        raise BayesPannsError(f"{output}: there is no folder {output.parent} to write it to; make it first")
    with whole_file(output) as part:
        part.write_text(text, encoding="utf-8")


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    """``1,2,5`` as integers."""
    if value is None:
        return None
    try:
        return [int(item) for item in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r}: write whole numbers with commas, such as 1,2,3") from None


def _draws(context: click.Context, parameter: click.Parameter, value: str) -> int | str:
    """A number of draws, or ``moments``."""
    if value == "moments":
        return value
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r}: write a whole number from 0 up, or moments")
    return int(value)


_DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
_DRAWS = click.option(
    "--draws",
    callback=_draws,
    metavar="N|moments",
    default="20",
    show_default=True,
    help="Posterior draws; 0 is one pass at the posterior mean, moments one pass with its uncertainty.",
)
_GUIDE = click.option(
    "--guide",
    "guide",
    metavar="MODULE:FUNCTION",
    callback=own_guide,
    help="For a posterior whose guide is a Python function: that function. It is run.",
)


def _fit_options(command: Callable) -> Callable:
    for option in reversed(
        (
            click.argument("run", metavar="RUN"),
            click.option("--data", "stores", multiple=True, type=click.Path(), help="A store to fit on; repeatable."),
            click.option("--labels", metavar="CSV", help="Label names for stores without, such as PANNs' packs."),
            click.option(
                "--guide",
                metavar="G",
                callback=own_guide,
                help="A guide recipe, its name, or module:function of your own.",
            ),
            click.option("-o", "--out", type=click.Path(path_type=Path), help="Where results go [runs/RUN]."),
            _DEVICE,
            click.option("--seed", type=int, help="Replaces fit.seed."),
            click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Replace any recipe value."),
            click.option("--resume", is_flag=True, help="Go on with the run in DIR."),
        )
    ):
        command = option(command)
    return command


def _fit(
    run: str,
    stores: tuple[str, ...],
    labels: str | None,
    guide: str | None,
    out: Path | None,
    device: str,
    seed: int | None,
    changes: tuple[str, ...],
    resume: bool,
    upstream: str | None = None,
) -> None:
    from bayes_panns.jobs.workflow import fit
    from bayes_panns.recipes.reading import read_run

    recipe = read_run(run, changes)
    data = ({"stores": list(stores)} if stores else {}) | ({"labels": labels} if labels else {})
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})
    if seed is not None:
        recipe = recipe.model_copy(update={"fit": recipe.fit.model_copy(update={"seed": seed})})
    update = {"guide": guide, "upstream": upstream}
    recipe = recipe.model_copy(update={key: value for key, value in update.items() if value is not None})
    folder = out or Path("runs") / Path(run).stem
    fitted = fit(recipe, folder, device=device, resume=resume)
    if not fitted.complete:
        _say(f"interrupted; {folder}/posterior is usable as it is, and --resume goes on")
        click.get_current_context().exit(130)
    values = {name: fitted.posterior.metrics[name] for name in fitted.posterior.metrics if name.startswith("val/")}
    shown = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
    _say(f"posterior in {folder}/posterior" + (f" ({shown})" if shown else ""))


@main.command()
@_fit_options
def pretrain(**options: Any) -> None:
    """Fit a posterior from scratch, as the recipe RUN says.

    RUN is a file, or the name of a recipe in runs/.

    \b
    Example:
      bayes-panns pretrain urbansound8k --data stores/us8k.h5 --guide flip -o runs/us8k-flip
    """
    _fit(**options)


@main.command()
@_fit_options
@click.option("--from", "upstream", type=click.Path(), help="The posterior to start from.")
def finetune(**options: Any) -> None:
    """Fit a posterior that starts from another one's.

    Every weight that both share starts from the upstream locs and scales; a new label set gets a new head.

    \b
    Example:
      bayes-panns finetune esc10 --from runs/us8k-flip --data stores/esc10.h5 --guide flip
    """
    if options["upstream"] is None:
        from bayes_panns.recipes.reading import read_run

        if read_run(options["run"], options["changes"]).upstream is None:
            raise click.UsageError("which posterior to start from? Name it with --from")
    _fit(**options)


@main.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--from",
    "upstream",
    type=click.Path(),
    help="The posterior that every fit starts from; or DIR/GUIDE of another crossval: each from that seed and fold.",
)
@click.option("--data", "stores", multiple=True, type=click.Path(), help="A store with folds; repeatable.")
@click.option(
    "--guide",
    "guides",
    multiple=True,
    metavar="G",
    callback=own_guide,
    help="A guide recipe, or its name; repeat to compare.",
)
@click.option("--seeds", callback=_numbers, metavar="N,...", help="Fit each with these seeds [the recipe's].")
@click.option("--folds", callback=_numbers, metavar="N,...", help="Score on these folds only.")
@click.option("--ood", multiple=True, type=click.Path(), help="A store of clips that show no label; repeatable.")
@_DRAWS
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Where results go [runs/RUN-crossval].")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Replace any recipe value.")
@click.option("--resume", is_flag=True, help="Go on in DIR: what is fitted is kept.")
@_DEVICE
def crossval(
    run: str,
    upstream: str | None,
    stores: tuple[str, ...],
    guides: tuple[str, ...],
    seeds: list[int] | None,
    folds: list[int] | None,
    ood: tuple[str, ...],
    draws: "Draws",
    out: Path | None,
    changes: tuple[str, ...],
    resume: bool,
    device: str,
) -> None:
    """Fit to all folds but one and score on that one, for each of the data set's own folds.

    Prints each metric's mean and standard deviation over the folds and the 95 % t interval of the mean, for several
    guides side by side with their paired differences; DIR/results.json holds every number and DIR/table.tex a table.
    Each fit is a run in DIR/GUIDE/seed-N/fold-N, where another crossval's fits of the same seeds and folds can start.

    \b
    Example:
      bayes-panns crossval esc10 --from runs/us8k --data stores/esc10.h5 --guide flip --guide det
      bayes-panns crossval esc10 --from runs/us8k --data stores/esc10.h5 --set data.share=0.25 -o runs/quarter
      bayes-panns crossval rotated-head --from runs/esc10-crossval/det --data stores/esc10.h5
      bayes-panns report runs/esc10-crossval/flip/seed-0
    """
    from bayes_panns.jobs.crossval import crossval as cross_validate
    from bayes_panns.jobs.crossval import write_results
    from bayes_panns.recipes.reading import read_run
    from bayes_panns.report import crossval_latex, crossval_table

    recipe = read_run(run, changes)
    if stores:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"stores": list(stores)})})
    if upstream is not None:
        recipe = recipe.model_copy(update={"upstream": upstream})
    folder = out or Path("runs") / f"{Path(run).stem}-crossval"
    result = cross_validate(
        recipe,
        folder,
        guides=guides,
        seeds=seeds or (),
        folds=folds,
        ood=ood,
        draws=draws,
        device=device,
        resume=resume,
    )
    if result is None:
        _say(f"interrupted; --resume goes on in {folder}")
        click.get_current_context().exit(130)
    write_results(result, folder / "results.json")
    _write(crossval_latex(result), folder / "table.tex")
    click.echo(crossval_table(result), nl=False)
    _say(f"every number in {folder}/results.json, a LaTeX table in {folder}/table.tex")


@main.command()
@click.argument("catalog", type=click.Choice(["audioset", "esc50", "urbansound8k", "dcase2013", "folder"]))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The store to write.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Clip length [the catalog's].")
@click.option(
    "--sample-rate",
    type=click.Choice(["32000", "16000", "8000"]),
    default="32000",
    show_default=True,
    help="Hz; PANNs' three.",
)
@click.option(
    "--exclude",
    default="",
    metavar="GLOB,...",
    help="Leave out clips by file name, path or source recording, such as '114587,*-3-0-0.ogg'.",
)
@click.option("--min-count", type=click.IntRange(min=1), default=1, help="For folder: drop labels with fewer clips.")
@click.option("--esc10", is_flag=True, help="For esc50: only the clips of ESC-10.")
@click.option(
    "--split", type=click.Choice(["balanced", "unbalanced", "eval"]), help="For audioset [all that is there]."
)
def pack(
    catalog: str,
    source: Path,
    out: Path,
    seconds: float | None,
    sample_rate: str,
    exclude: str,
    min_count: int,
    esc10: bool,
    split: str | None,
) -> None:
    """Pack a data set into a store, PANNs' HDF5 layout.

    CATALOG says how SOURCE is laid out: audioset, esc50 (also ESC-10), urbansound8k, dcase2013, or folder: one
    sub-folder a class, a CSV of file and labels (several joined by ;), or recordings without labels. docs/data/ has a
    page on each. Files that are missing or cannot be read are skipped and counted.

    \b
    Example:
      bayes-panns pack esc50 ESC-50-master -o stores/esc10.h5 --esc10
      bayes-panns pack audioset audioset -o stores/balanced.h5 --split balanced
      bayes-panns pack folder tags.csv -o stores/tagged.h5 --min-count 20
    """
    from bayes_panns.clips import CATALOGS
    from bayes_panns.clips import pack as pack_catalog

    given = {"min_count": min_count if min_count > 1 else None, "esc10": esc10 or None, "split": split}
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if catalog != {"min_count": "folder", "esc10": "esc50", "split": "audioset"}[name]:
            raise click.UsageError(f"--{name.replace('_', '-')} is not for the catalog {catalog}")
    listed = CATALOGS[catalog](source, **options)
    out.parent.mkdir(parents=True, exist_ok=True)
    report = pack_catalog(
        listed,
        out,
        sample_rate=int(sample_rate),
        seconds=seconds,
        exclude=[pattern for pattern in exclude.split(",") if pattern],
    )
    for name, reason in report.skipped[:10]:
        _say(f"skipped {name}: {reason}")
    _say(f"{out}: {report.packed} clips packed, {len(report.skipped)} skipped, {report.excluded} excluded")


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
def inspect(path: Path) -> None:
    """Show what a store, a posterior or a run holds.

    \b
    Example:
      bayes-panns inspect stores/esc10.h5
    """
    from bayes_panns.report import describe

    click.echo(describe(path), nl=False)


@main.command()
@click.argument("posteriors", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="POSTERIOR...")
@click.option("--data", "stores", multiple=True, required=True, type=click.Path(), help="A labelled store; repeatable.")
@click.option("--folds", callback=_numbers, metavar="N,...", help="Score these folds only.")
@click.option("--ood", multiple=True, type=click.Path(), help="A store of clips that show no label; repeatable.")
@_DRAWS
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the metrics there too; - is stdout.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Keep the predictions and the truth in this folder.")
@click.option("--intervals", is_flag=True, help="A 95 % bootstrap interval for each metric, over recordings.")
@click.option("--covariance", is_flag=True, help="Keep the epistemic covariance between labels too; for -o.")
@_DEVICE
@_GUIDE
def evaluate(
    posteriors: tuple[Path, ...],
    stores: tuple[str, ...],
    folds: list[int] | None,
    ood: tuple[str, ...],
    draws: "Draws",
    output: Path | None,
    out: Path | None,
    intervals: bool,
    covariance: bool,
    device: str,
    guide: str | None,
) -> None:
    """Score a posterior: how often it is right, and whether it knows when it is not.

    Several posteriors of the same labels are scored as one ensemble; --draws are shared out among them.

    \b
    Example:
      bayes-panns evaluate runs/esc10 --data stores/esc10.h5 --folds 5 --ood stores/fsdd.h5
      bayes-panns evaluate runs/esc10 --data stores/esc10.h5 --folds 5 --intervals -o runs/esc10/evaluation
      bayes-panns evaluate runs/det-0 runs/det-1 runs/det-2 --data stores/esc10.h5 --folds 5
    """
    from bayes_panns.evaluations import require_place
    from bayes_panns.jobs.workflow import choose_device, evaluate_posterior
    from bayes_panns.posterior import load_all

    if out is not None:
        require_place(out)
    evaluation = evaluate_posterior(
        load_all(posteriors, device=choose_device(device), guide_function=guide),
        stores,
        folds=folds,
        ood=ood,
        draws=draws,
        covariance=covariance,
    )
    if out is not None:
        evaluation.save(out)
    bounds = evaluation.intervals() if intervals else {}
    metrics = evaluation.metrics | {
        f"{name}/{end}": value
        for name, each in bounds.items()
        for end, value in (("low", each.low), ("high", each.high))
    }
    # JSON has no NaN or infinity: what is undefined is left out.
    defined = {name: value for name, value in metrics.items() if not isinstance(value, float) or math.isfinite(value)}
    text = json.dumps(defined, indent=2) + "\n"
    if output == Path("-"):
        click.echo(text, nl=False)
        return
    shown = [name for name in evaluation.metrics if name in defined]
    width = max(map(len, shown))
    for name in shown:
        value = defined[name]
        line = f"{name.ljust(width)}  {value:.4f}" if isinstance(value, float) else f"{name.ljust(width)}  {value}"
        click.echo(f"{line}  ({bounds[name].low:.4f} to {bounds[name].high:.4f})" if name in bounds else line)
    if output is not None:
        _write(text, output)


@main.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="POSTERIOR")
@click.option(
    "--data", "stores", multiple=True, type=click.Path(), help="A store to calibrate on [the run's validation clips]."
)
@click.option("--folds", callback=_numbers, metavar="N,...", help="Calibrate on these folds only.")
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="The share of true labels that a clip's set is to hold.",
)
@click.option("--draws", type=click.IntRange(min=0), default=20, show_default=True, help="Posterior draws.")
@_DEVICE
@_GUIDE
def calibrate(
    run: Path,
    stores: tuple[str, ...],
    folds: list[int] | None,
    coverage: float,
    draws: int,
    device: str,
    guide: str | None,
) -> None:
    """Fit a temperature and label sets to held-out clips, and keep both with the posterior.

    From then on its probabilities are tempered, and predict adds to each window the set of labels that holds the true
    one as often as --coverage says. By default the held-out clips are those that the run kept for validation. Clips
    that the posterior was fitted to, or that it will be scored on, must not be among them.

    \b
    Example:
      bayes-panns calibrate runs/esc10 --coverage 0.9
      bayes-panns calibrate runs/esc10/posterior --data stores/esc10.h5 --folds 4
    """
    from bayes_panns.jobs import calibrate as fit_calibration
    from bayes_panns.jobs.workflow import choose_device, held_out
    from bayes_panns.posterior import load, save_calibration

    loaded = load(run, device=choose_device(device), guide_function=guide)
    clips = held_out(run, stores, folds=folds)
    found = fit_calibration(loaded, clips, coverage=coverage, draws=draws)
    save_calibration(loaded)
    _say(
        f"{loaded.folder}: temperature {found.temperature:.3f}; a set is every label at {found.threshold:.3f} or above "
        f"({found.coverage:g} of the true ones; {found.clips[0]} + {found.clips[1]} clips)"
    )


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file [RUN/report.html].")
@click.option("--data", "stores", multiple=True, type=click.Path(), help="Score now, on this store; repeatable.")
@click.option("--folds", callback=_numbers, metavar="N,...", help="Score these folds only.")
@click.option("--ood", multiple=True, type=click.Path(), help="A store of clips that show no label; repeatable.")
@_DRAWS
@_DEVICE
@_GUIDE
def report(
    runs: tuple[Path, ...],
    out: Path | None,
    stores: tuple[str, ...],
    folds: list[int] | None,
    ood: tuple[str, ...],
    draws: "Draws",
    device: str,
    guide: str | None,
) -> None:
    """Make an HTML page of what a run is worth, with clips to look at and listen to; of several, compare them.

    RUN is the folder of a run, a posterior, an evaluation or a cross-validation. Without --data it shows the run's
    evaluation, or else scores the clips that the run held out. The page is one file and needs no network.

    \b
    Example:
      bayes-panns report runs/esc10 --data stores/esc10.h5 --folds 5 --ood stores/fsdd.h5
      bayes-panns report runs/esc10-flip runs/esc10-drop -o comparison.html
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
        guide_function=guide,
    )
    click.echo(path)


@main.command()
@click.argument("posterior", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--with",
    "others",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="POSTERIOR",
    help="Another posterior of the same labels, to tag as one ensemble; repeatable.",
)
@_DRAWS
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "audacity"]),
    default="table",
    show_default=True,
    help="How to write the tags.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write there instead of standard output.")
@click.option("--window", type=click.FloatRange(min=0, min_open=True), help="Seconds a window [the clips' length].")
@click.option("--hop", type=click.FloatRange(min=0, min_open=True), help="Seconds between windows [the window].")
@_DEVICE
@_GUIDE
def predict(
    posterior: Path,
    files: tuple[Path, ...],
    others: tuple[Path, ...],
    draws: "Draws",
    form: str,
    out: Path | None,
    window: float | None,
    hop: float | None,
    device: str,
    guide: str | None,
) -> None:
    """Tag sound files, or folders of them, with how far to trust each tag.

    A file longer than the posterior's clips is cut into windows. --draws are shared out among several posteriors.

    \b
    Example:
      bayes-panns predict runs/esc10 dog.wav rain.mp3
      bayes-panns predict runs/esc10 recordings/ --format csv -o tags.csv
      bayes-panns predict runs/det-0 --with runs/det-1 --with runs/det-2 dog.wav
    """
    from bayes_panns.audio.files import find
    from bayes_panns.jobs.workflow import choose_device
    from bayes_panns.posterior import load_all
    from bayes_panns.predictions import tag
    from bayes_panns.report import render_tags

    loaded = load_all([posterior, *others], device=choose_device(device), guide_function=guide)
    paths = [path for file in files for path in (find(file) if file.is_dir() else [file])]
    if form == "audacity" and len(paths) > 1:
        raise click.UsageError("--format audacity makes a label track of one file; name one")
    tags = tag(loaded, paths, draws, window=window, hop=hop)
    for _, reason in tags.skipped:
        _say(f"skipped {reason}")
    _write(render_tags(tags, form), out)
    if tags.skipped:
        _say(f"{len(paths) - len(tags.skipped)} files tagged, {len(tags.skipped)} skipped")


@main.command("import")
@click.argument("kind", type=click.Choice(["panns", "vi-pann"]))
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="POSTERIOR", help="A folder.")
@click.option("--labels", type=click.Path(path_type=Path), metavar="CSV", help="AudioSet's class_labels_indices.csv.")
@click.option(
    "--net",
    type=click.Choice(["resnet22", "resnet38", "resnet54", "resnet14-narrow", "resnet14-coarse"]),
    help="The network [the one it was exported from, or what its keys say].",
)
@click.option(
    "--scale",
    type=click.Choice(["fan-in", "moped"]),
    help="Make point weights variational: scales of FACTOR / sqrt(fan-in), or of FACTOR times the weight's size.",
)
@click.option("--factor", type=click.FloatRange(min=0, min_open=True), help="For --scale [0.1].")
@click.option("--guide", metavar="G", help="For --scale: the guide recipe that says which weights [flip].")
def import_(
    kind: str,
    checkpoint: Path,
    out: Path,
    labels: Path | None,
    net: str | None,
    scale: str | None,
    factor: float | None,
    guide: str | None,
) -> None:
    """Make a posterior of a published checkpoint.

    PANNs' ResNet22, ResNet38 and ResNet54 become point weights or, with --scale, a Bayesian start; VI-PANN's Flipout
    checkpoint becomes a mean-field posterior. fetch downloads them; see docs/published-checkpoints.md.

    \b
    Example:
      bayes-panns import panns ResNet54_mAP=0.429.pth -o panns --labels class_labels_indices.csv
      bayes-panns import panns ResNet54_mAP=0.429.pth -o start --labels class_labels_indices.csv --scale moped
      bayes-panns import vi-pann flipout.pth -o vi-pann --labels class_labels_indices.csv
    """
    if scale is None and (factor is not None or guide is not None):
        raise click.UsageError(f"--{'guide' if factor is None else 'factor'} is for --scale; give that too")
    from bayes_panns.clips import read_labels
    from bayes_panns.interop import import_checkpoint
    from bayes_panns.posterior import save

    names = None if labels is None else read_labels(labels)
    given = {name: value for name, value in (("factor", factor), ("guide", guide)) if value is not None}
    posterior = import_checkpoint(checkpoint, kind, labels=names, net=net, scale=scale, **given)  # type: ignore[arg-type]
    save(posterior, out)
    _say(
        f"{out}: {posterior.net}, {len(posterior.labels)} labels, {posterior.sample_rate} Hz; "
        f"{len(posterior.gaussians())} weight tensors variational, {len(posterior.points())} others"
    )


@main.command()
@click.argument("posterior", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The file to write.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["panns", "arviz"]),
    default="panns",
    show_default=True,
    help="The posterior mean as a PANNs checkpoint, or draws of the last layer as netCDF.",
)
@click.option("--data", "stores", multiple=True, type=click.Path(), help="For arviz: a store to predict; repeatable.")
@click.option("--folds", callback=_numbers, metavar="N,...", help="For arviz: predict these folds only.")
@click.option("--draws", type=click.IntRange(min=1), help="For arviz: how many [100].")
@_GUIDE
def export(
    posterior: Path,
    out: Path,
    form: str,
    stores: tuple[str, ...],
    folds: list[int] | None,
    draws: int | None,
    guide: str | None,
) -> None:
    """Write a posterior for other tools.

    As a PANNs checkpoint, which PANNs' own code loads, it is the posterior's mean. For ArviZ it is draws of the last
    layer's weights and, with --data, the probabilities that the same draws predict.

    \b
    Example:
      bayes-panns export runs/esc10 -o esc10.pth
      bayes-panns export runs/esc10 -o esc10.nc --format arviz --data stores/esc10.h5 --folds 5
    """
    if form == "panns" and (stores or folds is not None or draws is not None):
        raise click.UsageError("--data, --folds and --draws are for --format arviz")
    if folds is not None and not stores:
        raise click.UsageError("--folds is for --data; give that too")
    from bayes_panns.clips import ClipSet
    from bayes_panns.interop import export_arviz, export_panns
    from bayes_panns.posterior import load

    loaded = load(posterior, guide_function=guide)
    out.parent.mkdir(parents=True, exist_ok=True)
    if form == "panns":
        export_panns(loaded, out)
        if loaded.calibration is not None:
            _say(f"its temperature of {loaded.calibration.temperature:.3f} has no place in a PANNs checkpoint")
    else:
        clips = ClipSet(list(stores), folds=folds) if stores else None
        export_arviz(loaded, out, clips, draws=draws or 100)
    _say(f"{out}: written")


@main.command()
@click.argument("name")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="A file, or a folder [this one].")
def fetch(name: str, out: Path | None) -> None:
    """Download a published checkpoint, or check one that is there.

    An interrupted download goes on where it stopped, and its checksum is compared with the published one.

    \b
    NAME is one of
      panns-resnet22, panns-resnet38, panns-resnet54    point weights
      vi-pann-flipout, vi-pann-deterministic            from a browser; here they are checked
      audioset-labels                                   the label names of them all

    \b
    Example:
      bayes-panns fetch panns-resnet54
      bayes-panns fetch audioset-labels
    """
    from bayes_panns.interop import fetch as download

    path = download(name, out)
    _say(f"{path}: is what was published; its SHA-256 is in {path}.sha256")


@main.command()
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="A folder.")
@_DEVICE
def demo(out: Path, device: str) -> None:
    """Show the whole story on synthetic soundscapes: minutes on two cores.

    Makes clips of many kinds of sound, pretrains on some, transfers the posterior to others, and compares it with the
    same model from scratch, on held-out clips and on kinds that neither has heard. Needs no download.

    \b
    Example:
      bayes-panns demo -o demo
    """
    from bayes_panns.cli.demo import run

    run(out, device=device)
