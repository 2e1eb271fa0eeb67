"""A catalog's recordings to a clip store."""

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from bayes_panns import __version__
from bayes_panns.audio.notes import Note
from bayes_panns.audio.recording import Recording, channel_index
from bayes_panns.audio.walking import similar
from bayes_panns.clips import pack_plan
from bayes_panns.clips.catalogs import Catalog, Clip
from bayes_panns.clips.catalogs.catalog import exists
from bayes_panns.clips.pack_remarks import REASONS, Tally, warn_of_labels, warn_of_notes
from bayes_panns.clips.pack_writer import PackWriter, Taken
from bayes_panns.clips.store_format import digest, stored
from bayes_panns.clips.unfinished import Unfinished, unfinished
from bayes_panns.core import progress
from bayes_panns.core.errors import AudioError, StoreError
from bayes_panns.core.processes import cores, signals_held, subordinate
from bayes_panns.core.text import printable, readable

logger = logging.getLogger(__name__)

PROCESSES_FROM = 2000
"""Clips from which on they are decoded by processes, whose start takes seconds, and not by threads."""

AHEAD = 4
"""Clips that each process or thread decodes ahead, unless they take more than the memory below."""

AHEAD_BYTES = 2**28
"""The most memory that clips take that were decoded ahead, in bytes, if there are more than one for each process."""


@dataclass(frozen=True)
class PackReport:
    """The result of a pack.

    Attributes:
        packed: Clips in the store.
        skipped: Clips that could not be read, each with its reason.
        excluded: Clips left out on purpose.
        notes: What a user should know of clips that are in the store, each with the clip's name.
        stores: The stores that were written.
    """

    packed: int
    skipped: tuple[tuple[str, str], ...]
    excluded: int
    notes: tuple[tuple[str, Note], ...] = ()
    stores: tuple[Path, ...] = ()

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
    jobs: int | None = None,
    resume: bool = False,
    clips_per_store: int | None = None,
) -> PackReport:
    """Read every recording of a catalog and write them as one store, whole or not at all, or as several.

    Recordings are mixed down, resampled, and cut or padded with silence to one length; no more of them is decoded than
    is kept. One that cannot be read is skipped and counted, whatever the reason. Beside the catalog, memory grows
    neither with the number of clips nor with the length of the recordings. The output's place is checked before
    anything is decoded. Logged as warnings: what is wrong with clips that could be read, such as that they are
    truncated or silent, which the provenance counts too; labels that lost all their clips because none of the files
    could be read, a single label, one that all clips have, and labels of very different numbers of clips.

    An interrupted pack leaves the folder ``OUTPUT.part``, once a few dozen clips are in it, and ``resume`` goes on with
    it: after Ctrl-C, a kill or a full disk, the store has the same bytes as one that was packed at once. What is there
    is read and checked against its digests first. A store that was there before stays until the new one is whole.

    Args:
        catalog: What to pack.
        output: The store to write; a store that is there is replaced. Missing folders above it are made.
        sample_rate: In Hz.
        seconds: Length of the clips; by default the catalog's.
        exclude: Shell patterns of clips to leave out, each matched, case and all, against the file's name, the clip's
            name, its path relative to the catalog's root, and its source.
        channel: What to take of several channels, as for :class:`~bayes_panns.audio.recording.Recording`.
        jobs: How many processes decode, if there are 2,000 clips or more; a script then needs the usual
            ``if __name__ == "__main__"``. By default, and for fewer clips, threads do. The store does not depend on it.
        resume: Go on with a pack that was interrupted. If there is none, and no store either, one is begun.
        clips_per_store: Write several stores, ``NAME-00.h5``, ``NAME-01.h5`` and on, each of as many clips that were
            listed, some of which may be skipped; clips of one recording that follow each other stay together. All have
            the same labels. By default one store.

    Raises:
        SettingError: The channel is not understood.
        StoreError: A length, rate or number is not positive, a pattern matches nothing, no recording is left or can be
            read, or the store cannot be written. Or an interrupted pack is there and ``resume`` is false, or is of
            other clips, files, options or versions.
        OutputError: ``output`` is a folder, or another process packs it.
    """
    output = Path(output)
    seconds = catalog.seconds if seconds is None else seconds
    if not (math.isfinite(seconds) and sample_rate > 0 and (samples := round(seconds * sample_rate)) > 0):
        raise StoreError(f"{output}: clips of {seconds} s at {sample_rate} Hz have no samples; ask for longer clips")
    longest = max((clip.seconds or 0 for clip in catalog.clips), default=0)
    if longest > seconds * (1 + 1e-6):
        raise StoreError(
            f"{catalog.root}: is cut into clips of {longest:g} s, and clips of {seconds:g} s would lose what is "
            "labelled; give the same length to both"
        )
    channel_index(channel)
    chosen = without(catalog, exclude)
    excluded = len(catalog.clips) - len(chosen)
    planned = pack_plan.stores(output, chosen, clips_per_store)
    source = readable(catalog.root.resolve().name)
    options = {
        "the source": source,
        "--sample-rate": sample_rate,
        "--seconds": seconds,
        "--channel": channel,
        "--exclude": list(exclude),
        "--clips-per-store": clips_per_store,
    }
    inputs = pack_plan.inputs(catalog, chosen, **options)
    provenance = {
        "catalog": catalog.name,
        "source": source,
        "options": catalog.options,
        "sample_rate": sample_rate,
        "seconds": seconds,
        **({} if channel == "mix" else {"channel": channel}),
        "exclude": list(exclude),
        "bayes_panns": __version__,
    }
    decode = partial(_taken, sample_rate=sample_rate, seconds=seconds, samples=samples, channel=channel)
    total, written = Tally(len(catalog.labels)), list[Path]()
    with (
        unfinished(output, inputs, resume=resume, clips=len(chosen), stores=[path for path, _ in planned]) as part,
        _decoding(output, decode, chosen, jobs, samples) as taken_from,
        progress.task("packing", total=len(chosen), unit="clip", logged=True) as bar,
    ):
        for number, (path, span) in enumerate(planned):
            tally = Tally(len(catalog.labels))
            if number in part.finished:
                part.settle(number, path)
                for index in span:
                    tally.count(chosen[index], _recorded(part, chosen[index], index))
                    bar.advance()
            else:
                about = provenance if clips_per_store is None else provenance | {"store": [number + 1, len(planned)]}
                writer = PackWriter(
                    part,
                    number,
                    path,
                    labels=catalog.labels,
                    task=catalog.task,
                    sample_rate=sample_rate,
                    samples=samples,
                    provenance=about,
                )
                try:
                    with writer:
                        for index in span:
                            clip, first = chosen[index], len(total.skipped) + len(tally.skipped) < REASONS
                            known = _recalled(part, writer, clip, index)
                            taken = known or _with_similar(clip, next(taken_from(index)), first)
                            writer.put(clip, index, taken, known=known is not None)
                            tally.count(clip, taken)
                            bar.advance()
                        if not tally.clips:
                            writer.skip_store()
                            raise _EmptyError
                        writer.provenance |= tally.provenance(excluded)
                except _EmptyError:
                    logger.info(f"{path}: is not written, since none of its {len(span)} clips can be read")
            total.include(tally)
            written += [path] if tally.clips else []
        if not total.clips:
            part.discard()
            name, reason = total.skipped[0]
            raise StoreError(
                f"{catalog.root}: none of its {len(total.skipped)} clips can be read; the first, {name}: {reason}"
            )
    warn_of_notes(total.notes, total.clips, output)
    warn_of_labels(catalog, chosen, total.labels, total.clips, output)
    if clips_per_store is not None and (others := pack_plan.of_other_packs(output, planned)):
        logger.warning(
            f"{output}: {others[0].name} was not written by this pack, nor {len(others) - 1} more that are named so"
        )
    return PackReport(total.clips, tuple(total.skipped), excluded, tuple(total.notes), tuple(written))


class _EmptyError(Exception):
    """No clip of a store can be read."""


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


def _recorded(part: Unfinished, clip: Clip, index: int) -> Taken:
    """What the journal says of a clip of a store that is finished.

    Raises:
        StoreError: Nothing, or its file has changed.
    """
    entry = part.entry(index)
    assert entry is not None
    _require_unchanged(part, clip, entry)
    return Taken.of(entry)


def _recalled(part: Unfinished, writer: PackWriter, clip: Clip, index: int) -> Taken | None:
    """What an earlier process has taken of a clip, if it was here and all it has written up to here is as it was.

    Raises:
        StoreError: The clip's file has changed since.
    """
    entry = part.entry(index)
    if entry is None:
        return None
    _require_unchanged(part, clip, entry)
    taken = writer.recalled(entry)
    if taken is None:
        part.cut(index)
    return taken


def _require_unchanged(part: Unfinished, clip: Clip, entry: dict[str, Any]) -> None:
    was, now = entry["file"], _file(clip.path)
    if was != (None if now is None else list(now)):
        what = "has changed" if was and now else "is there now, and was not" if now else "is gone"
        raise StoreError(
            f"{part.output}: {clip.name} {what} since it was packed; put it back as it was, or remove {part.folder} to "
            "begin anew"
        )


@contextmanager
def _decoding(
    output: Path, decode: Callable[[Clip], Taken], clips: Sequence[Clip], jobs: int | None, samples: int
) -> Iterator[Callable[[int], Iterator[Taken]]]:
    """Processes or threads that decode.

    Yields:
        A function that is given the index of a clip, and gives an iterator over that one and all that follow: the same
        iterator ever after, whatever it is given.

    Raises:
        StoreError: A process was killed.
    """
    pool: Executor
    held: Callable[[], AbstractContextManager[None]] = nullcontext
    workers = jobs or cores()
    if jobs is not None and jobs > 1 and len(clips) >= PROCESSES_FROM:
        pool, held = ProcessPoolExecutor(workers, get_context("spawn"), _begin_process), signals_held
    else:
        pool = ThreadPoolExecutor(workers)
    ahead = max(workers + 1, min(AHEAD * workers, AHEAD_BYTES // (2 * samples)))
    begun: list[Iterator[Taken]] = []

    def from_index(index: int) -> Iterator[Taken]:
        if not begun:
            begun.append(_in_order(pool, held, decode, clips, index, ahead))
        return begun[0]

    try:
        yield from_index
    except BrokenProcessPool as error:
        raise StoreError(
            f"{output}: a process that decodes was killed, perhaps for lack of memory; go on with --resume, and fewer "
            "--jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_process() -> None:
    subordinate()
    torch.set_num_threads(1)


def _in_order(
    pool: Executor,
    held: Callable[[], AbstractContextManager[None]],
    decode: Callable[[Clip], Taken],
    clips: Sequence[Clip],
    start: int,
    ahead: int,
) -> Iterator[Taken]:
    """What becomes of each clip from ``start`` on; a few are decoded ahead; a process starts in a block of ``held``."""
    waiting: deque[Future[Taken]] = deque()
    for index in range(start, len(clips)):
        with held():
            waiting.append(pool.submit(decode, clips[index]))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _file(path: Path) -> tuple[int, int] | None:
    """The size of a file and when it was changed; None if it is out of reach."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _taken(clip: Clip, sample_rate: int, seconds: float, samples: int, channel: str) -> Taken:
    """A clip as its store has it, or why it has none."""
    file, kept = _file(clip.path), seconds if clip.seconds is None else min(clip.seconds, seconds)
    try:
        with Recording(clip.path, sample_rate, channel=channel, start=clip.start, seconds=kept) as recording:
            waveform = torch.cat(list(recording)).numpy()
        # Of a part that was asked for, what follows it is no matter.
        length = recording.seconds if clip.seconds is None else None
        sound = stored(waveform, samples)
        return Taken(
            file,
            samples=sound,
            sha256=digest(sound),
            seconds=len(waveform) / sample_rate if length is None else length,
            beyond=bool(abs(waveform).max() > 1),
            notes=recording.notes,
        )
    except AudioError as error:
        # A store is passed on to others, who need not see where the recordings were.
        reason = str(error).removeprefix(f"{printable(str(clip.path))}: ")
    except MemoryError:
        reason = "needs more memory than there is"
    except Exception as error:  # One bad file never costs the others.
        logger.debug(f"{clip.name}", exc_info=True)
        text = error.strerror if isinstance(error, OSError) else str(error)
        reason = printable(text or type(error).__name__)
    return Taken(file, skipped=reason)


def _with_similar(clip: Clip, taken: Taken, wanted: bool) -> Taken:
    """With the names of similar files, if it is missing and that is wanted: each time the whole folder is read."""
    if not (wanted and taken.skipped) or exists(clip.path):
        return taken
    near = [printable(each.name) for each in similar(clip.path)]
    return replace(taken, skipped=f"{taken.skipped}; there are {' and '.join(near[:3])}") if near else taken
