"""The data of the decisions study, and which folds are fitted, calibrated and tested."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Division:
    """Clips with labels and folds, and clips of other kinds.

    Attributes:
        name: What it is called.
        store: The name of its store.
        folds: Its folds.
        calibrated: How many folds are held out for the decisions.
        without: Labels that are taken out; their clips are the near sounds.
        near: The name of a store of near sounds, where no labels are taken out.
    """

    name: str
    store: str
    folds: tuple[int, ...]
    calibrated: int
    without: tuple[str, ...] = ()
    near: str = ""


@dataclass(frozen=True)
class Split:
    """The folds of one fit: disjoint, and all there are."""

    train: tuple[int, ...]
    held: tuple[int, ...]
    test: int


DIVISIONS = (
    Division("ESC-10", "esc10", (1, 2, 3, 4, 5), 2, near="near"),
    Division("UrbanSound8K a", "us8k", (1, 2, 3, 10), 1, without=("siren", "gun_shot")),
    Division("UrbanSound8K b", "us8k", (1, 2, 3, 10), 1, without=("dog_bark", "drilling")),
)

CHOSEN_ON = "UrbanSound8K b"
"""Settings are chosen on this division; the others are for reporting."""


def splits(division: Division) -> Iterator[Split]:
    """Each fold is tested once; the folds after it, in a circle, are held out, and the rest is fitted."""
    folds = division.folds
    for place, test in enumerate(folds):
        others = folds[place + 1 :] + folds[:place]
        yield Split(others[division.calibrated :], others[: division.calibrated], test)
