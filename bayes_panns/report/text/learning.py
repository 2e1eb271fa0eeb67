"""What ``learn`` prints: its plan before it starts, and what came of it."""

import math
from collections.abc import Iterator, Sequence
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import ClassShares, Task
from bayes_panns.core.text import printable
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs.learning import Learned, Plan
from bayes_panns.metrics import Interval, accuracy, bootstrap, ece, mean_average_precision, nll, paired
from bayes_panns.metrics.bootstrap import LEVEL
from bayes_panns.report.formatting import count_of
from bayes_panns.report.text.layout import columns

_LISTED = 20
"""Labels that are listed with their counts."""

_WIDTH = 100
"""Letters in a line of the plan."""

_UNEQUAL = 2.0
"""Classes with so many times the clips of others are worth a word."""

_PAIRS, _SUSPECTS = 3, 3
"""Confused pairs of labels, and clips with a doubtful label, that are named."""

_SURE = 0.9
"""A clip whose other label is so probable is one whose own may be wrong."""


def plan_text(plan: Plan) -> str:
    """The plan, ready for a terminal.

    Args:
        plan: The plan.
    """
    one = "one label a clip" if plan.task is Task.ONE_OF_K else "any number of labels a clip"
    lines = [
        ("clips", f"{count_of(plan.clips, 'clip')} of {count_of(plan.recordings, 'recording')}: {plan.by}"),
        ("labels", f"{len(plan.labels)}, {one}"),
    ]
    shown = sorted(plan.labels, key=lambda each: -each.clips)
    if len(shown) > _LISTED:
        shown = [*shown[: _LISTED // 2], *shown[-_LISTED // 2 :]]
    table = [(each.label, str(each.clips), str(each.recordings)) for each in shown]
    for line in columns([("", "clips", "recordings"), *table]).splitlines():
        lines.append(("", line))
    if len(shown) < len(plan.labels):
        lines.append(("", f"and {len(plan.labels) - len(shown)} more between them"))
    if plan.seconds:
        lines.append(("length", f"{plan.seconds:g} s: {plan.length}"))
    about = f"{plan.contents}, as they are" if plan.foundation is None else plan.foundation.about
    lines += [
        ("network", about),
        ("fit", "a Bayesian last layer on its frozen features, calibrated by its own inner folds (rotated-head)"),
        ("check", _check(plan)),
        ("held out", _held_out(plan)),
        ("imbalance", _imbalance(plan)),
        ("takes", _takes(plan)),
        ("result", f"{plan.folder}: posterior, evaluation, report.html"),
    ]
    wrapped = [
        (name if not index else "", part)
        for name, value in lines
        for index, part in enumerate(wrap(value, _WIDTH) if name else [value])
    ]
    notes = ["\n".join(wrap(f"note: {printable(remark)}", _WIDTH, subsequent_indent="  ")) for remark in plan.remarks]
    return columns(wrapped) + "".join(f"{note}\n" for note in notes)


def _check(plan: Plan) -> str:
    whose = "on one of the clips' own folds, which" if plan.own_folds else "on whole recordings that"
    return f"{plan.folds} fits, each scored {whose} it has not heard; so every clip is scored once"


def _held_out(plan: Plan) -> str:
    if plan.held_out:
        return (
            f"a fifth of the recordings, for label sets; {plan.recordings} recordings are enough to learn from the rest"
        )
    return "nothing of the fit that is kept: with so few recordings every clip counts; the check is by the other fits"


def _imbalance(plan: Plan) -> str:
    counts = [each.clips for each in plan.labels if each.clips]
    if plan.task is not Task.ONE_OF_K:
        return "each label has its own probability, at its own share of the clips"
    ratio = max(counts) / min(counts)
    if plan.classes is ClassShares.EQUAL:
        return "probabilities are for classes that are equally frequent, however many clips they have here"
    if ratio < _UNEQUAL:
        return "none to speak of"
    return (
        f"{min(counts)} to {max(counts)} clips a class; probabilities are right where classes are as frequent as here; "
        "--classes equal finds more of the rare ones, at the cost of the others"
    )


def _takes(plan: Plan) -> str:
    cost = plan.cost
    parts = [
        ("packing", cost.packing),
        ("features", cost.embeddings),
        (f"{plan.folds + 1} fits", cost.fits),
        ("baseline and report", cost.check),
    ]
    each = ", ".join(f"{name} {duration_text(seconds)}" for name, seconds in parts if seconds >= 1)
    disk = f"{cost.disk / 1e6:.0f} MB of disk" if cost.disk < 1e9 else f"{cost.disk / 1e9:.1f} GB of disk"
    return f"about {duration_text(cost.seconds)} ({each}); {disk}, {cost.memory / 1e9:.1f} GB of memory"


def duration_text(seconds: float) -> str:
    """A time, roughly.

    Example:
        >>> duration_text(8.2), duration_text(100), duration_text(9000)
        ('8 s', '2 minutes', '2.5 hours')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def result_text(learned: Learned, names: Sequence[str] = ("predict", "report", "finetune")) -> str:
    """What came of it: how good it is beside simple baselines, what it confuses, and what to do next.

    Args:
        learned: What :func:`~bayes_panns.jobs.learning.carry_out` made.
        names: The commands that there are, to name among what to do next.
    """
    plan, evaluation = learned.plan, learned.evaluation
    rows = [*_scores(learned)]
    text = columns(rows)
    text += "".join(f"{line}\n" for line in (*_compared(learned), *_confused(evaluation), *_suspects(evaluation)))
    if learned.skipped:
        text += f"skipped: {count_of(len(learned.skipped), 'file')} that cannot be read\n"
    place = printable(str(plan.folder))
    steps = [
        (f"bayes-panns predict {place} new-recordings/", "tags with their uncertainty"),
        (f"open {place}/report.html", "every class, every clip that it got wrong, to look at and listen to"),
    ]
    if "acquire" in names:
        steps.append((f"bayes-panns acquire {place} new-recordings/", "which clips to label next"))
    return text + "next:\n" + "".join(f"  {line}\n" for line in columns(steps).splitlines())


def _scores(learned: Learned) -> Iterator[tuple[str, ...]]:
    """A table of the scores, with the baselines."""
    evaluation, baseline = learned.evaluation, learned.baseline
    clips = count_of(len(evaluation.names), "clip")
    one = evaluation.task == Task.ONE_OF_K
    yield (
        f"{clips}, unheard",
        "accuracy (95 %)" if one else "mAP (95 %)",
        *(("per class",) if one else ()),
        "NLL",
        "ECE",
    )
    for name, each in (("this posterior", evaluation), ("logistic regression", baseline)):
        p, target, task = each.uncertainty.probability, each.target, each.task
        yield (
            name,
            str(main_score(each)),
            *((f"{_of_classes(p, target):.3f}",) if one else ()),
            f"{nll(p, target, task):.3f}",
            f"{ece(p, target, task):.3f}",
        )
    share = evaluation.target.mean(axis=0)
    if one:
        most = evaluation.labels[int(share.argmax())]
        yield f"always {printable(most)}", f"{share.max():.3f}", f"{1 / (share > 0).sum():.3f}", "", ""
    else:
        yield "by chance", f"{share[share > 0].mean():.3f}", "", ""


def main_score(evaluation: Evaluation) -> Interval:
    """The accuracy, or for multi-label the mean average precision, with its 95 % interval over recordings.

    Where all clips are right, or none, resampling shows no spread; then the interval is the exact one of so many
    independent recordings (Clopper and Pearson, 1934).
    """
    p, target, groups = evaluation.uncertainty.probability, evaluation.target, evaluation.groups
    metric, centred = (accuracy, False) if evaluation.task == Task.ONE_OF_K else (mean_average_precision, True)
    found = bootstrap(metric, p, target, groups=groups, centred=centred)
    if metric is accuracy and found.value in (0.0, 1.0):
        least = ((1 - LEVEL) / 2) ** (1 / len(np.unique(groups)))
        return Interval(found.value, least, 1.0) if found.value else Interval(0.0, 0.0, 1 - least)
    return found


def _of_classes(p: NDArray[np.floating], target: NDArray[np.bool_]) -> float:
    """The mean over the classes of the share of their clips that are right."""
    top, label = p.argmax(axis=1), target.argmax(axis=1)
    return float(np.mean([(top[label == k] == k).mean() for k in np.unique(label)]))


def _compared(learned: Learned) -> Iterator[str]:
    """Whether the posterior and the regression differ by more than chance."""
    one, other = learned.evaluation, learned.baseline

    def loss(p: NDArray[np.floating], target: NDArray[np.bool_]) -> float:
        return nll(p, target, one.task)

    found = paired(loss, one.uncertainty.probability, other.uncertainty.probability, one.target, groups=one.groups)
    if not math.isfinite(found.low):
        return
    said = "no certain difference" if found.low <= 0 <= found.high else "better" if found.high < 0 else "worse"
    yield f"NLL minus the regression's: {found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f}), {said}"


def _confused(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.task != Task.ONE_OF_K:
        return
    labels = evaluation.labels
    top, label = evaluation.uncertainty.probability.argmax(axis=1), evaluation.target.argmax(axis=1)
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(counts, (label, top), 1)
    size = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:_PAIRS]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, counts.shape), strict=True) if counts[i, j]]
    if pairs:
        said = [f"{printable(labels[i])} as {printable(labels[j])} ({counts[i, j]} of {size[i]})" for i, j in pairs]
        yield f"confused: {', '.join(said)}"


def _suspects(evaluation: Evaluation) -> Iterator[str]:
    """Clips whose label may be wrong."""
    if evaluation.task != Task.ONE_OF_K:
        return
    p, label = evaluation.uncertainty.probability, evaluation.target.argmax(axis=1)
    top = p.argmax(axis=1)
    wrong = np.flatnonzero((top != label) & (p.max(axis=1) >= _SURE))
    worst = wrong[np.argsort(p[wrong, label[wrong]], kind="stable")]
    if len(worst):
        said = [
            f"{printable(evaluation.names[row])} ({printable(evaluation.labels[top[row]])} {p[row, top[row]]:.2f})"
            for row in worst[:_SUSPECTS]
        ]
        yield f"labels to check: {', '.join(said)}" + (f" and {len(worst) - _SUSPECTS} more" * (len(worst) > _SUSPECTS))
