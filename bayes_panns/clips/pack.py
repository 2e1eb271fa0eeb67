"""A catalog's recordings to a clip store."""

import logging
import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bayes_panns import __version__
from bayes_panns.audio.notes import Note
from bayes_panns.audio.recording import Recording, channel_index
from bayes_panns.audio.walking import similar
from bayes_panns.clips.catalogs import Catalog, Clip
from bayes_panns.clips.writer import StoreWriter
from bayes_panns.core import progress
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import AudioError, StoreError
from bayes_panns.core.text import printable, readable

logger = logging.getLogger(__name__)

WORKERS = 4
"""Threads that decode and resample; both release the interpreter's lock."""

REASONS = 20
"""Skipped clips that a store's provenance names; it counts them all."""

EXAMPLES = 5
"""Clips of each kind of note that a store's provenance names."""


@dataclass(frozen=True)
class PackReport:
    """The result of a pack.

    Attributes:
        packed: Clips in the store.
        skipped: Clips that could not be read, each with its reason.
        excluded: Clips left out on purpose.
        notes: What a user should know of clips that are in the store, each with the clip's name.
    """

    packed: int
    skipped: tuple[tuple[str, str], ...]
    excluded: int
    notes: tuple[tuple[str, Note], ...] = ()

    @property
    def noted(self) -> str:
        """How many clips have a note of each kind, such as ``3 truncated, 1 silent``; empty if none has."""
        return ", ".join(f"{count} {kind}" for kind, count in Counter(note.kind for _, note in self.notes).items())


def pack(
    catalog: Catalog,
    output: str | Path,
    *,
    sample_rate: int = 32000,
    seconds: float | None = None,
    exclude: Sequence[str] = (),
    channel: str = "mix",
) -> PackReport:
    """Read every recording of a catalog and write them as one store, whole or not at all.

    Recordings are mixed down, resampled, and cut or padded with silence to one length; no more of them is decoded than
    is kept. One that cannot be read is skipped and counted, whatever the reason. Memory grows neither with the number
    of clips nor with the length of the recordings. The output's place is checked before anything is decoded. Logged as
    warnings: what is wrong with clips that could be read, such as that they are truncated or silent, which the
    provenance counts too; labels that lost all their clips because none of the files could be read, and a one-of-K
    store with a single label.

    Args:
        catalog: What to pack.
        output: The store to write; a store that is there is replaced. Missing folders above it are made.
        sample_rate: In Hz.
        seconds: Length of the clips; by default the catalog's.
        exclude: Shell patterns of clips to leave out, each matched, case and all, against the file's name, the clip's
            name, its path relative to the catalog's root, and its source.
        channel: What to take of several channels, as for :class:`~bayes_panns.audio.recording.Recording`.

    Raises:
        SettingError: The channel is not understood.
        StoreError: A length or rate is not positive, a pattern matches nothing, no recording is left or can be read, or
            the store cannot be written.
        OutputError: ``output`` is a folder.
    """
    seconds = catalog.seconds if seconds is None else seconds
    if not (math.isfinite(seconds) and sample_rate > 0 and (samples := round(seconds * sample_rate)) > 0):
        raise StoreError(f"{output}: clips of {seconds} s at {sample_rate} Hz have no samples; ask for longer clips")
    channel_index(channel)
    chosen = without(catalog, exclude)
    excluded = len(catalog.clips) - len(chosen)
    skipped: list[tuple[str, str]] = []
    notes: list[tuple[str, Note]] = []
    beyond = 0
    packed = np.zeros(len(catalog.labels), dtype=np.int64)
    provenance = {
        "catalog": catalog.name,
        "source": readable(catalog.root.resolve().name),
        "options": catalog.options,
        "sample_rate": sample_rate,
        "seconds": seconds,
        **({} if channel == "mix" else {"channel": channel}),
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
        for clip, sound in _read_in_order(pool, chosen, sample_rate, seconds, channel):
            if isinstance(sound, str):
                skipped.append((clip.name, sound))
            else:
                notes += [(clip.name, note) for note in sound.notes]
                beyond += bool(sound.waveform.abs().max() > 1)
                writer.add(
                    clip.name,
                    sound.waveform,
                    clip.labels,
                    fold=clip.fold,
                    source=clip.source,
                    seconds=sound.seconds,
                )
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
            **_counted(notes),
        }
    warn_of_notes(notes, len(writer), Path(output))
    warn_of_labels(catalog, chosen, packed, Path(output))
    return PackReport(len(writer), tuple(skipped), excluded, tuple(notes))


def _counted(notes: Sequence[tuple[str, Note]]) -> dict[str, Any]:
    """The notes for a store's provenance: how many clips there are of each kind, and a few with their texts."""
    if not notes:
        return {}
    examples: dict[str, dict[str, str]] = {}
    for name, note in notes:
        of_kind = examples.setdefault(str(note.kind), {})
        if len(of_kind) < EXAMPLES:
            of_kind[name] = note.text
    return {"notes": dict(Counter(str(note.kind) for _, note in notes)), "note_examples": examples}


def warn_of_notes(notes: Sequence[tuple[str, Note]], clips: int, output: Path) -> None:
    """Warn of what is wrong with clips, once for each kind.

    Args:
        notes: The notes, each with the clip's name.
        clips: Clips in the store.
        output: The store.
    """
    for kind, count in Counter(note.kind for _, note in notes).items():
        name, text = next((name, note.text) for name, note in notes if note.kind == kind)
        clip, also = printable(name), "" if count == 1 else "; `inspect` names more"
        logger.warning(f"{output}: {kind}: {count} of {clips} clips ({kind.summary}): {clip} {text}{also}")


def warn_of_labels(catalog: Catalog, chosen: Sequence[Clip], packed: np.ndarray, output: Path) -> None:
    """Warn of labels that no clip of the store has because files were skipped, and of a store with a single label.

    Args:
        catalog: What was packed.
        chosen: Its clips that were not excluded.
        packed: Clips of each label in the store, shape ``(K,)``.
        output: The store.
    """
    lost = sorted({label for clip in chosen for label in clip.labels if not packed[label]})
    if lost:
        names = ", ".join(repr(catalog.labels[label]) for label in lost[:3]) + (", ..." if len(lost) > 3 else "")
        logger.warning(
            f"{output}: {len(lost)} of {len(catalog.labels)} labels ({names}) have no clip, because none of their "
            "files could be read; convert or add these files and pack again, or leave them out of the source"
        )
    if catalog.task == Task.ONE_OF_K and len(catalog.labels) == 1:
        logger.warning(
            f"{output}: every clip has the label {catalog.labels[0]!r}, and there is no other: a model fitted to them "
            "gives that label to every sound; add clips of other labels, or clips without a label"
        )


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


@dataclass(frozen=True)
class _Heard:
    """A waveform; how long the sound was before it was cut, where that is known; and what a user should know of it."""

    waveform: torch.Tensor
    seconds: float | None
    notes: tuple[Note, ...]


def _read_in_order(
    pool: ThreadPoolExecutor, clips: Sequence[Clip], sample_rate: int, seconds: float, channel: str
) -> Iterator[tuple[Clip, _Heard | str]]:
    """Each clip with its waveform, or with why it has none; a few are read ahead."""
    ahead: deque[tuple[Clip, Future[_Heard | str]]] = deque()
    for clip in clips:
        ahead.append((clip, pool.submit(_waveform, clip, sample_rate, seconds, channel)))
        if len(ahead) == 2 * WORKERS:
            first, future = ahead.popleft()
            yield first, future.result()
    for last, future in ahead:
        yield last, future.result()


def _waveform(clip: Clip, sample_rate: int, seconds: float, channel: str) -> _Heard | str:
    kept = seconds if clip.seconds is None else min(clip.seconds, seconds)
    try:
        with Recording(clip.path, sample_rate, channel=channel, start=clip.start, seconds=kept) as recording:
            waveform = torch.cat(list(recording))
        # Of a part that was asked for, what follows it is no matter.
        return _Heard(waveform, recording.seconds if clip.seconds is None else None, recording.notes)
    except AudioError as error:
        # A store is passed on to others, who need not see where the recordings were.
        reason = str(error).removeprefix(f"{printable(str(clip.path))}: ")
        near = [] if clip.path.exists() else [printable(each.name) for each in similar(clip.path)]
        return f"{reason}; there are {' and '.join(near[:3])}" if near else reason
    except MemoryError:
        return "needs more memory than there is"
    except Exception as error:  # One bad file never costs the others.
        logger.debug(f"{clip.name}", exc_info=True)
        text = error.strerror if isinstance(error, OSError) else str(error)
        return printable(text or type(error).__name__)
