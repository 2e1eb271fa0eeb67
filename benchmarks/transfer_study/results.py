"""The rows of the tables: strategies, mixtures of them, and a temperature-scaled baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import cross_fitted_temperatures, logits_of
from benchmarks.transfer_study.design import ENSEMBLES, MIXTURE, TEMPERED
from benchmarks.transfer_study.fits import Folds, Found


@dataclass(frozen=True)
class Result:
    """A row of the tables: a strategy, or a mixture of several fits.

    Attributes:
        name: Its name in the tables.
        runs: Evaluations of all folds' clips. There is one for each seed, whose metrics are averaged, or a single one
            if ``mixed``.
        seeds: The number of seeds.
        mixed: Whether the fits of all seeds make one prediction.
    """

    name: str
    runs: list[Evaluation]
    seeds: int
    mixed: bool = False


def results(found: Found, arm: str, share: float) -> list[Result]:
    """The rows of an arm and share, and the mixtures and temperature-scaled rows that are computed from them.

    Seeds are mixed, and temperatures fitted, with all of the labels only. With a share of the labels, another seed has
    other clips, and a temperature needs labels of clips that no fit may see.
    """
    mine = {guide: seeds for (a, s, guide), seeds in found.items() if (a, s) == (arm, share)}
    every = {guide: [[folds] for folds in seeds.values()] for guide, seeds in mine.items()}
    if share == 1 and "det" in mine:
        every[TEMPERED] = [[tempered(folds)] for folds in mine["det"].values()]
    if all(guide in mine for guide in MIXTURE):
        every[" + ".join(MIXTURE)] = [
            [mine[guide][seed] for guide in MIXTURE]
            for seed in mine[MIXTURE[0]]
            if all(seed in mine[guide] for guide in MIXTURE)
        ]
    lines = [Result(name, [_mixed(each) for each in seeds], len(seeds)) for name, seeds in every.items() if seeds]
    if share == 1:
        for name in ENSEMBLES:
            members = [folds for each in every.get(name, []) for folds in each]
            if len(every.get(name, [])) > 1:
                lines.append(Result(f"{name}, all seeds", [_mixed(members)], len(every[name]), mixed=True))
    return lines


def tempered(folds: Folds) -> Folds:
    """A Det's evaluations, each fold with a temperature fitted to the others: :func:`cross_fitted_temperatures`."""
    first = next(iter(folds.values()))
    temperatures = cross_fitted_temperatures(
        np.concatenate([logits_of(each.uncertainty.probability, each.task) for each in folds.values()])[None],
        np.concatenate([each.target for each in folds.values()]),
        first.task,
        np.concatenate([np.full(len(each.names), fold) for fold, each in folds.items()]),
    )
    return {fold: each.tempered(temperatures[fold]) for fold, each in folds.items()}


def _mixed(members: Sequence[Folds]) -> Evaluation:
    """All folds' clips as one evaluation, in which the fits of each fold are one mixture."""
    return Evaluation.pool([Evaluation.mix([each[fold] for each in members]) for fold in members[0]])
