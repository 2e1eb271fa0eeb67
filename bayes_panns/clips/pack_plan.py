"""What a pack is to do: which clips go into which store, and what tells it from another pack."""

import hashlib
import platform
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import soundfile
import torch

from bayes_panns import __version__
from bayes_panns.clips.catalogs import Catalog, Clip
from bayes_panns.core.digests import digest_of
from bayes_panns.core.errors import StoreError


def stores(output: Path, clips: Sequence[Clip], per_store: int | None) -> list[tuple[Path, range]]:
    """The stores that clips go into, each with the indices of its clips.

    Clips of one recording stay together where they follow each other, so a store may have more clips than asked for.

    Args:
        output: The store; of several, ``NAME.h5``, they are ``NAME-00.h5``, ``NAME-01.h5`` and on.
        clips: The clips.
        per_store: About how many clips a store has; None for one store of that name.

    Raises:
        StoreError: ``per_store`` is below 1.

    Example:
        >>> clips = [Clip(Path(name), name) for name in "abcde"]
        >>> [(path.name, list(span)) for path, span in stores(Path("a.h5"), clips, 2)]
        [('a-00.h5', [0, 1]), ('a-01.h5', [2, 3]), ('a-02.h5', [4])]
    """
    if per_store is None:
        return [(output, range(len(clips)))]
    if per_store < 1:
        raise StoreError(f"{output}: stores of {per_store} clips are not possible; ask for 1 or more")
    ends = [0]
    while ends[-1] < len(clips):
        end = min(ends[-1] + per_store, len(clips))
        while end < len(clips) and clips[end].source is not None and clips[end].source == clips[end - 1].source:
            end += 1
        ends.append(end)
    digits = max(2, len(str(len(ends) - 2)))
    return [
        (output.with_name(f"{output.stem}-{number:0{digits}}{output.suffix}"), range(start, end))
        for number, (start, end) in enumerate(pairwise(ends))
    ]


def of_other_packs(output: Path, planned: Sequence[tuple[Path, range]]) -> list[Path]:
    """Files that are named like stores of this pack, but are not: an earlier one may have had more."""
    names = {path.name for path, _ in planned}
    beside = output.parent.glob(f"{_literal(output.stem)}-*{_literal(output.suffix)}")
    numbered = (path for path in beside if path.stem.removeprefix(f"{output.stem}-").isdecimal())
    return sorted(path for path in numbered if path.name not in names)


def inputs(catalog: Catalog, clips: Sequence[Clip], **options: Any) -> dict[str, str]:
    """What a pack is of, each in a few words with a digest or a value: the same for two packs if all are the same.

    Args:
        catalog: The catalog.
        clips: Those of its clips that are packed.
        options: What the caller chose that its store depends on, as JSON values.
    """
    hashed, root = hashlib.sha256(), str(catalog.root)
    for clip in clips:
        # A data set may lie elsewhere the next time.
        place = str(clip.path).removeprefix(root)
        about = (place, clip.name, clip.labels, clip.fold, clip.source, clip.start, clip.seconds)
        hashed.update(repr(about).encode("utf-8", "surrogateescape"))
    about_catalog = {"name": catalog.name, "options": catalog.options, "labels": catalog.labels, "task": catalog.task}
    libraries = (h5py.version.hdf5_version, h5py.__version__, soundfile.__libsndfile_version__, torch.__version__)
    return {
        "the catalog": digest_of(about_catalog),
        **{name: digest_of({"value": value}) for name, value in options.items()},
        "the clips": hashed.hexdigest(),
        "the version of bayes-panns": __version__,
        "the versions of HDF5, h5py, libsndfile, torch, NumPy": ", ".join([*libraries, np.__version__]),
        "the kind of machine": platform.machine(),
    }


def _literal(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in name)
