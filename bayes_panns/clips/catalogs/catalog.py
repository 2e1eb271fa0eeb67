"""What a catalog is, and the parts that the data sets share: their folders and their sound files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bayes_panns.audio.files import SUFFIXES, find
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import AudioError, StoreError


@dataclass(frozen=True)
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


class SoundFiles:
    """Finds a listed file, or the same recording under another sound suffix: data sets are often re-encoded."""

    def __init__(self) -> None:
        self._by_stem: dict[Path, dict[str, Path]] = {}

    def locate(self, path: Path) -> Path:
        """The file itself, the same name with another sound suffix, or, if there is neither, ``path``."""
        if path.is_file():
            return path
        if path.parent not in self._by_stem:
            there = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
            self._by_stem[path.parent] = {file.stem: file for file in there if file.suffix.lower() in SUFFIXES}
        return self._by_stem[path.parent].get(path.stem, path)


def find_sounds(folder: Path) -> list[Path]:
    """Every sound file below ``folder``, as :func:`bayes_panns.audio.files.find`.

    Raises:
        StoreError: There is none.
    """
    try:
        return find(folder)
    except AudioError as error:
        raise StoreError(str(error)) from error


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
    return next((each for each in folders if any(sounds.locate(each / file).is_file() for file in files)), folders[0])


def require_any_file(listed_in: Path, clips: tuple[Clip, ...]) -> tuple[Clip, ...]:
    """The clips, if one of their files exists. Files that are missing are skipped and counted when they are packed.

    Raises:
        StoreError: No file exists.
    """
    if not any(clip.path.is_file() for clip in clips):
        raise StoreError(
            f"{listed_in}: none of its files exists: {named_files([clip.name for clip in clips])}; put the recordings "
            "where the data set has them"
        )
    return clips


def named_files(names: Sequence[str]) -> str:
    """How many files, and the names of the first three."""
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names)} file{'s'[: len(names) != 1]} ({', '.join(names[:3])}{more})"
