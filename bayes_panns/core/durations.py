"""Lengths of time as people and SLURM write them."""

import re

_CLOCK = re.compile(
    r"(?:(?P<days>\d{1,9})-)?(?P<hours>\d{1,9})(?::(?P<minutes>\d\d?)(?::(?P<seconds>\d\d?))?)?", re.ASCII
)


def seconds_of(text: str) -> float:
    """The seconds of a length of time: ``HH:MM``, ``HH:MM:SS``, ``D-HH``, ``D-HH:MM``, ``D-HH:MM:SS`` or seconds.

    Raises:
        ValueError: It is none of these, or no time at all.

    Example:
        >>> seconds_of("90"), seconds_of("1:30"), seconds_of("2-00:00:05")
        (90.0, 5400.0, 172805.0)
    """
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r}: write HH:MM, HH:MM:SS, D-HH:MM:SS or a number of seconds")
    days, hours, minutes, seconds = (int(each or 0) for each in found.groups())
    plain = found["days"] is None and found["minutes"] is None
    total = hours if plain else 86400 * days + 3600 * hours + 60 * minutes + seconds
    if not total:
        raise ValueError(f"{text!r}: is no time at all")
    return float(total)
