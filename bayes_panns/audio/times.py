"""When a sound was recorded: by the name that its recorder gave it, and by the metadata in the file.

===================================  ==========================================================================
source                               example
===================================  ==========================================================================
GUANO's chunk ``guan``               ``Timestamp: 2017-05-02T21:19:30+02:00``
AudioMoth's comment ``ICMT``         ``Recorded at 19:17:30 20/02/2019 (UTC+1) by AudioMoth 0FE081F80FE081F0``
Wildlife Acoustics' chunk ``wamd``   ``2014-04-02 22:59:14-05:00``
Broadcast Wave's chunk ``bext``      origination date and time
a name                               ``20190220_191730.WAV``, ``SITE_0+1_20161231$235959.wav``,
                                     ``20161231T235959+1000_SITE.flac``; of old AudioMoths ``5C6DA6CA.WAV``
===================================  ==========================================================================

The metadata comes before the name, which may have been changed, and the first source in this order before the others.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from bayes_panns.audio.chunks import contents
from bayes_panns.audio.notes import Note
from bayes_panns.audio.views import Source
from bayes_panns.core.choices import SoundNote
from bayes_panns.core.errors import AudioError
from bayes_panns.core.text import STDIN

_APART = timedelta(seconds=2)
"""By how much two sources may differ: recorders name a file a moment before or after they begin."""

_FIRST_YEAR, _LAST_YEAR = 1970, 2100

_FIRST_AUDIOMOTH, _LAST_AUDIOMOTH = 2015, 2038
"""The years of which a name of 8 hexadecimal digits is taken for a time: 20190220 is a date, not a time of 1987."""

_IN_NAME = re.compile(
    r"(?<!\d)(\d{4})(?P<d>-?)(\d\d)(?P=d)(\d\d)(?:(?P<t>T)|[_$ -])(\d\d)(?P<c>[-.:_]?)(\d\d)(?P=c)(\d\d)(?!\d)"
    r"(?P<zone>Z(?![A-Za-z])|[+-]\d\d:?\d\d(?!\d))?"
)
_HEXADECIMAL = re.compile(r"[0-9A-F]{8}")
_AUDIOMOTH = re.compile(
    r"Recorded at (\d\d):(\d\d):(\d\d)(?:\.\d+)? (\d\d)/(\d\d)/(\d{4})"
    r"(?: \(UTC(?:(?P<sign>[+-])(\d\d?)(?::(\d\d))?)?\))?"
)
_BEXT_DATE = re.compile(r"(\d{4})\D(\d\d)\D(\d\d)(\d\d)\D(\d\d)\D(\d\d)")
_BEXT_FROM, _BEXT_TO = 320, 338
"""Where ``bext`` has its date, 10 letters, and its time, 8 of them."""

_WAMD_TIME = 5
"""The number of the field of ``wamd`` with the time at which the file begins."""


@dataclass(frozen=True)
class RecordedAt:
    """When a recording begins.

    Attributes:
        time: The date and time; with its time zone where that is known, and otherwise by the recorder's clock.
        source: Where it was found, in words, such as ``its name``.
        note: That another source says something else, and which was taken; None if all agree.
    """

    time: datetime
    source: str
    note: Note | None = None

    def after(self, seconds: float) -> datetime:
        """The time so many seconds into the recording."""
        return self.time + timedelta(seconds=seconds)


def recorded_at(path: str | Path) -> RecordedAt | None:
    """When a sound file was recorded, as its metadata or its name say; None if neither does.

    Example:
        >>> recorded_at("SITE_20230412_053000.wav").time.isoformat()
        '2023-04-12T05:30:00'
        >>> recorded_at("20161231T235959+1000_SITE.flac").time.isoformat()
        '2016-12-31T23:59:59+10:00'

    Args:
        path: The file. What cannot be opened is judged by its name alone.
    """
    path = Path(path)
    if str(path) == STDIN:
        return None
    found = list(_in_file(path))
    if (named := time_in_name(path.name)) is not None:
        found.append(("its name", named))
    if not found:
        return None
    source, time = found[0]
    if time.tzinfo is None:
        # A clock's time has the zone that another source gives for the same time by the clock.
        zones = [each.tzinfo for _, each in found if each.tzinfo is not None and _agree(time, each)]
        time = time.replace(tzinfo=zones[0]) if zones else time
    other = next(((where, each) for where, each in found[1:] if not _agree(time, each)), None)
    if other is None:
        return RecordedAt(time, source)
    text = f"was recorded at {_shown(time)} by {source}, which is taken, and at {_shown(other[1])} by {other[0]}"
    return RecordedAt(time, source, Note(SoundNote.TWO_TIMES, text))


def time_in_name(name: str) -> datetime | None:
    """The time in the name of a recording, as recorders give them; None if there is none.

    Example:
        >>> time_in_name("5C6DA6CA.WAV").isoformat()
        '2019-02-20T19:13:14+00:00'
        >>> time_in_name("take 2.wav")

    Args:
        name: The file's name, without its folder.
    """
    stem = Path(name).stem if "." in name else name
    if _HEXADECIMAL.fullmatch(stem):
        moment = datetime.fromtimestamp(int(stem, 16), UTC)
        return moment if _FIRST_AUDIOMOTH <= moment.year < _LAST_AUDIOMOTH else None
    for found in _IN_NAME.finditer(name):
        year, month, day, hour, minute, second = (int(found[group]) for group in (1, 3, 4, 6, 8, 9))
        # An offset without the T of ISO 8601 may be any number that a recorder adds.
        zone = _zone(found["zone"]) if found["t"] and found["zone"] else None
        if (time := _time(year, month, day, hour, minute, second, zone)) is not None:
            return time
    return None


def _in_file(path: Path) -> Iterator[tuple[str, datetime]]:
    """The times that the metadata of a WAV file names, each with its source."""
    # A pipe can be read only once.
    if not path.is_file():
        return
    try:
        source = Source(path)
    except AudioError:
        return
    try:
        chunks = contents(source, (b"guan", b"LIST", b"wamd", b"bext"))
    except OSError:
        return
    finally:
        source.close()
    readers = (
        ("its GUANO metadata", b"guan", _of_guano),
        ("its AudioMoth comment", b"LIST", _of_audiomoth),
        ("its Wildlife Acoustics metadata", b"wamd", _of_wamd),
        ("its Broadcast Wave metadata", b"bext", _of_bext),
    )
    for what, name, read in readers:
        if name in chunks and (time := read(chunks[name])) is not None:
            yield what, time


def _of_guano(chunk: bytes) -> datetime | None:
    for line in chunk.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Timestamp":
            return _iso(value)
    return None


def _of_audiomoth(chunk: bytes) -> datetime | None:
    found = _AUDIOMOTH.search(chunk.decode("latin-1"))
    if found is None:
        return None
    hour, minute, second, day, month, year = (int(found[group]) for group in range(1, 7))
    # The first firmware names no zone: its clock is UTC.
    offset = timedelta(hours=int(found[8] or 0), minutes=int(found[9] or 0))
    with suppress(ValueError):
        return _time(year, month, day, hour, minute, second, timezone(-offset if found["sign"] == "-" else offset))
    return None


def _of_wamd(chunk: bytes) -> datetime | None:
    at = 0
    while at + 6 <= len(chunk):
        number, length = struct.unpack_from("<HI", chunk, at)
        if number == _WAMD_TIME:
            return _iso(chunk[at + 6 : at + 6 + length].decode("latin-1").rstrip("\0"))
        at += 6 + length
    return None


def _of_bext(chunk: bytes) -> datetime | None:
    found = _BEXT_DATE.fullmatch(chunk[_BEXT_FROM:_BEXT_TO].decode("latin-1"))
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(digits) for digits in found.groups())
    return _time(year, month, day, hour, minute, second, None)


def _iso(text: str) -> datetime | None:
    with suppress(ValueError):
        time = datetime.fromisoformat(text.strip())
        return time if _FIRST_YEAR < time.year < _LAST_YEAR else None
    return None


def _zone(text: str) -> timezone | None:
    if text == "Z":
        return UTC
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    with suppress(ValueError):
        return timezone(-offset if text[0] == "-" else offset)
    return None


def _time(
    year: int, month: int, day: int, hour: int, minute: int, second: int, zone: timezone | None
) -> datetime | None:
    # Clocks that were never set begin at 1970.
    if not _FIRST_YEAR < year < _LAST_YEAR:
        return None
    with suppress(ValueError):
        return datetime(year, month, day, hour, minute, second, tzinfo=zone)
    return None


def _agree(one: datetime, other: datetime) -> bool:
    """Whether two times are the same: by the clock, unless both have a zone."""
    if one.tzinfo is None or other.tzinfo is None:
        one, other = one.replace(tzinfo=None), other.replace(tzinfo=None)
    return abs(one - other) <= _APART


def _shown(time: datetime) -> str:
    return time.isoformat(sep=" ")
