"""The files that a table names: below its folder, and elsewhere only where the user allows it.

A table may come from a stranger. A row such as ``../../letter.wav`` would put a file of the user's into a store that is
passed on.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from bayes_panns.clips.catalogs.catalog import SoundFiles, exists
from bayes_panns.core.errors import StoreError


class ListedFiles:
    """Finds the files of a table.

    Paths are relative to the table's folder, or else to its parent or the parent's parent: the first in which one of
    the files exists. So a table may lie in ``meta/`` beside ``audio/``. Absolute paths, ``..`` and links that lead out
    of that folder are refused, unless ``allow_outside``.

    Args:
        table: The table.
        names: All names in it, as they are written there.
        allow_outside: Whether files may be anywhere.

    Attributes:
        root: The folder that the paths are relative to.
    """

    def __init__(self, table: Path, names: Iterable[str], *, allow_outside: bool = False) -> None:
        self._table, self._allowed, self._sounds = table, allow_outside, SoundFiles()
        here = table.absolute().parent
        # The folder as the user wrote it, where the files are there: messages then show what was typed.
        bases = (table.parent, *here.parents[:2])
        safe = [name for name in dict.fromkeys(names) if allow_outside or not leaves(name)]
        self.root = next(
            (base for base in bases if any(exists(self._sounds.locate(base / native(name))) for name in safe)),
            table.parent,
        )
        self._real = self.root.resolve()

    def locate(self, name: str, where: str) -> Path:
        """The file that a line names; it may be missing.

        Args:
            name: The name in the line.
            where: The line, for errors.

        Raises:
            StoreError: It is outside the folder.
        """
        if leaves(name) and not self._allowed:
            self._refuse(name, where, "which is not below the folder of the table")
        path = self._sounds.locate(self.root / native(name))
        if not self._allowed and exists(path) and not path.resolve().is_relative_to(self._real):
            self._refuse(name, where, f"which is a link that leads out of {self.root}")
        return path

    def _refuse(self, name: str, where: str, why: str) -> None:
        raise StoreError(
            f"{self._table}: {where} names {name!r}, {why}; move the file there, or allow it with --allow-outside if "
            "you trust the table"
        )


def native(name: str) -> str:
    r"""A path as this system writes it: tables from Windows have ``\`` between folders.

    Example:
        >>> native("day1\\a.wav")
        'day1/a.wav'
    """
    return name.replace("\\", "/")


def leaves(name: str) -> bool:
    r"""Whether a path is absolute or has ``..`` in it, on any system.

    Example:
        >>> [leaves(name) for name in ("a/b.wav", "/etc/x.wav", "a/../../b.wav", "C:\\x.wav", "..\\b.wav", "~/x.wav")]
        [False, True, True, True, True, False]
    """
    windows = PureWindowsPath(name)
    return bool(windows.drive or windows.root or PurePosixPath(name).is_absolute() or ".." in windows.parts)
