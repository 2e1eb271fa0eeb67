"""Spectrograms of stretches of a recording, as pictures of one width, made when they are asked for."""

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bayes_panns.audio.front_end import KaldiLogMel
from bayes_panns.audio.recording import Recording
from bayes_panns.core.errors import AudioError
from bayes_panns.report.media import Media, decibels, picture
from bayes_panns.report.view.sound import RATE

COLUMNS = 512
"""Columns of a picture."""

FRAMES = 100
"""Frames of the spectrogram a second."""

LEVELS = 8
"""How many widths there are: a picture of level L shows ``COLUMNS / FRAMES * 2**L`` seconds, 5 s to 11 minutes."""

BYTES = 32_000_000
"""The memory that pictures may take."""

_BLOCK = 30 * FRAMES
"""Frames that are made at a time."""

_COARSE = 2
"""Frames of which only one is made from afar; those that are left still overlap, so that no sound is lost."""

_SAMPLES, _SAMPLE = 8, 2.0
"""Where the levels of a recording are looked for: in so many stretches, of so many seconds."""

_ABOVE = 55
"""The least that the brightest colour is above the background, in dB: rare sounds are not in the stretches above."""


def span(level: int) -> float:
    """The seconds of a picture.

    Raises:
        IndexError: There is no such level.
    """
    if not 0 <= level < LEVELS:
        raise IndexError(level)
    return COLUMNS / FRAMES * 2**level


class Tiles:
    """Makes the pictures, one at a time, and keeps the last ones; safe to use from several threads.

    Args:
        channel: As for :class:`~bayes_panns.audio.recording.Recording`.
    """

    def __init__(self, channel: str = "mix") -> None:
        hop = RATE // FRAMES
        self._channel = channel
        self._front_ends = {step: KaldiLogMel(hop=hop * step) for step in (1, _COARSE)}
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Path, int, int], Media] = OrderedDict()
        self._tops: dict[Path, float] = {}

    def tile(self, path: Path, seconds: float, level: int, number: int) -> Media:
        """The picture of a stretch.

        Args:
            path: The recording.
            seconds: How long it is.
            level: How many seconds it shows, see :func:`span`.
            number: Which one, from 0; the last may show less, and then has fewer columns.

        Raises:
            IndexError: There is no such level or number.
            AudioError: The recording cannot be decoded there.
        """
        start = number * span(level)
        if number < 0 or start >= seconds:
            raise IndexError(number)
        with self._lock:
            key = (path, level, number)
            if key not in self._kept:
                self._kept[key] = self._make(path, seconds, start, level)
                while sum(len(media.content) for media in self._kept.values()) > BYTES and len(self._kept) > 1:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def stretch(self, path: Path, start: float, seconds: float) -> Media:
        """The picture of any stretch, of at most :data:`COLUMNS` columns; it is not kept.

        Args:
            path: The recording.
            start: Where it begins, in seconds.
            seconds: How long it is.

        Raises:
            AudioError: The recording cannot be decoded there.
        """
        frames = max(1, -(-round(seconds * FRAMES) // COLUMNS))
        pooled = self._pooled(path, start, seconds, frames)
        return picture(pooled, float(pooled.max()))

    def _make(self, path: Path, seconds: float, start: float, level: int) -> Media:
        if path not in self._tops:
            self._tops[path] = self._brightest(path, seconds)
        pooled = self._pooled(path, start, min(span(level), seconds - start), 2**level)
        return picture(pooled, self._tops[path])

    def _pooled(self, path: Path, start: float, seconds: float, frames: int) -> NDArray[np.float32]:
        """The loudest of each ``frames`` frames, in dB, shape ``(mels, any)``."""
        hop = RATE // FRAMES
        block = -(-_BLOCK // frames) * frames * hop
        made, rest = [], np.zeros(0, np.float32)
        with Recording(path, RATE, channel=self._channel, start=start, seconds=seconds, exact=False) as recording:
            for some in recording:
                rest = np.concatenate([rest, some.numpy()])
                while len(rest) >= block:
                    made.append(self._columns(rest[:block], frames))
                    rest = rest[block:]
        if len(rest):
            made.append(self._columns(rest, frames))
        return np.concatenate(made, axis=1)

    def _columns(self, waveform: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
        step = _COARSE if frames % _COARSE == 0 else 1
        mels = decibels(self._front_ends[step], waveform)
        mels = mels[:, : max(1, -(-len(waveform) * FRAMES // (RATE * step)))]
        return np.maximum.reduceat(mels, np.arange(0, mels.shape[1], frames // step), axis=1)

    def _brightest(self, path: Path, seconds: float) -> float:
        """The level of the brightest colour in all pictures of a recording, in dB.

        It is about the loudest level. Where only background was found it is far enough above that background that
        the sounds in it stand out.
        """
        found = []
        for start in np.linspace(0, max(0, seconds - _SAMPLE), min(_SAMPLES, max(1, int(seconds / _SAMPLE)))).tolist():
            try:
                found.append(self._pooled(path, start, _SAMPLE, 1))
            except AudioError:
                # The picture itself says what is wrong.
                continue
        if not found:
            return 0.0
        levels = np.concatenate(found, axis=1)
        return max(float(levels.max()), float(np.median(levels)) + _ABOVE)
