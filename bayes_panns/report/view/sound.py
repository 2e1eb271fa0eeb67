"""A recording as WAV files that are never made: any stretch of their bytes is decoded when it is asked for.

A browser plays and seeks in such a file like in any other. A file holds at most an hour, since the sizes in a WAV's
header have 32 bits.
"""

import logging
import struct
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from bayes_panns.audio.recording import Recording
from bayes_panns.core.errors import AudioError, reason

logger = logging.getLogger(__name__)

RATE = 32_000
"""Hz; what is heard and seen. A person hears more than a model that was fitted at 8 kHz."""

PART_SECONDS = 3600
"""The longest file."""

_BYTES = 2
"""Bytes of a sample."""

_HEADER = 44
"""Bytes before the first sample."""


class Wave:
    """One of the WAV files of a recording: mono, 16 bits.

    Args:
        path: The recording.
        seconds: How long it is.
        part: Which of the files, from 0.
        channel: As for :class:`~bayes_panns.audio.recording.Recording`.

    Attributes:
        size: Of the file, in bytes.

    Raises:
        IndexError: There are fewer.
    """

    def __init__(self, path: Path, seconds: float, part: int = 0, channel: str = "mix") -> None:
        self._path, self._channel = path, channel
        self._first = part * PART_SECONDS * RATE
        self._samples = min(PART_SECONDS * RATE, round(seconds * RATE) - self._first)
        if part < 0 or self._samples <= 0:
            raise IndexError(part)
        self.size = _HEADER + _BYTES * self._samples

    def header(self) -> bytes:
        """The bytes before the first sample."""
        data = self.size - _HEADER
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, RATE * _BYTES, _BYTES, 8 * _BYTES)
        return struct.pack("<4sI4s", b"RIFF", self.size - 8, b"WAVE") + form + struct.pack("<4sI", b"data", data)

    def read(self, first: int, last: int) -> Iterator[bytes]:
        """The bytes from ``first`` up to, and without, ``last``, in pieces that are decoded as they are taken.

        Where less sound is there than the recording was said to have, silence follows.

        Raises:
            AudioError: At once: nothing can be decoded there.
        """
        head = self.header()[first:last]
        begin, end = max(0, first - _HEADER) // _BYTES, -(-max(0, last - _HEADER) // _BYTES)
        if end <= begin:
            return iter([head])
        sound = self._sound(begin, end)
        # What cannot be decoded is found out before any byte is sent.
        opened = chain([next(sound)], sound)
        return chain([head], _cut(opened, max(0, first - _HEADER) - _BYTES * begin, last - max(first, _HEADER)))

    def _sound(self, begin: int, end: int) -> Iterator[bytes]:
        start, left = (self._first + begin) / RATE, end - begin
        seconds = left / RATE
        with Recording(self._path, RATE, channel=self._channel, start=start, seconds=seconds, exact=False) as recording:
            given = False
            try:
                for block in recording:
                    samples = block[:left].numpy()
                    left -= len(samples)
                    given = True
                    yield (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
            except AudioError as error:
                if not given:
                    raise
                logger.warning(f"playing stopped: {reason(error)}")
        while left > 0:
            some = min(left, RATE)
            left -= some
            yield bytes(_BYTES * some)


def _cut(pieces: Iterator[bytes], drop: int, length: int) -> Iterator[bytes]:
    """``length`` bytes of the pieces, without the first ``drop``."""
    for piece in pieces:
        some = piece[drop : drop + length]
        drop = max(0, drop - len(piece))
        length -= len(some)
        yield some
        if length <= 0:
            return
