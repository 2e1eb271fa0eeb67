"""The format of a clip store: what its reader and its writer share.

A store is an HDF5 file with these datasets, one row a clip:

=============== ==================== =============================================================================
``audio_name``   ``(N,)`` text        the clips' names
``waveform``     ``(N, samples)``     int16; float32 in old packs of PANNs
``target``       ``(N, K)`` bool      the labels; numbers that are 0 or 1 are read too
``seconds``      ``(N,)`` float32     the sounds' own lengths before padding or cutting; optional
``fold``         ``(N,)`` int32       optional
``source``       ``(N,)`` text        the recording that each clip was cut from; optional
``digest``       ``(N, 32)`` uint8    SHA-256 of each clip's samples as stored, see :func:`digest`; optional
``label_names``  ``(K,)`` text        one row a label; optional
=============== ==================== =============================================================================

Its attributes are ``sample_rate`` (Hz) and, optionally, ``task``, ``provenance`` (a JSON object; a dataset where it is
longer than 60,000 bytes), ``format_version`` and ``sha256`` (:mod:`~bayes_panns.clips.seals`). The first three datasets
and ``sample_rate`` are PANNs' own layout, as ``utils/dataset.py`` writes it (Kong et al., 2020, arXiv:1912.10211).

A store of embeddings has ``embedding``, float32 ``(N, D)``, instead of ``waveform``, and instead of ``sample_rate`` the
attribute ``model``: the name of the model that made them, empty where it is unknown. It has no ``seconds``.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from bayes_panns.audio.length import fit_length
from bayes_panns.core.choices import Holds, Task
from bayes_panns.core.errors import StoreError

FORMAT_VERSION = 2
"""The newest version that is read."""

VERSIONS = {Holds.WAVEFORMS: 1, Holds.EMBEDDINGS: 2}
"""The version that is written: the oldest that has what the store holds."""

DATASETS = {Holds.WAVEFORMS: "waveform", Holds.EMBEDDINGS: "embedding"}
"""The dataset that has the clips themselves."""

FULL_SCALE = 32767
"""The int16 value of a sample of 1.0, as in PANNs."""

WIDEST = 2**20
"""The most numbers that an embedding may have."""

LONGEST = 2**28
"""The most samples that a clip may have: 2.3 hours at 32 kHz. More is a damaged file, or a mistaken length."""

HIGHEST_RATE = 10_000_000
"""The highest sample rate, in Hz."""

LONGEST_ATTRIBUTE = 60_000
"""The most bytes of an attribute, which HDF5 has less than 64 KB for."""

DIGEST_BYTES = 32

_ROWS = 4096
"""Rows of targets that are read at once."""


def stored(sound: np.ndarray, samples: int) -> np.ndarray:
    """Float samples as a store has them: int16, shape ``(samples,)``, contiguous.

    Args:
        sound: Samples in [-1, 1], shape ``(any,)``; values beyond are clipped.
        samples: The length that they are brought to by :func:`~bayes_panns.audio.length.fit_length`.

    Raises:
        ValueError: It is no mono sound, empty, or holds samples that are not finite; the text goes on from a name.
    """
    if sound.ndim != 1 or sound.dtype.kind != "f":
        raise ValueError(f"is {sound.dtype} of shape {sound.shape}, not mono float samples")
    if len(sound) == 0 or not np.isfinite(sound).all():
        raise ValueError("is empty or holds samples that are not finite numbers")
    return np.rint(np.clip(fit_length(sound, samples), -1, 1) * FULL_SCALE).astype(np.int16)


def digest(samples: np.ndarray) -> bytes:
    """What tells clips apart by their content alone: the SHA-256 of a clip's samples or its embedding, 32 bytes.

    Args:
        samples: One clip as it is stored, shape ``(samples,)``, contiguous.
    """
    hashed = hashlib.sha256(str(samples.dtype).encode())
    hashed.update(samples.data)
    return hashed.digest()


def digests(clips: np.ndarray) -> np.ndarray:
    """The :func:`digest` of each of some clips, uint8 ``(n, 32)``.

    Args:
        clips: As they are stored, shape ``(n, width)``, contiguous.
    """
    start, width = hashlib.sha256(str(clips.dtype).encode()), clips.shape[1] * clips.dtype.itemsize
    content, found = clips.data.cast("B"), bytearray()
    for place in range(0, len(content), width):
        hashed = start.copy()
        hashed.update(content[place : place + width])
        found += hashed.digest()
    return np.frombuffer(found, dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def check_labels(path: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels, if no two are equal.

    Raises:
        StoreError: A label is there more than once.
    """
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise StoreError(f"{path}: the label {repeated[0]!r} is there more than once; label names must differ")
    return tuple(labels)


def check_new_labels(path: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels of a store that is to be written, if each has a name and no two look the same.

    Raises:
        StoreError: A label is empty; or two are equal, or differ only in spaces or in how accents are encoded.
    """
    shown: dict[str, str] = {}
    for index, label in enumerate(check_labels(path, labels)):
        plain = " ".join(unicodedata.normalize("NFC", label).split())
        if not plain:
            raise StoreError(f"{path}: label {index}, counted from 0, has no name ({label!r}); give it one")
        if plain in shown:
            raise StoreError(
                f"{path}: the labels {shown[plain]!a} and {label!a} look the same; they differ only in spaces or in "
                "how accents are encoded: write both the same way"
            )
        shown[plain] = label
    return tuple(labels)


def check_task(path: Path, task: str, labels: Sequence[str]) -> Task:
    """The task, if it is known and the labels fit it.

    Raises:
        StoreError: The task is unknown, or there are labels in an unlabelled store or none in another.
    """
    if task not in Task.words():
        raise StoreError(f"{path}: has the unknown task {task!r}; the tasks are {', '.join(Task.words())}")
    if (task == Task.UNLABELLED) != (len(labels) == 0):
        raise StoreError(f"{path}: has {len(labels)} labels, which does not fit the task {str(task)!r}")
    return Task(task)


def check_size(path: Path, sample_rate: int, samples: int) -> None:
    """Check the rate and the length of the clips.

    Raises:
        StoreError: One of them is below 1 or absurdly large.
    """
    if not 0 < sample_rate <= HIGHEST_RATE:
        raise StoreError(f"{path}: has sample rate {sample_rate} Hz; a rate from 1 to {HIGHEST_RATE} is possible")
    if not 0 < samples <= LONGEST:
        raise StoreError(f"{path}: has clips of {samples} samples; from 1 to {LONGEST} are possible")


def check_width(path: Path, width: int) -> None:
    """Check how many numbers an embedding has.

    Raises:
        StoreError: None, or absurdly many.
    """
    if not 0 < width <= WIDEST:
        raise StoreError(f"{path}: has embeddings of {width} numbers; from 1 to {WIDEST} are possible")


def check_indices(indices: Sequence[int] | np.ndarray | torch.Tensor, count: int) -> np.ndarray:
    """The indices as int64, shape ``(n,)``.

    Raises:
        IndexError: They are not whole numbers in ``[0, count)``.
    """
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise IndexError(f"clips are chosen by a list of whole numbers, not by {chosen.dtype} of shape {chosen.shape}")
    chosen = chosen.astype(np.int64)
    if ((chosen < 0) | (chosen >= count)).any():
        raise IndexError(f"there is no clip {chosen[(chosen < 0) | (chosen >= count)][0]}; there are {count}")
    return chosen


def in_words(holds: Holds, sample_rate: int, width: int, model: str) -> str:
    """What a store holds, or a posterior takes, in words.

    Example:
        >>> in_words(Holds.EMBEDDINGS, 0, 1024, "BirdNET"), in_words(Holds.WAVEFORMS, 32000, 160000, "")
        ('embeddings of 1024 numbers (BirdNET)', 'sound at 32000 Hz')
    """
    if holds == Holds.WAVEFORMS:
        return f"sound at {sample_rate} Hz" if sample_rate else "sound at an unknown rate"
    return f"embeddings of {width} numbers" + (f" ({model})" if model else "")


def one_each(target: h5py.Dataset) -> bool:
    """Whether every row of a store's targets has exactly one label; the first that has not ends the search."""
    return all(((target[start : start + _ROWS] != 0).sum(axis=1) == 1).all() for start in range(0, len(target), _ROWS))


def whole_number(attribute: Any) -> int:
    """An attribute that holds a whole number.

    Raises:
        ValueError: It is another number.
    """
    if int(attribute) != attribute:
        raise ValueError(f"{attribute} is not a whole number")
    return int(attribute)


def text_of(attribute: Any) -> str:
    """An attribute that holds text, of fixed or varying length.

    Raises:
        TypeError: It is no text.
    """
    if isinstance(attribute, bytes):
        return attribute.decode("utf-8")
    if not isinstance(attribute, str):
        raise TypeError(f"an attribute is {type(attribute).__name__}, not text")
    return attribute


def one_line(message: object) -> str:
    """A message without line breaks."""
    return " ".join(str(message).split())
