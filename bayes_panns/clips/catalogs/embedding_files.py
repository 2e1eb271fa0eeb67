"""Files of embeddings, to columns: NumPy archives, Parquet and CSV. Nothing in them is run or unpickled."""

import csv
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bayes_panns.clips.store_format import one_line
from bayes_panns.core.archives import FREE, RATIO, check_npz
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError

logger = logging.getLogger(__name__)

KNOWN = {
    "embedding": ("embedding", "embeddings", "X"),
    "label": ("label", "labels"),
    "label_names": ("label_names",),
    "name": ("name", "names"),
    "fold": ("fold", "folds"),
    "source": ("recording", "recordings", "source", "sources"),
    "file": ("file", "files", "file_path"),
    "start": ("start", "starts"),
    "end": ("end", "ends"),
    "model": ("model",),
    "task": ("task",),
}
"""What a file may hold, and the names that it may have there."""

_WHOLE = ("embedding", "label_names", "model", "task")
"""What is not one value a clip."""


@dataclass(frozen=True)
class Columns:
    """What a file holds.

    Attributes:
        path: The file.
        embedding: Numbers, ``(N, width)``, not yet checked.
        of_clips: Other columns, of a value a clip: ``label``, ``name``, ``fold``, ``source``, ``file``, ``start`` and
            ``end``, those that there are. Labels may be a matrix ``(N, K)``.
        label_names: K names, for labels that are numbers.
        model: The model that made the embeddings, as the file says; empty if it does not.
        task: What labels in a matrix mean, if the file says.
        options: What a store's provenance should say of the file.
    """

    path: Path
    embedding: np.ndarray
    of_clips: Mapping[str, Any] = field(default_factory=dict)
    label_names: tuple[str, ...] | None = None
    model: str = ""
    task: Task | None = None
    options: dict[str, Any] = field(default_factory=dict)


def read_npz(path: Path) -> Columns:
    """A NumPy archive, as ``numpy.savez`` writes it: an array for each column.

    Raises:
        StoreError: It is damaged, holds Python objects, or lacks the embeddings.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = _chosen(path, arrays.files)
            check_npz(path, set(names.values()))
            found = {name: arrays[name] for name in names.values()}
    except StoreError:
        raise
    except Exception as error:
        # A damaged file makes zipfile and NumPy raise a dozen kinds of errors.
        raise StoreError(f"{path}: cannot be read as .npz: {one_line(error)}") from error
    table = {key: found[name] for key, name in names.items()}
    if "embedding" not in table:
        raise StoreError(f"{path}: lacks the array 'embeddings'; it holds {', '.join(arrays.files) or 'nothing'}")
    for key, value in table.items():
        if key not in ("embedding", "label") and value.ndim != (0 if key in ("model", "task") else 1):
            raise StoreError(f"{path}: {names[key]!r} has {value.ndim} dimensions; give one value a clip")
        if value.dtype.kind == "S":
            table[key] = np.char.decode(value, "utf-8")
    return Columns(
        path,
        table["embedding"],
        {key: value for key, value in table.items() if key not in _WHOLE},
        tuple(map(str, table["label_names"])) if "label_names" in table else None,
        str(table.get("model", "")),
        _task(path, str(table["task"])) if "task" in table else None,
    )


def read_parquet(path: Path) -> Columns:
    """A Parquet file: a column ``embedding`` of lists, or numbered columns such as ``e0`` to ``e511``.

    Raises:
        StoreError: pyarrow is not installed, the file is damaged, or it lacks the embeddings.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise StoreError(f"{path}: Parquet needs pyarrow; run pip install 'bayes-panns[parquet]'") from error
    try:
        schema = parquet.read_schema(path)
        numeric = [
            each.name for each in schema if arrow.types.is_floating(each.type) or arrow.types.is_integer(each.type)
        ]
        names = _chosen(path, schema.names)
        _require_plausible(path, parquet.read_metadata(path), [*names.values(), *numeric])
        vectors = (
            [] if "embedding" in names else _numbered(path, [name for name in numeric if name not in names.values()])
        )
        table = parquet.read_table(path, columns=[*names.values(), *vectors])
        if vectors:
            embedding = np.empty((len(table), len(vectors)), dtype=np.float32)
            for index, name in enumerate(vectors):
                embedding[:, index] = table[name].to_numpy()
        else:
            embedding = _lists(path, table[names["embedding"]].combine_chunks())
        rest = {key: table[name].to_pylist() for key, name in names.items() if key not in _WHOLE}
        model = table[names["model"]].to_pylist() if "model" in names else []
    except StoreError:
        raise
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as Parquet: {one_line(error)}") from error
    return Columns(path, embedding, _typed(rest), model=_one(path, model))


def read_csv(path: Path) -> Columns:
    """A CSV file: numbered columns such as ``e0`` to ``e511``, or a column ``embedding`` of numbers with commas.

    Raises:
        StoreError: It is damaged, or lacks the embeddings.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            names = _chosen(path, header)
            others = [name for name in header if name not in names.values()]
            vectors = [] if "embedding" in names else _numbered(path, others)
            places = [header.index(name) for name in vectors]
            kept = {key: header.index(name) for key, name in names.items()}
            rows, rest = [], {key: list[str]() for key in names if key != "embedding"}
            for values in reader:
                if len(values) != len(header):
                    raise StoreError(f"{path}: line {reader.line_num} has {len(values)} fields, not {len(header)}")
                texts = [values[place] for place in places] if vectors else values[kept["embedding"]].split(",")
                rows.append(np.array(texts, dtype=np.float32))
                for key, column in rest.items():
                    column.append(values[kept[key]])
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as CSV: {one_line(error)}") from error
    of_clips = {key: column for key, column in rest.items() if key not in _WHOLE}
    return Columns(path, _stacked(path, rows), of_clips, model=_one(path, rest.get("model", [])))


def _chosen(path: Path, there: Iterable[str]) -> dict[str, str]:
    """Which column of a file is which of :data:`KNOWN`; the others are named in the log."""
    there, found = list(there), {}
    for key, names in KNOWN.items():
        both = [name for name in names if name in there]
        if len(both) > 1:
            raise StoreError(f"{path}: has both {both[0]!r} and {both[1]!r}; keep one of them")
        if both:
            found[key] = both[0]
    ignored = [name for name in there if name not in found.values() and not re.search(r"\d$", name)]
    if ignored:
        logger.info(f"{path}: {', '.join(map(repr, ignored[:10]))} {'is' if len(ignored) == 1 else 'are'} not read")
    return found


def _numbered(path: Path, names: Sequence[str]) -> list[str]:
    """The columns whose names are one text and a number, from 0 or 1 without a gap, in the order of the numbers."""
    groups: dict[str, dict[int, str]] = {}
    for name in names:
        if match := re.fullmatch(r"(.*?)(\d+)", name):
            groups.setdefault(match[1], {})[int(match[2])] = name
    several = {prefix: numbers for prefix, numbers in groups.items() if len(numbers) > 1}
    if len(several) != 1:
        what = f"has several kinds of numbered columns ({', '.join(several)})" if several else "lacks the embeddings"
        raise StoreError(f"{path}: {what}; give a column 'embedding' of lists, or numbered columns such as e0, e1, ...")
    ((prefix, numbers),) = several.items()
    first = min(numbers)
    missing = next((n for n in range(first, first + len(numbers)) if n not in numbers), None)
    if first > 1 or missing is not None:
        raise StoreError(f"{path}: lacks the column {prefix}{0 if first > 1 else missing}; number them without a gap")
    return [numbers[number] for number in sorted(numbers)]


def _require_plausible(path: Path, metadata: Any, names: Sequence[str]) -> None:
    """Check, before anything is read, that the columns of a Parquet file do not unpack to far more than the file.

    Raises:
        StoreError: They do.
    """
    declared = sum(
        metadata.row_group(group).column(column).total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
        if metadata.row_group(group).column(column).path_in_schema.split(".")[0] in names
    )
    size = path.stat().st_size
    if max(declared, metadata.num_rows) > max(FREE, RATIO * size):
        raise StoreError(f"{path}: claims {metadata.num_rows} rows of {declared} bytes, and has {size}; it is damaged")


def _lists(path: Path, column: Any) -> np.ndarray:
    """A column of lists as a matrix."""
    import pyarrow as arrow

    kind = column.type
    if not (arrow.types.is_list(kind) or arrow.types.is_large_list(kind) or arrow.types.is_fixed_size_list(kind)):
        raise StoreError(f"{path}: its embeddings are {kind}, not lists of numbers")
    if column.null_count:
        raise StoreError(f"{path}: {column.null_count} of its embeddings are missing; leave these rows out")
    values = column.flatten()
    if values.null_count:
        raise StoreError(f"{path}: an embedding lacks {values.null_count} of its numbers; leave its row out")
    widths = set(column.value_lengths().to_pylist()) if len(column) else {0}
    if len(widths) > 1:
        raise StoreError(f"{path}: has embeddings of {min(widths)} and of {max(widths)} numbers; give all one width")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), -1 if len(column) else 0)


def _stacked(path: Path, rows: Sequence[np.ndarray]) -> np.ndarray:
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise StoreError(f"{path}: has embeddings of {min(widths)} and of {max(widths)} numbers; give all one width")
    return np.stack(rows) if rows else np.empty((0, 1), dtype=np.float32)


def _typed(columns: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Whole numbers as an array, since labels may be; anything else as it is."""
    whole = {key: bool(values) and all(type(each) is int for each in values) for key, values in columns.items()}
    return {key: np.array(values) if whole[key] else values for key, values in columns.items()}


def _one(path: Path, values: Sequence[Any]) -> str:
    """The value that all rows have."""
    found = {"" if value is None else str(value) for value in values}
    if len(found) > 1:
        raise StoreError(f"{path}: is of several models ({', '.join(sorted(found)[:3])}); pack those of one at a time")
    return found.pop() if found else ""


def _task(path: Path, word: str) -> Task:
    if word not in Task.words():
        raise StoreError(f"{path}: has the unknown task {word!r}; the tasks are {', '.join(Task.words())}")
    return Task(word)
