"""The rows, arms and stages of the study, and where their fits are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bayes_panns.clips import ClipSet
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.jobs import run_folder
from bayes_panns.metrics.bootstrap import RESAMPLES
from bayes_panns.recipes import Run, read_run

ARMS = {"transfer": "study-transfer", "scratch": "study-scratch"}
"""Where a fit starts, and the run recipe of the fits that train the backbone."""

SETTINGS: dict[tuple[str, float], tuple[str, ...]] = {
    ("transfer", 0.25): ("fit.batch_size=8", "fit.epochs=12"),
    ("transfer", 0.1): ("fit.batch_size=8", "fit.epochs=16"),
    ("scratch", 0.25): ("fit.batch_size=8", "fit.epochs=60"),
    ("scratch", 0.1): ("fit.batch_size=8", "fit.epochs=80"),
}
"""By arm and share of the labels, what these fits change in that recipe: fewer clips need more epochs."""

HEAD_RECIPE = "rotated-widths"
"""The run recipe of the fits that train the last layer alone."""

NEW_HEAD = ('freeze=["backbone"]', "fit.learning_rate=1e-2")
"""What they change in it for a last layer that starts at random."""


@dataclass(frozen=True)
class Row:
    """A strategy of the study.

    Attributes:
        guide: Its guide recipe, which is also its name.
        start: Where it starts in the arm ``transfer``: from the upstream posterior ``flip`` or ``det``. With
            ``own det`` it starts, in both arms, from the Det of its own arm, share, seed and fold.
        arms: The arms that it is part of.
        head: Whether it trains the last layer alone.
        recipe: The run recipe of its fits, where it is not that of the arm or of the last layer.
        changes: What it changes in its run recipe.
        draws: Posterior draws a clip.
        seeds: The largest number of seeds that it is fitted with; None for all.
    """

    guide: str
    start: str
    arms: tuple[str, ...] = ("transfer", "scratch")
    head: bool = False
    recipe: str | None = None
    changes: tuple[str, ...] = ()
    draws: int = 10
    seeds: int | None = None


ROWS = (
    Row("det", "det"),
    Row("drop", "det"),
    Row("flip", "flip"),
    Row("det-flip", "det", draws=50),
    Row("rotated-head", "own det", head=True, draws=50),
    Row("last-layer", "det", arms=("transfer",), head=True, changes=NEW_HEAD, draws=50, seeds=1),
    Row(
        "low-rank-head", "det", arms=("transfer",), head=True, changes=(*NEW_HEAD, "fit.epochs=1000"), draws=50, seeds=1
    ),
    Row("map", "det", seeds=1),
    Row("flip-from-points", "det", arms=("transfer",), seeds=1),
    Row("flip-inferred", "det", arms=("transfer",), recipe="study-natural"),
    Row("flip-last-stage", "flip", seeds=1),
    Row("flip-upstream-prior", "flip", arms=("transfer",), seeds=1),
)
"""In the order in which they are fitted: those that others start from come first."""

MIXTURE = ("rotated-head", "flip")
"""Strategies whose fits of one seed are mixed."""

ENSEMBLES = ("det", "drop", "flip", "rotated-head", " + ".join(MIXTURE))
"""Rows whose fits of all seeds are mixed."""

TEMPERED = "det + temperature"


@dataclass(frozen=True)
class Stage:
    """A row with one seed, in one arm, with one share of the labels: one fit for each fold."""

    arm: str
    share: float
    row: Row
    seed: int

    def __str__(self) -> str:
        return f"{self.row.guide}, {self.arm}, {self.share:.0%} of the labels, seed {self.seed}"


def stages(
    seeds: Sequence[int], shares: Sequence[float], arms: Sequence[str] = (), guides: Sequence[str] = ()
) -> list[Stage]:
    """The stages of the study, or of some arms or rows.

    The seeds come one after the other, so that a study that is stopped early is a study of fewer seeds.
    """
    return [
        Stage(arm, share, row, seed)
        for index, seed in enumerate(seeds)
        for share in shares
        for row in ROWS
        if row.seeds is None or index < row.seeds
        for arm in row.arms
        if (not arms or arm in arms) and (not guides or row.guide in guides)
    ]


@dataclass(frozen=True)
class Study:
    """The data of the study, and its folder.

    Attributes:
        out: Its folder; a fit is in ``out/<arm>/<percent of the labels>/<guide>/seed-<seed>/fold-<fold>``.
        data: The downstream store, with folds.
        near: A store of similar sounds with none of the labels.
        speech: A store of speech.
        upstreams: The upstream posteriors ``flip`` and ``det``.
        changes: Settings for every fit.
        resamples: For bootstrap intervals.
    """

    out: Path
    data: str
    near: str
    speech: str
    upstreams: Mapping[str, str]
    changes: tuple[str, ...] = ()
    resamples: int = RESAMPLES

    def folder(self, arm: str, share: float) -> Path:
        """Where the cross-validations of an arm and share are."""
        return self.out / arm / f"{100 * share:g}"

    def recipe(self, stage: Stage) -> Run:
        """The run recipe of a stage, without guide, seed and folds."""
        row, arm, share = stage.row, stage.arm, stage.share
        changes = [f"data.share={share:g}"] if share < 1 else []
        if row.head:
            changes += [f"net={read_run(ARMS[arm]).net}"]
        else:
            changes += SETTINGS.get((arm, share), ())
        name = row.recipe or (HEAD_RECIPE if row.head else ARMS[arm])
        recipe = read_run(name, [*changes, *row.changes, *self.changes])
        upstream = self.upstreams.get(row.start) if arm == "transfer" else None
        if row.start == "own det":
            upstream = str(self.folder(arm, share) / "det")
        data = recipe.data.model_copy(update={"stores": [self.data]})
        return recipe.model_copy(update={"data": data, "upstream": upstream})

    def runs(self, stage: Stage) -> dict[int, Path]:
        """The folder of each fold's fit.

        Raises:
            BayesPannsError: The clips have no folds.
        """
        folds = ClipSet(self.data).folds
        if folds is None:
            raise BayesPannsError(f"{self.data}: its clips have no folds; name a store with folds")
        folder = self.folder(stage.arm, stage.share) / stage.row.guide
        return {fold: run_folder(folder, stage.seed, fold) for fold in sorted({int(fold) for fold in folds})}
