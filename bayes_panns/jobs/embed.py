"""Embeddings of files or stores by a posterior, in a file that ``pack embeddings`` reads."""

import csv
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bayes_panns.audio.recording import Note
from bayes_panns.bayes import mean_weights
from bayes_panns.clips import ClipSet
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import OutputError, PredictionError
from bayes_panns.core.files import require_parent, whole_file
from bayes_panns.core.text import cell, readable
from bayes_panns.posterior import Posterior, require_sound
from bayes_panns.predictions import Embedded, Piece, Skipped, Window, embed_clips, embed_each, none_read
from bayes_panns.svi.embeddings import fingerprint

_PLURAL = {key: f"{key}s" for key in ("file", "start", "end", "name", "label", "fold", "recording")}
"""What the columns are called in an ``.npz`` file."""


def embed(
    posterior: Posterior,
    files: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    window: float | None = None,
    hop: float | None = None,
    channel: str = "mix",
) -> Embedded:
    """Write the embeddings of sound files, a row a window; or those of the clips of stores.

    The file has ``file``, ``start`` and ``end`` (seconds), the embedding in float32, and the model: the network's name
    and a digest of its weights. From stores the clips' names, labels, folds and recordings come along.

    Args:
        posterior: What embeds, under the means of its weights.
        files: Sound files, or clip stores; or one. ``-`` is standard input.
        output: An ``.npz``, ``.parquet`` or ``.csv`` file; written whole or not at all.
        window: Seconds; by default the length of the clips that the posterior was fitted to. Not for stores.
        hop: Seconds from one window's start to the next; by default the window. Not for stores.
        channel: ``mix``, ``left``, ``right`` or the number of a channel from 1. Not for stores.

    Returns:
        What was written. The embeddings of files are not in memory, but in an unnamed file beside ``output``, which is
        gone when they are no longer used.

    Raises:
        OutputError: ``output`` has another ending or cannot be written; or pyarrow, for Parquet, is not installed.
        AudioError: No file can be read.
        PredictionError: The posterior takes embeddings; files and stores are mixed; or a window does not fit.
        StoreError: A store does not fit the posterior.
    """
    output, paths = Path(output), [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
    require_sound(posterior)
    write = _writer(output)
    require_parent(output)
    stores = [path for path in paths if path.is_file() and h5py.is_hdf5(path)]
    if stores and len(stores) < len(paths):
        other = next(path for path in paths if path not in stores)
        raise PredictionError(f"{stores[0]} is a store and {other} is none; embed them one after the other")
    if stores and (window is not None or hop is not None):
        raise PredictionError(f"{stores[0]}: its clips are embedded whole; leave window and hop out")
    if stores and channel != "mix":
        raise PredictionError(f"{stores[0]}: its clips have one channel; leave channel out")
    if stores:
        clips = ClipSet(stores)
        embedded, more = embed_clips(posterior, clips), _of_store(clips)
    else:
        pieces = embed_each(posterior, paths, window=window, hop=hop, channel=channel)
        embedded, more = _collected(pieces, output.parent), {}
    windows = {
        # Neither NumPy's text nor Parquet's has a place for bytes that are not valid UTF-8.
        "file": [readable(each.file) for each in embedded.windows],
        "start": [each.start for each in embedded.windows],
        "end": [each.end for each in embedded.windows],
    }
    with whole_file(output) as part:
        write(part, embedded.embedding, windows | more, model_name(posterior))
    return embedded


def _collected(pieces: Iterable[Piece[NDArray[np.float32]] | Skipped], folder: Path) -> Embedded:
    """All pieces, with the embeddings in an unnamed file in ``folder``: they may be more than fit into memory."""
    windows, notes, skipped, width = list[Window](), list[tuple[str, Note]](), list[Skipped](), 0
    with tempfile.TemporaryFile(dir=folder) as file:
        for piece in pieces:
            if isinstance(piece, Skipped):
                skipped.append(piece)
                continue
            windows += piece.windows
            notes += [(piece.file, note) for note in piece.notes]
            width = piece.result.shape[1]
            file.write(np.ascontiguousarray(piece.result).data)
        if not windows:
            raise none_read(skipped, "embed")
        file.flush()
        embedding = np.memmap(file, dtype=np.float32, mode="r", shape=(len(windows), width))
    return Embedded(embedding, tuple(windows), tuple(skipped), tuple(notes))


def model_name(posterior: Posterior) -> str:
    """What embeddings of a posterior are called: its network, and 8 digits of a digest of all before its last layer."""
    means = {
        site: value for site, value in mean_weights(posterior.guide).items() if site not in posterior.model.head_sites
    }
    digest = hashlib.sha256(fingerprint(posterior.model).encode())
    for site, value in sorted(means.items()):
        digest.update(site.encode())
        digest.update(value.cpu().contiguous().numpy().data)
    return f"{posterior.net} {digest.hexdigest()[:8]}"


def _of_store(clips: ClipSet) -> dict[str, Any]:
    """What a store says of its clips, by column."""
    columns: dict[str, Any] = {"name": clips.names}
    if clips.labels:
        columns |= {"label": clips.target(), "label_names": clips.labels, "task": str(clips.task)}
    if clips.folds is not None:
        columns["fold"] = clips.folds
    if clips.sources is not None:
        columns["recording"] = clips.sources
    return columns


def _writer(output: Path) -> Callable[[Path, np.ndarray, Mapping[str, Any], str], None]:
    writers = {".npz": _write_npz, ".parquet": _write_parquet, ".csv": _write_csv}
    if output.suffix.lower() not in writers:
        raise OutputError(f"{output}: name a file that ends in {', '.join(writers)}")
    if output.suffix.lower() == ".parquet":
        _pyarrow(output)
    return writers[output.suffix.lower()]


def _write_npz(path: Path, embedding: np.ndarray, columns: Mapping[str, Any], model: str) -> None:
    # In the plural: NumPy cannot save an array that is called file.
    arrays: dict[str, Any] = {_PLURAL.get(key, key): np.asarray(value) for key, value in columns.items()}
    with path.open("wb") as file:
        np.savez(file, embeddings=embedding, model=model, **arrays)


def _write_parquet(path: Path, embedding: np.ndarray, columns: Mapping[str, Any], model: str) -> None:
    arrow = _pyarrow(path)
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(embedding.ravel()), embedding.shape[1])
    rest = {key: arrow.array(list(value)) for key, value in _as_text(path, columns).items()}
    table = arrow.table({**rest, "model": [model] * len(embedding), "embedding": vectors})
    # Arrow opens no path that is not valid UTF-8.
    with path.open("wb") as file:
        arrow.parquet.write_table(table, file)


def _write_csv(path: Path, embedding: np.ndarray, columns: Mapping[str, Any], model: str) -> None:
    text = _as_text(path, columns)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*text, "model", *(f"e{index}" for index in range(embedding.shape[1]))])
        for *values, row in zip(*text.values(), embedding, strict=True):
            cells = [cell(value) if isinstance(value, str) else value for value in values]
            # The shortest text of a float32 that reads as the same number.
            writer.writerow([*cells, model, *map(str, row)])


def _as_text(path: Path, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a table: the labels of a clip as one text, with ``;`` between them."""
    table = {key: value for key, value in columns.items() if key not in ("label_names", "task")}
    if "label" in table:
        names = columns["label_names"]
        if columns["task"] != Task.UNLABELLED and any(";" in name for name in names):
            name = next(name for name in names if ";" in name)
            raise OutputError(f"{path.name}: the label {name!r} has a ';', which separates labels; write .npz")
        table["label"] = [";".join(names[k] for k in np.flatnonzero(row)) for row in columns["label"]]
    return table


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise OutputError(f"{path}: Parquet needs pyarrow; run pip install 'bayes-panns[parquet]'") from error
    return pyarrow
