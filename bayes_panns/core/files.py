"""Files and folders that are written whole or not at all.

New content is written into a hidden folder beside its place, ``.NAME.<random>.part``, which its writer keeps locked.
Once it has reached the disk, a rename puts it into place. When a writer is killed, its lock is released, and the next
write to the same place removes what it left. Of two writers of one place, the one that ends last wins.
"""

import errno
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

_PART, _OLD, _TOKEN_BYTES = ".part", ".old", 6

_ATTEMPTS = 100
"""How often to try again when another writer of the same place interferes."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write instead of ``path``, which it replaces when the block ends without an error.

    Args:
        path: The file to write; its folder exists. Its previous content stays until the block ends. Of a symbolic link,
            the file that it points to is replaced.

    Yields:
        A path of the same name in a hidden folder beside ``path``; nothing is there yet.

    Raises:
        OSError: The folder is missing or cannot be written.
    """
    path = path.resolve() if path.is_symlink() else path
    with _locked_part(path) as part:
        fresh = part / path.name
        yield fresh
        _flush(fresh)
        fresh.replace(path)
        _flush(path.parent)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A fresh folder to fill, which replaces ``folder`` when the block ends without an error.

    Args:
        folder: The folder to write; the folders above it are made. Its previous content stays until the block ends,
            and is then removed. Of a symbolic link, the folder that it points to is replaced.

    Yields:
        An empty folder of the same name in a hidden folder beside ``folder``.

    Raises:
        OSError: The place cannot be written, or is a file.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    if folder.is_file():
        raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    _restore(folder)
    with _locked_part(folder) as part:
        fresh, old = part / folder.name, part.with_name(part.name.removesuffix(_PART) + _OLD)
        fresh.mkdir()
        yield fresh
        for place in (*fresh.rglob("*"), fresh):
            _flush(place)
        _swap(fresh, folder, old)
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


@contextmanager
def _locked_part(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path``, locked until the block ends and then removed."""
    _remove_abandoned(path)
    part, descriptor = _make_locked(path)
    try:
        yield part
    finally:
        if descriptor is not None:
            os.close(descriptor)
        shutil.rmtree(part, ignore_errors=True)


def _make_locked(path: Path) -> tuple[Path, int | None]:
    """Make a hidden folder beside ``path`` and lock it; the folder, and the descriptor that holds the lock."""
    for _ in range(_ATTEMPTS):
        part = path.with_name(f".{path.name}.{secrets.token_hex(_TOKEN_BYTES)}{_PART}")
        part.mkdir()
        if fcntl is None:
            return part, None
        # Before it is locked, another writer may take it for abandoned and remove it.
        with suppress(FileNotFoundError):
            descriptor = os.open(part, os.O_RDONLY)
            if _lock(descriptor) and part.is_dir():
                return part, descriptor
            os.close(descriptor)
    raise OSError(errno.EBUSY, "other processes keep removing what is written here", str(path))


def _lock(descriptor: int) -> bool:
    """Whether nobody else has the lock. Some network file systems have none: there the answer is yes."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _swap(fresh: Path, folder: Path, old: Path) -> None:
    """Put ``fresh`` in the place of ``folder``, whose previous content goes to ``old``."""
    for _ in range(_ATTEMPTS):
        shutil.rmtree(old, ignore_errors=True)
        with suppress(FileNotFoundError):
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError as error:
            # Another writer put its own folder there in between.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
    raise OSError(errno.EBUSY, "other processes keep writing this folder", str(folder))


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of ``path`` left."""
    if fcntl is None:
        return
    for part in _beside(path, _PART):
        with suppress(OSError):
            descriptor = os.open(part, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(part)
            finally:
                os.close(descriptor)


def _restore(folder: Path) -> None:
    """Put back the folder of a writer that was killed between its two renames; remove older ones."""
    for old in _beside(folder, _OLD):
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            # A writer that is alive may just have put its own folder there.
            with suppress(OSError):
                old.rename(folder)


def _beside(path: Path, suffix: str) -> list[Path]:
    """The hidden folders of ``path`` itself, not those of a ``path.1`` beside it."""
    name = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path.name)
    return sorted(path.parent.glob(f".{name}.{'?' * 2 * _TOKEN_BYTES}{suffix}"))


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    folder = path.is_dir()
    if folder and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems do so for files only.
        if not folder:
            raise
    finally:
        os.close(descriptor)
