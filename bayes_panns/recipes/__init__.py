"""Recipes: TOML files that say what to fit and how. Data, never code."""

from bayes_panns.recipes.reading import Data, Run, names, parse_strategy, read_run, read_strategy

__all__ = ["Data", "Run", "names", "parse_strategy", "read_run", "read_strategy"]
