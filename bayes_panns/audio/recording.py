"""One sound file as a stream of blocks: decoded, mixed down and resampled."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from bayes_panns.audio import files
from bayes_panns.core.choices import SoundNote
from bayes_panns.core.errors import AudioError


@dataclass(frozen=True)
class Note:
    """Something that a user should know of a file that could be read.

    Attributes:
        kind: What kind of thing.
        text: What it is, with its numbers; one line, without the file's name.
    """

    kind: SoundNote
    text: str


class Recording:
    """One sound file, mono at a wanted rate, block by block in constant memory.

    Args:
        path: The file; ``-`` is standard input.
        sample_rate: The rate wanted, in Hz.
        channel: ``mix``, ``left``, ``right`` or the number of a channel from 1.
        start: Where to begin, in seconds of the file.
        seconds: How much to read; by default all.
        exact: As for :func:`~bayes_panns.audio.files.resample`.

    Attributes:
        notes: What a user should know of the file; complete once the blocks have been read.

    Raises:
        AudioError: Nothing can be decoded: when it is opened, or at the first block.
    """

    def __init__(
        self,
        path: str | Path,
        sample_rate: int,
        *,
        channel: str = "mix",
        start: float = 0.0,
        seconds: float | None = None,
        exact: bool = True,
    ) -> None:
        self.path, self.sample_rate, self.notes = Path(path), sample_rate, tuple[Note, ...]()
        self._span, self._exact = (start, seconds), exact

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""

    def __iter__(self) -> Iterator[Tensor]:
        """Blocks of float32 samples, each of shape ``(any,)`` and not empty."""
        start, seconds = self._span
        whole = files.read(self.path, self.sample_rate, exact=self._exact)
        end = None if seconds is None else round((start + seconds) * self.sample_rate)
        part = whole[round(start * self.sample_rate) : end]
        if not len(part):
            raise AudioError(f"{self.path}: ends before {start:g} s")
        yield from part.split(1 << 17)
