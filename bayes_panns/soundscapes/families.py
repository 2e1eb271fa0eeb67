"""Families of sounds: parametrised generators, registered by name.

A new class of sound is a function in ``upstream.py``, ``downstream.py`` or ``novel.py``. Its random draws depend on its
name, and on the order in which it asks for them; changing either changes its sounds.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from bayes_panns.soundscapes.batch import Batch

Family: TypeAlias = Callable[[Batch], np.ndarray]
"""Synthesizes a batch: sounds of any level, shape ``(clips, samples)``."""

Families: TypeAlias = dict[str, Family]
"""Families by their names."""


def register(families: Families) -> Callable[[Family], Family]:
    """Add the decorated family to ``families`` under its function's name."""

    def add(family: Family) -> Family:
        families[family.__name__] = family
        return family

    return add
