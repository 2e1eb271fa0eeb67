"""What the files of a folder mean, without what differs between two runs of the same command, such as seconds."""

import hashlib
import json
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bayes_panns.core.files import is_part

_TIMES = {"seconds", "created", "date", "computed", "started", "digest", "sha256", "description"}
"""Keys whose values are not compared: times, digests of what is compared itself, and what a recipe is called."""

_OF_PLACE = ("created_at", "path")
"""Attributes of HDF5 files that are not compared: each case has a folder of its own."""


def content(path: Path) -> Any:
    """The meaning of a file, or of the files in a folder by their relative paths; None if there is nothing.

    What a killed writer has left half-written is none of them.
    """
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file() and not is_part(each.parent))
        return {str(each.relative_to(path)): content(each) for each in files if not each.name.startswith("checkpoint.")}
    if not path.is_file():
        return None
    if path.suffix in _READERS:
        return _READERS[path.suffix](path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def leftovers(*folders: Path) -> list[str]:
    """What a killed command may leave: hidden files and folders, temporary files, log-mels."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.name.startswith((".", "tmp")) or path.name == "features.bin":
                found.append(str(path.relative_to(folder)))
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if key not in _TIMES}
    if isinstance(value, list):
        return [_without_times(each) for each in value]
    # Each case has a folder of its own.
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def _toml(path: Path) -> Any:
    return _without_times(tomllib.loads(path.read_text(encoding="utf-8")))


def _json(path: Path) -> Any:
    return _without_times(json.loads(path.read_text(encoding="utf-8")))


def _lines(path: Path) -> Any:
    return [_without_times(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _npz(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: (str(each.dtype), each.shape, each.tobytes()) for name, each in arrays.items()}


def _hdf5(path: Path) -> Any:
    found: dict[str, Any] = {}

    def visit(name: str, each: Any) -> None:
        if isinstance(each, h5py.Dataset):
            value = np.asarray(each[()])
            found[name] = (str(each.dtype), each.shape, value.tobytes() if value.dtype.kind != "O" else value.tolist())

    with h5py.File(path, "r", locking=False) as file:
        found["attributes"] = {name: str(each) for name, each in file.attrs.items() if name not in _OF_PLACE}
        file.visititems(visit)
    return found


def _zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return sorted((each.filename.partition("/")[2], each.CRC) for each in archive.infolist())


def _html(path: Path) -> Any:
    # It shows how long the fit took; that it is whole must do.
    return path.read_text(encoding="utf-8").rstrip().endswith("</html>")


_READERS = {
    ".toml": _toml,
    ".json": _json,
    ".jsonl": _lines,
    ".npz": _npz,
    ".h5": _hdf5,
    ".nc": _hdf5,
    ".pth": _zip,
    ".pt": _zip,
    ".html": _html,
}
