"""The fit of a posterior: from a recipe and clip stores to a run's folder."""

import logging
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bayes_panns.clips import ClipSet
from bayes_panns.core import choices
from bayes_panns.core.choices import Holds, Schedule, SplitRule, Task
from bayes_panns.core.errors import FitError, RecipeError, StoreError
from bayes_panns.jobs.best import save_best
from bayes_panns.jobs.inputs import Continued, Inputs, Resumable
from bayes_panns.jobs.labels import warn_of_labels
from bayes_panns.jobs.leaks import record_fitted_clips, warn_of_clips_twice, warn_of_known_clips
from bayes_panns.jobs.provenance import provenance_of
from bayes_panns.jobs.run_folder import Resume, RunFolder
from bayes_panns.jobs.splits import divide
from bayes_panns.jobs.starting import (
    earlier_head,
    has_new_head,
    net_for,
    require_fit,
    takes_all_clips,
    with_net,
)
from bayes_panns.posterior import Inherited, Posterior, Power, choose_device, load, require_inputs, save
from bayes_panns.posterior.disk import read_header
from bayes_panns.ranks import group
from bayes_panns.recipes import Run, is_function, read_strategy, replaced
from bayes_panns.svi import Earlier, Embeddings, Features, Fit, HeadChoice, HeadFit, Running, Stop
from bayes_panns.svi.feature_file import FeatureFile
from bayes_panns.svi.loader import workers_for
from bayes_panns.svi.schedules import learning_rate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """The result of a fit.

    Attributes:
        posterior: The posterior, also in ``folder/posterior``.
        inherited: What it took over from upstream; None if it started from scratch, or was complete already.
        complete: False if the fit was interrupted; it can be resumed.
        folder: The run's folder.
        stopped: What interrupted it.
    """

    posterior: Posterior = field(repr=False)
    inherited: Inherited | None
    complete: bool
    folder: Path
    stopped: Stop | None = None


def fit(
    recipe: Run,
    folder: str | Path,
    *,
    guide_function: str | None = None,
    device: str = "auto",
    resume: Resume = False,
    running: Running | None = None,
    widen: float = 1.0,
) -> Fitted:
    """Fit a posterior as ``recipe`` says: from scratch, or from ``recipe.upstream``.

    A run that is resumed must have the same recipe and the same clips; they may be at another path. ``fit.epochs`` may
    grow: the fit then goes on from where it is, also if it was complete, and from there on the learning rate follows
    the schedule of the longer fit. ``provenance["continued"]`` of the posterior says where. Under the cosine schedule
    the learning rate rises again, so the result differs from that of a longer fit from the start; under a constant
    learning rate it does not. Nothing changes in the folder of a run that is complete.

    Of several processes (see :mod:`bayes_panns.ranks`) the first has the folder and writes; the others only read
    there, so it must be on a disk that all of them see.

    Args:
        recipe: The run; its ``data.stores`` name the clips.
        folder: Where the results go: ``posterior/``, ``metrics.jsonl``, ``run.toml``, ``resume.json`` and checkpoints;
            see :class:`~bayes_panns.jobs.RunFolder`. If the epoch with the lowest ``val/nll`` is not the last,
            ``best/`` is the posterior at its end.
        guide_function: ``module:function`` of a guide in Python, instead of the recipe's. It is imported and called
            with the model.
        device: See :func:`~bayes_panns.jobs.choose_device`.
        resume: Whether to resume the run in the folder; ``"auto"`` if there is one, and else to start it.
        running: How it runs on this machine.
        widen: A factor on the starting widths, for :func:`~bayes_panns.jobs.check_start`.

    Raises:
        BayesPannsError: The recipe, the stores, the upstream posterior or the folder do not fit; or the fit diverged.
    """
    several = group()
    chosen, run = choose_device(device), RunFolder(folder)
    recipe, go_on = _with_guide(recipe, guide_function), several.from_first(run.resumes(resume))
    several.only_first(lambda: run.require(resume=go_on))
    if go_on:
        recipe = replaced(recipe, _of_older_versions(run.read_recipe()))
    held, clips = divide(recipe)
    recipe = with_net(recipe, clips)
    task = _task(recipe, clips)
    inputs = Inputs.of(recipe, clips)
    if go_on:
        run.require_same(recipe, inputs)
        epochs = run.read_recipe().fit.epochs
        if run.complete and recipe.fit.epochs <= epochs:
            posterior = load(run.posterior, device=chosen, guide_function=guide_function)
            more = "" if takes_all_clips(posterior, recipe) else "; raise it to continue the fit"
            logger.info(f"{run.path}: the fit is complete, with fit.epochs = {epochs}{more}")
            return Fitted(posterior, None, True, run.path)

    torch.manual_seed(recipe.fit.seed)
    upstream = None if recipe.upstream is None else load(recipe.upstream)
    resumable = Resumable(inputs=inputs, frozen_points=True)
    if go_on:
        resumable = run.read_resumable() or Resumable(inputs=inputs)
    posterior, inherited = _built(recipe, clips, task, upstream, guide_function, resumable)
    with ExitStack() as until_done:
        several.only_first(lambda: until_done.enter_context(run.claimed(resume=go_on)))
        if not go_on:
            several.only_first(lambda: run.write(recipe, resumable))
        each = f"{clips.seconds_per_clip:g} s" if clips.samples else clips.contents
        logger.info(f"{len(clips)} clips of {each}, {len(clips.labels)} labels ({task}), on {chosen}")
        warn_of_labels(clips, task)
        before = earlier_head(recipe, posterior, upstream)
        if upstream is not None and before is not None:
            warn_of_clips_twice(upstream, clips)
        elif upstream is not None and takes_all_clips(posterior, recipe):
            warn_of_known_clips(upstream, clips)
        if inherited is not None:
            new = ", ".join(inherited.new) or "none"
            logger.info(f"taken from {recipe.upstream}: {len(inherited.taken)} tensors; new: {new}")
        # What is computed once and kept on disk has one writer; the others find it there.
        kept = recipe.fit.features in (choices.Features.DISK, choices.Features.EMBEDDINGS)
        with several.first_ahead() if kept else nullcontext():
            job = _job(recipe, posterior, clips, held, run, chosen, running, widen, before)
        if go_on:
            resumable = _resumed(job, run, recipe, resumable)
        if isinstance(job, Fit) and job.step == 0:
            posterior.prepare(
                job.data,
                new_head=has_new_head(posterior, inherited),
                head=recipe.head,
                spec_augment=recipe.fit.spec_augment,
                seed=recipe.fit.seed,
                workers=job.workers,
            )
        complete = job.run()
        if isinstance(job, HeadFit):
            # That of the earlier clips still fits: few new ones say little of it.
            posterior.power = _power(job.choice) if before is None or upstream is None else upstream.power
        record_fitted_clips(posterior, clips, upstream)
        if complete:
            _discard_features(job)

        def describe() -> None:
            posterior.metrics = dict(job.metrics)
            posterior.provenance = provenance_of(recipe, job, complete, resumable)
            if upstream is not None:
                posterior.provenance["upstream"] = {"folder": Path(str(recipe.upstream)).name, **upstream.provenance}

        # A second fit to compare widths leaves no best.
        best = job if isinstance(job, Fit) and complete and widen == 1 else None
        describe()
        several.only_first(lambda: _leave(posterior, run, complete, best, describe))
    return Fitted(posterior, inherited, complete, run.path, job.stopped if isinstance(job, Fit) else None)


def _of_older_versions(before: Run) -> dict[str, Any]:
    """What a run of an older version goes on with, by key: the clips that it held out, and widths without bounds."""
    held = {"data.split": SplitRule.PREFIX} if before.data.split == SplitRule.PREFIX else {}
    return held | ({} if before.fit.scale_bounds else {"fit.scale_bounds": []})


def _with_guide(recipe: Run, guide_function: str | None) -> Run:
    """The recipe, validated, with the guide that its caller names.

    Raises:
        RecipeError: The recipe names a Python function, and the caller does not.
        SettingError: A value of the recipe is invalid.
    """
    if guide_function is None and is_function(recipe.guide):
        raise RecipeError(
            f"guide = {recipe.guide!r} is a Python function, which a recipe cannot run; name it with --guide if you "
            "trust it"
        )
    return replaced(recipe, {} if guide_function is None else {"guide": guide_function})


def _task(recipe: Run, clips: ClipSet) -> Task:
    """What the labels mean in this run.

    Raises:
        StoreError: There is nothing to learn.
    """
    task, path = recipe.data.task or clips.task, recipe.data.stores[0]
    if not clips.labels:
        raise StoreError(f"{path}: its clips have no labels to learn")
    if task is Task.ONE_OF_K and len(clips.labels) == 1:
        raise StoreError(
            f"{path}: has the single label {clips.labels[0]!r}, so there is nothing to learn; add clips of other labels"
        )
    return task


def _built(
    recipe: Run,
    clips: ClipSet,
    task: Task,
    upstream: Posterior | None,
    guide_function: str | None,
    resumable: Resumable,
) -> tuple[Posterior, Inherited | None]:
    """The posterior before its first step, and what it took over from upstream."""
    if upstream is not None and clips.holds == Holds.EMBEDDINGS:
        require_inputs(upstream, clips)
    strategy = None if guide_function else read_strategy(recipe.guide)
    posterior = Posterior.build(
        net=net_for(recipe, clips, strategy),
        labels=clips.labels,
        task=task,
        sample_rate=clips.sample_rate,
        clip_seconds=clips.seconds_per_clip,
        strategy=strategy,
        guide_function=guide_function,
        upstream=upstream,
        clips=len(clips),
        freeze=recipe.freeze if resumable.frozen_points else (),
    )
    posterior.embeddings_of = clips.model
    inherited = None if upstream is None else posterior.start_from(upstream)
    if not resumable.frozen_points:
        posterior.freeze(recipe.freeze)
    require_fit(posterior, recipe, inherited)
    return posterior, inherited


def _job(
    recipe: Run,
    posterior: Posterior,
    clips: ClipSet,
    held: ClipSet | None,
    run: RunFolder,
    device: torch.device,
    running: Running | None,
    widen: float,
    before: Earlier | None,
) -> Fit | HeadFit:
    """The fit of the clips' features."""
    data: Features | Embeddings
    validation: Features | Embeddings | None
    make: Callable[..., Fit | HeadFit] = partial(Fit, running=running, widen=widen)
    if recipe.fit.features == "embeddings":
        embed = partial(Embeddings, model=posterior.model, task=posterior.task, device=device)
        data = embed(clips, views=recipe.fit.views, seed=recipe.fit.seed)
        validation = None if held is None else embed(held)
        if takes_all_clips(posterior, recipe):
            make = partial(HeadFit, before=before)
    else:
        on_disk = recipe.fit.features == choices.Features.DISK
        file = FeatureFile(run.features, posterior.front_end, clips.samples) if on_disk else None
        keep = partial(
            Features,
            front_end=posterior.front_end,
            task=posterior.task,
            keep=recipe.fit.features,
            file=file,
            workers=workers_for(running, recipe.fit.features, device),
        )
        data, validation = keep(clips), None if held is None else keep(held)
    return make(posterior.model, posterior.guide, data, recipe.fit, run.path, validation=validation, device=device)


def _discard_features(job: Fit | HeadFit) -> None:
    """Close the log-mels on disk, which the fit needs no more."""
    for data in (job.data, job.validation):
        if isinstance(data, Features):
            data.close()


def _leave(
    posterior: Posterior, run: RunFolder, complete: bool, best: Fit | None, describe: Callable[[], None]
) -> None:
    """Leave the posterior in the folder, that of the best epoch too, and nothing that a complete fit needs no more."""
    if complete:
        run.features.unlink(missing_ok=True)
    if best is not None:
        # Before the other, with which the run is complete.
        save_best(best, posterior, run, describe)
        describe()
    save(posterior, run.posterior)


def _power(choice: HeadChoice | None) -> Power | None:
    """The power that a cross-validation inside the training clips found, if it helps."""
    if choice is None or choice.power == (1.0,):
        return None
    return Power(exponent=choice.power, folds=choice.folds, clips=choice.clips, nll=(choice.nll, choice.powered_nll))


def _resumed(job: Fit | HeadFit, run: RunFolder, recipe: Run, resumable: Resumable) -> Resumable:
    """Go on from the checkpoint, if the fit came to one, and write down what has changed.

    Raises:
        FitError: The checkpoint is damaged, or it is gone and the fit had ended.
    """
    before = run.read_recipe().fit.epochs
    if isinstance(job, HeadFit):
        logger.info("the fit of a last layer takes seconds; it starts again")
    elif job.checkpointed:
        job.load_checkpoint()
        logger.info(f"resuming at epoch {job.epoch:.1f} of {recipe.fit.epochs}")
    elif run.posterior.is_dir():
        raise FitError(f"{run.checkpoint}: is missing, so the fit cannot be resumed; fit again in another folder")
    if isinstance(job, Fit) and recipe.fit.epochs > before and job.step > 0:
        more = Continued(epochs=before, step=job.step)
        # It may have been written down by a process that was killed before its first step.
        if more not in resumable.continued:
            resumable = resumable.model_copy(update={"continued": (*resumable.continued, more)})
        _explain_longer(job, before)
    if run.posterior.is_dir() and (read_header(run.posterior).get("calibration") or run.evaluation.is_dir()):
        logger.warning(
            f"{run.path}: its calibration and its evaluation are of the posterior before this fit; make them again "
            "afterwards"
        )
    # The others may still read what is replaced.
    group().wait()
    group().only_first(lambda: run.write(recipe, resumable))
    return resumable


def _explain_longer(job: Fit, before: int) -> None:
    settings = job.settings
    line = f"fit.epochs rises from {before} to {settings.epochs}"
    if settings.schedule == Schedule.COSINE:
        rate = settings.learning_rate * learning_rate(job.step, job.steps, settings.schedule)
        line += (
            f": from here the learning rate follows the cosine of {settings.epochs} epochs, from {rate:.3g}; the "
            f"result differs from a fit of {settings.epochs} epochs from the start"
        )
    logger.info(line)
