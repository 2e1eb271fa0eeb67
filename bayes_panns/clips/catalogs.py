"""Catalogs: a folder of recordings, in a data set's own layout, to labelled clips."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bayes_panns.audio.files import SUFFIXES, find
from bayes_panns.clips.store import Task
from bayes_panns.errors import AudioError, StoreError


@dataclass(frozen=True)
class Clip:
    """One recording to pack.

    Attributes:
        path: The sound file; it may be missing.
        name: What the clip is called in a store.
        labels: Indices into the catalog's labels.
        fold: The fold that the data set's authors gave it.
        source: The longer recording it was cut from.
    """

    path: Path
    name: str
    labels: tuple[int, ...] = ()
    fold: int | None = None
    source: str | None = None


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


def esc50(source: Path, *, esc10: bool = False) -> Catalog:
    """ESC-50, or a part of it such as ESC-10: ``meta/esc50.csv`` and ``audio/``.

    Labels are the categories that the csv lists, in the order of their target ids.

    Args:
        source: The folder that holds ``meta/`` and ``audio/``.
        esc10: Take only the clips that the csv marks as part of ESC-10.

    Raises:
        StoreError: The folder is not ESC-50's, its csv is damaged, or none of its files is there.
    """
    source = _folder(source, "ESC-50", "meta/esc50.csv and audio/")
    table = source / "meta" / "esc50.csv"
    columns = ("filename", "fold", "target", "category", "src_file")
    rows = list(_rows(table, (*columns, "esc10") if esc10 else columns))
    if esc10:
        rows = [(line, row) for line, row in rows if row["esc10"].lower() == "true"]
        if not rows:
            raise StoreError(f"{table}: marks no clip as part of ESC-10; take all of it")
    labels, column = _numbered_labels(table, rows, "target", "category", 50)
    sounds = _Sounds()
    clips = tuple(
        Clip(
            path=sounds.locate(source / "audio" / row["filename"]),
            name=row["filename"],
            labels=(column[_whole(table, line, row, "target")],),
            fold=_whole(table, line, row, "fold"),
            source=row["src_file"] or None,
        )
        for line, row in _distinct(table, rows, "filename")
    )
    options = {"esc10": True} if esc10 else {}
    return Catalog("esc50", labels, Task.ONE_OF_K, 5.0, _some_there(table, clips), source, options)


def urbansound8k(source: Path) -> Catalog:
    """UrbanSound8K: ``metadata/UrbanSound8K.csv`` and ``audio/fold1`` to ``audio/fold10``.

    Labels are the classes that the csv lists, in the order of their class ids.

    Args:
        source: The folder that holds ``metadata/`` and ``audio/``.

    Raises:
        StoreError: The folder is not UrbanSound8K's, its csv is damaged, or none of its files is there.
    """
    source = _folder(source, "UrbanSound8K", "metadata/UrbanSound8K.csv and audio/")
    table = source / "metadata" / "UrbanSound8K.csv"
    rows = list(_rows(table, ("slice_file_name", "fsID", "fold", "classID", "class")))
    labels, column = _numbered_labels(table, rows, "classID", "class", 10)
    sounds = _Sounds()
    clips = tuple(
        Clip(
            path=sounds.locate(source / "audio" / f"fold{row['fold']}" / row["slice_file_name"]),
            name=row["slice_file_name"],
            labels=(column[_whole(table, line, row, "classID")],),
            fold=_whole(table, line, row, "fold"),
            source=row["fsID"] or None,
        )
        for line, row in _distinct(table, rows, "slice_file_name")
    )
    return Catalog("urbansound8k", labels, Task.ONE_OF_K, 4.0, _some_there(table, clips), source)


def folder(source: Path, *, min_count: int = 1) -> Catalog:
    """Your own recordings: a folder with a sub-folder a class, a folder without classes, or a CSV file.

    A folder in which two or more sub-folders hold sound is one-of-k, with the sub-folders' names as labels; any other
    folder of recordings is unlabelled. A CSV file has the columns ``file`` and ``labels`` and, if wanted, ``fold`` and
    ``source``. Several labels are joined by ``;``; if any row has several or none, the task is multi-label. Paths in it
    are relative to the CSV's folder, or else to its parent or the parent's parent: the first that holds a file of it.
    Labels are sorted by name.

    Args:
        source: The folder, or the CSV file.
        min_count: Labels with fewer clips are dropped. Their clips stay, with the labels that are left, if the task is
            multi-label; if it is one-of-k they are dropped too.

    Raises:
        StoreError: There is no such folder or CSV, it holds no sound, the CSV is damaged, or no label is left.
    """
    source = Path(source)
    if source.is_file() and source.suffix.lower() == ".csv":
        root, labels, task, clips = _labelled_by_table(source)
        options: dict[str, Any] = {"csv": source.name}
    elif source.is_dir():
        root, (labels, task, clips) = source, _labelled_by_folder(source)
        options = {}
    else:
        raise StoreError(f"{source}: no such folder or CSV file; name a folder of recordings, or a CSV that lists them")
    if min_count > 1:
        options["min_count"] = min_count
        labels, clips = _without_rare(source, labels, task, clips, min_count)
    return Catalog("folder", labels, task, 10.0, clips, root, options)


CATALOGS: dict[str, Callable[..., Catalog]] = {"esc50": esc50, "urbansound8k": urbansound8k, "folder": folder}
"""Every catalog by its name."""


class _Sounds:
    """Finds a listed file, or the same recording under another sound suffix: data sets come re-encoded."""

    def __init__(self) -> None:
        self._by_stem: dict[Path, dict[str, Path]] = {}

    def locate(self, path: Path) -> Path:
        """The file itself, its re-encoded twin, or, if there is neither, ``path``."""
        if path.is_file():
            return path
        if path.parent not in self._by_stem:
            there = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
            self._by_stem[path.parent] = {file.stem: file for file in there if file.suffix.lower() in SUFFIXES}
        return self._by_stem[path.parent].get(path.stem, path)


def _labelled_by_folder(source: Path) -> tuple[tuple[str, ...], Task, tuple[Clip, ...]]:
    try:
        found = {path: path.relative_to(source) for path in find(source)}
    except AudioError as error:
        raise StoreError(str(error)) from error
    labels = sorted({place.parts[0] for place in found.values() if len(place.parts) > 1})
    if len(labels) < 2:
        return (), Task.UNLABELLED, tuple(Clip(path, place.as_posix()) for path, place in found.items())
    loose = [place.name for place in found.values() if len(place.parts) == 1]
    if loose:
        raise StoreError(
            f"{source}: {_listed(loose)} beside the class folders ({', '.join(labels[:3])}, ...); move each into one"
        )
    column = {label: index for index, label in enumerate(labels)}
    clips = tuple(Clip(path, place.as_posix(), (column[place.parts[0]],)) for path, place in found.items())
    return tuple(labels), Task.ONE_OF_K, clips


def _labelled_by_table(table: Path) -> tuple[Path, tuple[str, ...], Task, tuple[Clip, ...]]:
    rows = list(_distinct(table, list(_rows(table, ("file", "labels"))), "file"))
    named = [tuple(dict.fromkeys(filter(None, map(str.strip, row["labels"].split(";"))))) for _, row in rows]
    labels = tuple(sorted({label for names in named for label in names}))
    column = {label: index for index, label in enumerate(labels)}
    if not labels:
        task = Task.UNLABELLED
    else:
        task = Task.ONE_OF_K if all(len(names) == 1 for names in named) else Task.MULTI_LABEL
    here = table.absolute().parent
    # The folder as the user wrote it, where it is the one: messages then show what was typed.
    bases = (table.parent, *here.parents[:2])
    root = next((base for base in bases if any((base / row["file"]).is_file() for _, row in rows)), table.parent)
    clips = tuple(
        Clip(
            path=root / row["file"],
            name=row["file"],
            labels=tuple(sorted(column[name] for name in names)),
            fold=_whole(table, line, row, "fold") if "fold" in row else None,
            source=row.get("source") or None,
        )
        for (line, row), names in zip(rows, named, strict=True)
    )
    return root, labels, task, _some_there(table, clips)


def _without_rare(
    source: Path, labels: tuple[str, ...], task: Task, clips: tuple[Clip, ...], min_count: int
) -> tuple[tuple[str, ...], tuple[Clip, ...]]:
    counts = Counter(label for clip in clips for label in clip.labels)
    kept = [index for index in range(len(labels)) if counts[index] >= min_count]
    if not kept:
        raise StoreError(f"{source}: no label has {min_count} clips or more; lower the minimum")
    column = {old: new for new, old in enumerate(kept)}
    trimmed = (
        Clip(clip.path, clip.name, tuple(column[old] for old in clip.labels if old in column), clip.fold, clip.source)
        for clip in clips
    )
    return tuple(labels[old] for old in kept), tuple(
        clip for clip in trimmed if clip.labels or task == Task.MULTI_LABEL
    )


def _folder(source: Path, dataset: str, contents: str) -> Path:
    source = Path(source)
    if not source.is_dir():
        raise StoreError(f"{source}: no such folder; name the folder of {dataset} that holds {contents}")
    return source


def _rows(table: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each with its line number."""
    if not table.is_file():
        raise StoreError(f"{table}: no such file; name the folder that the data set was unpacked to")
    empty = True
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            found = list(reader.fieldnames or ())
            missing = [column for column in columns if column not in found]
            if missing:
                raise StoreError(
                    f"{table}: lacks the columns {', '.join(missing)}; it has {', '.join(found) or 'none'}"
                )
            for row in reader:
                # DictReader marks a long row by the key None and a short one by the value None.
                if None in row or None in row.values():
                    raise StoreError(
                        f"{table}: line {reader.line_num} has not {len(found)} fields; quote fields that hold a comma"
                    )
                empty = False
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise StoreError(f"{table}: cannot be read as CSV in UTF-8 ({error}); save it as such") from error
    except OSError as error:
        raise StoreError(f"{table}: cannot be read ({error.strerror}); check its permissions") from error
    if empty:
        raise StoreError(f"{table}: lists no clips; name a CSV with a row a clip")


def _distinct(
    table: Path, rows: Iterable[tuple[int, dict[str, str]]], column: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """``rows`` again, checked: each names a file, and each another one."""
    first: dict[str, int] = {}
    for line, row in rows:
        name = row[column]
        if not name:
            raise StoreError(f"{table}: line {line} names no file in column {column!r}; fill it in or remove the line")
        if name in first:
            raise StoreError(f"{table}: line {line} lists {name!r} again, after line {first[name]}; remove one of them")
        first[name] = line
        yield line, row


def _numbered_labels(
    table: Path, rows: Iterable[tuple[int, dict[str, str]]], number: str, name: str, count: int
) -> tuple[tuple[str, ...], dict[int, int]]:
    """The label names by their number, and each number's column."""
    names: dict[int, str] = {}
    for line, row in rows:
        value = _whole(table, line, row, number)
        if not 0 <= value < count:
            raise StoreError(f"{table}: line {line} has {number} {value}, not one of 0 to {count - 1}; mend the line")
        if names.setdefault(value, row[name]) != row[name]:
            raise StoreError(
                f"{table}: line {line} calls {number} {value} {row[name]!r}, an earlier line {names[value]!r}; mend one"
            )
    numbers = sorted(names)
    return tuple(names[value] for value in numbers), {value: index for index, value in enumerate(numbers)}


def _whole(table: Path, line: int, row: dict[str, str], column: str) -> int:
    try:
        return int(row[column])
    except ValueError as error:
        raise StoreError(
            f"{table}: line {line} has {column} {row[column]!r}, not a whole number; mend the line"
        ) from error


def _some_there(table: Path, clips: tuple[Clip, ...]) -> tuple[Clip, ...]:
    """``clips`` again, if one of their files is there: the others are skipped, and counted, when they are packed."""
    if not any(clip.path.is_file() for clip in clips):
        raise StoreError(
            f"{table}: none of its files is there: {_listed([clip.name for clip in clips])}; "
            "put the recordings where the data set has them"
        )
    return clips


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names)} file{'s'[: len(names) != 1]} ({', '.join(names[:3])}{more})"
