"""The fits of the study, and their predictions for held-out, tested, shifted and near clips."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import from_numpy

from bayes_panns.clips import ClipSet, write_embeddings
from bayes_panns.jobs import calibrate, fit
from bayes_panns.posterior import load
from bayes_panns.predictions import Uncertainty, UncertaintyAccumulator, predict
from bayes_panns.recipes import read_run
from benchmarks.decisions.design import Division, Split
from benchmarks.decisions.shifts import NONE, SHIFTS
from benchmarks.foundation_study.logistic import choose

logger = logging.getLogger(__name__)

HEAD, LOGISTIC = "rotated-head", "logistic"
"""The package's default, and the simplest strong baseline."""


@dataclass(frozen=True)
class Scored:
    """Predictions for N clips, the truth ``(N, K)``, and each clip's recording ``(N,)``."""

    uncertainty: Uncertainty
    target: NDArray[np.bool_]
    groups: NDArray[np.str_]


@dataclass(frozen=True)
class Run:
    """What one model says of one split's clips.

    Attributes:
        held: The held-out clips.
        tested: The tested clips under each shift.
        near: Clips with none of the labels.
    """

    held: Scored
    tested: dict[str, Scored]
    near: Uncertainty


def divided(division: Division, embedded: Path, out: Path) -> dict[str, Path]:
    """The stores of a division: under each shift those of its labels, and ``near``."""
    stores = {shift: out / f"{division.name} {shift}.h5" for shift in SHIFTS} | {
        "near": out / f"{division.name} near.h5"
    }
    for shift in SHIFTS:
        if not stores[shift].is_file():
            _part(embedded / f"{division.store} {shift}.h5", stores[shift], division.without, inside=True)
    if not stores["near"].is_file():
        source = embedded / f"{division.near or division.store} {NONE}.h5"
        _part(source, stores["near"], division.without, inside=not division.without)
    return stores


def _part(source: Path, out: Path, without: tuple[str, ...], *, inside: bool) -> None:
    """Write the clips of a store that have none of some labels, or only those that have one."""
    clips = ClipSet(source)
    gone = np.array([label in without for label in clips.labels])
    taken = clips.target()[:, gone].any(axis=1)
    index = np.flatnonzero(~taken if inside else taken)
    chosen = clips.select(indices=index)
    columns = np.flatnonzero(~gone if inside else gone)
    write_embeddings(
        out,
        chosen.embedding(np.arange(len(chosen))),
        chosen.target()[:, columns],
        [clips.labels[k] for k in columns],
        clips.task,
        model=clips.model,
        names=chosen.names,
        fold=chosen.folds,
        source=np.asarray(chosen.sources).tolist(),
    )


def head_run(stores: dict[str, Path], split: Split, out: Path) -> Run:
    """The default last layer: fitted to the split's training folds, with the temperature of its held-out folds."""
    folder = out / f"test-{split.test}"
    if not (folder / "posterior").is_dir():
        recipe = read_run("rotated-head", ["data.validation=0"])
        data = recipe.data.model_copy(update={"stores": [str(stores[NONE])], "folds": list(split.train)})
        fit(recipe.model_copy(update={"data": data}), folder)
    posterior = load(folder)
    calibrate(posterior, ClipSet(stores[NONE], folds=list(split.held)))
    return _run(stores, split, lambda clips: predict(posterior, clips))


def logistic_run(stores: dict[str, Path], split: Split) -> Run:
    """Logistic regression with the penalty and the power that the training clips choose."""
    chosen = choose(ClipSet(stores[NONE], folds=list(split.train)), seed=0)
    model, power = chosen.of(chosen.fit()), np.array([chosen.power()])

    def of(clips: ClipSet) -> Uncertainty:
        accumulator = UncertaintyAccumulator("one-of-k", power=power)
        for draw in model(clips.embedding(np.arange(len(clips)))):
            accumulator.update(from_numpy(draw))
        return accumulator.result()

    return _run(stores, split, of)


def _run(stores: dict[str, Path], split: Split, of: Callable[[ClipSet], Uncertainty]) -> Run:
    def scored(store: Path, folds: tuple[int, ...]) -> Scored:
        clips = ClipSet(store, folds=list(folds))
        groups = np.asarray(clips.sources)
        return Scored(of(clips), clips.target(), groups)

    return Run(
        scored(stores[NONE], split.held),
        {shift: scored(stores[shift], (split.test,)) for shift in SHIFTS},
        of(ClipSet(stores["near"])),
    )
