"""From a folder of clips to a posterior of their labels, in one call."""

from dataclasses import replace
from pathlib import Path

from bayes_panns.core.choices import ClassShares, RecordingsBy, Target
from bayes_panns.core.errors import FitError
from bayes_panns.interop.foundation import find_foundation, obtain
from bayes_panns.jobs.learning import Learned, Plan, carry_out, make_plan
from bayes_panns.report.page.render import write_report


def plan_learning(
    source: str | Path,
    folder: str | Path,
    *,
    upstream: str | Path | None = None,
    seconds: float | None = None,
    recordings: RecordingsBy | str = RecordingsBy.AUTO,
    classes: ClassShares | str = ClassShares.AS_LABELLED,
    seed: int = 0,
) -> Plan:
    """What :func:`learn` would do; nothing is written or downloaded.

    The arguments and errors are those of :func:`learn`.
    """
    return make_plan(
        source, folder, find_foundation(upstream), seconds=seconds, recordings=recordings, classes=classes, seed=seed
    )


def learn(
    source: str | Path,
    folder: str | Path,
    *,
    upstream: str | Path | None = None,
    seconds: float | None = None,
    recordings: RecordingsBy | str = RecordingsBy.AUTO,
    classes: ClassShares | str = ClassShares.AS_LABELLED,
    target: Target | str | None = None,
    value: float | None = None,
    seed: int = 0,
    device: str = "auto",
    plan: Plan | None = None,
) -> Learned:
    """Learn to tag the kinds of sound in somebody's clips, and find out how well.

    Packs the clips, computes their features by a published network, fits a Bayesian last layer to all folds of
    recordings but one for each of them, scores every clip, fits the posterior that is kept, calibrates it, and writes
    ``report.html``. What is there of an earlier call that was ended is kept, so the same call goes on. See
    ``docs/learn.md``.

    Args:
        source: A folder with a sub-folder a class; a CSV of files and labels; labels with times, beside their
            recordings or in a table; or a clip store.
        folder: Where the posterior and all else goes; new, or that of an earlier call with the same clips.
        upstream: The posterior of the network to start from; by default EfficientAT's mn04, which is downloaded once.
        seconds: Length of the clips; by default chosen from how long the recordings are.
        recordings: How clips of one recording are recognised: :class:`~bayes_panns.core.choices.RecordingsBy`.
        classes: How frequent the classes are taken to be: :class:`~bayes_panns.core.choices.ClassShares`.
        target: What decisions are to meet, if they are wanted: :class:`~bayes_panns.core.choices.Target`.
        value: How much of it, as for :func:`~bayes_panns.jobs.calibrate`. Another target later fits only that.
        seed: Of folds and fits.
        device: Where to compute; see :func:`~bayes_panns.jobs.choose_device`.
        plan: What :func:`plan_learning` returned for the same arguments, so that the clips are not looked at again.

    Raises:
        BayesPannsError: There are too few clips or labels, the folder holds something else, the network cannot be had,
            or the fit fails.
    """
    plan = plan or plan_learning(
        source, folder, upstream=upstream, seconds=seconds, recordings=recordings, classes=classes, seed=seed
    )
    plan, start = replace(plan, target=None if target is None else Target(target), value=value), None
    if plan.foundation is not None:
        start = obtain(plan.foundation)
        plan = replace(plan, foundation=replace(plan.foundation, posterior=start))
    learned = carry_out(plan, start, device=device)
    if learned is None:
        raise FitError(f"{folder}: the fit was interrupted; the same call goes on where it stopped")
    if not (learned.folder / "report.html").is_file():
        write_report([learned.folder], device=device)
    return learned
