"""Where the recipes that come with the package lie, known without reading one: a shell lists them at once."""

from pathlib import Path
from typing import Literal

Kind = Literal["guides", "runs"]
"""What a recipe is for: a strategy, or a run."""


def folder(kind: Kind) -> Path:
    """The folder of the recipes: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent.parent
    return package / kind if (package / kind).is_dir() else package.parent / kind


def names(kind: Kind) -> list[str]:
    """The names of the recipes that come with the package.

    Example:
        >>> "flip" in names("guides"), "scratch" in names("runs")
        (True, True)
    """
    return sorted(path.stem for path in folder(kind).glob("*.toml"))
