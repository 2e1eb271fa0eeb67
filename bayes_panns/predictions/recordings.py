"""Sound files as batches of windows to compute something of: read as streams, and one bad file never costs the rest."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.audio.recording import Note, Recording
from bayes_panns.core import progress
from bayes_panns.core.choices import SoundNote
from bayes_panns.core.errors import OF_ONE_FILE, AudioError, out_of_memory, reason
from bayes_panns.core.text import printable, shown_name
from bayes_panns.predictions.clip_sets import CLIPS
from bayes_panns.predictions.windows import MOST, Run, Window, cut_stream, in_samples
from bayes_panns.ranks import in_order

_SAMPLES = 1 << 25
"""Windows are computed together as soon as they have so many samples in all, or are as many as ``CLIPS``."""

_Result = TypeVar("_Result")


class Skipped(NamedTuple):
    """A file that could not be read.

    Attributes:
        file: Its name.
        reason: Why, on one line that begins with the name.
    """

    file: str
    reason: str


@dataclass(frozen=True)
class Cutting:
    """How files are read and cut.

    Args:
        sample_rate: In Hz.
        window, hop: In samples.
        padded: What a window counts in memory at least, in samples.
        channel: As for :class:`~bayes_panns.audio.recording.Recording`.
        exact: Likewise.
    """

    sample_rate: int
    window: int
    hop: int
    padded: int
    channel: str = "mix"
    exact: bool = True

    @classmethod
    def of(
        cls, clip_seconds: float, rate: int, window: float | None, hop: float | None, *, channel: str, exact: bool
    ) -> "Cutting":
        """The way to cut for a posterior's clips, with windows in seconds: by default its clips, one after the other.

        Raises:
            PredictionError: The window or hop is not finite, or shorter than one sample.
        """
        window = clip_seconds if window is None else window
        samples = in_samples(window, rate, "window")
        hop_samples = in_samples(window if hop is None else hop, rate, "hop")
        return cls(rate, samples, hop_samples, round(clip_seconds * rate), channel, exact)


@dataclass(frozen=True)
class Piece(Generic[_Result]):
    """Windows of one file that follow each other, and what was computed of them.

    Attributes:
        file: Its name.
        windows: N of them.
        result: For each of them.
        complete: Whether the file ends here; otherwise more of it follows.
        notes: What a user should know of the file; with the last piece.
    """

    file: str
    windows: tuple[Window, ...]
    result: _Result
    complete: bool
    notes: tuple[Note, ...] = ()


def none_read(skipped: Sequence[Skipped], what: str) -> AudioError:
    """The error if no file could be read.

    Args:
        skipped: All files; none if none was named.
        what: What was to be done with them, such as ``tag``.
    """
    if not skipped:
        return AudioError(f"no files to {what}: name at least one")
    first = skipped[0].reason
    return AudioError(first if len(skipped) == 1 else f"no file of {len(skipped)} can be read; the first: {first}")


def computed(
    files: Sequence[str | Path],
    cutting: Cutting,
    compute: Callable[[list[Tensor]], _Result],
    take: Callable[[_Result, NDArray[np.intp]], _Result],
    *,
    doing: str | None,
) -> Iterator[Piece[_Result] | Skipped]:
    """Read files and compute something of their windows, many windows at a time.

    Memory does not grow with the files' lengths or number. The windows of several files are computed together, and a
    long file's in several pieces.

    Args:
        files: Which; ``-`` is standard input.
        cutting: How to read and cut them.
        compute: What to compute of groups of windows, each of shape ``(any, length)``; a result for all windows in
            the order of the groups. Several processes may do so, to which it is sent.
        take: Some of the windows of a result.
        doing: What is done, for the progress; None to report none.

    Yields:
        The files in order: pieces of each, the last of them complete; or that it is skipped.
    """
    failed = set[int]()
    batches = ([part for part in batch if part.number not in failed] for batch in _batches(files, cutting, doing))
    for pieces in in_order(batches, _Computing(compute, take)):
        for number, piece in pieces:
            # Another process may have had more of it at hand.
            if number in failed:
                continue
            if isinstance(piece, Skipped):
                failed.add(number)
            yield piece


@dataclass(frozen=True)
class _Computing(Generic[_Result]):
    """Computes the pieces of a batch."""

    compute: Callable[[list[Tensor]], _Result]
    take: Callable[[_Result, NDArray[np.intp]], _Result]

    def __call__(self, batch: "list[_Part]") -> "list[tuple[int, Piece[_Result] | Skipped]]":
        return list(_computed(batch, self.compute, self.take))


@dataclass(frozen=True)
class _Part:
    """A run of windows of one file, by its number, or why the file is skipped."""

    number: int
    file: str
    run: Run | None = None
    complete: bool = True
    notes: tuple[Note, ...] = ()
    reason: str = ""
    rate: int = 1

    @property
    def windows(self) -> tuple[Window, ...]:
        if self.run is None:
            return ()
        length = self.run.waveforms.shape[1]
        return tuple(Window(self.file, start / self.rate, (start + length) / self.rate) for start in self.run.starts)


def _batches(files: Sequence[str | Path], cutting: Cutting, doing: str | None) -> Iterator[list[_Part]]:
    """The parts of all files in order, as many together as are computed together."""
    batch, clips, samples = list[_Part](), 0, 0
    tracked = files if doing is None else progress.track(files, doing, total=len(files), unit="file")
    for number, file in enumerate(tracked):
        for part in _parts(number, file, cutting):
            batch.append(part)
            if part.run is not None:
                count, length = part.run.waveforms.shape
                clips, samples = clips + count, samples + count * max(cutting.padded, length)
            if clips >= CLIPS or samples >= _SAMPLES:
                yield batch
                batch, clips, samples = [], 0, 0
    if batch:
        yield batch


def _parts(number: int, file: str | Path, cutting: Cutting) -> Iterator[_Part]:
    """The windows of one file. What came before an error is kept; a file of which nothing came is skipped."""
    name, rate = shown_name(file), cutting.sample_rate
    waiting: Run | None = None
    notes = list[Note]()
    try:
        with Recording(file, rate, channel=cutting.channel, exact=cutting.exact) as recording:
            for run in cut_stream(_blocks(recording, rate, name, notes), cutting.window, cutting.hop):
                if waiting is not None:
                    yield _Part(number, name, waiting, complete=False, rate=rate)
                waiting = run
            notes = [*recording.notes, *notes]
    except OF_ONE_FILE as error:
        if waiting is None:
            yield _Part(number, name, reason=_named(name, error))
            return
        notes.append(_stopped(waiting.starts[-1] + waiting.waveforms.shape[1], rate, name, error))
    if waiting is None:
        yield _Part(number, name, reason=f"{printable(name)}: holds no samples")
    else:
        yield _Part(number, name, waiting, notes=tuple(notes), rate=rate)


def _blocks(recording: Recording, rate: int, name: str, notes: list[Note]) -> Iterator[Tensor]:
    """The blocks up to an error, which becomes a note."""
    samples = 0
    try:
        for block in recording:
            yield block
            samples += len(block)
    except OF_ONE_FILE as error:
        if not samples:
            raise
        notes.append(_stopped(samples, rate, name, error))


def _stopped(samples: int, rate: int, name: str, error: BaseException) -> Note:
    why = reason(error).removeprefix(f"{printable(name)}: ")
    return Note(SoundNote.TRUNCATED, f"reading stopped after {samples / rate:.1f} s ({why})")


def _named(name: str, error: BaseException) -> str:
    """The reason of an error, with the file's name before it."""
    shown, why = printable(name), reason(error)
    return why if shown in why else f"{shown}: {why}"


def _computed(
    batch: Sequence[_Part],
    compute: Callable[[list[Tensor]], _Result],
    take: Callable[[_Result, NDArray[np.intp]], _Result],
) -> Iterator[tuple[int, Piece[_Result] | Skipped]]:
    """The pieces of one batch, each with its file's number; where memory is too small for it, file by file."""
    runs = [part.run.waveforms for part in batch if part.run is not None]
    groups, order = _stacked(runs)
    try:
        result = compute(groups) if runs else None
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        numbers = sorted({part.number for part in batch})
        if len(numbers) > 1:
            for number in numbers:
                yield from _computed([part for part in batch if part.number == number], compute, take)
        else:
            file = batch[0].file
            yield numbers[0], Skipped(file, f"{printable(file)}: there is too little memory for its windows")
        return
    done = 0
    for parts in _by_file(batch):
        first, last = parts[0], parts[-1]
        if first.run is None:
            yield first.number, Skipped(first.file, first.reason)
            continue
        windows = tuple(window for part in parts for window in part.windows)
        assert result is not None
        mine = take(result, order[done : done + len(windows)])
        done += len(windows)
        yield first.number, Piece(first.file, windows, mine, last.complete, last.notes)


def _by_file(batch: Sequence[_Part]) -> Iterator[list[_Part]]:
    same = list[_Part]()
    for part in batch:
        if same and same[-1].number != part.number:
            yield same
            same = []
        same.append(part)
    if same:
        yield same


def _stacked(runs: Sequence[Tensor]) -> tuple[list[Tensor], NDArray[np.intp]]:
    """Runs of windows as groups of one length each, and where each window is in the groups.

    Runs that fill a pass of a network are taken where they are; shorter ones of one length are copied together.
    """
    lengths = sorted({run.shape[1] for run in runs})
    chosen = list[list[int]]()
    for length in lengths:
        same = [index for index, run in enumerate(runs) if run.shape[1] == length]
        chosen += [[index] for index in same if len(runs[index]) >= MOST]
        chosen += [few] if (few := [index for index in same if len(runs[index]) < MOST]) else []
    groups = [runs[each[0]] if len(each) == 1 else torch.cat([runs[index] for index in each]) for each in chosen]
    first = np.cumsum([0, *(len(run) for run in runs)])
    places = [np.arange(first[index], first[index + 1]) for each in chosen for index in each]
    return groups, np.argsort(np.concatenate(places)) if places else np.arange(0)
