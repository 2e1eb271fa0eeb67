"""Long sound files cut into windows, whole or as their samples come."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_panns.core.errors import PredictionError

_SLACK = 0.01
"""The share of a window by which a file must exceed it to get another: lossy files decode to a little more than 5 s."""

MOST, _HELD = 32, 1 << 24
"""Windows of a :class:`Run`: as many as a pass of a network takes at most, and in no more samples than this."""


@dataclass(frozen=True)
class Window:
    """A stretch of a file, in seconds."""

    file: str
    start: float
    end: float


def in_samples(seconds: float, sample_rate: int, name: str) -> int:
    """A window's length or hop in samples.

    Example:
        >>> in_samples(0.5, 32000, "hop")
        16000

    Args:
        seconds: The length.
        sample_rate: In Hz.
        name: What it is, ``"window"`` or ``"hop"``, for the error.

    Raises:
        PredictionError: It is not finite, or shorter than one sample.
    """
    samples = seconds * sample_rate
    if not math.isfinite(samples) or round(samples) < 1:
        raise PredictionError(
            f"{name} {seconds:g} s: must be finite and at least one sample long ({1 / sample_rate:.3g} s); "
            f"choose another {name}"
        )
    return round(samples)


def cut(samples: int, window: int, hop: int) -> tuple[list[int], int]:
    """Where the windows of a file start, and how long they are, in samples.

    A file no longer than a window is one window. A longer one gets a window each hop; the last is moved back so that
    it ends with the file. A rest of less than a hundredth of a window gets none.

    Example:
        >>> cut(samples=25, window=10, hop=10)
        ([0, 10, 15], 10)
        >>> cut(samples=3, window=10, hop=10)
        ([0], 3)

    Args:
        samples: The file's length, at least 1.
        window: A window's length, at least 1.
        hop: From one window's start to the next, at least 1.
    """
    if samples <= window:
        return [0], samples
    return [min(index * hop, samples - window) for index in range(_count(samples, window, hop))], window


def _count(samples: int, window: int, hop: int) -> int:
    """How many windows a file has that is at least as long as one."""
    rest = samples - window - _SLACK * window
    return max(0, math.ceil(rest / hop)) + 1


@dataclass(frozen=True)
class Run:
    """Windows of one file that follow each other.

    Attributes:
        starts: N first samples.
        waveforms: ``(N, length)``; windows that overlap share their samples, so it must not be written to.
    """

    starts: tuple[int, ...]
    waveforms: Tensor


def cut_stream(blocks: Iterable[Tensor], window: int, hop: int) -> Iterator[Run]:
    """The windows of :func:`cut`, each when its samples have come; in memory that the file's length does not change.

    The file's last samples, as many as a window has, are kept, for the last window ends with the file.

    Args:
        blocks: The file's samples in order, each block of shape ``(any,)``.
        window: A window's length, at least 1.
        hop: From one window's start to the next, at least 1.

    Yields:
        The windows in order, up to 32 at a time. Nothing for a file without samples.
    """
    most = max(1, min(MOST, 1 + (_HELD - window) // hop))
    held, done = _Held(), 0
    for block in blocks:
        held.add(block)
        while _certain(held.end, window, hop) >= done + most:
            yield _run(held, done, most, window, hop)
            done += most
        held.forget(min(done * hop, held.end - window))
    if 0 < held.end <= window:
        yield Run((0,), held.between(0, held.end)[None])
    while (count := min(_certain(held.end, window, hop) - done, most)) > 0:
        yield _run(held, done, count, window, hop)
        done += count
    if held.end > window and done < _count(held.end, window, hop):
        yield Run((held.end - window,), held.between(held.end - window, held.end)[None])


def _certain(samples: int, window: int, hop: int) -> int:
    """How many windows a file has that begins with so many samples, however it goes on; 0 while it may be only one."""
    if samples <= window:
        return 0
    return min(_count(samples, window, hop), (samples - window) // hop + 1)


class _Held:
    """The samples that have come and may still be needed."""

    def __init__(self) -> None:
        self._blocks, self.end = deque[tuple[int, Tensor]](), 0

    def add(self, block: Tensor) -> None:
        self._blocks.append((self.end, block))
        self.end += len(block)

    def forget(self, before: int) -> None:
        """Let go of the blocks that end before a sample."""
        while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= before:
            self._blocks.popleft()

    def between(self, start: int, end: int) -> Tensor:
        """A copy of the samples from ``start`` to ``end``."""
        overlapping = [(at, block) for at, block in self._blocks if at < end and at + len(block) > start]
        return torch.cat([block[max(0, start - at) : end - at] for at, block in overlapping])


def _run(held: _Held, first: int, count: int, window: int, hop: int) -> Run:
    """``count`` windows a hop apart, seen in one copy of their samples."""
    starts = [index * hop for index in range(first, first + count)]
    if hop > window:  # Not the samples between them.
        return Run(tuple(starts), torch.stack([held.between(start, start + window) for start in starts]))
    samples = held.between(starts[0], starts[-1] + window)
    return Run(tuple(starts), samples.as_strided((count, window), (hop, 1)))
