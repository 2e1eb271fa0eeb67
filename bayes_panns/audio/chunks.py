"""Sound files made of chunks (WAV, RF64, W64, AIFF, AU, CAF): where the samples are, and how many were promised.

A program that writes to a pipe, or that crashes, leaves a length that is unknown, zero or far too large; others write
it wrong. :func:`chunked` finds the samples that are there, and repairs the header in a view where libsndfile needs it.
"""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from bayes_panns.audio.views import Piece, Source, Stream, overlaid

_MP3 = (0x50, 0x55)
"""WAV's numbers of MPEG audio."""

_PLAIN = (1, 3, 6, 7)
"""WAV's numbers of codecs that have as many bytes for each sample: PCM, float, A-law, mu-law."""

_BLOCKS = (0x02, 0x11, 0x31)
"""Those of codecs that say how many samples a block has: Microsoft's and IMA's ADPCM, GSM 6.10."""

_MOST_CHUNKS = 10_000
_MOST_FORMAT = 1 << 12
"""Bytes of a chunk that says how the samples are coded; it has some dozens."""

_WRAPPED = 1 << 32


@dataclass(frozen=True)
class _Chunk:
    """A chunk: its name, where its length is written, and where its contents are, as its header says."""

    name: bytes
    field: int
    start: int
    length: int


@dataclass
class _Data:
    """What the chunks before the samples say.

    Attributes:
        chunk: The samples' chunk.
        codec: WAV's number of the codec; 0 in other formats.
        block: Bytes of a sample of all channels, or of a codec's block; 0 if unknown.
        samples: Samples of each channel in a block.
        counted: Samples of each channel that a chunk of its own promises.
        before: The chunks before it.
        padded: Whether a byte follows each of these that has an odd length, as should be.
    """

    chunk: _Chunk
    codec: int = 0
    block: int = 0
    samples: int = 1
    counted: int | None = None
    before: tuple[_Chunk, ...] = ()
    padded: bool = True


def mp3_inside(source: Source) -> tuple[int, int] | None:
    """The first byte and the one after the last of MPEG audio in a WAV file; None in other files."""
    if source.at(0, 4) != b"RIFF":
        return None
    data = _wav(source)
    if data is None or data.codec not in _MP3:
        return None
    return data.chunk.start, data.chunk.start + _extent(source, data.chunk, source.size)


def joined(source: Source) -> list[Stream]:
    """The samples of a file made of chunks, and of the WAV files that follow it, as ``cat`` leaves them."""
    streams, start = list[Stream](), 0
    while (stream := chunked(_Rest(source, start))) is not None:
        after = start + 8 + int.from_bytes(source.at(start + 4, 4), "little")
        more = all(source.at(at, 4) == b"RIFF" and source.at(at + 8, 4) == b"WAVE" for at in (start, after))
        end = after if more else source.size
        if start or more:
            # libsndfile refuses a file in which another begins.
            pieces = stream.pieces or ((0, end - start),)
            moved = (each if isinstance(each, bytes) else (start + each[0], start + each[1]) for each in pieces)
            stream = replace(stream, pieces=tuple(moved))
        streams.append(stream)
        if not more:
            break
        start = after
    return streams


class _Rest:
    """The bytes of a file from a place on."""

    def __init__(self, source: Source, start: int) -> None:
        self.size, self._source, self._start = source.size - start, source, start

    def at(self, place: int, length: int) -> bytes:
        """See :meth:`.Source.at`."""
        return self._source.at(self._start + place, length) if place >= 0 else b""


def chunked(source: Source | _Rest) -> Stream | None:
    """The samples of a file made of chunks; None if it is of another kind, or so damaged that none are found."""
    magic = source.at(0, 16)
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and source.at(8, 4) == b"WAVE":
        return _of_wav(source, magic[:4])
    if magic[:4] == b"FORM" and source.at(8, 4) in (b"AIFF", b"AIFC"):
        return _of_aiff(source)
    if magic[:4] in (b".snd", b"dns."):
        return _of_au(source, "<" if magic[:4] == b"dns." else ">")
    if magic[:4] == b"caff":
        return _of_caf(source)
    if magic == _W64_RIFF:
        return _of_w64(source)
    return None


def contents(source: Source, wanted: Collection[bytes], *, most: int = 1 << 16) -> dict[bytes, bytes]:
    """The contents of some chunks of a WAV file, such as ``bext``; nothing of other files.

    Args:
        source: The file.
        wanted: Names of four bytes; of chunks of one name the first is taken.
        most: Bytes of a chunk that are read.
    """
    magic, found = source.at(0, 4), dict[bytes, bytes]()
    if magic not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or source.at(8, 4) != b"WAVE":
        return found
    order, places = ">" if magic == b"RIFX" else "<", [12]
    long = source.at(12, 36)
    while places:
        for chunk in _walk(source, places.pop(), order):
            if chunk.name == b"data" and chunk.length == _WRAPPED - 1 and long[:4] == b"ds64":
                # Its length in 64 bits; the walk goes on behind it.
                (length,) = struct.unpack("<Q", long[16:24])
                places, long = [chunk.start + length + length % 2], b""
                break
            if chunk.name in wanted and chunk.name not in found:
                found[chunk.name] = source.at(chunk.start, min(chunk.length, most))
    return found


_W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


def _walk(source: Source | _Rest, start: int, order: str) -> Iterator[_Chunk]:
    """The chunks of IFF and RIFF from ``start`` on, as far as their headers go."""
    for _ in range(_MOST_CHUNKS):
        head = source.at(start, 8)
        if len(head) < 8:
            return
        (length,) = struct.unpack(f"{order}I", head[4:])
        yield _Chunk(head[:4], start + 4, start + 8, length)
        end = start + 8 + length
        # Some programs leave out the byte that should follow an odd length.
        start = end + (length % 2 and not (_is_chunk(source, end, 8) and not _is_chunk(source, end + 1, 8)))


def _wav(source: Source | _Rest) -> _Data | None:
    """The samples of a WAV file, as its chunks say."""
    order = ">" if source.at(0, 4) == b"RIFX" else "<"
    codec, block, samples, counted = 0, 0, 1, None
    before, place, padded = list[_Chunk](), 12, True
    for chunk in _walk(source, 12, order):
        padded, place = padded and chunk.start == place + 8, chunk.start + chunk.length + chunk.length % 2
        if chunk.name == b"fmt ":
            fields = source.at(chunk.start, 40).ljust(40, b"\0")
            codec, block = (struct.unpack_from(f"{order}H", fields, at)[0] for at in (0, 12))
            if codec == 0xFFFE:  # The number is the start of a longer name.
                (codec,) = struct.unpack_from(f"{order}H", fields, 24)
            elif codec in _BLOCKS and chunk.length >= 20:
                (samples,) = struct.unpack_from(f"{order}H", fields, 18)
            block = block if codec in (*_PLAIN, *_BLOCKS) else 0
        elif chunk.name == b"fact" and chunk.length >= 4:
            (counted,) = struct.unpack(f"{order}I", source.at(chunk.start, 4).ljust(4, b"\0"))
        elif chunk.name == b"data":
            return _Data(chunk, codec, block, samples, counted, tuple(before), padded)
        before.append(chunk)
    return None


def _of_wav(source: Source | _Rest, magic: bytes) -> Stream | None:
    data = _wav(source)
    if data is None:
        return None
    chunk, patches, order = data.chunk, dict[int, bytes](), ">" if magic == b"RIFX" else "<"
    ends = 8 + int.from_bytes(source.at(4, 4), "big" if order == ">" else "little")
    if magic in (b"RF64", b"BW64"):
        long = source.at(12, 36)
        if long[:4] == b"ds64":
            (declared,) = struct.unpack("<Q", long[16:24])
            # The length in the chunk itself is then all ones.
            chunk = _Chunk(chunk.name, 28, chunk.start, declared)
            ends = 8 + struct.unpack("<Q", long[8:16])[0]
        else:
            patches[0] = b"RIFF"
        if magic == b"BW64":
            patches.setdefault(0, b"RF64")
    there = _extent(source, chunk, ends)
    if chunk.field == 28:
        if there != chunk.length:
            patches |= {20: struct.pack("<Q", chunk.start + there - 8), 28: struct.pack("<Q", there)}
    elif there != chunk.length or patches:
        patches[chunk.field] = struct.pack(f"{order}I", min(there, _WRAPPED - 1))
    promised = None if _unknown(chunk.length) or not data.block else chunk.length // data.block * data.samples
    most = None
    if data.codec not in _PLAIN and data.counted and data.block:
        whole = there // data.block * data.samples
        # The last block is padded; a count that is further off is wrong or of something else.
        most = data.counted if whole - data.samples < data.counted < whole + data.samples else None
        promised = most if most is not None and promised is not None and promised <= whole else promised
    stream = _stream(source, chunk, there, patches, promised, most)
    return stream if data.padded else replace(stream, pieces=_rebuilt(source, data, there, order))


def _rebuilt(source: Source | _Rest, data: _Data, there: int, order: str) -> tuple[Piece, ...]:
    """A WAV file with no more than the chunks that are needed, in the right places."""
    head = b""
    for chunk in data.before:
        if chunk.name in (b"fmt ", b"fact"):
            held = source.at(chunk.start, min(chunk.length, _MOST_FORMAT))
            head += chunk.name + struct.pack(f"{order}I", len(held)) + held + b"\0" * (len(held) % 2)
    sizes = [struct.pack(f"{order}I", min(size, _WRAPPED - 1)) for size in (12 + len(head) + there, there)]
    start = data.chunk.start
    return (source.at(0, 4) + sizes[0] + b"WAVE" + head + b"data" + sizes[1], (start, start + there))


def _of_aiff(source: Source | _Rest) -> Stream | None:
    counted, block = None, 0
    for chunk in _walk(source, 12, ">"):
        if chunk.name == b"COMM":
            channels, counted, bits = struct.unpack(">hIh", source.at(chunk.start, 8).ljust(8, b"\0"))
            block = max(0, channels) * (max(0, bits) + 7) // 8
            kind = source.at(chunk.start + 18, 4) if source.at(8, 4) == b"AIFC" else b"NONE"
            block = block if kind in (b"NONE", b"twos", b"sowt", b"fl32", b"FL32", b"fl64", b"FL64", b"in24") else 0
        elif chunk.name == b"SSND":
            there = _extent(source, chunk, 8 + int.from_bytes(source.at(4, 4), "big"))
            patches = {chunk.field: struct.pack(">I", min(there, _WRAPPED - 1))} if there != chunk.length else {}
            # 8 bytes of its own precede the samples. What the two counts agree on is believed.
            unknown = _unknown(chunk.length) or chunk.length <= 8
            promised = None if unknown or not block else (chunk.length - 8) // block
            if promised is not None and counted and promised > counted:
                promised = None
            return _stream(source, chunk, there, patches, promised, None)
    return None


def _of_au(source: Source | _Rest, order: str) -> Stream | None:
    head = source.at(0, 24)
    if len(head) < 24:
        return None
    start, declared, encoding, _, channels = struct.unpack(f"{order}5I", head[4:])
    chunk = _Chunk(b".snd", 8, start, declared)
    there = _extent(source, chunk, 0)
    block = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(encoding, 0) * channels
    promised = None if _unknown(declared) or not block else declared // block
    patches = {8: struct.pack(f"{order}I", min(there, _WRAPPED - 1))} if there != declared else {}
    return _stream(source, chunk, there, patches, promised, None)


def _of_caf(source: Source | _Rest) -> Stream | None:
    block, at = 0, 8
    for _ in range(_MOST_CHUNKS):
        head = source.at(at, 12)
        if len(head) < 12:
            return None
        name, length = head[:4], struct.unpack(">q", head[4:])[0]
        if name == b"desc":
            block, samples = struct.unpack(">II", source.at(at + 28, 8).ljust(8, b"\0"))
            block = block if samples == 1 else 0
        if name == b"data":
            chunk = _Chunk(name, at + 4, at + 12, length if length >= 0 else 0)
            there = _extent(source, chunk, 0, word=12)
            patches = {at + 4: struct.pack(">q", there)} if there != length else {}
            # 4 bytes of its own precede the samples.
            promised = (length - 4) // block if block and 4 < length < 1 << 62 else None
            return _stream(source, chunk, there, patches, promised, None)
        at += 12 + max(0, length)
    return None


def _of_w64(source: Source | _Rest) -> Stream | None:
    block, at = 0, 40
    for _ in range(_MOST_CHUNKS):
        head = source.at(at, 24)
        if len(head) < 24 or head[4:16] != _W64_TAIL:
            return None
        name, length = head[:4], struct.unpack("<Q", head[16:])[0]
        if name == b"fmt ":
            codec, block = struct.unpack_from("<H10xH", source.at(at + 24, 14).ljust(14, b"\0"))
            block = block if codec in (*_PLAIN, 0xFFFE) else 0
        if name == b"data":
            # libsndfile reads to the end of the file whatever the length is.
            there = source.size - at - 24
            promised = (length - 24) // block if block and 24 < length < 1 << 62 else None
            if promised is not None and length - 24 < there:
                there = length - 24 if source.at(at + length + -length % 8 + 4, 12) in (_W64_TAIL, b"") else there
            return _stream(source, _Chunk(name, at + 16, at + 24, there), there, {}, promised, None)
        at += max(24, length + -length % 8)
    return None


def _stream(
    source: Source | _Rest, chunk: _Chunk, there: int, patches: dict[int, bytes], promised: int | None, most: int | None
) -> Stream:
    pieces: tuple[Piece, ...] | None = overlaid(chunk.start + there, patches) if patches else None
    cut = promised is None and not _unknown(chunk.length) and there < chunk.length < 1 << 62
    return Stream(pieces, promised, there / chunk.length if cut else 1.0, most)


def _unknown(declared: int) -> bool:
    """Whether a length of 32 bits is one that programs write who do not know it."""
    return declared == 0 or 0x7FFFF000 <= declared <= 0x80000FFF or declared >= 0xFFFFF000


def _extent(source: Source | _Rest, chunk: _Chunk, ends: int, *, word: int = 8) -> int:
    """How many bytes of samples there are.

    Args:
        source: The file.
        chunk: The samples' chunk.
        ends: Where the file ends by its own first length.
        word: Bytes of the header of a chunk.
    """
    rest = max(0, source.size - chunk.start)
    if chunk.length > rest:
        return rest
    end = chunk.start + chunk.length
    if chunk.length and ends in (end, end + end % 2):
        # A file of over 4 GiB whose lengths have too few digits for it, or else what follows is no part of the sound.
        return rest if rest > _WRAPPED and (rest - chunk.length) % _WRAPPED < 2 else chunk.length
    # Other chunks may follow; if what follows is none, the length is wrong.
    followed = any(_is_chunk(source, place, word) for place in (end, end + end % 2))
    return chunk.length if source.size - end < word or followed else rest


def _is_chunk(source: Source | _Rest, place: int, word: int) -> bool:
    head = source.at(place, word)
    length = int.from_bytes(head[4:], "little"), int.from_bytes(head[4:], "big")
    return all(32 <= byte < 127 for byte in head[:4]) and place + word + min(length) <= source.size + 1
