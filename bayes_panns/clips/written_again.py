"""The file of a store that is being packed, which HDF5 writes through here, and can write again over itself.

HDF5 keeps what it knows of a file in memory until the file is closed: after a kill, a half-written store cannot be
opened, though its clips are on the disk. But HDF5 is deterministic: asked for the same things in the same order, it
writes the same bytes to the same places. So where each clip's samples are is noted; and to go on, the store is begun
anew over the file that is there, with the clips taken from it. Each write then finds what it wants to write, and the
file changes only from where it ended.
"""

import errno
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_HEAD = 256
"""Bytes by which the samples of a clip are told from what HDF5 says of them."""


class WrittenAgain(io.RawIOBase):
    """A file for :class:`h5py.File` that looks empty at first, and leaves alone the bytes that are as they should be.

    Args:
        path: The file; it is made if it is missing.

    Attributes:
        error: What was raised here, which HDF5 may hide from its caller.
        places: Where the samples of the clips last written are, in bytes, in order; see :meth:`watching`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.places: list[int] = []
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._there = path.stat().st_size
        self._place = self._end = 0
        self._awaited = deque[memoryview]()
        self._abandoned = False

    def stored(self, place: int, samples: int) -> np.ndarray:
        """What is in the file at a place, int16; fewer than ``samples`` at its end."""
        content = self._read(place, 2 * samples)
        return np.frombuffer(content, dtype=np.int16, count=len(content) // 2)

    def forget(self) -> None:
        """Cut off what this session has not written: from here on it is not the same."""
        self._file.truncate(self._end)
        self._there = 0

    def abandon(self) -> None:
        """Let nothing reach the file any more, so that HDF5 may close it after an error without changing it."""
        self._abandoned = True

    @contextmanager
    def watching(self, clips: Iterable[np.ndarray]) -> Iterator[None]:
        """Note in :attr:`places` where the samples of clips are written in this block, in the order given."""
        self.places = []
        self._awaited = deque(clip.data.cast("B") for clip in clips)
        yield
        self._awaited.clear()

    def readable(self) -> bool:
        """As every file for HDF5."""
        return True

    def writable(self) -> bool:
        """As every file for HDF5."""
        return True

    def seekable(self) -> bool:
        """As every file for HDF5."""
        return True

    def tell(self) -> int:
        """The place, in bytes."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._end}[whence]
        return self._place

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Read what this session has written."""
        view = memoryview(buffer).cast("B")
        content = self._read(self._place, max(0, min(len(view), self._end - self._place)))
        view[: len(content)] = content
        self._place += len(content)
        return len(content)

    def write(self, content) -> int:  # type: ignore[no-untyped-def]
        """Write, unless it is there already."""
        try:
            return self._write(memoryview(content).cast("B"))
        except BaseException as error:
            self.error = error
            raise

    def _write(self, view: memoryview) -> int:
        # Whether they really are its samples, their digest says when they are read.
        if self._awaited and len(view) == len(self._awaited[0]) and bytes(view[:_HEAD]) == self._awaited[0][:_HEAD]:
            self.places.append(self._place)
            self._awaited.popleft()
        end = self._place + len(view)
        if not (self._abandoned or self._is_there(view)):
            self._file.seek(self._place)
            done = 0
            while done < len(view):
                written = self._file.write(view[done:])
                if not written:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                done += written
        self._place, self._end = end, max(self._end, end)
        return len(view)

    def _is_there(self, view: memoryview) -> bool:
        # In this order it is one comparison of memory.
        return self._place + len(view) <= self._there and self._read(self._place, len(view)) == view

    def _read(self, place: int, size: int) -> bytearray:
        """What is there, in one piece; less at the end of the file."""
        content, got = bytearray(size), 0
        self._file.seek(place)
        while got < size and (more := self._file.readinto(memoryview(content)[got:])):
            got += more
        return content[:got]

    def truncate(self, size: int | None = None) -> int:
        """End the file at a size."""
        size = self._place if size is None else size
        if not self._abandoned:
            self._file.truncate(size)
            self._there = min(self._there, size)
        self._end = size
        return size

    def flush(self) -> None:
        """Nothing is held back; HDF5 may ask for it after an error, when the file is closed."""
        if not self._abandoned:
            super().flush()

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()
