"""What decisions reach on tested clips: precision, share decided, and whether a shortfall is told."""

from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import FittedTo, Score, Target
from bayes_panns.metrics import auroc, bootstrap
from bayes_panns.metrics.deciding import likeness
from bayes_panns.posterior import Calibration, Decisions, Usual
from bayes_panns.predictions import Decided, Tally, fit_decisions, usual_scores
from bayes_panns.predictions.deciding import above, decided
from bayes_panns.predictions.uncertainty import score_of
from benchmarks.decisions.counting import Counted, counted, summary
from benchmarks.decisions.predicted import Run, Scored
from benchmarks.decisions.shifts import NONE, SHIFTS

ASKED = (0.9, 0.95)
RULES = ("bound", "no bound", "0.5")
"""A threshold with a bound, the lowest that meets the target on the held-out clips, and a fixed one."""

SUBSETS, RECORDINGS = 20, 20
"""How many subsets of a tested fold are tested for a shift, and of how many recordings each."""


def decisions_of(run: Run, asked: float, rule: str, usual: Usual) -> Decisions:
    """The decisions of a rule, from a run's held-out clips."""
    held, labels = run.held, run.held.target.shape[1]
    found = fit_decisions(
        held.uncertainty,
        held.target,
        groups=held.groups,
        aim=Target.PRECISION,
        value=asked,
        outside=above(usual, held.uncertainty),
    )
    if rule == "bound":
        return found
    thresholds = [0.5] * labels if rule == "0.5" else _empirical(held, asked)
    return found.model_copy(
        update={
            "threshold": tuple(min(each, 1.0) for each in thresholds),
            "fitted": tuple(FittedTo.NEVER if each > 1 else FittedTo.OWN for each in thresholds),
        }
    )


def _empirical(held: Scored, asked: float) -> list[float]:
    """For each label the lowest threshold at which enough of its held-out calls are right; above 1 if none is."""
    p = held.uncertainty.probability
    top, found = p.argmax(axis=1), []
    for k in range(p.shape[1]):
        mine = np.flatnonzero(top == k)
        order = mine[np.argsort(-p[mine, k], kind="stable")]
        precision = np.cumsum(held.target[order, k]) / np.arange(1, len(order) + 1)
        enough = np.flatnonzero(precision >= asked)
        found.append(float(p[order[enough[-1]], k]) if len(enough) else 2.0)
    return found


def decide_by(found: Decisions, usual: Usual, scored: Scored) -> Decided:
    """What a rule decides of clips."""
    return decided(_calibration(found, usual), scored.uncertainty)


def _calibration(found: Decisions, usual: Usual) -> Calibration:
    return Calibration(
        temperature=1, threshold=0, coverage=0.5, draws=0, clips=(0, 0), data=(), decisions=found, usual=usual
    )


def told(found: Decisions, usual: Usual, scored: Scored, keep: NDArray | None = None) -> bool:
    """Whether a run over clips' recordings would say that they differ from the held-out ones."""
    posterior: Any = SimpleNamespace(
        labels=tuple(map(str, range(scored.target.shape[1]))), calibration=_calibration(found, usual), task="one-of-k"
    )
    tally, made = Tally(posterior), decide_by(found, usual, scored)
    for group in np.unique(scored.groups) if keep is None else keep:
        index = np.flatnonzero(scored.groups == group)
        part = Decided(made.called[index], made.left[index], made.outside[index])
        tally.add(scored.uncertainty.take(index), part)
    return bool(tally.result().warning)


def table(runs: Sequence[Run], asked: float, rule: str, resamples: int) -> list[dict[str, Any]]:
    """A row for each shift, over the splits of a division."""
    rows = []
    for shift in SHIFTS:
        right, groups, clips, short, warned = [], [], 0, 0, 0
        both = 0
        for number, run in enumerate(runs):
            tested, usual = run.tested[shift], usual_scores(run.held.uncertainty, run.held.groups)
            found = decisions_of(run, asked, rule, usual)
            made = decide_by(found, usual, tested)
            which = np.asarray(made.called.any(axis=1))
            hit = np.asarray((made.called & tested.target).any(axis=1))[which]
            right.append(hit)
            groups += [f"{number} {each}" for each in tested.groups[which]]
            clips += len(which)
            is_short, is_told = bool(len(hit) and hit.mean() < asked), told(found, usual, tested)
            short, warned, both = short + is_short, warned + is_told, both + (is_short and is_told)
        hits = np.concatenate(right)
        found_interval = bootstrap(_mean, hits, groups=np.array(groups), resamples=resamples) if len(hits) else None
        rows.append(
            {
                "shift": shift,
                "asked": asked,
                "rule": rule,
                "precision": None
                if found_interval is None
                else [found_interval.value, found_interval.low, found_interval.high],
                "decided": len(hits) / clips,
                "splits": len(runs),
                "short": short,
                "told": warned,
                "short_and_told": both,
            }
        )
    return rows


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean())


def near_sounds(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """How each score finds near sounds: AUROC, and the share outside of near and of tested clips; means over splits."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for score in Score:
            usual = usual_scores(run.held.uncertainty, run.held.groups, score=score)
            found[score]["auroc"].append(
                auroc(score_of(run.tested[NONE].uncertainty, score), score_of(run.near, score))
            )
            found[score]["near"].append(float(above(usual, run.near).mean()))
            found[score]["like"].append(float(above(usual, run.tested[NONE].uncertainty).mean()))
    return {score: {name: float(np.mean(each)) for name, each in values.items()} for score, values in found.items()}


def false_alarms_of_the_test(runs: Sequence[Run], shift: str) -> float:
    """How often subsets of a tested fold's recordings are said to differ."""
    random, count = np.random.default_rng(0), []
    for run in runs:
        usual = usual_scores(run.held.uncertainty, run.held.groups)
        found = decisions_of(run, ASKED[0], "0.5", usual)
        recordings = np.unique(run.tested[shift].groups)
        for _ in range(SUBSETS):
            keep = random.choice(recordings, min(RECORDINGS, len(recordings)), replace=False)
            count.append(told(found, usual, run.tested[shift], keep))
    return float(np.mean(count))


def counts_of(runs: Sequence[Run], shift: str) -> dict[str, Any]:
    """How well the labels of resampled sets are counted."""
    found: list[Counted] = []
    for number, run in enumerate(runs):
        held = run.held
        wrong = held.uncertainty.probability.argmax(axis=1) != held.target.argmax(axis=1)
        found += counted(run, run.tested[shift], likeness(wrong, held.groups), seed=number)
    return summary(found)
