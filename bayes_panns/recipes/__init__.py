"""Recipes: TOML files that say what to fit and how. A recipe is data, never code.

A guide recipe (``guides/*.toml``) is a :class:`~bayes_panns.bayes.strategy.Strategy`, a run recipe (``runs/*.toml``)
a :class:`Run`. Wherever a recipe is asked for, give a file or the name of one that comes with the package.
"""

from bayes_panns.core.recipe_files import names
from bayes_panns.recipes.reading import is_function, read_run, read_strategy, replaced
from bayes_panns.recipes.run import Data, Run

__all__ = ["Data", "Run", "is_function", "names", "read_run", "read_strategy", "replaced"]
