"""Databases of perch-hoplite (https://github.com/google-research/perch-hoplite), as versions 1.0.0 to 1.0.2 write them.

Perch's own tools and BirdNET-Analyzer write them. A database is a folder with ``hoplite.sqlite``, which has the tables
``recordings``, ``windows`` and ``annotations``, and ``usearch.index``, which has the embeddings by the windows' ids, in
float16. Version 0.1 had other tables and is refused. The file is opened for reading only.
"""

import json
import logging
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np

from bayes_panns.clips.catalogs.embedding_files import Columns
from bayes_panns.clips.store_format import one_line
from bayes_panns.core.errors import StoreError

logger = logging.getLogger(__name__)

DATABASE, INDEX = "hoplite.sqlite", "usearch.index"

_LONGEST = 1 << 24
"""The most bytes of a value."""

_NEGATIVE, _POSITIVE = 0, 1
"""Types of annotations; 2 is uncertain, and says nothing here."""

_TABLES = {
    "deployments": {"id", "name", "project"},
    "recordings": {"id", "filename", "deployment_id"},
    "windows": {"id", "recording_id", "offsets"},
    "annotations": {"recording_id", "offsets", "label", "label_type"},
    "hoplite_metadata": {"key", "value"},
}
"""The tables that are read, and their columns."""


def read_hoplite(path: Path) -> Columns:
    """The windows of a database, with their annotations as labels and their recordings.

    An annotation is of every window that it overlaps, as in perch-hoplite. Where there are annotations, windows without
    a positive or a negative one are left out: nobody has said what is in them. Without any, all windows are read.

    Args:
        path: ``hoplite.sqlite``.

    Raises:
        StoreError: It is damaged, of another version, or empty; or usearch is not installed.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            # It may be a stranger's: its schema calls no functions, and no value is larger than real ones.
            database.execute("PRAGMA trusted_schema = OFF")
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
            _require_version(path, database)
            (count,) = database.execute("SELECT COUNT(*) FROM windows").fetchone()
            windows = database.execute(
                "SELECT windows.id, recordings.id, windows.offsets, recordings.filename, deployments.project, "
                "deployments.name FROM windows JOIN recordings ON windows.recording_id = recordings.id "
                "LEFT JOIN deployments ON recordings.deployment_id = deployments.id ORDER BY windows.id"
            ).fetchmany(count + 1)
            if len(windows) > count:
                raise ValueError("two recordings or deployments have the same id")
            annotations = database.execute(
                "SELECT recording_id, offsets, label, label_type FROM annotations WHERE label_type IN (?, ?)",
                (_NEGATIVE, _POSITIVE),
            ).fetchall()
            metadata = dict(database.execute("SELECT key, value FROM hoplite_metadata").fetchall())
        spans = [_span(offsets) for _, _, offsets, *_ in windows]
        labels = _labels(windows, spans, annotations)
        config = json.loads(metadata.get("model_config", "{}"))
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise StoreError(f"{path}: is damaged, or no database of perch-hoplite ({one_line(error)})") from error
    found = _embeddings(path.parent / INDEX, np.array([window for window, *_ in windows], dtype=np.int64))
    known = [index for index, vector in enumerate(found) if vector is not None and (not annotations or index in labels)]
    if not known:
        raise StoreError(f"{path}: none of its {len(windows)} windows has an embedding and an annotation")
    if len(known) < len(windows):
        logger.info(
            f"{path}: {len(windows) - len(known)} of {len(windows)} windows are left out: nobody annotated them"
        )
    files = _files([windows[index] for index in known])
    of_clips: dict[str, Any] = {
        "file": files,
        "start": [spans[index][0] for index in known],
        "end": [spans[index][1] for index in known],
    }
    if annotations:
        of_clips["label"] = [sorted(labels[index]) for index in known]
    name = str(config.get("model_key", "")) if isinstance(config, dict) else ""
    return Columns(path, np.stack([cast(np.ndarray, found[index]) for index in known]), of_clips, model=name)


def _require_version(path: Path, database: sqlite3.Connection) -> None:
    rows = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
    tables = {name for name, sql in rows if "VIRTUAL" not in str(sql).upper().split()[:2]}
    if "hoplite_embeddings" in tables:
        raise StoreError(
            f"{path}: is of perch-hoplite 0.1; convert it with perch-hoplite's notebook 99_migrate_db, or write .npz"
        )
    for table, wanted in _TABLES.items():
        if table not in tables and database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            raise StoreError(f"{path}: {table} is a view, not a table, so it is no database of perch-hoplite")
        columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        if not wanted <= columns:
            missing = f"{table}.{min(wanted - columns)}" if columns else table
            raise StoreError(f"{path}: lacks {missing}, so it is no database of perch-hoplite 1.0; write .npz instead")


def _span(offsets: bytes) -> tuple[float, float]:
    """Start and end in seconds: little-endian float64."""
    start, end = np.frombuffer(offsets, dtype="<f8")[:2].tolist()
    return start, end


def _files(windows: list[Any]) -> list[str]:
    """The file of each window; with its deployment before it, where another recording has a file of that name."""
    recordings = defaultdict(set)
    for _, recording, _, file, *_ in windows:
        recordings[file].add(recording)
    return [
        file if len(recordings[file]) == 1 else f"{project or ''}/{name or ''}/{file}"
        for _, _, _, file, project, name in windows
    ]


def _labels(windows: list[Any], spans: list[tuple[float, float]], annotations: list[Any]) -> dict[int, set[str]]:
    """The positive labels of every window that has a positive or a negative annotation, by the window's place."""
    of_recording = defaultdict(list)
    for recording, offsets, label, kind in annotations:
        of_recording[recording].append((*_span(offsets), label, kind))
    labels: dict[int, set[str]] = {}
    for index, (_, recording, *_) in enumerate(windows):
        for start, end, label, kind in of_recording[recording]:
            if start < spans[index][1] and end > spans[index][0]:
                labels.setdefault(index, set()).update([label] if kind == _POSITIVE else [])
    return labels


def _embeddings(path: Path, windows: np.ndarray) -> list[np.ndarray | None]:
    """The embedding of each window, float32; None where it has none."""
    if not path.is_file():
        raise StoreError(f"{path}: is missing; it holds the database's embeddings")
    try:
        from usearch.index import Index
    except ImportError as error:
        raise StoreError(f"{path}: needs usearch to be read; run pip install 'bayes-panns[hoplite]'") from error
    try:
        index = Index.restore(str(path), view=True)
        if index is None:
            raise RuntimeError("it is no index")
        found = index.get(windows) if len(windows) else []
        return [None if each is None else np.asarray(each, dtype=np.float32) for each in found]
    except (RuntimeError, ValueError, OSError) as error:
        raise StoreError(f"{path}: cannot be read ({one_line(error)}); write the database again") from error
