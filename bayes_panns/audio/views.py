"""An open file of bytes, and views of it: stretches of it and bytes of our own, one after the other."""

import os
import stat
import sys
import tempfile
from bisect import bisect_right
from dataclasses import dataclass
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from bayes_panns.core.errors import AudioError
from bayes_panns.core.text import printable

STANDARD_INPUT = Path("-")
"""The path that means standard input."""

_COPIED = 1 << 20
"""Bytes of a pipe that are copied at a time."""

Piece = bytes | tuple[int, int]
"""Bytes of our own, or the first byte of a stretch of a file and the one after its last."""


def shown(path: Path) -> str:
    """A sound's name for messages, on one line."""
    return "standard input" if path == STANDARD_INPUT else printable(str(path))


class Source:
    """The bytes of a sound file, which may be read from anywhere at any time.

    A pipe and standard input (``-``) are first copied to an unnamed temporary file, since most formats are read back
    and forth.

    Args:
        path: The file.

    Attributes:
        path: The file.
        size: Its length in bytes.

    Raises:
        AudioError: There is no such file, it is not one, it is empty, or it cannot be opened or copied.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = _opened(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise AudioError(f"{shown(path)}: no such file") from error
        except (OSError, ValueError) as error:  # A ValueError: the name holds a zero byte.
            reason = getattr(error, "strerror", None) or str(error)
            raise AudioError(f"{shown(path)}: cannot be opened ({reason})") from error
        self.size = os.fstat(self._file.fileno()).st_size
        if self.size == 0:
            self.close()
            raise AudioError(f"{shown(path)}: the file is empty")

    @property
    def fileno(self) -> int:
        """The file's descriptor, which stays ours."""
        return self._file.fileno()

    def at(self, place: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``place`` on; fewer at the file's end."""
        if length <= 0 or place < 0:
            return b""
        self._file.seek(place)
        return self._file.read(length)

    def into(self, place: int, target: memoryview) -> int:
        """Fill ``target`` from ``place`` on; returns how many bytes that are."""
        self._file.seek(place)
        return self._file.readinto(target) or 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _opened(path: Path) -> FileIO:
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise AudioError("standard input: is closed; name a file")
        return _copied(sys.stdin.buffer)
    kind = path.stat().st_mode
    if stat.S_ISFIFO(kind):
        with path.open("rb") as pipe:
            return _copied(pipe)
    if not stat.S_ISREG(kind):
        raise AudioError(f"{shown(path)}: is not a file")
    return path.open("rb", buffering=0)


def _copied(pipe: BinaryIO) -> FileIO:
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    try:
        while block := pipe.read(_COPIED):
            file.write(block)
    except BaseException:
        file.close()
        raise
    return file


def overlaid(end: int, patches: dict[int, bytes]) -> tuple[Piece, ...]:
    """The pieces of a file up to ``end``, with other bytes at some places."""
    pieces: list[Piece] = []
    done = 0
    for place, patch in sorted(patches.items()):
        pieces += [(done, place), patch]
        done = place + len(patch)
    return (*pieces, (done, end))


@dataclass(frozen=True)
class Stream:
    """A stretch of a file that one decoder reads, and what the file's header says of it.

    Attributes:
        pieces: The bytes to decode; None for the file as it is.
        promised: Samples of each channel that the header promises; None if it does not say.
        share: The share of the promised bytes that are there.
        most: Samples of each channel that are sound; what is decoded beyond them is padding.
        damage: What is wrong with the bytes, in words; empty if nothing is known.
    """

    pieces: tuple[Piece, ...] | None = None
    promised: int | None = None
    share: float = 1.0
    most: int | None = None
    damage: str = ""


class View:
    """A file-like object for libsndfile: pieces of a file and bytes of our own, as if they were one file.

    libsndfile calls it from C, where an exception would be printed and lost: it is kept in ``error`` instead, and the
    file seems to end.

    Args:
        source: The file.
        pieces: What follows what.

    Attributes:
        size: Its length in bytes.
        error: What was raised while it was read.
    """

    def __init__(self, source: Source, pieces: tuple[Piece, ...]):
        self._source = source
        self._pieces = [piece for piece in pieces if _length(piece)]
        self._starts = [0, *accumulate(_length(piece) for piece in self._pieces)]
        self.size, self._place = self._starts[-1], 0
        self.error: BaseException | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; returns it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        """The place."""
        return self._place

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from the place on, as far as the pieces go; returns how many bytes that are."""
        target, done = memoryview(buffer).cast("B"), 0
        try:
            while done < len(target) and (part := self._part_into(target[done:])):
                done += part
                self._place += part
        except BaseException as error:
            self.error = error
            return 0
        return done

    def read(self, length: int) -> bytes:
        """Up to ``length`` bytes from the place on."""
        buffer = bytearray(max(0, min(length, self.size - self._place)))
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def _part_into(self, target: memoryview) -> int:
        """Fill ``target`` from the place to the end of its piece at most; returns how many bytes that are."""
        index = bisect_right(self._starts, self._place) - 1
        if index >= len(self._pieces):
            return 0
        piece, inside = self._pieces[index], self._place - self._starts[index]
        target = target[: self._starts[index + 1] - self._place]
        if isinstance(piece, bytes):
            target[:] = piece[inside : inside + len(target)]
            return len(target)
        return self._source.into(piece[0] + inside, target)


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else max(0, piece[1] - piece[0])
