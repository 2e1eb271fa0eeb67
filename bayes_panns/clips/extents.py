"""Where the rows of a dataset lie in its file, and reading them from there without HDF5 in between.

HDF5 reads one row after the other, each through buffers of its own. For rows that are stored as they are, its index
says where each one is. The system then hears of all rows of a batch at once, so that a disk works on many, and each
goes straight to its place in memory. Rows that lie together are one request.
"""

import os
from collections.abc import Iterator

import h5py
import numpy as np

_AT_ONCE = 512
"""The most rows of one request; systems allow 1,024 places."""


class Extents:
    """The places of rows of a dataset in its file.

    Args:
        dataset: Shape ``(N, width)``; :meth:`found` says for which there is one.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset, self._start = dataset, dataset.id.get_offset()
        self._size = dataset.dtype.itemsize * dataset.shape[1]
        self._file = dataset.file.id.get_vfd_handle()

    @classmethod
    def found(cls, dataset: h5py.Dataset) -> "Extents | None":
        """The places, or None where rows are not stored as they are: compressed, in pieces, or in another form."""
        plain = isinstance(dataset, h5py.Dataset) and hasattr(os, "preadv") and hasattr(os, "posix_fadvise")
        if not plain or dataset.file.driver != "sec2" or dataset.file.userblock_size:
            return None
        plan = dataset.id.get_create_plist()
        if plan.get_nfilters() or not dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype)):
            return None
        if dataset.chunks is None:
            return cls(dataset) if dataset.id.get_offset() is not None else None
        return cls(dataset) if dataset.chunks == (1, dataset.shape[1]) else None

    def read(self, rows: np.ndarray, found: np.ndarray) -> bool:
        """Read rows, in any order and with repeats.

        Args:
            rows: int64, shape ``(n,)``.
            found: Where they go: of the dataset's type, shape ``(n, width)``, contiguous.

        Returns:
            False if one was never written, and nothing is read.

        Raises:
            OSError: The file ends before a row does.
        """
        places = self._places(rows)
        if places is None:
            return False
        order = np.argsort(places, kind="stable")
        requests = list(self._requests(places[order]))
        for start, end in requests:
            first = int(places[order[start]])
            os.posix_fadvise(self._file, first, (end - start) * self._size, os.POSIX_FADV_WILLNEED)
        content = found.data.cast("B")
        for start, end in requests:
            self._fill([self._row(content, row) for row in order[start:end]], int(places[order[start]]))
        return True

    def _places(self, rows: np.ndarray) -> np.ndarray | None:
        """Where rows begin, in bytes from the start of the file."""
        if self._start is not None:
            return self._start + rows * self._size
        chunk = self._dataset.id.get_chunk_info_by_coord
        places = [chunk((int(row), 0)).byte_offset for row in rows]
        return None if None in places else np.array(places, dtype=np.int64)

    def _requests(self, places: np.ndarray) -> Iterator[tuple[int, int]]:
        """Each run of rows without a gap, as its first and the one behind its last; ``places`` ascend."""
        cuts = np.flatnonzero(np.diff(places) != self._size) + 1
        for start, end in zip([0, *cuts], [*cuts, len(places)], strict=True):
            for first in range(start, end, _AT_ONCE):
                yield first, min(end, first + _AT_ONCE)

    def _row(self, content: memoryview, row: int) -> memoryview:
        return content[row * self._size : (row + 1) * self._size]

    def _fill(self, buffers: list[memoryview], place: int) -> None:
        """Read from ``place`` on into one buffer after the other."""
        while buffers:
            count = os.preadv(self._file, buffers, place)
            if not count:
                raise OSError("truncated file")
            place += count
            while buffers and count >= len(buffers[0]):
                count -= len(buffers.pop(0))
            if count:
                buffers[0] = buffers[0][count:]
