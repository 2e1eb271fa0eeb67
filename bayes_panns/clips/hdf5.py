"""What is in an HDF5 file of a stranger, as far as it is safe to read.

An HDF5 file may have its data in any other file of this computer, through external storage, links and virtual datasets;
it may declare sizes that it has no data for, or compress any amount of zeros to a few bytes; and HDF5 may hang, or end
the process, on damaged texts of varying length. Here each of these is refused or kept away before anything is read.
"""

import json
import math
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bayes_panns.core.archives import FREE, RATIO
from bayes_panns.core.errors import StoreError

TEXT_ATTRIBUTES, TEXT_COLUMNS = ("task", "provenance", "model"), ("audio_name", "source", "label_names")
"""What a store has as text."""

_COMPRESSIONS = {h5py.h5z.FILTER_DEFLATE: "gzip", h5py.h5z.FILTER_SZIP: "szip", h5py.h5z.FILTER_LZF: "lzf"}
_FILTERS = {*_COMPRESSIONS, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
"""The filters that HDF5 or h5py has itself; the others are libraries of somebody else."""

_LARGEST_CHUNK = 1 << 26
"""The most bytes of a chunk, which HDF5 unpacks as a whole, beside a chunk of one clip."""

_LARGEST_ATTRIBUTE = 1 << 24

_ROWS, _BYTES_A_ROW = 100_000, 16
"""A file may have this many rows, and one more for each so many bytes that it has."""

_SECONDS, _ROWS_A_SECOND = 6, 50_000
"""How long a core may take to read the texts of varying length."""

_WAITING = 20
"""How much longer that may take on a machine that is busy with other things, or a slow disk."""

# It runs in a process of its own, so it imports nothing of this package.
_READ_TEXTS = """
import json, sys
import h5py
path, attributes, columns, most, seconds = json.loads(sys.argv[1])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
except (ImportError, ValueError, OSError):
    pass
def shown(value):
    global most
    value = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    most -= len(value)
    if most < 0:
        sys.exit("the texts are longer than the file")
    return value.decode("utf-8", "backslashreplace")
def column(dataset):
    return [shown(each) for start in range(0, len(dataset), 1000) for each in dataset[start : start + 1000]]
with h5py.File(path, "r", locking="best-effort") as file:
    found = {name: shown(file.attrs[name]) for name in attributes}, {name: column(file[name]) for name in columns}
json.dump(found, sys.stdout)
"""


class StoreFile:
    """An open HDF5 file, of which only what is safe is read.

    Args:
        path: The file.
        handle: It, open for reading.

    Attributes:
        path: The file.
        handle: It, open.
    """

    def __init__(self, path: Path, handle: h5py.File) -> None:
        self.path, self.handle = path, handle
        self._size = os.fstat(handle.id.get_vfd_handle()).st_size

    def names(self) -> list[str]:
        """What the file has at its top, whatever it is."""
        return [name.decode("utf-8", "backslashreplace") for name in self.handle.id]

    def has(self, name: str) -> bool:
        """Whether there is something called ``name``."""
        return bool(self.handle.id.links.exists(name.encode()))

    def dataset(self, name: str, *, clips: bool = False) -> h5py.Dataset:
        """A dataset of the file's own.

        Args:
            name: Its name.
            clips: Whether it holds the clips themselves, which are read in parts.

        Raises:
            StoreError: It is elsewhere, needs a library of somebody else, or is far larger than the file.
        """
        dataset = self.own(name)
        self._check_size(name, dataset, clips, self._compressed(name, dataset))
        return dataset

    def scalar(self, name: str) -> bytes:
        """A dataset of one text of fixed width.

        Raises:
            StoreError: It is elsewhere.
            ValueError: It is something else.
        """
        dataset = self.own(name)
        if dataset.shape != () or dataset.dtype.kind != "S" or dataset.dtype.itemsize > self._size:
            raise ValueError(f"its dataset {name!r} is not one text")
        return bytes(dataset[()])

    def texts(self, dataset: h5py.Dataset) -> list[str]:
        r"""A dataset as text; bytes that are not UTF-8 are shown as ``\xe9``.

        Raises:
            StoreError: It is no text, or damaged.
        """
        kind = h5py.check_string_dtype(dataset.dtype)
        if kind is None:
            raise StoreError(f"{self.path}: {dataset.name[1:]!r} is {dataset.dtype}, not text; pack it again")
        if kind.length is None:
            found: list[str] = self._varying()[1][dataset.name[1:]]
            return found
        return [text.decode("utf-8", "backslashreplace") for text in dataset[:]]

    def attribute(self, name: str) -> Any:
        """An attribute of one value, or None if the file has none of that name.

        Raises:
            StoreError: It is damaged.
            ValueError: It is not one number or text.
        """
        if not h5py.h5a.exists(self.handle.id, name.encode()):
            return None
        found = h5py.h5a.open(self.handle.id, name.encode())
        if math.prod(found.shape) != 1 or found.dtype.kind not in "biufSO":
            raise ValueError(f"its attribute {name!r} is not one number or text")
        text = h5py.check_string_dtype(found.dtype)
        if text is not None and text.length is None:
            return self._varying()[0][name]
        if found.dtype.kind == "O" or found.dtype.itemsize > min(_LARGEST_ATTRIBUTE, self._size):
            raise ValueError(f"its attribute {name!r} is not one number or text")
        return np.asarray(self.handle.attrs[name]).reshape(-1)[0]

    def require_own(self, name: str) -> None:
        """Check that what is called ``name`` is in the file itself.

        Raises:
            StoreError: It is a link to another place.
        """
        if self.handle.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise StoreError(f"{self.path}: {name!r} is a link to another place; copy the data itself into the store")

    def own(self, name: str) -> h5py.Dataset:
        """A dataset whose data are in the file itself, whatever its size.

        Raises:
            StoreError: It is elsewhere.
        """
        self.require_own(name)
        dataset = self.handle[name]
        if not isinstance(dataset, h5py.Dataset):
            raise StoreError(f"{self.path}: {name!r} is a {type(dataset).__name__.lower()}, not a dataset")
        if dataset.external or dataset.is_virtual:
            raise StoreError(f"{self.path}: {name!r} has its data in another file; copy the data itself into the store")
        return dataset

    def _compressed(self, name: str, dataset: h5py.Dataset) -> bool:
        plan = dataset.id.get_create_plist()
        codes = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
        if unknown := [code for code in codes if code not in _FILTERS]:
            raise StoreError(
                f"{self.path}: {name!r} is packed with the HDF5 filter {unknown[0]}, which is not read; pack it with "
                "gzip or lzf, or without"
            )
        if len(packed := [code for code in codes if code in _COMPRESSIONS]) > 1:
            raise StoreError(f"{self.path}: {name!r} is compressed {len(packed)} times; compress it once")
        return bool(packed)

    def _check_size(self, name: str, dataset: h5py.Dataset, clips: bool, compressed: bool) -> None:
        if dataset.shape is None or not dataset.shape:
            raise StoreError(f"{self.path}: {name!r} has one value at most, not one a clip; pack it again")
        declared = math.prod(dataset.shape) * dataset.dtype.itemsize
        # Rows of files that were missing may never have been written.
        most = 4 * self._size + (1 << 20)
        if compressed:
            most = max(FREE, RATIO * self._size) if clips else max(FREE // 4, 4 * self._size)
        rows = dataset.shape[0]
        if declared > most or rows > _ROWS + self._size // _BYTES_A_ROW:
            raise StoreError(
                f"{self.path}: {name!r} claims {declared} bytes in {rows} rows, and the file has {self._size}; it is "
                "damaged or incomplete: copy or pack it again"
            )
        chunk, row = (
            math.prod(shape) * dataset.dtype.itemsize for shape in (dataset.chunks or (0,), dataset.shape[1:])
        )
        if chunk > max(_LARGEST_CHUNK, row):
            raise StoreError(f"{self.path}: {name!r} has chunks of {chunk} bytes; pack it in chunks of a clip each")

    def _varying(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        """All texts of varying length."""
        file = self.handle
        attributes = [
            name
            for name in TEXT_ATTRIBUTES
            if h5py.h5a.exists(file.id, name.encode()) and _varies(h5py.h5a.open(file.id, name.encode()).dtype)
        ]
        columns = {
            name: dataset
            for name in TEXT_COLUMNS
            if self.has(name) and _varies((dataset := self.dataset(name)).dtype) and dataset.ndim == 1
        }
        rows = sum(map(len, columns.values()))
        stat = os.fstat(file.id.get_vfd_handle())
        identity = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        return _read_texts(self.path.absolute(), tuple(attributes), tuple(columns), rows, identity)


def _varies(dtype: np.dtype) -> bool:
    text = h5py.check_string_dtype(dtype)
    return text is not None and text.length is None


@lru_cache(maxsize=64)
def _read_texts(
    path: Path, attributes: tuple[str, ...], columns: tuple[str, ...], rows: int, identity: tuple[int, ...]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Texts of varying length, read by another process: HDF5 may never return from a damaged heap of them, or crash.

    Args:
        path: The file.
        attributes: Which attributes.
        columns: Which datasets.
        rows: How many texts the datasets have.
        identity: What tells the file from one that was there before.
    """
    seconds = _SECONDS + rows // _ROWS_A_SECOND
    argument = json.dumps([str(path), attributes, columns, (1 << 20) + 4 * identity[2], seconds])
    try:
        found = subprocess.run(
            [sys.executable, "-P", "-c", _READ_TEXTS, argument],
            capture_output=True,
            timeout=_WAITING * seconds,
            check=True,
        )
        read: tuple[dict[str, str], dict[str, list[str]]] = json.loads(found.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        raise StoreError(f"{path}: its texts of varying length are damaged; copy or pack it again") from error
    return read
