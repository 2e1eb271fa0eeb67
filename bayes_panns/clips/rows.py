"""Reading rows of a dataset on disk in any order, fast."""

import h5py
import numpy as np

from bayes_panns.clips.extents import Extents

_GAP = 1 << 16
"""The most bytes between two rows that are read along, rather than asking the file twice."""

_BLOCK = 1 << 24
"""Bytes that are read at once, where rows are near each other."""


def read_rows(dataset: h5py.Dataset, rows: np.ndarray, found: np.ndarray | None = None) -> np.ndarray:
    """Rows of a dataset, in any order and with repeats.

    Short rows that are near each other are read together. Of long ones the system hears all at once, and those that lie
    together are one request. h5py's own selection by a list of rows is some 25 times slower.

    Args:
        dataset: Shape ``(N, width)``.
        rows: int64, shape ``(n,)``, each in ``[0, N)``.
        found: Where they go, as they are returned; by default new memory.

    Returns:
        Of the dataset's type, shape ``(n, width)``.

    Raises:
        OSError: The file is cut short.
    """
    width = dataset.shape[1]
    size = dataset.dtype.itemsize * width
    if found is None:
        found = np.empty((len(rows), width), dtype=dataset.dtype)
    if not len(rows):
        return found
    if size > _GAP:
        extents = Extents.found(dataset)
        if extents is None or not extents.read(rows, found):
            # One hyperslab a row, straight to its place.
            for position, row in enumerate(rows):
                dataset.read_direct(found, np.s_[row], np.s_[position])
        return found
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    start = 0
    while start < len(ascending):
        end = start + _together(ascending[start:], gap=_GAP // size, most=_BLOCK // size)
        first = ascending[start]
        block = dataset[first : ascending[end - 1] + 1]
        found[order[start:end]] = block[ascending[start:end] - first]
        start = end
    return found


def _together(rows: np.ndarray, gap: int, most: int) -> int:
    """How many of the first rows, ascending, are read at once: none further than ``gap`` from the one before."""
    near = rows[: np.searchsorted(rows, rows[0] + most)]
    apart = np.flatnonzero(np.diff(near) > max(1, gap))
    return int(apart[0]) + 1 if len(apart) else len(near)
