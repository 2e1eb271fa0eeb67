"""The rows and stages of the study, and where their fits are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bayes_panns.metrics.bootstrap import RESAMPLES
from bayes_panns.recipes import Run, read_run

DEFAULT, UNPOWERED, LOGISTIC = "rotated-head", "rotated-head-unpowered", "logistic"
"""The package's default, the same without its power, and the baseline."""

FIXED = ("data.validation=0",)
FEW = ("fit.batch_size=8",)
"""What fits by minibatches change in ``fixed-features``; and with a share of the labels, for as many steps an epoch."""

EXACT = (*FIXED, "fit.kl_weight=1", "fit.kl_warmup=0", "fit.learning_rate=1e-2", "fit.epochs=300", "fit.batch_size=512")
"""The fits at ``kl_weight`` 1, as in the transfer study: all clips a step, where they are few."""


@dataclass(frozen=True)
class Row:
    """A row of the tables.

    Attributes:
        name: Its name, and that of its guide recipe if it is fitted by a run recipe.
        recipe: Its run recipe; None for a baseline.
        changes: What it changes in that recipe.
        few: What it changes besides with a share of the labels.
        seeds: The largest number of seeds that it is fitted with; None for all.
    """

    name: str
    recipe: str | None = None
    changes: tuple[str, ...] = ()
    few: tuple[str, ...] = ()
    seeds: int | None = None


ROWS = (
    Row(DEFAULT, "rotated-head"),
    Row(UNPOWERED),
    Row(LOGISTIC),
    Row("logistic-power"),
    Row("logistic-ensemble"),
    Row("laplace-torch"),
    Row("det", "fixed-features", FIXED, FEW),
    Row("map-head", "fixed-features", (*FIXED, "fit.kl_weight=1", "fit.kl_warmup=0"), FEW),
    Row("det-flip", "fixed-features", FIXED, FEW),
    Row("last-layer", "fixed-features", EXACT),
    Row("low-rank-head", "fixed-features", (*EXACT, "fit.epochs=1000"), seeds=1),
)


@dataclass(frozen=True)
class Stage:
    """A row with a share of the labels and one seed: one fit for each fold."""

    share: float
    row: Row
    seed: int

    def __str__(self) -> str:
        return f"{self.row.name}, {self.share:.0%} of the labels, seed {self.seed}"


def stages(seeds: Sequence[int], shares: Sequence[float], names: Sequence[str] = ()) -> list[Stage]:
    """The stages of the study, or of some rows.

    The seed decides which labels there are, so with all of them there is one seed. The seeds come one after the other,
    so that a study that is stopped early is a study of fewer seeds.
    """
    return [
        Stage(share, row, seed)
        for index, seed in enumerate(seeds)
        for share in shares
        if index == 0 or share < 1
        for row in ROWS
        if (row.seeds is None or index < row.seeds) and (not names or row.name in names)
    ]


@dataclass(frozen=True)
class Study:
    """The data of the study, and its folder.

    Attributes:
        out: Its folder; a fit is in ``out/<percent of the labels>/<row>/seed-<seed>/fold-<fold>``.
        data: The store of embeddings with labels and folds.
        near: A store of embeddings of similar sounds with none of the labels.
        speech: A store of embeddings of speech, if there is one.
        resamples: For bootstrap intervals.
    """

    out: Path
    data: str
    near: str
    speech: str | None = None
    resamples: int = RESAMPLES

    @property
    def outside(self) -> list[str]:
        """The stores of clips with none of the labels."""
        return [self.near, *([] if self.speech is None else [self.speech])]

    def folder(self, share: float) -> Path:
        """Where the rows of a share are."""
        return self.out / f"{100 * share:g}"

    def recipe(self, row: Row, share: float) -> Run:
        """The run recipe of a row, without seed and folds. A baseline's is the default's: it has the same clips."""
        changes = [*row.changes, *(row.few if share < 1 else ())]
        if share < 1:
            changes.append(f"data.share={share:g}")
        recipe = read_run(row.recipe or DEFAULT, changes)
        data = recipe.data.model_copy(update={"stores": [self.data]})
        return recipe.model_copy(update={"data": data, "guide": row.name if row.recipe else DEFAULT})
