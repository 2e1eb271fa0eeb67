"""Catalogs: a folder of recordings, in a data set's own layout, to labelled clips."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bayes_panns.audio.files import SUFFIXES, find
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import AudioError, StoreError

SPLITS = {
    "balanced": "balanced_train_segments.csv",
    "unbalanced": "unbalanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
"""AudioSet's three parts and the files that list them; their clips are in folds 1, 2 and 3."""

SCENES = (
    "bus",
    "busystreet",
    "office",
    "openairmarket",
    "park",
    "quietstreet",
    "restaurant",
    "supermarket",
    "tube",
    "tubestation",
)
"""The classes of DCASE 2013's scenes."""

SCENE_FOLDS = 5
"""Folds that DCASE 2013's development set is dealt to; the test set is the next."""


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


def audioset(source: Path, *, split: str | None = None) -> Catalog:
    """AudioSet: its CSV files, and a folder of the clips that you could get.

    The CSV files, as Google publishes them, lie in the folder itself or in one of its sub-folders; the recordings, each
    cut to its segment, anywhere below. A recording is found by its name, whatever its sound format: ``Y<id>`` as PANNs'
    script names them, ``<id>``, or either with the segment's start, and perhaps its end, in seconds or milliseconds
    behind it, as in ``<id>_30000_40000`` or ``<id>_30.0-40.0``. Clips are called ``Y<id>.wav``, as in PANNs' own packs.

    Args:
        source: The folder that holds ``class_labels_indices.csv`` and the segments' CSV files.
        split: ``balanced``, ``unbalanced`` or ``eval``; by default every one that is listed there.

    Raises:
        StoreError: A CSV file is missing or damaged, the split is not one of AudioSet's, or no recording is there.
    """
    source = _folder(source, "AudioSet", "class_labels_indices.csv and the segments' CSV files")
    if split is not None and split not in SPLITS:
        raise StoreError(f"AudioSet has no split {split!r}; choose one of {', '.join(SPLITS)}")
    index = _listed_below(source, "class_labels_indices.csv")
    labels = read_labels(index)
    columns = {row["mid"]: _whole(index, line, row, "index") for line, row in _rows(index, ("index", "mid"))}
    tables = {
        name: table
        for name, file in SPLITS.items()
        if split in (None, name) and (table := _listed_below(source, file)).is_file()
    }
    if not tables:
        wanted = SPLITS[split] if split else f"any of {', '.join(SPLITS.values())}"
        raise StoreError(f"{source}: lacks {wanted}; put Google's CSV files there, or in a sub-folder")
    try:
        sounds = _Segments(find(source))
    except AudioError as error:
        raise StoreError(str(error)) from error
    clips = tuple(
        Clip(
            path=sounds.locate(name, start) or source / f"Y{name}.wav",
            name=f"Y{name}.wav",
            labels=tuple(sorted({_known(table, line, columns, mid) for mid in mids})),
            fold=1 + list(SPLITS).index(part),
            source=name,
        )
        for part, table in tables.items()
        for line, name, start, mids in _segment_rows(table)
    )
    options = {"split": split} if split else {}
    where = next(iter(tables.values())) if split else source
    return Catalog("audioset", labels, Task.MULTI_LABEL, 10.0, _some_there(where, clips), source, options)


def read_labels(table: str | Path) -> tuple[str, ...]:
    """The label names of AudioSet's ``class_labels_indices.csv``, or of any CSV file with its columns.

    For stores that hold no names, such as PANNs' own packs.

    Args:
        table: A CSV file with the columns ``index``, counting from 0 without a gap, and ``display_name``.

    Raises:
        StoreError: There is no such file, or it is damaged.
    """
    table = Path(table)
    if not table.is_file():
        raise StoreError(f"{table}: no such file; name AudioSet's class_labels_indices.csv, or one like it")
    rows = list(_rows(table, ("index", "display_name")))
    labels, columns = _numbered_labels(table, rows, "index", "display_name", len(rows))
    if len(columns) < len(rows):
        raise StoreError(f"{table}: numbers some labels alike; number them from 0 up")
    return labels


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


def dcase2013(source: Path) -> Catalog:
    """DCASE 2013's scenes: ``scenes_stereo/``, the development set, and ``scenes_stereo_testset/``; one alone will do.

    Files are called by their class and a number, as in ``bus01.wav``. The challenge scored each system by five-fold
    cross-validation on the test set and gave the development set no folds. Here the test set is fold 6, kept whole, and
    the development set is dealt to folds 1 to 5: of each class the first fifth of its recordings, in the order of their
    numbers, goes to fold 1, and so on. Neighbours in number stay together.

    Args:
        source: The folder that holds the two.

    Raises:
        StoreError: The folder holds neither, or a recording in it is not named after a scene.
    """
    source = _folder(source, "DCASE 2013's scenes", "scenes_stereo/ and scenes_stereo_testset/")
    parts = [source / "scenes_stereo", source / "scenes_stereo_testset"]
    there = [part for part in parts if part.is_dir()]
    if not there:
        raise StoreError(
            f"{source}: holds neither scenes_stereo/ nor scenes_stereo_testset/; unpack the archives there"
        )
    clips: list[Clip] = []
    for part in there:
        try:
            found = [(*_scene(path), path) for path in find(part)]
        except AudioError as error:
            raise StoreError(str(error)) from error
        for label in range(len(SCENES)):
            recordings = sorted((number, path) for scene, number, path in found if scene == label)
            for rank, (_, path) in enumerate(recordings):
                fold = SCENE_FOLDS if part == parts[1] else rank * SCENE_FOLDS // len(recordings)
                clips.append(Clip(path, path.relative_to(source).as_posix(), (label,), fold + 1))
    return Catalog("dcase2013", SCENES, Task.ONE_OF_K, 30.0, tuple(clips), source)


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


CATALOGS: dict[str, Callable[..., Catalog]] = {
    "audioset": audioset,
    "esc50": esc50,
    "urbansound8k": urbansound8k,
    "dcase2013": dcase2013,
    "folder": folder,
}
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


_SEGMENT_NAME = re.compile(r"Y?(?P<id>[\w-]{11})(_(?P<start>\d+(\.\d+)?)([_-]\d+(\.\d+)?)?)?", re.ASCII)
"""How downloaders call a segment's file: a YouTube id has 11 characters."""


class _Segments:
    """Finds the recording of a segment of AudioSet among files."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._by_id: dict[str, list[tuple[float | None, Path]]] = {}
        for file in files:
            if named := _SEGMENT_NAME.fullmatch(file.stem):
                start = None if named["start"] is None else float(named["start"])
                self._by_id.setdefault(named["id"], []).append((start, file))

    def locate(self, name: str, start: float) -> Path | None:
        """The first file of the video ``name`` that states no other start, in seconds or milliseconds; or None."""
        fitting = (None, start, 1000 * start)
        return next((file for stated, file in self._by_id.get(name, ()) if stated in fitting), None)


def _listed_below(source: Path, name: str) -> Path:
    """The file ``name`` in ``source`` or in a sub-folder of it; where there is none, where it should be."""
    return next((path for path in (source / name, *sorted(source.glob(f"*/{name}"))) if path.is_file()), source / name)


def _segment_rows(table: Path) -> Iterator[tuple[int, str, float, list[str]]]:
    """The rows of a segments' CSV file: line number, YouTube id, start in seconds, and the labels' machine ids."""
    first: dict[str, int] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            # A space follows each comma, before the quotes too.
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            for row in reader:
                line = reader.line_num
                if not row or row[0].startswith("#"):
                    continue
                if len(row) != 4:
                    raise StoreError(
                        f"{table}: line {line} has {len(row)} fields, not 4: id, start, end and the labels in quotes"
                    )
                name, start, _, mids = row
                if name in first:
                    raise StoreError(
                        f"{table}: line {line} lists {name!r} again, after line {first[name]}; remove one of them"
                    )
                first[name] = line
                try:
                    seconds = float(start)
                except ValueError as error:
                    raise StoreError(
                        f"{table}: line {line} starts at {start!r}, not a number of seconds; mend the line"
                    ) from error
                yield line, name, seconds, mids.split(",")
    except (UnicodeDecodeError, csv.Error) as error:
        raise StoreError(f"{table}: cannot be read as CSV in UTF-8 ({error}); save it as such") from error
    except OSError as error:
        raise StoreError(f"{table}: cannot be read ({error.strerror}); check its permissions") from error
    if not first:
        raise StoreError(f"{table}: lists no segments; get it again")


def _known(table: Path, line: int, columns: dict[str, int], mid: str) -> int:
    if mid not in columns:
        raise StoreError(f"{table}: line {line} has the label {mid!r}, which class_labels_indices.csv does not list")
    return columns[mid]


def _scene(path: Path) -> tuple[int, int]:
    """The class and the number in a name such as ``bus01.wav``."""
    named = re.fullmatch(r"(?P<scene>[a-z]+)(?P<number>\d+)", path.stem)
    if named is None or named["scene"] not in SCENES:
        raise StoreError(f"{path}: is not called by a scene and a number, as bus01.wav is; move it elsewhere")
    return SCENES.index(named["scene"]), int(named["number"])


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
