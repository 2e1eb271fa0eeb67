"""Writing what a store says of its clips, all but the clips themselves and their targets."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from bayes_panns.clips.seals import SEAL, sealed
from bayes_panns.clips.store_format import DATASETS, LONGEST_ATTRIBUTE, VERSIONS
from bayes_panns.core.choices import Holds, Task
from bayes_panns.core.strict_json import strict
from bayes_panns.core.text import readable


def write_table(
    file: h5py.File,
    *,
    names: Sequence[str],
    labels: Sequence[str],
    task: Task,
    folds: Sequence[int] | None,
    sources: Sequence[str],
    holds: Holds,
    provenance: Mapping[str, Any],
    model: str = "",
) -> None:
    """Write all that a store says of its clips beside the clips, their targets and digests; and its seal.

    Args:
        file: The open file.
        names: One a clip.
        labels: K label names.
        task: What the labels mean.
        folds: One a clip, if they have any.
        sources: The recording of each clip, empty where unknown.
        holds: What the store has of each clip.
        model: The model that made embeddings, in a few words.
        provenance: How the store was made; numbers that are not finite are written as null.
    """
    file["audio_name"] = np.array([_utf8(name) for name in names])
    file["label_names"] = np.array([_utf8(label) for label in labels], dtype=np.bytes_)
    if folds is not None:
        file["fold"] = np.array(folds, dtype=np.int32)
    if any(sources):
        file["source"] = np.array([_utf8(source) for source in sources])
    # In ASCII: the name of a file that is not UTF-8 cannot be encoded.
    made = json.dumps(strict(provenance), allow_nan=False)
    about: dict[str, Any] = {"task": str(task), "provenance": made, "format_version": VERSIONS[holds]}
    if holds == Holds.EMBEDDINGS:
        about["model"] = readable(model)
    for name, value in about.items():
        if name == "provenance" and len(made) > LONGEST_ATTRIBUTE:
            file[name] = np.bytes_(made)
        else:
            file.attrs[name] = _fixed(value) if isinstance(value, str) else value
    if holds == Holds.WAVEFORMS:
        about["sample_rate"] = int(file.attrs["sample_rate"])
    file.attrs[SEAL] = _fixed(sealed(file, about, file[DATASETS[holds]]))


def _fixed(text: str | bytes) -> np.ndarray:
    """A text of fixed width, in UTF-8: HDF5 may never return from a damaged heap of texts of varying length."""
    encoded = text.encode() if isinstance(text, str) else text
    return np.array(encoded, dtype=f"S{max(1, len(encoded))}")


def _utf8(text: str) -> bytes:
    return readable(text).encode()
