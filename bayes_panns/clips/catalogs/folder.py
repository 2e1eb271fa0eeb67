"""Recordings of one's own: a folder of class folders, a folder without classes, or files of labels."""

import logging
from pathlib import Path
from typing import Any

from bayes_panns.audio.walking import SUFFIXES, find_others, walk
from bayes_panns.clips.catalogs.catalog import Catalog, Clip, find_sounds, named_files, require_any_file
from bayes_panns.clips.catalogs.label_files import (
    ENDINGS,
    OF_ONE_RECORDING,
    LabelFile,
    Reading,
    Recordings,
    read_stretches,
    recognise,
)
from bayes_panns.clips.catalogs.labels import labels_of, separated, warn_of_separator, without_rare
from bayes_panns.clips.catalogs.listed import ListedFiles
from bayes_panns.clips.catalogs.tables import Fold, Name, UserRow, columns_of, read_table, require_distinct
from bayes_panns.clips.catalogs.timed import Cutting, Stretch, cut
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError
from bayes_panns.core.text import readable

logger = logging.getLogger(__name__)


class _Row(UserRow):
    file: Name
    labels: str
    fold: Fold | None = None
    source: str = ""


def folder(
    source: str | Path,
    *,
    min_count: int = 1,
    separator: str = ";",
    seconds: float = 10.0,
    context: bool = True,
    exhaustive: bool = False,
    label_column: str | None = None,
    allow_outside: bool = False,
) -> Catalog:
    """Your own recordings: a folder with a sub-folder a class, a folder without classes, or a CSV file.

    A folder in which two or more sub-folders hold sound is one-of-K, with the sub-folders' names as labels; any other
    folder of recordings is unlabelled. A CSV file has the columns ``file`` and ``labels`` and, if wanted, ``fold`` and
    ``source``; others are refused. Several labels are joined by ``;``; if any row has several or none, the task is
    multi-label. Paths in it are relative to the CSV's folder, or else to its parent or the parent's parent: the first
    in which one of the files exists. Labels are sorted by name.

    Labels that say when something is heard are those of :func:`timed`: a CSV with the columns ``start`` and ``end``,
    one in crowsetta's form, a Raven selection table, an Audacity label track, or a folder of recordings with such files
    beside them.

    Args:
        source: The folder, or the file of labels.
        min_count: Labels with fewer clips are dropped. Their clips stay, with the labels that are left, if the task is
            multi-label; if it is one-of-K they are dropped too.
        separator: What stands between several labels.
        seconds: Length of the clips.
        context: For timed labels, as in :func:`timed`.
        exhaustive: For timed labels.
        label_column: For Raven's tables.
        allow_outside: Whether a table may name files outside its folder, by absolute paths, ``..`` or links.

    Raises:
        StoreError: There is no such folder or file, it holds no sound, the table is damaged or names files outside its
            folder, or no label is left.
    """
    source = Path(source)
    reading = Reading(separator, label_column, allow_outside)
    files = _label_files(source)
    if files:
        return _timed(source, files, Cutting(seconds, context, exhaustive), reading, min_count)
    unused = {"context": not context, "exhaustive": exhaustive, "label_column": label_column is not None}
    for name, given in unused.items():
        if given:
            raise StoreError(f"{source}: has no labels with times, which {name} is for; leave it out")
    if source.is_file() and source.suffix.lower() == ".csv":
        root, labels, task, clips = _labelled_by_table(source, reading)
        options: dict[str, Any] = {"csv": source.name}
    elif source.is_dir():
        root, (labels, task, clips) = source, _labelled_by_folder(source)
        options = {}
        if task is Task.UNLABELLED:
            _hint_at_tables(source)
    elif source.is_file():
        raise StoreError(
            f"{source}: is not a CSV file, a Raven selection table or an Audacity label track; name a folder of "
            "recordings, or a file of labels"
        )
    else:
        raise StoreError(f"{source}: no such folder or CSV file; name a folder of recordings, or a CSV that lists them")
    if min_count > 1:
        options["min_count"] = min_count
        labels, clips = without_rare(source, labels, task, clips, min_count)
    return Catalog("folder", labels, task, seconds, clips, root, options)


def timed(
    source: str | Path,
    *,
    min_count: int = 1,
    separator: str = ";",
    seconds: float = 10.0,
    context: bool = True,
    exhaustive: bool = False,
    label_column: str | None = None,
    allow_outside: bool = False,
) -> Catalog:
    """Labels that say when something is heard, cut into clips: ``docs/data/timed.md`` says how.

    Taken are a CSV with the columns ``file``, ``labels``, ``start`` and ``end`` (seconds), Raven's selection tables,
    Audacity's label tracks, crowsetta's ``generic-seq`` and ``simple-seq``; and a folder of recordings with the latter
    four beside them.

    Args:
        source: The file, or the folder.
        min_count: As in :func:`folder`.
        separator: What stands between several labels.
        seconds: Length of the clips. A longer stretch makes several.
        context: Whether the clip of a shorter stretch has the sound around it, with the labels of what else is heard
            there. Otherwise it holds nothing but the stretch, and is filled up with silence.
        exhaustive: Whether all that is heard in the recordings is labelled: then clips from between the stretches have
            no label. A CSV may say so itself, in a column ``exhaustive``.
        label_column: The column of Raven's tables that holds the labels; by default one of the usual names.
        allow_outside: As in :func:`folder`.

    Raises:
        StoreError: There is no such file, it is damaged, a column or a time is not understood, or no label is left.
    """
    source = Path(source)
    files = _label_files(source)
    if not files:
        kinds = ", ".join(kind.value for kind in LabelFile)
        what = "holds no labels with times" if source.exists() else "no such folder or file"
        raise StoreError(
            f"{source}: {what}; name a file, or a folder of recordings with files beside them, of: {kinds}"
        )
    reading = Reading(separator, label_column, allow_outside)
    return _timed(source, files, Cutting(seconds, context, exhaustive), reading, min_count, name="timed")


def _label_files(source: Path) -> dict[Path, LabelFile]:
    """The files of timed labels: the source itself, or those in it that lie beside their recording."""
    if source.is_file():
        kind = recognise(source)
        return {} if kind is None else {source: kind}
    if not source.is_dir():
        return {}
    sounds: Recordings | None = None
    found = {}
    for path in find_others(source, ENDINGS):
        kind = recognise(path)
        if kind is None and path.stat().st_size == 0:
            # A track without labels says nothing of what it is, but that it lies beside a recording.
            sounds = sounds or Recordings(walk(source).files)
            kind = None if sounds.of(path) is None else LabelFile.AUDACITY
        if kind in OF_ONE_RECORDING:
            found[path] = kind
    return found


def _timed(
    source: Path,
    files: dict[Path, LabelFile],
    cutting: Cutting,
    reading: Reading,
    min_count: int,
    *,
    name: str = "folder",
) -> Catalog:
    root = source if source.is_dir() else source.parent
    if name == "folder" and source.is_dir():
        _refuse_both(source, files)
    recordings = Recordings(walk(source).files if source.is_dir() else _sounds_beside(source))
    stretches: list[Stretch] = []
    for path, kind in files.items():
        found = read_stretches(path, kind, recordings, root, reading)
        recording = None if found else recordings.of(path)
        if recording is not None and cutting.exhaustive:
            # A label file without labels: none of them is heard in all of the recording.
            place = recording.relative_to(root).as_posix() if recording.is_relative_to(root) else recording.name
            found = [Stretch(recording, place, (), 0.0, None, path, 1)]
        stretches += found
    if not stretches:
        raise StoreError(f"{source}: lists no stretch; label something, or say that all is labelled with --exhaustive")
    _refuse_two_kinds(files, stretches)
    labels, task, clips = cut(stretches, cutting)
    warn_of_separator(source, labels)
    if source.is_dir():
        known = {stretch.path for stretch in stretches}
        without = [path.relative_to(root).as_posix() for path in recordings.files if path not in known]
        if without:
            logger.warning(f"{source}: {named_files(without)} have no labels beside them and are left out")
    options: dict[str, Any] = {"labels": sorted({kind.value for kind in files.values()}), "context": cutting.context}
    options |= {"csv": source.name} if source.is_file() else {}
    options |= {"exhaustive": True} if cutting.exhaustive else {}
    clips = require_any_file(source, clips)
    if min_count > 1:
        options["min_count"] = min_count
        labels, clips = without_rare(source, labels, task, clips, min_count)
    return Catalog(name, labels, task, cutting.seconds, clips, root, options)


def _sounds_beside(table: Path) -> list[Path]:
    return [path for path in sorted(table.absolute().parent.iterdir()) if path.suffix.lower() in SUFFIXES]


def _refuse_both(source: Path, files: dict[Path, LabelFile]) -> None:
    """Refuse a folder of class folders that holds files of timed labels too."""
    folders = sorted({path.relative_to(source).parts[0] for path in walk(source).files if path.parent != source})
    if len(folders) > 1:
        first, kind = next(iter(files.items()))
        raise StoreError(
            f"{source}: has sub-folders of sound ({', '.join(folders[:3])}), which may be classes, and labels with "
            f"times ({first.name}, {kind.value}); name the catalog timed to take these, or move them elsewhere"
        )


def _refuse_two_kinds(files: dict[Path, LabelFile], stretches: list[Stretch]) -> None:
    """Refuse two kinds of files on one recording: it would have each label twice."""
    first: dict[Path, Path] = {}
    for stretch in stretches:
        other = first.setdefault(stretch.path, stretch.table)
        if files[other] != files[stretch.table]:
            raise StoreError(f"{stretch.path}: has labels in {other} and in {stretch.table}; remove one of them")


def _hint_at_tables(source: Path) -> None:
    """Say of a CSV in a folder of unlabelled recordings that it is not read."""
    for path in sorted(source.glob("*.csv")):
        if {"file", "labels"} <= set(columns_of(path)):
            logger.warning(f"{source}: its clips are unlabelled; if {path} lists their labels, name it instead")


def _labelled_by_folder(source: Path) -> tuple[tuple[str, ...], Task, tuple[Clip, ...]]:
    found = {path: path.relative_to(source) for path in find_sounds(source)}
    labels = sorted({place.parts[0] for place in found.values() if len(place.parts) > 1})
    _warn_of_empty(source, labels)
    if len(labels) < 2:
        return (), Task.UNLABELLED, tuple(Clip(path, readable(place.as_posix())) for path, place in found.items())
    loose = [place.name for place in found.values() if len(place.parts) == 1]
    if loose:
        raise StoreError(
            f"{source}: {named_files(loose)} beside the class folders ({', '.join(labels[:3])}, ...); move each into "
            "one of them"
        )
    column = {label: index for index, label in enumerate(labels)}
    clips = tuple(Clip(path, readable(place.as_posix()), (column[place.parts[0]],)) for path, place in found.items())
    return tuple(readable(label) for label in labels), Task.ONE_OF_K, clips


def _warn_of_empty(source: Path, labels: list[str]) -> None:
    """Warn of folders that could be classes, and hold no sound."""
    others = sorted(
        each.name
        for each in source.iterdir()
        if not each.name.startswith(".") and each.is_dir() and each.name not in labels
    )
    if labels and others:
        none = "they are no labels" if len(others) > 1 else "it is no label"
        lost = "the recordings have no labels" if len(labels) == 1 else none
        logger.warning(
            f"{source}: has {named_files(others, 'folder')} without sound, so {lost}; put sound there, or ignore this "
            "if that is no class"
        )


def _labelled_by_table(table: Path, reading: Reading) -> tuple[Path, tuple[str, ...], Task, tuple[Clip, ...]]:
    if {"fname", "labels", "mids"} <= set(columns_of(table)):
        raise StoreError(
            f"{table}: is a table of FSD50K; pack it as fsd50k, and name the folder that holds FSD50K.ground_truth/ "
            "and FSD50K.dev_audio/"
        )
    rows = read_table(table, _Row, also=("start", "end", "exhaustive"))
    require_distinct(table, rows, lambda row: row.file)
    labels, task, columns = labels_of([separated(row.labels, reading.separator) for _, row in rows])
    warn_of_separator(table, labels)
    listed = ListedFiles(table, [row.file for _, row in rows], allow_outside=reading.allow_outside)
    clips = tuple(
        Clip(
            path=listed.locate(row.file, f"line {line}"),
            name=row.file,
            labels=of_clip,
            fold=row.fold,
            source=row.source or None,
        )
        for (line, row), of_clip in zip(rows, columns, strict=True)
    )
    _refuse_one_file_twice(table, rows, clips)
    return listed.root, labels, task, require_any_file(table, clips)


def _refuse_one_file_twice(table: Path, rows: list[tuple[int, _Row]], clips: tuple[Clip, ...]) -> None:
    """Refuse one file under two names, such as a.wav and ./a.wav: its clips could have different labels."""
    first: dict[Path, tuple[int, str]] = {}
    for (line, row), clip in zip(rows, clips, strict=True):
        earlier, name = first.setdefault(clip.path, (line, row.file))
        if name != row.file:
            raise StoreError(
                f"{table}: line {line} lists {row.file!r}, the same file as {name!r} of line {earlier}; remove one of "
                "them"
            )
