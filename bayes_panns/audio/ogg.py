"""Ogg files: the streams that follow each other in one, and whether the last is whole."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from bayes_panns.audio.views import Source, Stream

_HEAD = 27
_SEARCHED = 1 << 16

CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"fLaC")
"""How the first packet of a stream begins that libsndfile decodes."""


@dataclass(frozen=True)
class _Page:
    start: int
    end: int
    begins: bool
    ends: bool
    packet: bytes


def linked(source: Source) -> tuple[list[Stream], bool]:
    """The streams of an Ogg file that follow each other, and whether libsndfile can decode them all.

    Several at the same time, such as sound and pictures, it cannot.
    """
    links: list[list[_Page]] = []
    plain, lost = True, 0
    before = None
    for page in _pages(source):
        if page.begins and (before is None or not before.begins):
            links.append([])
        if page.begins:
            plain = plain and not links[-1] and page.packet.startswith(CODECS)
        if not links:  # The file does not begin with a beginning.
            return [], False
        lost += page.start - (before.end if before else 0)
        # Only the first and the last matter.
        links[-1][1:] = [page]
        before = page
    if before is None:
        return [], False
    streams = []
    for number, link in enumerate(links):
        start, end = link[0].start, link[-1].end
        whole = len(links) == 1 and start == 0 and end == source.size
        damage = "" if link[-1].ends else "has no end mark"
        if number == len(links) - 1 and lost:
            damage = f"has {lost} damaged bytes"
        streams.append(Stream(None if whole else ((start, end),), damage=damage))
    return streams, plain


def _pages(source: Source) -> Iterator[_Page]:
    """The whole pages, with what lies between them left out."""
    place = 0
    while len(head := source.at(place, _HEAD + 255 + 8)) >= _HEAD:
        if head[:4] != b"OggS":
            place = _next(source, place + 1)
            continue
        flags, count = head[5], head[26]
        body = place + _HEAD + count
        end = body + sum(head[_HEAD : _HEAD + count])
        if end > source.size:
            # The page is cut, or its length is damaged.
            place = _next(source, place + 1)
            continue
        yield _Page(place, end, bool(flags & 2), bool(flags & 4), head[_HEAD + count : _HEAD + count + 8])
        place = end


def _next(source: Source, place: int) -> int:
    """Where the next page begins; the file's end if there is none."""
    while block := source.at(place, _SEARCHED):
        if (found := block.find(b"OggS")) >= 0:
            return place + found
        place += max(1, len(block) - 3)
        if len(block) < _SEARCHED:
            break
    return source.size


def multiplexed_name(source: Source) -> str:
    """What an Ogg file holds that libsndfile cannot decode, for messages."""
    head = source.at(_HEAD + struct.unpack("B", source.at(26, 1) or b"\0")[0], 8)
    return "Ogg with Speex" if head == b"Speex   " else "Ogg with pictures or an unusual codec"
