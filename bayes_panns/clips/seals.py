"""Digests of what a store says of its clips, by which damage to any of it is noticed.

A store's attribute ``sha256`` is a JSON object: the digest of each dataset but that of the clips themselves, by its
name, and under ``attributes`` that of everything else. A dataset is checked when it is read. The clips themselves have
a digest each, in the dataset ``digest``. Stores of earlier versions and of other programs have no such attribute.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bayes_panns.core.digests import digest_of
from bayes_panns.core.errors import StoreError

SEAL, ATTRIBUTES = "sha256", "attributes"

SEALED = ("audio_name", "target", "label_names", "fold", "source", "seconds", "digest")
"""The datasets that have a digest in the seal, those of them that there are."""

_BLOCK = 1 << 22
"""Bytes that are read at once."""


def of_column(name: str, dataset: h5py.Dataset) -> str:
    """The SHA-256 of the name, type, shape and values of a dataset, which are read in blocks."""
    hashed = hashlib.sha256(f"{name} {dataset.dtype.str} {dataset.shape}".encode())
    rows = max(1, _BLOCK // max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize))
    for start in range(0, len(dataset), rows):
        hashed.update(np.ascontiguousarray(dataset[start : start + rows]).tobytes())
    return hashed.hexdigest()


def checked(path: Path, dataset: h5py.Dataset, seal: Mapping[str, str] | None) -> h5py.Dataset:
    """The dataset, if it has the digest that the seal says; or if there is no seal.

    Raises:
        StoreError: It has another.
    """
    name = dataset.name[1:]
    # Texts of varying length are never sealed, and not safe to read here.
    if seal is not None and (dataset.dtype.kind == "O" or of_column(name, dataset) != seal.get(name)):
        raise StoreError(f"{path}: is damaged ({name!r} is not what was packed); copy or pack it again")
    return dataset


def of_attributes(attributes: dict[str, Any], clips: h5py.Dataset) -> str:
    """The SHA-256 of a store's attributes, and of the type and shape of its clips.

    Args:
        attributes: ``task``, ``provenance``, ``model`` and ``sample_rate``, those that there are, and
            ``format_version``.
        clips: The dataset of the clips.
    """
    return digest_of({**attributes, "clips": [str(clips.dtype), *clips.shape]})


def sealed(file: h5py.File, attributes: dict[str, Any], clips: h5py.Dataset) -> bytes:
    """The value of the attribute ``sha256`` of a store that is written as far as that."""
    columns = {name: of_column(name, file[name]) for name in SEALED if name in file}
    return json.dumps({**columns, ATTRIBUTES: of_attributes(attributes, clips)}).encode()


def read_seal(text: str) -> dict[str, str]:
    """The digests in the attribute ``sha256``.

    Raises:
        ValueError: It is damaged.
    """
    seal = json.loads(text)
    if not isinstance(seal, dict) or not all(isinstance(each, str) for each in seal.values()) or ATTRIBUTES not in seal:
        raise ValueError(f"its attribute {SEAL!r} is no table of digests")
    return seal
