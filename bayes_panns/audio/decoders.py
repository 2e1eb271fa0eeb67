"""Decoders: the samples of one stream of a file, block by block."""

import os
from typing import Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from bayes_panns.audio.views import Source, Stream, View

MOST_CHANNELS = 1024
"""More are taken for a damaged header."""

LOWEST_RATE, HIGHEST_RATE = 100, 2_000_000
"""Rates beyond, in Hz, are taken for a damaged header: a second of sound would become hours, or need gigabytes."""

_UNSURE = ("ALAC", "DWVW")
"""Codecs for which libsndfile's count is the header's, whatever is there."""

_DROPPED = 1 << 16
"""Samples that are read at a time to be dropped."""


class Refused(Exception):  # noqa: N818
    """A stream that a decoder cannot decode; the message says why, without the file's name."""


class Decoder(Protocol):
    """One stream of sound that is being decoded.

    Attributes:
        rate: Samples a second of each channel.
        channels: How many there are.
        length: Samples of each channel, where that is known for certain.
        promised: Samples of each channel that the file promises, where it says so.
        share: The share of the promised bytes that are there, where there is only that to go by.
        failure: What is wrong with the stream, as a verb and its object; empty if nothing is. Complete at its end.
    """

    rate: int
    channels: int
    length: int | None
    promised: int | None
    share: float
    failure: str

    def read(self, block: NDArray[np.float32]) -> int:
        """Fill ``block``, float32 of shape ``(samples, channels)``, from its start.

        Returns:
            How many samples of each channel were there; fewer than asked for only at the end.
        """
        ...

    def skip(self, samples: int) -> int:
        """Go on by up to ``samples``; returns by how many it was, fewer only at the end."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Sndfile:
    """libsndfile. Its count of samples is never believed where it could be a header's.

    Raises:
        Refused: It cannot decode the stream, or the stream has absurd numbers.
    """

    def __init__(self, source: Source, stream: Stream):
        # Through a view only if need be, for it takes Python's lock; and on Windows, where descriptors are not shared.
        self._view = None
        handle: int | View
        if stream.pieces is None and os.name != "nt":
            os.lseek(source.fileno, 0, os.SEEK_SET)
            handle = os.dup(source.fileno)
        else:
            handle = self._view = View(source, stream.pieces or ((0, source.size),))
        try:
            self._sound = soundfile.SoundFile(handle)
        except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
            self._raise_of_view()
            raise Refused(str(error).rpartition(": ")[2].strip().rstrip(".") or "unknown format") from error
        try:
            self.rate, self.channels = self._sound.samplerate, self._sound.channels
            require_sane(self.rate, self.channels)
        except Refused:
            self._sound.close()
            raise
        self.promised, self.share, self.failure = stream.promised, stream.share, stream.damage
        self._done, self._ended, self._flac = 0, False, self._sound.format == "FLAC"
        frames = self._sound.frames if self._sound.frames < 1 << 62 else None
        if self.promised is None and self.share == 1 and not self._flac:
            self.promised = frames
        sure = not (self._flac or stream.damage or self._sound.subtype.startswith(_UNSURE))
        self.length = frames if sure else None
        self._most = stream.most
        if stream.most is not None and self.length is not None:
            self.length = min(self.length, stream.most)

    def read(self, block: NDArray[np.float32]) -> int:
        """See :class:`Decoder`."""
        if self._most is not None:
            block = block[: max(0, self._most - self._done)]
        if not len(block) or self._ended:
            return 0
        # For FLAC soundfile raises where a block ends early, and drops what was decoded: that is what is no longer NaN.
        if self._flac:
            block.fill(np.nan)
        try:
            got = len(self._sound.read(out=block))
        except (soundfile.LibsndfileError, RuntimeError):
            missing = np.isnan(block[:, -1])
            got = 0 if not self._flac else int(missing.argmax()) if missing.any() else len(block)
            self._ended = True
            # At the end of a FLAC file whose length was taken out this is as it should be.
            if not self._flac:
                self.failure = self.failure or "cannot be decoded further"
        self._raise_of_view()
        self._done += got
        return got

    def skip(self, samples: int) -> int:
        """See :class:`Decoder`."""
        if self.length is not None:
            samples = min(samples, self.length - self._done)
        if self._sound.seekable():
            try:
                self._done = self._sound.seek(self._done + samples)
            except (soundfile.LibsndfileError, RuntimeError):
                self._raise_of_view()
            else:
                return samples
        return dropped(self, samples)

    def close(self) -> None:
        """See :class:`Decoder`."""
        self._sound.close()

    def _raise_of_view(self) -> None:
        if self._view is not None and self._view.error is not None:
            raise self._view.error


def dropped(decoder: Decoder, samples: int) -> int:
    """Read up to ``samples`` and drop them; returns how many there were."""
    block = np.empty((max(1, min(samples, _DROPPED // decoder.channels)), decoder.channels), dtype=np.float32)
    left = samples
    while left > 0 and (got := decoder.read(block[:left])):
        left -= got
    return samples - left


def require_sane(rate: int, channels: int) -> None:
    """Refuse numbers that only a damaged header has.

    Raises:
        Refused: A rate or a count of channels is absurd.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise Refused(f"a sample rate of {rate} Hz; {LOWEST_RATE} to {HIGHEST_RATE} Hz are understood")
    if not 1 <= channels <= MOST_CHANNELS:
        raise Refused(f"{channels} channels; 1 to {MOST_CHANNELS} are understood")
