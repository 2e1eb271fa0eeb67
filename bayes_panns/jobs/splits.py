"""Which clips a run is fitted to, and which it holds out."""

from collections.abc import Sequence
from pathlib import Path

from bayes_panns.clips import ClipSet, read_labels
from bayes_panns.core.errors import RecipeError, StoreError
from bayes_panns.jobs.run_folder import RunFolder
from bayes_panns.recipes import Run


def run_clips(recipe: Run) -> ClipSet:
    """All clips in a recipe's stores.

    Raises:
        RecipeError: The recipe names no store.
        StoreError: A store or the label names cannot be read.
    """
    if not recipe.data.stores:
        raise RecipeError("no clips to fit: name a store with --data, or in the recipe's data.stores")
    labels = None if recipe.data.labels is None else read_labels(recipe.data.labels)
    return ClipSet(recipe.data.stores, labels=labels)


def divide(recipe: Run) -> tuple[ClipSet | None, ClipSet]:
    """The clips that a run holds out and scores after each epoch, if any; and those that it is fitted to.

    Raises:
        RecipeError: The recipe names no store.
        StoreError: A store cannot be read, or the clips cannot be split.
    """
    clips = run_clips(recipe)
    if recipe.data.folds is not None:
        clips = clips.select(folds=recipe.data.folds)
    if recipe.data.share < 1:
        clips = clips.sample(recipe.data.share, seed=recipe.fit.seed)
    if not recipe.data.validation:
        return None, clips
    return clips.split(recipe.data.validation, seed=recipe.fit.seed, rule=recipe.data.split)


def held_out(run: str | Path, stores: Sequence[str | Path] = (), *, folds: Sequence[int] | None = None) -> ClipSet:
    """Clips that a posterior was not fitted to: those in ``stores``, or by default the run's own validation clips.

    Args:
        run: The run's folder, or the posterior's folder in it.
        stores: Clip stores.
        folds: The folds to take; by default all.

    Raises:
        StoreError: No stores are given, and the run held no clips out or is not known.
        BayesPannsError: The run's recipe or a store is damaged.
    """
    if stores:
        return ClipSet(list(stores), folds=folds)
    home = RunFolder.around(run)
    held = None if home is None else divide(home.read_recipe())[0]
    if held is None:
        raise StoreError(
            f"{run}: the run held no clips out; name a store of clips that it was not fitted to with --data"
        )
    return held if folds is None else held.select(folds=folds)
