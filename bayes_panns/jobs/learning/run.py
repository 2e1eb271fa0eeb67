"""From a plan to a posterior that has been checked: pack, cross-validate, fit, calibrate, compare."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from bayes_panns.clips import ClipSet, pack, repack
from bayes_panns.core.choices import ClassShares, Holds
from bayes_panns.core.digests import digest_of, read_sealed, sealed
from bayes_panns.core.errors import FitError
from bayes_panns.core.files import locked, require_folder, require_space
from bayes_panns.core.strict_json import write_json
from bayes_panns.core.text import readable
from bayes_panns.evaluations import Evaluation, is_evaluation
from bayes_panns.jobs.crossval import CrossValidation, crossval
from bayes_panns.jobs.fit import fit
from bayes_panns.jobs.inputs import posterior_at
from bayes_panns.jobs.learning.baseline import logistic_baseline
from bayes_panns.jobs.learning.calibration import calibrate_learned
from bayes_panns.jobs.learning.messages import only
from bayes_panns.jobs.learning.plan import RECIPE, Plan
from bayes_panns.jobs.run_folder import LEARN, LEARN_CLIPS, LEARN_CROSSVAL, RunFolder
from bayes_panns.posterior import Posterior, choose_device, load
from bayes_panns.posterior.disk import read_header
from bayes_panns.predictions import decompose
from bayes_panns.recipes import read_run, replaced
from bayes_panns.svi import Embeddings

logger = logging.getLogger(__name__)

BASELINE = "baseline"
"""The folder, in that of the run, of the evaluation of the logistic regression."""

_STEPS = 300
"""The most steps of a fit: nobody is there to raise it where features are poor and it takes long to converge."""

_FORMAT = 1
_MARGIN = 1 << 27
"""Bytes that the rest of the folder takes, beside the clips."""


@dataclass(frozen=True)
class Learned:
    """What :func:`learn` made.

    Attributes:
        plan: The plan.
        posterior: The posterior, also in ``folder/posterior``.
        evaluation: Every clip, scored by a fit that has heard none of its recording.
        baseline: The same clips, scored by logistic regressions on the same features in the same folds.
        skipped: Files that could not be read, each with the reason.
        folder: The run's folder.
    """

    plan: Plan
    posterior: Posterior = field(repr=False)
    evaluation: Evaluation = field(repr=False)
    baseline: Evaluation = field(repr=False)
    skipped: tuple[tuple[str, str], ...]
    folder: Path


def carry_out(plan: Plan, upstream: Path | None, *, device: str = "auto") -> Learned | None:
    """Do what a plan says. What is there already, of an earlier call that was ended, is kept.

    Args:
        plan: The plan.
        upstream: The posterior of the network to start from; None for embeddings of another model.
        device: Where to compute.

    Returns:
        What was made; None if a fit was interrupted. The next call goes on.

    Raises:
        FitError: The folder holds something else, or results for other clips or of another network.
        BayesPannsError: As :func:`~bayes_panns.clips.pack` and :func:`~bayes_panns.jobs.fit`.
    """
    place, run = plan.folder, RunFolder(plan.folder)
    require_folder(place)
    _claim(plan, upstream)
    with locked(place / LEARN) as ours:
        if not ours:
            raise FitError(f"{place}: another command is learning there; wait for it, or choose another folder with -o")
        store, skipped = _packed(plan)
        recipe = read_run(RECIPE, stores=[store.resolve()], upstream=upstream and upstream.resolve(), seed=plan.seed)
        recipe = replaced(recipe, {"fit.epochs": _STEPS})
        if plan.classes is ClassShares.EQUAL:
            recipe = replaced(recipe, {"fit.selection.balanced": True})
        logger.info(f"cross-validation over recordings, {plan.folds} folds")
        with only("ERROR", "jobs.fit", "svi", "clips", "posterior"):
            found = crossval(recipe, place / LEARN_CROSSVAL, device=device, resume=True)
        if found is None:
            return None
        evaluation = _kept(place / "evaluation", lambda: _pooled(found, store))
        logger.info("the posterior that is kept")
        with only("WARNING", "jobs.fit", "svi", "clips", "posterior"):
            fitted = fit(replaced(recipe, {"data.validation": plan.held_out}), place, device=device, resume=run.is_run)
        if not fitted.complete:
            return None
        posterior = load(place, device=choose_device(device))
        calibrate_learned(plan, posterior, evaluation)
        logger.info("logistic regression, for comparison")
        baseline = _kept(place / BASELINE, lambda: _regression(plan, load(place), store, evaluation, device))
    return Learned(plan, posterior, evaluation, baseline, skipped, place)


def _claim(plan: Plan, upstream: Path | None) -> None:
    """Write down what is learned in the folder, or see that it is the same as before.

    Raises:
        FitError: The folder holds something else, or was begun with other clips or another network.
    """
    place = plan.folder
    net = None if upstream is None else read_header(posterior_at(upstream))["sha256"]
    table = {
        "format_version": _FORMAT,
        "source": readable(str(plan.source)),
        "clips": plan.digest,
        "network": net,
        "plan": digest_of({"clips": plan.digest, "network": net}),
    }
    manifest = place / LEARN
    if not manifest.is_file():
        if place.exists() and any(place.iterdir()):
            raise FitError(f"{place}: is not empty, and nothing was learned there; choose another folder with -o")
        place.mkdir(parents=True, exist_ok=True)
        write_json(sealed(table), manifest)
        return
    try:
        before = read_sealed(manifest)
    except ValueError as error:
        raise FitError(f"{manifest}: is damaged; choose another folder with -o, or delete this one") from error
    if before.get("plan") != table["plan"]:
        what = "another network" if before.get("clips") == table["clips"] else "other clips or settings"
        raise FitError(
            f"{place}: was begun with {what} (from {before.get('source')}); choose another folder with -o, or delete it"
        )


def _packed(plan: Plan) -> tuple[Path, tuple[tuple[str, str], ...]]:
    """The store of the clips, packed now or before; and what could not be read."""
    made = plan.folder / LEARN_CLIPS
    if plan.store is not None and plan.store_folds is None:
        return plan.store, ()
    if made.is_file():
        return made, plan.skipped
    require_space(made, plan.cost.disk + _MARGIN)
    if plan.store is not None:
        repack(plan.store, made, folds=plan.store_folds)
        return made, ()
    assert plan.catalog is not None, "a plan is of a store or of a catalog"
    assert plan.foundation is not None, "a catalog is of sound"
    report = pack(plan.catalog, made, sample_rate=plan.foundation.sample_rate, seconds=plan.seconds)
    logger.info(f"{made}: {report.packed} clips packed")
    return made, plan.skipped + report.skipped


def _pooled(found: CrossValidation, store: Path) -> Evaluation:
    """The folds' evaluations as one, with the clips in the order of the store."""
    pooled = found.pooled(next(iter(found.evaluations)))
    names = ClipSet(store).names
    place = {name: index for index, name in enumerate(pooled.names)}
    order = np.array([place[name] for name in names])
    return Evaluation.of(
        pooled.uncertainty.take(order),
        pooled.target[order],
        names=names,
        labels=pooled.labels,
        sources=None if pooled.sources is None else pooled.sources[order],
        draws=pooled.draws,
        provenance=pooled.provenance | {"folds": "all"},
    )


def _regression(plan: Plan, posterior: Posterior, store: Path, evaluation: Evaluation, device: str) -> Evaluation:
    """The evaluation of logistic regressions in the same folds."""
    clips = ClipSet(store)
    assert clips.folds is not None, "the folds were packed, or the store has them"
    if posterior.takes == Holds.WAVEFORMS:
        posterior.freeze(["backbone"])
    with only("WARNING", "svi"):
        data = Embeddings(clips, posterior.model, posterior.task, device=choose_device(device))
    p = logistic_baseline(
        data.views[:, 0].cpu(),
        data.target.cpu(),
        evaluation.target,
        posterior.model.likelihood,
        clips.folds,
        clips.recordings,
        balanced=plan.classes is ClassShares.EQUAL,
        seed=plan.seed,
    )
    return Evaluation.of(
        decompose(torch.from_numpy(p)[None], posterior.task),
        evaluation.target,
        names=evaluation.names,
        labels=evaluation.labels,
        sources=evaluation.sources,
        draws=0,
        provenance={"baseline": "logistic regression", "stores": evaluation.provenance["stores"], "folds": "all"},
    )


def _kept(place: Path, make: Callable[[], Evaluation]) -> Evaluation:
    """The evaluation that is at ``place``, or else a new one, which is then kept there."""
    if is_evaluation(place):
        return Evaluation.load(place)
    made = make()
    made.save(place)
    return made
