"""A catalog's recordings to a clip store."""

import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch

from bayes_panns import __version__
from bayes_panns.audio.files import read
from bayes_panns.clips.catalogs import Catalog, Clip
from bayes_panns.clips.label_counts import label_remarks, named
from bayes_panns.clips.writer import StoreWriter
from bayes_panns.core import progress
from bayes_panns.core.errors import AudioError, StoreError

logger = logging.getLogger(__name__)

WORKERS = 4
"""Threads that decode and resample; both release the interpreter's lock."""

REASONS = 20
"""Skipped clips that a store's provenance names; it counts them all."""


@dataclass(frozen=True)
class PackReport:
    """The result of a pack.

    Attributes:
        packed: Clips in the store.
        skipped: Clips that could not be read, each with its reason.
        excluded: Clips left out on purpose.
    """

    packed: int
    skipped: tuple[tuple[str, str], ...]
    excluded: int


def pack(
    catalog: Catalog,
    output: str | Path,
    *,
    sample_rate: int = 32000,
    seconds: float | None = None,
    exclude: Sequence[str] = (),
) -> PackReport:
    """Read every recording of a catalog and write them as one store, whole or not at all.

    Recordings are mixed down, resampled, and cut or padded with silence to one length. One that cannot be read is
    skipped and counted. Memory does not grow with the number of clips. The output's place is checked before anything is
    decoded. Logged as warnings: labels that lost all their clips because none of the files could be read, a single
    label, one that all clips have, and labels of very different numbers of clips.

    Args:
        catalog: What to pack.
        output: The store to write; a store that is there is replaced. Missing folders above it are made.
        sample_rate: In Hz.
        seconds: Length of the clips; by default the catalog's.
        exclude: Shell patterns of clips to leave out, each matched, case and all, against the file's name, the clip's
            name, its path relative to the catalog's root, and its source.

    Raises:
        StoreError: A length or rate is not positive, a pattern matches nothing, no recording is left or can be read, or
            the store cannot be written.
        OutputError: ``output`` is a folder.
    """
    seconds = catalog.seconds if seconds is None else seconds
    if not (math.isfinite(seconds) and sample_rate > 0 and (samples := round(seconds * sample_rate)) > 0):
        raise StoreError(f"{output}: clips of {seconds} s at {sample_rate} Hz have no samples; ask for longer clips")
    longest = max((clip.seconds or 0 for clip in catalog.clips), default=0)
    if longest > seconds * (1 + 1e-6):
        raise StoreError(
            f"{catalog.root}: is cut into clips of {longest:g} s, and clips of {seconds:g} s would lose what is "
            "labelled; give the same length to both"
        )
    chosen = without(catalog, exclude)
    excluded = len(catalog.clips) - len(chosen)
    skipped: list[tuple[str, str]] = []
    beyond = 0
    packed = np.zeros(len(catalog.labels), dtype=np.int64)
    provenance = {
        "catalog": catalog.name,
        "source": catalog.root.resolve().name,
        "options": catalog.options,
        "sample_rate": sample_rate,
        "seconds": seconds,
        "exclude": list(exclude),
        "bayes_panns": __version__,
    }
    with (
        ThreadPoolExecutor(WORKERS) as pool,
        StoreWriter(
            output,
            labels=catalog.labels,
            task=catalog.task,
            sample_rate=sample_rate,
            samples=samples,
            provenance=provenance,
        ) as writer,
        progress.task("packing", total=len(chosen), unit="clip") as bar,
    ):
        for clip, sound in _read_in_order(pool, chosen, sample_rate):
            if isinstance(sound, str):
                skipped.append((clip.name, sound))
            else:
                beyond += bool(sound.abs().max() > 1)
                writer.add(clip.name, sound, clip.labels, fold=clip.fold, source=clip.source)
                packed[list(clip.labels)] += 1
            bar.advance()
        if not len(writer):
            name, reason = skipped[0]
            raise StoreError(
                f"{catalog.root}: none of its {len(skipped)} clips can be read; the first, {name}: {reason}"
            )
        writer.provenance |= {
            "packed": len(writer),
            "excluded": excluded,
            "skipped": len(skipped),
            "skip_reasons": dict(skipped[:REASONS]),
            "clipped_to_full_scale": beyond,
        }
    warn_of_labels(catalog, chosen, packed, len(writer), Path(output))
    return PackReport(len(writer), tuple(skipped), excluded)


def warn_of_labels(catalog: Catalog, chosen: Sequence[Clip], packed: np.ndarray, clips: int, output: Path) -> None:
    """Warn of labels that no clip of the store has because files were skipped, and as :func:`label_remarks` says.

    Args:
        catalog: What was packed.
        chosen: Its clips that were not excluded.
        packed: Clips of each label in the store, shape ``(K,)``.
        clips: Clips in the store.
        output: The store.
    """
    lost = np.array(sorted({label for clip in chosen for label in clip.labels if not packed[label]}), dtype=np.int64)
    if len(lost):
        logger.warning(
            f"{output}: {len(lost)} of {len(catalog.labels)} labels ({named(catalog.labels, lost)}) have no "
            "clip, because none of their files could be read; convert or add these files and pack again, or leave them "
            "out of the source"
        )
    for remark in label_remarks(catalog.labels, packed, clips, catalog.task, missing=False):
        logger.warning(f"{output}: {remark}")


def without(catalog: Catalog, exclude: Sequence[str]) -> list[Clip]:
    """The clips of a catalog that no pattern matches; see :func:`pack`.

    Raises:
        StoreError: A pattern matches nothing, or none is left.
    """
    unused = set(exclude)
    chosen = []
    for clip in catalog.clips:
        matching = {
            pattern for pattern in exclude if any(fnmatchcase(text, pattern) for text in _matchable(catalog, clip))
        }
        unused -= matching
        if not matching:
            chosen.append(clip)
    if unused:
        names = ", ".join(repr(pattern) for pattern in exclude if pattern in unused)
        raise StoreError(f"{catalog.root}: no clip matches the pattern to exclude {names}; correct or drop it")
    if not chosen:
        raise StoreError(f"{catalog.root}: every clip is excluded; drop a pattern")
    return chosen


def _matchable(catalog: Catalog, clip: Clip) -> set[str]:
    """The texts by which a pattern may match a clip."""
    place = clip.path.relative_to(catalog.root) if clip.path.is_relative_to(catalog.root) else clip.path
    return {clip.path.name, clip.name, place.as_posix()} | ({clip.source} if clip.source else set())


def _read_in_order(
    pool: ThreadPoolExecutor, clips: Sequence[Clip], sample_rate: int
) -> Iterator[tuple[Clip, torch.Tensor | str]]:
    """Each clip with its waveform, or with why it has none; a few are read ahead."""
    ahead: deque[tuple[Clip, Future[torch.Tensor | str]]] = deque()
    for clip in clips:
        ahead.append((clip, pool.submit(_waveform, clip, sample_rate)))
        if len(ahead) == 2 * WORKERS:
            first, future = ahead.popleft()
            yield first, future.result()
    for last, future in ahead:
        yield last, future.result()


def _waveform(clip: Clip, sample_rate: int) -> torch.Tensor | str:
    try:
        whole = read(clip.path, sample_rate)
    except AudioError as error:
        # A store is passed on to others, who need not see where the recordings were.
        return str(error).removeprefix(f"{clip.path}: ")
    except OSError as error:
        return error.strerror or type(error).__name__
    end = None if clip.seconds is None else round((clip.start + clip.seconds) * sample_rate)
    return whole[round(clip.start * sample_rate) : end]
