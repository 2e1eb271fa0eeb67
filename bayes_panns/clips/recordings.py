"""Which clips of a catalog are of one recording.

Clips of one recording share a microphone, a place and often an animal. Where a fit hears one of them and is scored on
another, the score says too much. Tables say which belong together in their column ``source``; in a folder of clips only
sub-folders and names can.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from bayes_panns.clips.catalogs import Catalog, Clip
from bayes_panns.clips.catalogs.listed import native
from bayes_panns.core.choices import RecordingsBy
from bayes_panns.core.errors import StoreError

LEAST = 3
"""The recordings that the median label must have, before sub-folders or names are taken for recordings unasked."""

_TOKEN = re.compile(r"[^-_ ]+")
_INDEX = re.compile(r"\d{1,4}|\d+\.\d+|\d+(?:\.\d+)?m?s|[A-Za-z]|\(\d+\)")
"""What stands at the end of a name as a part's number, letter or time; longer numbers identify recordings."""

_DATE = re.compile(r"(?:19|20)\d{6}")
"""After a date, a number is the time at which a recording began."""

_ENDS = 1 << 12
"""Bytes at the beginning and the end of a file that are compared."""


@dataclass(frozen=True)
class Recognised:
    """A catalog whose clips have their recordings, and how these were found.

    Attributes:
        catalog: The catalog; clips of one recording have the same ``source``.
        by: How.
        recordings: How many there are.
        example: A recording and how many clips it has, the one with the most; None where each clip has its own.
        doubtful: Whether names look like parts of recordings, and were not taken for them.
        twice: Groups of clips whose files are the same, each by the clips' indices.
    """

    catalog: Catalog
    by: RecordingsBy
    recordings: int
    example: tuple[str, int] | None
    doubtful: bool
    twice: tuple[tuple[int, ...], ...]


def with_recordings(catalog: Catalog, by: RecordingsBy | str = RecordingsBy.AUTO) -> Recognised:
    """The catalog with the recording of each clip.

    By ``auto`` it is the clips' own ``source``, if any has one. Otherwise sub-folders (of the class folders) are taken,
    or names that differ only at their end, whichever leaves the median label at least :data:`LEAST` recordings; a
    number that counts all clips of a class, as in ``dog_1.wav`` and ``dog_2.wav``, does not. Files of the same content
    are always of one recording.

    Args:
        catalog: The clips.
        by: How: one of :class:`~bayes_panns.core.choices.RecordingsBy`.

    Raises:
        StoreError: ``sources`` is asked for, and no clip has one.
    """
    by, clips = RecordingsBy(by), catalog.clips
    ways: dict[RecordingsBy, Callable[[Clip], str | None]] = {
        RecordingsBy.SOURCES: lambda clip: clip.source or None,
        RecordingsBy.FOLDERS: lambda clip: _below_label(catalog, clip),
        RecordingsBy.NAMES: lambda clip: recording_in(_place(catalog, clip).stem),
        RecordingsBy.FILES: lambda clip: None,
    }
    doubtful = False
    if by is RecordingsBy.SOURCES and not any(clip.source for clip in clips):
        raise StoreError(f"{catalog.root}: no clip says which recording it is of; add a column source")
    if by is RecordingsBy.AUTO:
        found = {way: [name(clip) for clip in clips] for way, name in ways.items()}
        by = RecordingsBy.SOURCES
        if not any(found[by]):
            guessed = (RecordingsBy.FOLDERS, RecordingsBy.NAMES)
            by = next((way for way in guessed if _plausible(catalog, found[way])), RecordingsBy.FILES)
            doubtful = by is RecordingsBy.FILES and _grouped(found[RecordingsBy.NAMES])
        names = found[by]
    else:
        names = [ways[by](clip) for clip in clips]
    twice = same_files([clip.path for clip in clips if clip.seconds is None])
    keys: list[str] = [name or clip.name for name, clip in zip(names, clips, strict=True)]
    own = [not name for name in names]
    place: Mapping[Path, int] = {clip.path: index for index, clip in enumerate(clips)}
    groups = tuple(tuple(place[path] for path in paths) for paths in twice)
    for first, *others in groups:
        for index in others:
            keys[index], own[index] = keys[first], False
        own[first] = False
    sources = [None if alone else key for key, alone in zip(keys, own, strict=True)]
    count = Counter(source for source in sources if source)
    most = max(count, key=count.__getitem__, default="")
    return Recognised(
        catalog=replace(
            catalog, clips=tuple(replace(clip, source=source) for clip, source in zip(clips, sources, strict=True))
        ),
        by=by,
        recordings=len(count) + sum(own),
        example=(most, count[most]) if count and count[most] > 1 else None,
        doubtful=doubtful,
        twice=groups,
    )


def recording_in(stem: str) -> str | None:
    """The part of a file's name that says which recording it is of, where what follows is a number, letter or time.

    Example:
        >>> [recording_in(each) for each in ("100263-2-0-117", "1-100032-A-0", "owl2_12.5-15.5", "XC417921")]
        ['100263', '1-100032', 'owl2', None]
        >>> [recording_in(each) for each in ("20240501_053000_3", "20240501_0530", "rain", "7")]
        ['20240501_053000', None, None, None]

    Args:
        stem: The name without its folder and its ending.
    """
    tokens = [(found.group(), found.start()) for found in _TOKEN.finditer(stem)]
    kept = len(tokens)
    while kept > 1 and _INDEX.fullmatch(tokens[kept - 1][0]) and not _DATE.fullmatch(tokens[kept - 2][0]):
        kept -= 1
    if kept == 1 and len(tokens) > 1 and _INDEX.fullmatch(tokens[0][0]):
        # All are numbers: only the last can be that of a part.
        kept = len(tokens) - 1
    return None if kept == len(tokens) else stem[: tokens[kept][1]].rstrip("-_ ")


def same_files(paths: Sequence[Path]) -> list[list[Path]]:
    """The files whose size, beginning and end are the same, in groups of two or more.

    Files that cannot be read are in no group.
    """
    sizes: dict[int, list[Path]] = {}
    for path in dict.fromkeys(paths):
        try:
            sizes.setdefault(path.stat().st_size, []).append(path)
        except OSError:
            continue
    groups: dict[bytes, list[Path]] = {}
    for size, alike in sizes.items():
        for path in alike if len(alike) > 1 else ():
            try:
                groups.setdefault(_ends(path, size), []).append(path)
            except OSError:
                continue
    return [group for group in groups.values() if len(group) > 1]


def _ends(path: Path, size: int) -> bytes:
    """A digest of a file's size, beginning, middle and end."""
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (0, size // 2, max(0, size - _ENDS)):
            file.seek(start)
            digest.update(file.read(_ENDS))
    return digest.digest()


def _place(catalog: Catalog, clip: Clip) -> PurePosixPath:
    """Where a clip is, below the root; in a table as it is written there, which may be Windows' way."""
    return PurePosixPath(native(clip.name) if "csv" in catalog.options else clip.name)


def _below_label(catalog: Catalog, clip: Clip) -> str | None:
    """The folders between a clip and its class folder, or the root where there are none."""
    folders = _place(catalog, clip).parts[:-1]
    below = folders if "csv" in catalog.options else folders[1:]
    return "/".join(below) or None


def _grouped(names: Sequence[str | None]) -> bool:
    """Whether two clips have the same recording."""
    known = [name for name in names if name]
    return len(set(known)) < len(known)


def _plausible(catalog: Catalog, names: Sequence[str | None]) -> bool:
    """Whether recordings bring clips together, and leave the median label enough of them."""
    if not _grouped(names):
        return False
    of_label: dict[int, set[str]] = {}
    for index, (name, clip) in enumerate(zip(names, catalog.clips, strict=True)):
        for label in clip.labels:
            of_label.setdefault(label, set()).add(name or f"\0{index}")
    return bool(of_label) and float(np.median([len(each) for each in of_label.values()])) >= LEAST
