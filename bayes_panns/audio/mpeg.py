"""MPEG audio (mp3) as frames: how many there are, whatever a header says of it.

A file may have no count of its frames or a wrong one, may be several joined, and may have tags and damaged bytes
anywhere. :func:`joined` finds the frames, cuts them into streams where the sound or its count begins anew, and gives
each stream a count that is true. The frames themselves are left alone. The header: ISO/IEC 11172-3, 2.4.1.3; the count
is that of the Xing and Info frames, which LAME describes at http://gabriel.mp3-tech.org/mp3infotag.html.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from bayes_panns.audio.views import Piece, Source, Stream

_WINDOW = 1 << 20
"""Bytes that are read at a time."""

_LARGEST = 1 << 13
"""No frame is longer, nor does what is looked at of one need more."""

_SURE = 4
"""Frames in a row that are taken for sound after bytes that are none."""

_JUNK = 1 << 18
"""Bytes in front of the first frame that are searched."""

_DECODER_DELAY = 529
"""Samples that a decoder of layer 3 adds in front."""

_RATES = (44100, 48000, 32000)
_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


@dataclass(frozen=True)
class _Header:
    """What the four bytes at the start of a frame say; ``kind`` is the same in all frames of a stream."""

    length: int
    samples: int
    kind: tuple[int, int, int, int]
    tag: int


@lru_cache(maxsize=4096)
def _header(word: bytes) -> _Header | None:
    """The header of a frame; None if it is none, or of a free bit rate, which tells no length."""
    (bits,) = struct.unpack(">I", word)
    version, layer = bits >> 19 & 3, 4 - (bits >> 17 & 3)
    rate, index, padding, mono = bits >> 10 & 3, bits >> 12 & 15, bits >> 9 & 1, (bits >> 6 & 3) == 3
    if bits >> 21 != 0x7FF or version == 1 or layer == 4 or rate == 3 or index in (0, 15):
        return None
    first = version == 3
    hertz = _RATES[rate] // (1 if first else 2 if version == 2 else 4)
    kbps = _KBPS[(1, layer) if first else (2, min(layer, 2))][index - 1]
    samples = 384 if layer == 1 else 1152 if first or layer == 2 else 576
    length = (12_000 * kbps // hertz + padding) * 4 if layer == 1 else samples * 125 * kbps // hertz + padding
    tag = 4 + ((17 if mono else 32) if first else (9 if mono else 17)) if layer == 3 else 0
    return _Header(length, samples, (version, layer, hertz, 1 if mono else 2), tag)


@dataclass
class _Run:
    """The frames of one stream.

    Attributes:
        first: The header of its first frame.
        info: The frame that counts the others, if it has one.
        ranges: The stretches of the file that its frames are in.
        frames: How many there are.
        lost: Bytes between them that are no frames.
    """

    first: bytes
    info: bytes = b""
    ranges: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0
    lost: int = 0

    def add(self, start: int, end: int) -> None:
        if self.ranges and self.ranges[-1][1] == start:
            self.ranges[-1] = (self.ranges[-1][0], end)
        else:
            self.ranges.append((start, end))
        self.frames += 1


def joined(source: Source, start: int, end: int, *, seconds: float | None = None) -> list[Stream]:
    """The streams of MPEG audio between two places of a file; empty if there is none.

    Args:
        source: The file.
        start: The first byte.
        end: The one after the last.
        seconds: How much is needed; frames beyond are not looked for.
    """
    runs, complete = _runs(source, start, end, seconds)
    if len(runs) == 1 and complete and _is_plain(source, runs[0], start, end):
        # As it is, without Python between the decoder and the file.
        return [_stream(source, runs[0], last=True, complete=True, plain=True)]
    return [
        _stream(source, run, last=number == len(runs) - 1, complete=complete)
        for number, run in enumerate(runs)
        if run.frames
    ]


def _runs(source: Source, start: int, end: int, seconds: float | None) -> tuple[list[_Run], bool]:
    """The runs of frames, and whether all were looked for."""
    runs: list[_Run] = []
    kind, counted, place = None, 0.0, start
    for place, frame in _frames(source, start, end):
        header = _header(frame[:4])
        assert header is not None
        gap = place - (runs[-1].ranges[-1][1] if runs and runs[-1].ranges else place)
        tag = frame[header.tag : header.tag + 4] if header.tag else b""
        is_info = tag in (b"Xing", b"Info") or frame[36:40] == b"VBRI"
        if is_info or header.kind != kind:
            runs.append(_Run(frame[:4]))
            kind, gap = header.kind, 0
        if is_info:
            # Fraunhofer's table is left out: libsndfile takes it for sound.
            runs[-1].info = frame[: header.length] if tag in (b"Xing", b"Info") else b""
            runs[-1].first = frame[:4]
            continue
        if runs[-1].ranges:
            runs[-1].lost += gap
        runs[-1].add(place, place + header.length)
        counted += header.samples / header.kind[2]
        if seconds is not None and counted > seconds:
            return runs, False
    return runs, True


def _frames(source: Source, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Where each whole frame begins, and its first bytes."""
    place, sure, found = start, 0, False
    base, window = start, b""
    while place + 4 <= end:
        at = place - base
        if (at + _LARGEST > len(window) and base + len(window) < end) or at < 0:
            base, window = place, source.at(place, min(_WINDOW, end - place))
            at = 0
        header = _header(window[at : at + 4]) if len(window) - at >= 4 else None
        if header is not None and (sure > 0 or _follow(source, place, end)):
            if place + header.length > end:
                return
            yield place, window[at : at + min(header.length, _LARGEST)]
            place += header.length
            sure, found = 1, True
            continue
        sure = 0
        if skipped := _tag(source, place):
            place += skipped
            continue
        # From the start only some way, since the file may not be MPEG audio at all.
        limit = end if found else min(end, start + _JUNK)
        place = _next(source, place + 1, limit)
        if place >= limit:
            return


def _follow(source: Source, place: int, end: int) -> bool:
    """Whether frames of one kind follow each other from ``place`` on."""
    kind = None
    for number in range(_SURE):
        word = source.at(place, 4)
        header = _header(word) if len(word) == 4 and place + 4 <= end else None
        if header is None:
            # The file may end, or a tag may follow.
            return number > 0 and (place >= end or source.at(place, 3) in (b"TAG", b"ID3", b"APE"))
        if kind not in (None, header.kind):
            return False
        kind, place = header.kind, place + header.length
    return True


def _next(source: Source, place: int, end: int) -> int:
    """Where frames begin again; ``end`` if nowhere."""
    while place + 4 <= end:
        block = source.at(place, min(_WINDOW, end - place))
        at = block.find(b"\xff")
        while at >= 0:
            word = block[at : at + 4]
            if len(word) == 4 and _header(word) is not None and _follow(source, place + at, source.size):
                return place + at
            at = block.find(b"\xff", at + 1)
        place += max(1, len(block) - 3)
    return end


def _tag(source: Source, place: int) -> int:
    """The length of a tag at a place; 0 if there is none."""
    head = source.at(place, 32)
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 128:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX" and len(head) >= 24:
        return 32 + int.from_bytes(head[12:16], "little")
    return 0


def after_tags(source: Source) -> int:
    """Where a file begins behind its tags of ID3's kind."""
    place = 0
    while place < source.size and (length := _tag(source, place)):
        place += length
    return min(place, source.size)


def _is_plain(source: Source, run: _Run, start: int, end: int) -> bool:
    """Whether a file is one stream with a true count, perhaps with the tags around it that libsndfile knows."""
    header = _header(run.first)
    if header is None or not run.info or len(run.ranges) != 1 or end != source.size:
        return False
    (first, last), ahead = run.ranges[0], after_tags(source)
    alone = ahead == start == first - len(run.info) and (last == end or source.at(last, 3) == b"TAG")
    return alone and _count(run.info, header.tag)[0] == run.frames


def _stream(source: Source, run: _Run, *, last: bool, complete: bool, plain: bool = False) -> Stream:
    header = _header(run.first)
    assert header is not None
    version, layer = header.kind[:2]
    counted, trimmed = _count(run.info, header.tag)
    damage = f"has {run.lost} damaged bytes" if run.lost else ""
    if last and complete and not damage and _is_cut(source, run.ranges[-1][1]):
        damage = "ends within a frame"
    promised = counted * header.samples - trimmed if counted and complete else None
    if run.info:
        info = _corrected(run.info, header.tag, run, counted)
    else:
        info = _made(run.first, version, run.frames) if layer == 3 else b""
    pieces: tuple[Piece, ...] = (info, *run.ranges) if info else tuple(run.ranges)
    return Stream(None if plain else pieces, promised, damage=damage)


def _is_cut(source: Source, place: int) -> bool:
    """Whether a frame begins at a place and is not all there."""
    word = source.at(place, 4)
    header = _header(word) if len(word) == 4 else None
    return header is not None and place + header.length > source.size


def _fields(info: bytes, tag: int) -> tuple[int, int]:
    """The flags of an Info frame, and where LAME's own part begins."""
    flags = int.from_bytes(info[tag + 4 : tag + 8], "big")
    return flags, tag + 8 + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags & 8) // 2


def _count(info: bytes, tag: int) -> tuple[int, int]:
    """How many frames an Info frame promises, and how many samples of them are padding."""
    if not info:
        return 0, 0
    flags, lame = _fields(info, tag)
    padding = int.from_bytes(info[lame + 21 : lame + 24], "big") if info[lame : lame + 4].isalnum() else 0
    return int.from_bytes(info[tag + 8 : tag + 12], "big") if flags & 1 else 0, (padding >> 12) + (padding & 0xFFF)


def _corrected(info: bytes, tag: int, run: _Run, counted: int) -> bytes:
    """An Info frame with the count of frames, and of bytes, that are there."""
    flags, lame = _fields(info, tag)
    changed = bytearray(info)
    if flags & 1 and counted != run.frames:
        changed[tag + 8 : tag + 12] = struct.pack(">I", run.frames)
        if run.frames < counted and len(info) >= lame + 24:
            # The padding was in the frames that are missing.
            changed[lame + 22 : lame + 24] = bytes([info[lame + 22] & 0xF0, 0])
    if flags & 2:
        at = tag + 8 + 4 * (flags & 1)
        length = len(info) + sum(end - start for start, end in run.ranges)
        changed[at : at + 4] = struct.pack(">I", min(length, 0xFFFFFFFF))
    return bytes(changed)


def _made(first: bytes, version: int, frames: int) -> bytes:
    """An Info frame for a stream that has none, and a silent frame.

    libsndfile drops what the decoder adds in front if there is such a count, and would not if there were none. What it
    drops here is the silent frame.
    """
    # Without a check sum or padding, at a bit rate at which a frame holds the count.
    word = bytes([first[0], first[1] | 1, (9 if version == 3 else 8) << 4 | first[2] & 0x0C, first[3]])
    header = _header(word)
    assert header is not None
    delay = header.samples - _DECODER_DELAY
    lame = b"LAME".ljust(21, b"\0") + struct.pack(">I", delay << 12)[1:]
    info = word.ljust(header.tag, b"\0") + b"Xing" + struct.pack(">II", 1, frames + 1) + lame
    return info.ljust(header.length, b"\0") + word.ljust(header.length, b"\0")
