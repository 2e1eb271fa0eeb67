"""What kind of sound file a file is, and the streams that are in it."""

from dataclasses import dataclass

from bayes_panns.audio import chunks, mpeg, ogg
from bayes_panns.audio.views import Source, Stream


@dataclass(frozen=True)
class Layout:
    """How to read a file.

    Attributes:
        name: The kind of file, for messages; empty if it is not known.
        streams: What libsndfile decodes, one after the other; empty if it cannot.
        demuxers: Those of ffmpeg that read it, if libsndfile cannot; empty if there are none.
    """

    name: str
    streams: tuple[Stream, ...] = ()
    demuxers: str = ""


_FOREIGN = (
    (4, b"ftyp", "MP4 (m4a, AAC or video)", "mov"),
    (4, b"moov", "QuickTime", "mov"),
    (4, b"mdat", "QuickTime", "mov"),
    (4, b"wide", "QuickTime", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska", "matroska"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA or ASF", "asf"),
    (0, b"#!AMR", "AMR", "amr"),
    (0, b"\x0b\x77", "AC-3", "ac3,eac3"),
    (0, b"\x7f\xfe\x80\x01", "DTS", "dts"),
    (0, b"FLV\x01", "Flash video", "flv"),
    (0, b".RMF", "RealMedia", "rm"),
    (0, b".ra\xfd", "RealAudio", "rm"),
    (0, b"wvpk", "WavPack", "wv"),
    (0, b"MAC ", "Monkey's Audio", "ape"),
    (0, b"TTA1", "True Audio", "tta"),
    (0, b"tBaK", "TAK", "tak"),
    (0, b"MPCK", "Musepack", "mpc8"),
    (0, b"MP+", "Musepack", "mpc"),
    (8, b"AVI LIST", "AVI", "avi"),
    (0, b"\x00\x00\x01\xba", "MPEG video", "mpeg"),
    (0, b"DSD ", "DSD", "dsf"),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "MXF", "mxf"),
    (0, b"ajkg", "Shorten", "shn"),
    (0, b".SoX", "SoX's own format", "sox"),
    (0, b"XoS.", "SoX's own format", "sox"),
    (0, b"nut/multimedia container", "NUT", "nut"),
    (0, b"FRM8", "DSD", "iff"),
)
"""The place and the bytes that tell a kind of file, its name, and ffmpeg's demuxer for it."""

_KNOWN = (
    (8, b"WAVE", "WAV", "wav"),
    (0, b"riff\x2e\x91", "W64", "w64"),
    (8, b"AIF", "AIFF", "aiff"),
    (0, b".snd", "AU", "au"),
    (0, b"dns.", "AU", "au"),
    (0, b"caff", "CAF", "caf"),
    (0, b"fLaC", "FLAC", "flac"),
    (0, b"OggS", "Ogg", "ogg"),
    (0, b"Creative Voice File", "VOC", "voc"),
    (0, b"NIST_1A", "NIST SPHERE", "nistsphere"),
)
"""The same of files that libsndfile reads, unless their codec is an unusual one."""


_FLAC_COUNT = (1 << 36) - 1


def layout(source: Source, *, seconds: float | None = None) -> Layout:
    """Look at a file.

    Args:
        source: The file.
        seconds: How much of it is needed; by default all. Fewer bytes are then looked at.
    """
    start = mpeg.after_tags(source)
    head = source.at(start, 32)
    for place, magic, name, demuxers in _FOREIGN:
        if head[place:].startswith(magic):
            return Layout(name, demuxers=demuxers)
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return Layout("AAC", demuxers="aac")
    # Camcorders put a time of 4 bytes before each packet of 188.
    if any(
        all(source.at(start + first + number * length, 1) == b"G" for number in range(3))
        for first, length in ((0, 188), (4, 192))
    ):
        return Layout("MPEG transport stream", demuxers="mpegts")
    name, demuxers = next(
        ((name, demuxers) for place, magic, name, demuxers in _KNOWN if head[place:].startswith(magic)), ("", "")
    )
    if name == "FLAC":
        return Layout(name, tuple(_flac(source, start, seconds)), demuxers)
    if name == "Ogg":
        links, plain = ogg.linked(source)
        return Layout(name, tuple(links), demuxers) if plain else Layout(ogg.multiplexed_name(source), (), demuxers)
    if name and (inside := chunks.mp3_inside(source)):
        return Layout("MP3 in WAV", tuple(mpeg.joined(source, *inside, seconds=seconds)), demuxers)
    if name:
        return Layout(name, tuple(chunks.joined(source)) or (Stream(),), demuxers)
    frames = tuple(mpeg.joined(source, start, source.size, seconds=seconds))
    if frames:
        return Layout("MP3", frames, "mp3")
    return Layout("", (Stream(),))


def _flac(source: Source, start: int, seconds: float | None) -> list[Stream]:
    """The streams of a FLAC file, or of several joined.

    The count of samples is taken out: libFLAC would stop there, even where more follow.
    """
    starts, place, promised = list[int](), start, 0.0
    while place >= 0 and (seconds is None or promised < seconds):
        head = source.at(place, 26)
        # STREAMINFO comes first, 34 bytes long.
        if len(head) == 26 and head[:4] == b"fLaC" and head[4:5] in (b"\x00", b"\x80") and head[5:8] == b"\x00\x00\x22":
            starts.append(place)
            rate = int.from_bytes(head[18:21], "big") >> 4
            promised += (int.from_bytes(head[21:26], "big") & _FLAC_COUNT) / max(rate, 1)
        elif not starts:
            return [Stream()]
        place = _find(source, b"fLaC", place + 4)
    streams = []
    for begin, end in zip(starts, [*starts[1:], source.size], strict=True):
        head = source.at(begin, 26)
        count = int.from_bytes(head[21:26], "big") & _FLAC_COUNT
        unknown = bytes([head[21] & 0xF0, 0, 0, 0, 0])
        streams.append(Stream(((begin, begin + 21), unknown, (begin + 26, end)), count or None))
    return streams


def _find(source: Source, text: bytes, place: int) -> int:
    """Where bytes are next; -1 if nowhere."""
    while block := source.at(place, 1 << 20):
        if (found := block.find(text)) >= 0:
            return place + found
        if len(block) < 1 << 20:
            return -1
        place += len(block) - len(text) + 1
    return -1
