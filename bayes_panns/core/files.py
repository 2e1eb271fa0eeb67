"""Files and folders that are written whole or not at all.

What is being written stands in a hidden folder beside its place, whose name ends in ``.part`` and which its writer has
locked. It takes its place by a rename, after it has reached the disk. The lock of a writer that was killed is gone: the
next write to the same place removes what it left.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bayes_panns.core.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows has no flock: parts of killed writers stay there.
    fcntl = None  # type: ignore[assignment]

_PART, _OLD = ".part", ".old"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write instead of ``path``, whose place it takes when the block ends without an error.

    Args:
        path: The file to write; its folder exists. Its previous content stays until the block ends.

    Yields:
        A path of the same name in a hidden folder beside ``path``; nothing is there yet.

    Raises:
        OSError: The folder is missing or cannot be written.
    """
    with _locked_part(path) as part:
        fresh = part / path.name
        yield fresh
        _flush(fresh)
        fresh.replace(path)
        _flush(path.parent)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A fresh folder to fill, which takes the place of ``folder`` when the block ends without an error.

    Args:
        folder: The folder to write; the folders above it are made. Its previous content stays until the block ends,
            and is then removed.

    Yields:
        An empty folder of the same name in a hidden folder beside ``folder``.

    Raises:
        OSError: The place cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _restore(folder)
    with _locked_part(folder) as part:
        fresh, old = part / folder.name, part.with_name(part.name.removesuffix(_PART) + _OLD)
        fresh.mkdir()
        yield fresh
        for place in (*fresh.rglob("*"), fresh):
            _flush(place)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        _flush(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


def require_parent(path: Path) -> None:
    """Check, before any work, that ``path`` can be written as a file.

    Raises:
        OutputError: It is a folder, or its own folder does not exist.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name the file to write")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the folder {path.parent} cannot be written; choose another")


def require_folder(path: Path) -> None:
    """Check, before any work, that ``path`` can be a folder to write to; missing folders above it are made later.

    Raises:
        OutputError: It is a file, is inside a file, or cannot be written.
    """
    existing = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not existing.is_dir():
        what = "is a file" if existing == path else f"{existing} is a file"
        raise OutputError(f"{path}: {what}; choose another folder")
    if not os.access(existing, os.W_OK):
        raise OutputError(f"{path}: the folder {existing} cannot be written; choose another")


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Lock an existing folder against other processes until the block ends; a killed process loses its locks.

    Yields:
        Whether the lock is ours: False where another one holds it. True where the file system has no locks.

    Raises:
        OSError: The folder cannot be opened.
    """
    if fcntl is None:
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield True
    finally:
        os.close(descriptor)


@contextmanager
def _locked_part(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path``, locked until the block ends and then removed."""
    _remove_abandoned(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_PART}")
    part.mkdir()
    descriptor = os.open(part, os.O_RDONLY) if fcntl is not None else None
    try:
        if descriptor is not None:
            # Some network file systems have no locks: there, two writers of one place may disturb each other.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield part
    finally:
        if descriptor is not None:
            os.close(descriptor)
        shutil.rmtree(part, ignore_errors=True)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of ``path`` left."""
    if fcntl is None:
        return
    for part in path.parent.glob(f".{_escaped(path.name)}.*{_PART}"):
        with suppress(OSError):
            descriptor = os.open(part, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(part)
            finally:
                os.close(descriptor)


def _restore(folder: Path) -> None:
    """Put back what a process left that was killed between the two renames; remove what it had not yet removed."""
    for old in sorted(folder.parent.glob(f".{_escaped(folder.name)}.*{_OLD}")):
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(folder)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
