"""Log-mels on disk: one file of a run, which a fit that was killed finds again.

The file begins with a line of JSON that says whose log-mels it holds. A record a clip follows, in the order of the
clips: the digest of its samples (32 bytes), the CRC-32 of its log-mels (4 bytes, little-endian) and the log-mels as
float32 ``(frames, mels)``. Records up to the first that is missing, damaged or of another clip are used again.
"""

import io
import json
import tempfile
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayes_panns.audio.front_end import FrontEnd
from bayes_panns.core.errors import StoreError
from bayes_panns.core.files import require_space, writes

FORMAT = 1

_DIGEST, _CRC = 32, 4


class FeatureFile:
    """The log-mels of one set of clips after another.

    Args:
        path: The file; what is there is used again as far as it fits. None for a file that has no name and goes when
            it is closed.
        front_end: What makes the log-mels.
        samples: The length of every clip, in samples.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path | None, front_end: FrontEnd, samples: int) -> None:
        self.path = path
        self.shape = front_end.shape(samples)
        # Another version of torch may round in another way.
        about = {"format": FORMAT, "of": front_end.signature, "shape": self.shape, "torch": torch.__version__}
        line = json.dumps(about).encode() + b"\n"
        if path is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long as this)
        else:
            path.touch()
            self._file = path.open("r+b", buffering=0)
        weakref.finalize(self, self._file.close)
        self._start, self._size = len(line), _DIGEST + _CRC + 4 * self.shape[0] * self.shape[1]
        self._taken = 0
        if self._file.read(len(line)) != line:
            self._file.seek(0)
            self._file.truncate()
            self._write(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def section(self, digests: Sequence[bytes]) -> "Section":
        """The place of the next set of clips.

        Args:
            digests: :meth:`~bayes_panns.clips.Store.digests` of the clips, in their order.

        Raises:
            OSError: The disk has no room for them.
        """
        first, self._taken = self._taken, self._taken + len(digests)
        known = 0
        while known < len(digests) and self._record(first + known, digests[known]):
            known += 1
        if self.path is not None:
            require_space(self.path, (len(digests) - known) * self._size)
        return Section(self, first, digests, known)

    def read(self, row: int, values: np.ndarray) -> None:
        """Read the log-mels of a record into ``values``, float32 ``(frames, mels)``.

        Raises:
            StoreError: They are not there: the file was cut short.
        """
        _read(self._file, self.place(row), values, self.path)

    def place(self, row: int) -> int:
        """Where the log-mels of a record begin, in bytes."""
        return self._start + row * self._size + _DIGEST + _CRC

    def append(self, row: int, digests: Sequence[bytes], values: np.ndarray) -> None:
        """Write records from ``row`` on, and drop what was behind them.

        Raises:
            OSError: The disk is full.
        """
        self._file.seek(self._start + row * self._size)
        self._file.truncate()
        records = (
            digest + zlib.crc32(each.tobytes()).to_bytes(_CRC, "little") + each.tobytes()
            for digest, each in zip(digests, values, strict=True)
        )
        self._write(b"".join(records))

    def _record(self, row: int, digest: bytes) -> bool:
        """Whether a record is there, whole, and of the clip."""
        self._file.seek(self._start + row * self._size)
        record = self._file.read(self._size)
        if len(record) < self._size or record[:_DIGEST] != digest:
            return False
        return zlib.crc32(record[_DIGEST + _CRC :]).to_bytes(_CRC, "little") == record[_DIGEST : _DIGEST + _CRC]

    def _write(self, data: bytes) -> None:
        with writes(self.path or Path(tempfile.gettempdir())):
            left = memoryview(data)
            # A disk that fills up takes a part at first.
            while left:
                left = left[self._file.write(left) or 0 :]


class Section:
    """The log-mels of one set of clips in a :class:`FeatureFile`, by index.

    Args:
        file: The file.
        first: The row of the first clip.
        digests: One a clip.
        known: How many of them, from the first on, are there already.
    """

    def __init__(self, file: FeatureFile, first: int, digests: Sequence[bytes], known: int) -> None:
        self.file, self._first, self._digests, self._known = file, first, digests, known

    def holds(self, index: np.ndarray) -> bool:
        """Whether all clips at ``index``, which is ascending, are there."""
        return int(index[-1]) < self._known

    def put(self, index: np.ndarray, values: np.ndarray) -> None:
        """Write the log-mels ``(n, frames, mels)`` of the next clips, those at ``index``.

        Raises:
            OSError: The disk is full.
        """
        self.file.append(self._first + int(index[0]), [self._digests[each] for each in index], values)
        self._known = int(index[-1]) + 1

    def take(self, index: np.ndarray) -> np.ndarray:
        """The log-mels of the clips at ``index``, in any order: float32 ``(n, frames, mels)``.

        Raises:
            StoreError: The file was cut short.
        """
        values = np.empty((len(index), *self.file.shape), dtype=np.float32)
        for row, place in zip(values, index, strict=True):
            self.file.read(self._first + int(place), row)
        return values

    def reader(self) -> "SectionReader | None":
        """What reads them in other processes; None if the file has no name."""
        if self.file.path is None:
            return None
        first, second = (self.file.place(self._first + row) for row in (0, 1))
        return SectionReader(self.file.path.absolute(), self.file.shape, first, second - first)


class SectionReader:
    """Reads the log-mels of one set of clips by number, in any process; a :class:`~bayes_panns.clips.reader.Reader`.

    Args:
        path: The file.
        shape: ``(frames, mels)``.
        first: Where the first clip's are, in bytes.
        step: How many bytes further the next one's are.
    """

    dtype = torch.float32

    def __init__(self, path: Path, shape: tuple[int, ...], first: int, step: int) -> None:
        self.shape = shape
        self._path, self._first, self._step = path, first, step
        self._file: io.FileIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def read(self, index: np.ndarray, found: Tensor | None = None) -> Tensor:
        """The log-mels of the clips at ``index``, in any order: float32 ``(n, frames, mels)``, in ``found`` if given.

        Raises:
            OSError: The file is gone.
            StoreError: The file was cut short.
        """
        if self._file is None:
            self._file = io.FileIO(self._path)
            weakref.finalize(self, self._file.close)
        if found is None:
            found = torch.empty((len(index), *self.shape))
        for row, number in zip(found.numpy(), index, strict=True):
            _read(self._file, self._first + int(number) * self._step, row, self._path)
        return found


def _read(file: io.FileIO, place: int, values: np.ndarray, path: Path | None) -> None:
    """Read log-mels from ``place`` on."""
    file.seek(place)
    if file.readinto(values.data.cast("B")) != values.nbytes:
        raise StoreError(f"{path}: was cut short while it was in use; resume the fit with --resume")
