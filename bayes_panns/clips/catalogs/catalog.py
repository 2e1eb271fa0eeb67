"""What a catalog is, and the parts that the data sets share: their folders and their sound files."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bayes_panns.audio.walking import SUFFIXES, folded, walk
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import AudioError, StoreError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording to pack.

    Attributes:
        path: The sound file; it may be missing.
        name: What the clip is called in a store.
        labels: Indices into the catalog's labels.
        fold: The fold that the data set's authors gave it.
        source: The longer recording it was cut from.
        start: Where in the file it begins, in seconds.
        seconds: How long it is; None for all that is left of the file.
    """

    path: Path
    name: str
    labels: tuple[int, ...] = ()
    fold: int | None = None
    source: str | None = None
    start: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True)
class Catalog:
    """The clips of a data set.

    Attributes:
        name: The catalog's name, as in ``CATALOGS``.
        labels: K label names.
        task: What the labels mean.
        seconds: The usual clip length.
        clips: In the order in which they are packed.
        root: The folder that the clips' paths are relative to.
        options: Further choices that made this catalog, as JSON values, for a store's provenance.
    """

    name: str
    labels: tuple[str, ...]
    task: Task
    seconds: float
    clips: tuple[Clip, ...]
    root: Path
    options: dict[str, Any] = field(default_factory=dict)


def span_name(recording: str, start: float, end: float) -> str:
    """What a part of a recording is called: its name and its seconds.

    Example:
        >>> span_name("a.wav", 0, 2.5)
        'a.wav 0-2.5'
    """
    return f"{recording} {start:.10g}-{end:.10g}"


def exists(path: Path) -> bool:
    """Whether a listed file is there; one whose name no file system takes, or that is out of reach, is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there, as :func:`exists`."""
    try:
        return path.is_dir()
    except OSError:
        return False


class SoundFiles:
    """Finds a listed file under the name it has on disk.

    That is the name in the list; or one that differs from it in letter case or in Unicode's normal form, as names from
    another system do; or the same with another ending, since data sets are often re-encoded. Folders above the file are
    found in the first two ways. Where several files fit, none is taken.
    """

    def __init__(self) -> None:
        self._below: dict[Path, tuple[dict[str, list[Path]], dict[str, list[Path]]]] = {}

    def locate(self, path: Path) -> Path:
        """The file itself or the only one that fits, or else ``path``."""
        if exists(path):
            return path
        names, stems = self._inside(self._folder(path.parent))
        fits = names.get(folded(path.name)) or stems.get(folded(path.stem), [])
        exact = [file for file in fits if file.stem == path.stem]
        fits = [file for file in (exact or fits) if exists(file)]
        return fits[0] if len(fits) == 1 else path

    def _folder(self, path: Path) -> Path:
        """The folder itself or the only one that fits, or else ``path``."""
        if is_folder(path) or path.parent == path:
            return path
        names, _ = self._inside(self._folder(path.parent))
        fits = [each for each in names.get(folded(path.name), []) if is_folder(each)]
        return fits[0] if len(fits) == 1 else path

    def _inside(self, folder: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
        """What is in a folder by name, and its sound files by name without the ending."""
        if folder not in self._below:
            names: dict[str, list[Path]] = {}
            stems: dict[str, list[Path]] = {}
            for each in sorted(folder.iterdir()) if is_folder(folder) else []:
                names.setdefault(folded(each.name), []).append(each)
                if each.suffix.lower() in SUFFIXES:
                    stems.setdefault(folded(each.stem), []).append(each)
            self._below[folder] = names, stems
        return self._below[folder]


def find_sounds(folder: Path) -> list[Path]:
    """Every sound file below ``folder``; what is passed over is logged. See :func:`bayes_panns.audio.walking.walk`.

    Raises:
        StoreError: There is none.
    """
    try:
        found = walk(folder)
    except AudioError as error:
        raise StoreError(str(error)) from error
    passed = found.passed_over()
    if not found.files:
        raise StoreError(f"{folder}: holds no sound file{f' ({passed})' if passed else ''}")
    if passed:
        logger.info(f"{folder}: {passed}")
    return list(found.files)


def require_folder(source: str | Path, dataset: str, contents: str) -> Path:
    """The folder of a data set.

    Raises:
        StoreError: There is no such folder.
    """
    source = Path(source)
    if not source.is_dir():
        raise StoreError(f"{source}: no such folder; name the folder of {dataset} that holds {contents}")
    return source


def first_there(source: Path, *places: str) -> Path:
    """The first of some places below a folder that exists, or else the first of all."""
    return next((source / place for place in places if (source / place).exists()), source / places[0])


def first_with(folders: Sequence[Path], files: Sequence[Path]) -> Path:
    """The first folder that holds one of the files, relative paths, or else the first of all."""
    sounds = SoundFiles()
    return next((each for each in folders if any(exists(sounds.locate(each / file)) for file in files)), folders[0])


def require_any_file(listed_in: Path, clips: tuple[Clip, ...]) -> tuple[Clip, ...]:
    """The clips, if one of their files exists. Files that are missing are skipped and counted when they are packed.

    Raises:
        StoreError: No file exists.
    """
    if not any(exists(clip.path) for clip in clips):
        raise StoreError(
            f"{listed_in}: none of its files exists: {named_files([clip.name for clip in clips])}; put the recordings "
            "where the data set has them"
        )
    return clips


def named_files(names: Sequence[str], what: str = "file") -> str:
    """How many files, or what else they are, and the names of the first three."""
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names)} {what}{'s'[: len(names) != 1]} ({', '.join(names[:3])}{more})"
