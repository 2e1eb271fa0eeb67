"""One sound file as a stream of blocks: decoded, mixed down and resampled."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.audio.decoders import Decoder, Refused, Sndfile, dropped
from bayes_panns.audio.ffmpeg import MISSING, Ffmpeg, program
from bayes_panns.audio.layout import Layout, layout
from bayes_panns.audio.notes import Listener, Note
from bayes_panns.audio.resampling import resampler
from bayes_panns.audio.views import Source, shown
from bayes_panns.core.choices import SoundNote
from bayes_panns.core.errors import AudioError, SettingError

__all__ = ["Note", "Recording", "duration"]

_BLOCK = 1 << 17
"""Samples that are decoded at a time, of all channels of up to two together with half of it: they stay in cache."""

_MISSED = 0.01
"""Seconds that may be missing without a word."""


class Recording:
    """One sound file, mono at a wanted rate, block by block in constant memory.

    It is read to the end of the sound that is there, whatever its header says. Files that libsndfile cannot read go
    through ffmpeg, where it is installed. Standard input, and a pipe, are first copied to an unnamed temporary file.

    Args:
        path: The file; ``-`` is standard input.
        sample_rate: The rate wanted, in Hz.
        channel: ``mix``, ``left``, ``right`` or the number of a channel from 1.
        start: Where to begin, in seconds of the file. What comes is what a reading of the whole file has there.
        seconds: How much to read; by default all. Little more than that is decoded.
        exact: As for :func:`~bayes_panns.audio.resampling.resampler`.

    Attributes:
        path: The file.
        sample_rate: The rate, in Hz.
        notes: What a user should know of the file; complete once the blocks have been read.
        seconds: How much sound there is from ``start`` on, as far as that is known once the blocks have been read: what
            was read, or what the file says where less than all was wanted.

    Raises:
        SettingError: The channel is none of those words, or ``start`` or ``seconds`` is no time.
        AudioError: At the first block: nothing can be decoded, the file has no such channel, or it ends before
            ``start``. At any block: it holds samples that are not finite numbers, which then would be taken for sound.
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
        self._channel, self._exact = channel_index(channel), exact
        if not (math.isfinite(start) and start >= 0 and (seconds is None or (math.isfinite(seconds) and seconds > 0))):
            raise SettingError(f"{start} s and {seconds} s from there: is no part of a recording")
        self._start, self._first = start, round(start * sample_rate)
        self._last = None if seconds is None else max(self._first + 1, round((start + seconds) * sample_rate))
        self._needed = None if seconds is None else start + seconds + 1
        self.seconds: float | None = None
        self._blocks: Iterator[Tensor] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        if self._blocks is not None:
            self._blocks.close()  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Tensor]:
        """Blocks of float32 samples, each of shape ``(any,)`` and not empty."""
        self._blocks = self._read()
        return self._blocks

    def _read(self) -> Iterator[Tensor]:
        name = shown(self.path)
        try:
            source = Source(self.path)
            try:
                yield from self._of_streams(source, name)
            finally:
                source.close()
        except OSError as error:
            raise AudioError(f"{name}: cannot be read ({error.strerror or error})") from error
        except MemoryError as error:
            raise AudioError(f"{name}: needs more memory than there is") from error

    def _of_streams(self, source: Source, name: str) -> Iterator[Tensor]:
        listener, heard = Listener(), _Heard()
        passed = given = 0
        for decoder in decoders(source, name, self._needed):
            try:
                if decoder.length is not None:
                    whole = -(-decoder.length * self.sample_rate // decoder.rate)
                    if whole and passed + whole <= self._first:
                        passed += whole
                        heard.add(decoder, decoder.length)
                        continue
                part = _Part(self, decoder, name, passed)
                for block in part.blocks(listener):
                    given += len(block)
                    yield block
            finally:
                decoder.close()
            passed += part.length
            if not part.ended:
                heard.whole = False
                rest = decoder.length or decoder.promised
                if rest is not None:
                    self.seconds = (passed - part.length) / self.sample_rate + rest / decoder.rate - self._start
                break
            heard.add(decoder, part.read)
        if not heard.samples and heard.whole:
            raise AudioError(f"{name}: holds no samples")
        if not given:
            raise AudioError(f"{name}: ends before {self._start:g} s")
        if heard.whole:
            self.seconds = given / self.sample_rate
        self.notes = (*heard.notes(), *listener.notes())


class _Part:
    """The part that is wanted of one stream.

    Attributes:
        read: Samples of the stream that have passed.
        length: Samples of the wanted rate that are in it, if it ended.
        ended: Whether it was read to its end.
    """

    def __init__(self, recording: Recording, decoder: Decoder, name: str, passed: int):
        self._recording, self._decoder, self._name = recording, decoder, name
        self._rate = recording.sample_rate
        self._first = max(0, recording._first - passed)
        self._last = None if recording._last is None else recording._last - passed
        self.read, self.length, self.ended = 0, 0, False

    def blocks(self, listener: Listener) -> Iterator[Tensor]:
        decoder, rate = self._decoder, self._decoder.rate
        stream = resampler(rate, self._rate, exact=self._recording._exact)
        # From where a period of the two rates begins, early enough for all that the resampler looks at and needs.
        divisor = math.gcd(rate, self._rate)
        period, made = rate // divisor, self._rate // divisor
        periods = max(0, self._first // made - -(-max(stream.reach, stream.least) // period))
        self.read = decoder.skip(periods * period) if periods else 0
        drop, done = self._first - periods * made, 0
        self.ended = self.read < periods * period
        limit = None
        if self._last is not None:
            after = -(-self._last * rate // self._rate) + stream.reach
            limit = max(after, self.read + stream.least)
        samples = max(1, min(_BLOCK, 2 * _BLOCK // decoder.channels))
        # One more than are known to be there, so that the end is seen with the first block of a short file.
        samples = samples if decoder.length is None else min(samples, max(1, decoder.length - self.read + 1))
        block = np.empty((samples, decoder.channels), dtype=np.float32)
        wanted = None if self._last is None else self._last - self._first
        while not self.ended and (limit is None or self.read < limit):
            some = block if limit is None else block[: limit - self.read]
            got = decoder.read(some)
            self.ended = got < len(some)
            if not got:
                break
            mono = self._mono(block[:got], listener)
            self.read += got
            ready, drop = _without(stream.feed(torch.from_numpy(mono)), drop)
            ready = ready if wanted is None else ready[: wanted - done]
            done += len(ready)
            if len(ready):
                yield ready
        ready, drop = _without(stream.finish(), drop)
        ready = ready if wanted is None else ready[: wanted - done]
        if len(ready) and self.read:
            yield ready
        self.length = -(-self.read * self._rate // rate)

    def _mono(self, block: NDArray[np.float32], listener: Listener) -> NDArray[np.float32]:
        """One channel or the mean of all, in memory of its own."""
        channel, channels = self._recording._channel, block.shape[1]
        if channel is not None:
            if channel >= channels:
                has = "one channel" if channels == 1 else f"{channels} channels"
                raise AudioError(f"{self._name}: has {has}, and no channel {channel + 1}")
            block = block[:, channel : channel + 1]
        if block.shape[1] == 1:
            mono = block[:, 0].copy()
        elif block.shape[1] == 2:  # As the mean, in a fraction of the time.
            with np.errstate(over="ignore", invalid="ignore"):
                mono = (block[:, 0] + block[:, 1]) / np.float32(2)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                mono = block.mean(axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(mono.sum())
        if not finite:
            wrong = np.flatnonzero(~np.isfinite(mono))
            if len(wrong):
                at = self.read + int(wrong[0])
                raise AudioError(
                    f"{self._name}: holds samples that are not finite numbers; the first is sample {at:,} (at "
                    f"{at / self._decoder.rate:.3f} s)"
                )
        listener.hear(block, mono, mixed=channel is None)
        return mono


class _Heard:
    """How much sound there was, and how much was missing."""

    def __init__(self) -> None:
        self.samples, self.whole = 0, True
        self._seconds, self._missing, self._damage = 0.0, 0.0, ""

    def add(self, decoder: Decoder, samples: int) -> None:
        """A stream that was read to its end."""
        self.samples += samples
        self._seconds += samples / decoder.rate
        if decoder.promised is not None:
            self._missing += max(0, decoder.promised - samples) / decoder.rate
        elif decoder.share < 1:
            self._missing += samples * (1 / decoder.share - 1) / decoder.rate
        self._damage = self._damage or decoder.failure

    def notes(self) -> list[Note]:
        if self._missing > _MISSED:
            promised = self._seconds + self._missing
            text = f"is truncated: it promises {promised:.2f} s, and {self._seconds:.2f} s are there"
            return [Note(SoundNote.TRUNCATED, text)]
        if self._damage:
            text = f"may be truncated: it {self._damage}; {self._seconds:.2f} s are there"
            return [Note(SoundNote.TRUNCATED, text)]
        return []


def _without(samples: Tensor, drop: int) -> tuple[Tensor, int]:
    """Samples without the first ``drop`` ones, and how many are still to be dropped."""
    return samples[drop:], max(0, drop - len(samples))


def decoders(source: Source, name: str, seconds: float | None = None) -> Iterator[Decoder]:
    """The decoders of a file's streams, one after the other; each must be closed before the next is taken.

    Args:
        source: The file.
        name: Its name for messages.
        seconds: How much of it is needed; by default all.

    Raises:
        AudioError: Nothing can be decoded.
    """
    found = layout(source, seconds=seconds)
    refused = ""
    for number, stream in enumerate(found.streams):
        try:
            decoder = Sndfile(source, stream)
        except Refused as error:
            refused = str(error)
            if number:
                return
            break
        yield decoder
    if found.streams and not refused:
        return
    yield _by_ffmpeg(source, found, name, refused)


def _by_ffmpeg(source: Source, found: Layout, name: str, refused: str) -> Decoder:
    """What libsndfile cannot decode, by ffmpeg."""
    if not found.demuxers:
        # Only then is libsndfile's own word of use: it knows the kind of file.
        known = refused and "recognised" not in refused and "regular file" not in refused
        raise AudioError(f"{name}: cannot be read as sound ({refused if known else 'format not recognised'})")
    if refused and program() is None:
        raise AudioError(
            f"{name}: cannot be read as sound (is {found.name}, but {refused}); perhaps ffmpeg can: {MISSING}"
        )
    try:
        return Ffmpeg(source, found.demuxers, found.name, next((each.damage for each in found.streams), ""))
    except Refused as error:
        text = f"cannot be read as sound ({refused})" if refused else str(error)
        raise AudioError(f"{name}: {text}") from error


def duration(path: str | Path) -> float:
    """How long the sound in a file is, in seconds: what can be decoded, not what a header says.

    Raises:
        AudioError: Nothing can be decoded.
    """
    source, name = Source(Path(path)), shown(Path(path))
    try:
        seconds = 0.0
        for decoder in decoders(source, name):
            try:
                seconds += _length(decoder) / decoder.rate
            finally:
                decoder.close()
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error.strerror or error})") from error
    finally:
        source.close()
    return seconds


def _length(decoder: Decoder) -> int:
    """Samples of each channel of a stream."""
    if decoder.length is not None:
        return decoder.length
    read = 0
    while got := dropped(decoder, _BLOCK):
        read += got
    return read


def channel_index(channel: str) -> int | None:
    """The index of a channel from its word or its number from 1; None for the mean of all.

    Raises:
        SettingError: It is neither a word nor a number.

    Example:
        >>> channel_index("mix"), channel_index("right"), channel_index("3")
        (None, 1, 2)
    """
    words = {"mix": None, "left": 0, "right": 1}
    if channel in words:
        return words[channel]
    with suppress(ValueError):
        if (number := int(channel)) >= 1:
            return number - 1
    raise SettingError(f"channel {channel!r}: there are mix, left, right, and numbers from 1")
