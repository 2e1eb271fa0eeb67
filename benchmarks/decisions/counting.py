"""Counts of resampled sets of clips, in other shares of the labels, beside the truth."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_panns.metrics.counts import LEVEL
from bayes_panns.metrics.deciding import independent
from bayes_panns.predictions import fit_confusion
from bayes_panns.predictions.tally import estimated, plain_calls
from benchmarks.decisions.predicted import Run, Scored

SETS, SIZE = 10, 200
"""How many sets are made of each tested fold, and of how many clips at least."""

METHODS = ("calls", "probabilities", "EM", "corrected")


@dataclass(frozen=True)
class Counted:
    """The counts of one set.

    Attributes:
        truth: ``(K,)``.
        values: The counts of each of :data:`METHODS`, ``(K,)``.
        held: Whether the interval of the corrected counts holds the truth, ``(K,)``.
        held_alone: The same, with each clip on its own.
        width: Of the intervals, ``(K,)``.
    """

    truth: NDArray[np.float64]
    values: dict[str, NDArray[np.float64]]
    held: NDArray[np.bool_]
    held_alone: NDArray[np.bool_]
    width: NDArray[np.float64]


def counted(run: Run, tested: Scored, alike: float, seed: int) -> Iterator[Counted]:
    """Count sets of a tested fold's recordings, whose labels come in random shares.

    Args:
        run: The run.
        tested: Its tested clips, under some shift.
        alike: The likeness of the errors of a recording's clips, from the held-out clips.
        seed: Of the sets.
    """
    random = np.random.default_rng(seed)
    held, p = run.held, tested.uncertainty.probability
    confusion = fit_confusion(held.uncertainty, held.target, groups=held.groups)
    before = held.target.mean(axis=0)
    label = tested.target.argmax(axis=1)
    present = np.unique(label)
    calls = plain_calls(tested.uncertainty)
    for _ in range(SETS):
        share = random.dirichlet(np.full(len(present), 0.5))
        index, groups = _drawn(random, tested, label, present, share)
        truth = tested.target[index].sum(axis=0).astype(np.float64)
        called = calls[index].sum(axis=0)
        together = len(index) / float(independent(groups, alike)[-1])
        wide = estimated(confusion, "one-of-k", called, len(index), together=together)
        alone = estimated(confusion, "one-of-k", called, len(index))
        yield Counted(
            truth,
            {
                "calls": called.astype(np.float64),
                "probabilities": p[index].sum(axis=0),
                "EM": _em(p[index], before),
                "corrected": wide.value,
            },
            (wide.low <= truth) & (truth <= wide.high),
            (alone.low <= truth) & (truth <= alone.high),
            wide.high - wide.low,
        )


def _drawn(
    random: np.random.Generator, tested: Scored, label: NDArray, present: NDArray, share: NDArray
) -> tuple[NDArray, NDArray]:
    """Whole recordings of labels in some shares, until there are :data:`SIZE` clips; and which draw each clip is of."""
    rows: list[NDArray] = []
    groups: list[NDArray] = []
    wanted = np.rint(share * SIZE).astype(int)
    for kind, count in zip(present, wanted, strict=True):
        mine = np.flatnonzero(label == kind)
        recordings = np.unique(tested.groups[mine])
        while count > 0:
            chosen = mine[tested.groups[mine] == random.choice(recordings)][:count]
            rows.append(chosen)
            groups.append(np.full(len(chosen), len(groups)))
            count -= len(chosen)
    return np.concatenate(rows), np.concatenate(groups)


def _em(p: NDArray[np.float64], before: NDArray[np.float64], steps: int = 200) -> NDArray[np.float64]:
    """The counts by expectation maximisation over the shares of the labels (Saerens et al., 2002)."""
    share = before.copy()
    for _ in range(steps):
        weighted = p * (share / np.maximum(before, 1e-9))
        weighted /= np.maximum(weighted.sum(axis=1, keepdims=True), 1e-300)
        share = weighted.mean(axis=0)
    return share * len(p)


def summary(found: list[Counted]) -> dict[str, Any]:
    """The mean absolute error of each method, in clips a label, and how often the intervals hold the truth."""
    return {
        "sets": len(found),
        "errors": {
            name: float(np.mean([np.abs(each.values[name] - each.truth).mean() for each in found])) for name in METHODS
        },
        "held": float(np.mean([each.held.mean() for each in found])),
        "held_alone": float(np.mean([each.held_alone.mean() for each in found])),
        "width": float(np.mean([each.width.mean() for each in found])),
        "level": LEVEL,
    }
