"""Files and folders that are written whole or not at all.

New content is written into a hidden folder beside its place, ``.NAME.<random>.part``, which its writer keeps locked.
Once it has reached the disk, a rename puts it into place. When a writer is killed, its lock is released, and the next
write into the same folder removes what it left. Of two writers of one place, the one that ends last wins.

A full disk raises an OSError that names the place, whatever the library that wrote there raised.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bayes_panns.core.errors import BayesPannsError, OutputError

try:
    import fcntl
except ImportError:  # Windows has no flock: parts of killed writers stay there.
    fcntl = None  # type: ignore[assignment]

_PART, _OLD, _TOKEN_BYTES = ".part", ".old", 6

_ATTEMPTS = 100
"""How often to try again when another writer of the same place interferes."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, the user's share of it, or a file as large as it may be."""

_NUMBER = re.compile(r"(?:os error |errno = |code: )(\d+)")
"""The system's error in the texts of Rust's and HDF5's errors."""

_PROBE = 1 << 16
"""Bytes that are written to find out whether a disk is full."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write instead of ``path``, which it replaces when the block ends without an error.

    Args:
        path: The file to write; its folder exists. Its previous content stays until the block ends. Of a symbolic link,
            the file that it points to is replaced.

    Yields:
        A path of the same name in a hidden folder beside ``path``; nothing is there yet.

    Raises:
        OSError: The folder is missing or cannot be written, or the disk is full.
    """
    path = path.resolve() if path.is_symlink() else path
    with _one_place(path), _locked_part(path) as part, writes(path):
        fresh = part / path.name
        yield fresh
        put_in_place(fresh, path)


def put_in_place(fresh: Path, path: Path) -> None:
    """Rename a file that is written whole to ``path``, which it replaces, once it has reached the disk.

    Args:
        fresh: The file, on the same file system.
        path: Its place.

    Raises:
        OSError: It cannot be flushed or renamed.
    """
    _flush(fresh)
    fresh.replace(path)
    _flush(path.parent)


def same_file(source: Path, place: Path) -> None:
    """Give a file a second name, in the place of what is there, without writing it again.

    On file systems without hard links it is copied.

    Args:
        source: The file.
        place: Its second name, in the same folder.

    Raises:
        OSError: There is no such file, or the folder cannot be written.
    """
    with whole_file(place) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A fresh folder to fill, which replaces ``folder`` when the block ends without an error.

    Args:
        folder: The folder to write; the folders above it are made. Its previous content stays until the block ends,
            and is then removed. Of a symbolic link, the folder that it points to is replaced.

    Yields:
        An empty folder of the same name in a hidden folder beside ``folder``.

    Raises:
        OSError: The place cannot be written, is a file, or the disk is full.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    if folder.is_file():
        raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _one_place(folder), _locked_part(folder) as part, writes(folder):
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
def locked(folder: Path, *, wait: bool = False, shared: bool = False) -> Iterator[bool]:
    """Lock an existing folder against other processes until the block ends; a killed process loses its locks.

    Args:
        folder: The folder.
        wait: Whether to wait for a lock that another process has.
        shared: Whether others may have a shared lock at the same time.

    Yields:
        Whether the lock is ours: False where another one holds it. True where the file system has no locks.

    Raises:
        OSError: The folder cannot be opened.
    """
    if fcntl is None:
        yield True
        return
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    for attempt in range(_ATTEMPTS):
        descriptor, ours = os.open(folder, os.O_RDONLY), True
        try:
            try:
                fcntl.flock(descriptor, kind)
            except BlockingIOError:
                ours = False
            except OSError:
                pass
            # The process that had the lock may have renamed or removed what was opened; another has what is there now.
            if os.path.samestat(os.fstat(descriptor), folder.stat()) or attempt == _ATTEMPTS - 1:
                yield ours
                return
        finally:
            os.close(descriptor)


@contextmanager
def locked_part(part: Path) -> Iterator[bool]:
    """Lock a file that is made if there is none; only who has the lock renames or removes it.

    Args:
        part: The file; its folder exists.

    Yields:
        Whether the lock is ours.

    Raises:
        OSError: The file cannot be made or opened.
    """
    with ExitStack() as stack:
        for _ in range(_ATTEMPTS):
            part.touch()
            # The process that had it may put it in its place at this moment.
            with suppress(FileNotFoundError):
                ours = stack.enter_context(locked(part))
                break
        else:
            raise OSError(errno.EBUSY, "other processes keep renaming it", str(part))
        yield ours


@contextmanager
def writes(path: Path) -> Iterator[None]:
    """A block that writes ``path`` in place: a full disk is an error that names it.

    Raises:
        OSError: The disk is full.
    """
    try:
        yield
    except BayesPannsError:
        raise
    except Exception as error:
        number = _full(error, path.parent)
        # An error of another file has that file's name.
        if number is None or (isinstance(error, OSError) and error.filename not in (None, str(path))):
            raise
        raise OSError(number, _reason(number), str(path)) from error


def require_space(path: Path, size: int) -> None:
    """Check that the disk has room for a file, for libraries that a full disk crashes.

    Args:
        path: The file; its folder exists.
        size: Its size, in bytes.

    Raises:
        OSError: It has not.
    """
    with writes(path):
        if shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def remove_abandoned(folder: Path) -> None:
    """Remove the parts that killed writers left directly in ``folder``; put back what they were about to replace."""
    for old in sorted(folder.glob(f".?*.{'?' * 2 * _TOKEN_BYTES}{_OLD}")):
        _restore(old)
    if fcntl is None:
        return
    for part in sorted(folder.glob(f".?*.{'?' * 2 * _TOKEN_BYTES}{_PART}")):
        with suppress(OSError):
            descriptor = os.open(part, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(part)
            finally:
                os.close(descriptor)


def is_part(path: Path) -> bool:
    """Whether a name is that of the hidden folder of a writer, which may have been killed."""
    return re.fullmatch(rf"\..+\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}({_PART}|{_OLD})", path.name) is not None


@contextmanager
def _one_place(path: Path) -> Iterator[None]:
    """A block that writes a part of ``path``: what cannot be written is ``path``, not the part.

    Raises:
        OSError: As the block.
    """
    try:
        yield
    except OSError as error:
        part = path.with_name(f".{path.name}.")
        if error.errno is None or not str(error.filename).startswith(str(part)):
            raise
        raise OSError(error.errno, _reason(error.errno), str(path)) from error


def _reason(number: int) -> str:
    full = "the disk is full; free some space, or write elsewhere"
    return full if number == errno.ENOSPC else os.strerror(number)


def _full(error: BaseException, folder: Path) -> int | None:
    """The number of the system's error, if ``error`` is one of a full disk.

    Args:
        error: What a library raised while it wrote.
        folder: Where it wrote; what it had written is still there.
    """
    chain: list[BaseException] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    for each in chain:
        number = each.errno if isinstance(each, OSError) else None
        if number is None and (found := _NUMBER.search(str(each))):
            number = int(found[1])
        if number is not None:
            return number if number in FULL else None
    # Torch's writer says only that a position in its file is not the one that it expected.
    probe = folder / f".probe.{secrets.token_hex(_TOKEN_BYTES)}"
    try:
        with probe.open("wb", buffering=0) as file:
            written = file.write(bytes(_PROBE))
        return None if written == _PROBE else errno.ENOSPC
    except OSError as found_out:
        return found_out.errno if found_out.errno in FULL else None
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


@contextmanager
def _locked_part(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path``, locked until the block ends and then removed."""
    remove_abandoned(path.parent)
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


def _restore(old: Path) -> None:
    """Put back the folder of a writer that was killed between its two renames; remove an older one."""
    folder = old.with_name(old.name[1:].removesuffix(_OLD)[: -2 * _TOKEN_BYTES - 1])
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        # A writer that is alive may just have put its own folder there.
        with suppress(OSError):
            old.rename(folder)


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
