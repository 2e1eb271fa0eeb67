"""Annotated events: what a person has heard in recordings, from when to when."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bayes_panns.audio.walking import find_others, folded
from bayes_panns.clips.catalogs.label_files import ENDINGS, Reading, Recordings, read_stretches, recognise
from bayes_panns.clips.catalogs.listed import native
from bayes_panns.clips.catalogs.tables import Name, PublishedRow, Seconds, columns_of, read_table
from bayes_panns.clips.catalogs.timed import Stretch
from bayes_panns.core.errors import StoreError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotations:
    """What is heard in recordings.

    Attributes:
        stretches: For each recording that is mentioned, by the name it was asked for by: what is heard in it. None of
            the labels is heard in one without any.
        others: Names of annotated recordings that were not asked for.
    """

    stretches: dict[str, list[Stretch]]
    others: tuple[str, ...]


class _EventRow(PublishedRow):
    file: Name
    label: Name
    onset: Seconds
    offset: Seconds


def read_annotations(
    source: str | Path, recordings: Sequence[str], *, separator: str = ";", label_column: str | None = None
) -> Annotations:
    """Read what is heard in some recordings.

    Args:
        source: A CSV with ``file``, ``start``, ``end`` and ``labels``, or with ``file``, ``onset``, ``offset`` and
            ``label``; a Raven selection table; an Audacity label track; crowsetta's CSV; or a folder of such files.
            Recordings are found by their path or else by their file name, with or without its ending.
        recordings: The recordings' names or paths. They need not be there.
        separator: What stands between several labels.
        label_column: The column of Raven's tables that holds the labels.

    Raises:
        StoreError: There is no such file or folder, it is none of these, it is damaged, or two of the recordings fit.
    """
    source = Path(source)
    if not source.exists():
        raise StoreError(f"{source}: no such file or folder; name a table of annotations, or a folder of them")
    known = Recordings([Path(name) for name in recordings])
    files = [source] if source.is_file() else sorted(find_others(source, ENDINGS))
    read = list[Stretch]()
    for table in files:
        found = _read(table, known, Reading(separator, label_column, allow_outside=True))
        if found is None:
            if source.is_file():
                raise StoreError(
                    f"{source}: is no table of annotations; write a CSV with the columns file, start, end and labels, "
                    "or name a Raven selection table or an Audacity label track"
                )
            logger.info(f"{table}: is no table of annotations, and is left out")
            continue
        read += found
    return _sorted(read, recordings)


def _read(table: Path, known: Recordings, reading: Reading) -> list[Stretch] | None:
    """What a table says; None if it is no table of annotations."""
    if table.suffix.lower() == ".csv" and {"file", "label", "onset", "offset"} <= set(columns_of(table)):
        return [
            Stretch(Path(row.file), row.file, (row.label,), row.onset, row.offset, table, line)
            for line, row in read_table(table, _EventRow)
        ]
    kind = recognise(table)
    if kind is None:
        if table.stat().st_size == 0 and (recording := known.of(table)) is not None:
            # A track without labels, beside its recording: there is nothing in it.
            return [Stretch(recording, str(recording), (), 0.0, None, table, 1)]
        return None
    return read_stretches(table, kind, known, table.parent, reading)


def _sorted(read: Iterable[Stretch], recordings: Sequence[str]) -> Annotations:
    """The stretches by the names of the recordings that were asked for."""
    of_path = {str(Path(name)): name for name in recordings}
    of_name = dict[str, list[str]]()
    for name in recordings:
        for short in {folded(Path(name).name), folded(Path(name).stem)}:
            of_name.setdefault(short, []).append(name)
    found, others = dict[str, list[Stretch]](), dict[str, None]()
    stretches = list(read)
    all_fitting = []
    # Recordings of which an annotated one has the folders too: south/dawn.wav is then not north/dawn.wav.
    with_folders = set[str]()
    for stretch in stretches:
        exact = of_path.get(str(stretch.path), of_path.get(str(Path(stretch.name))))
        all_fitting.append([exact] if exact is not None else _fitting(stretch, of_name))
        with_folders.update(name for name in all_fitting[-1] if exact is not None or _same_folders(stretch, name))
    for stretch, fitting in zip(stretches, all_fitting, strict=True):
        if fitting and fitting[0] in with_folders and str(stretch.path) not in of_path:
            fitting = [name for name in fitting if not _has_folders(stretch) or _ends_as(stretch, name)]
        if len(fitting) > 1:
            raise StoreError(f"{stretch.where} is of {stretch.name}, which may be {fitting[0]} or {fitting[1]}")
        if not fitting:
            others[stretch.name] = None
            continue
        events = found.setdefault(fitting[0], [])
        if stretch.end is not None and stretch.end < stretch.start:
            raise StoreError(
                f"{stretch.where} ends at {stretch.end:g} s, before it starts at {stretch.start:g} s; correct the line"
            )
        if stretch.labels:
            events.append(stretch)
    return Annotations(found, tuple(others))


def _fitting(stretch: Stretch, of_name: dict[str, list[str]]) -> list[str]:
    """The recordings of a stretch's name; of several those whose path ends as the stretch's does."""
    path = PurePosixPath(native(stretch.name))
    found = of_name.get(folded(path.name)) or of_name.get(folded(path.stem)) or []
    if len(found) > 1:
        return [name for name in found if _ends_as(stretch, name)] or found
    return found


def _ends_as(stretch: Stretch, name: str) -> bool:
    """Whether a recording's path ends as a stretch's name does."""
    path = PurePosixPath(native(stretch.name))
    return PurePosixPath(native(name)).parts[-len(path.parts) :] == path.parts


def _has_folders(stretch: Stretch) -> bool:
    return len(PurePosixPath(native(stretch.name)).parts) > 1


def _same_folders(stretch: Stretch, name: str) -> bool:
    return _has_folders(stretch) and _ends_as(stretch, name)
