"""Which recordings are predicted, together with which others, and where their results go."""

import hashlib
import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from bayes_panns.audio.walking import folded, named_files
from bayes_panns.core.text import STDIN, shown_name
from bayes_panns.jobs.results import OWN, Entry

_TOGETHER, _TOGETHER_BYTES = 64, 1 << 24
"""Short recordings are predicted together, up to so many of so many bytes in all: a pass of few windows is slow."""

_IDLE = 1.2
"""How much longer than on average one process may take: beyond that a long recording is shared among all."""

_LONGEST = 160
"""Bytes of a name; longer ones are shortened, for endings and hidden folders make them longer still."""

_RESERVED = frozenset(folded(PurePath(name).stem) for name in (*OWN, "labels.csv"))


@dataclass(frozen=True)
class Planned:
    """A recording to predict.

    Attributes:
        path: Where it is, as it was named; ``-`` is standard input.
        file: What it is called in results.
        name: Its results are ``NAME.csv`` and so on, with ``/`` between folders.
        size: Its bytes; 0 if there is no such file.
        mtime: When it was last changed, in seconds since 1970.
        wanted: Whether its results are still to be made.
    """

    path: Path
    file: str
    name: str
    size: int
    mtime: float
    wanted: bool = True

    @property
    def absolute(self) -> str:
        """Its absolute path; empty for standard input."""
        return "" if str(self.path) == STDIN else str(self.path.absolute())


def plan(files: Sequence[Path], finished: Iterable[Entry]) -> list[Planned]:
    """The recordings that were named, each once.

    Args:
        files: Files and folders.
        finished: The recordings whose results are there. They keep their names; of a file that has not changed the
            results are not wanted again.

    Raises:
        AudioError: A file that was named does not exist, or a folder holds no sound file.
    """
    known = {entry.path: entry for entry in finished if entry.path}
    taken = {folded(entry.name) for entry in known.values()}
    planned = dict[str, Planned]()
    for path, place in named_files(files):
        size, mtime = _status(path)
        recording = Planned(path, shown_name(path), "", size, mtime)
        if recording.absolute in planned:
            continue
        before = known.get(recording.absolute)
        if before is None:
            name = _free(place, taken)
            taken.add(folded(name))
        else:
            name = before.name
        same = before is not None and (before.size, before.mtime) == (size, mtime)
        planned[recording.absolute] = Planned(path, recording.file, name, size, mtime, not same)
    return list(planned.values())


def together(planned: Sequence[Planned]) -> Iterator[list[Planned]]:
    """The recordings in groups whose windows are predicted together.

    The groups follow from all recordings, whether they are wanted or not: a prediction depends in its last digits on
    the others in its group, and a resumed job is to write the same bytes.
    """
    group, size = list[Planned](), 0
    for each in planned:
        if group and (len(group) >= _TOGETHER or size + each.size > _TOGETHER_BYTES):
            yield group
            group, size = [], 0
        group.append(each)
        size += each.size
    if group:
        yield group


def largest_first(groups: Iterable[list[Planned]]) -> list[list[Planned]]:
    """Groups of recordings in an order in which no process is left with a large one at the end."""
    return sorted(groups, key=_bytes, reverse=True)


def divided(groups: Sequence[list[Planned]], processes: int) -> tuple[list[list[Planned]], list[list[Planned]]]:
    """Which groups all processes predict, window by window, and which each by itself.

    That a process reads and predicts whole recordings is the rule, for it needs no other one. The longest recordings
    are shared if processes would have nothing to do while others are at them.

    Args:
        groups: The largest first.
        processes: How many there are.

    Returns:
        Those that are shared, each of one long recording; and the rest.
    """
    shared = 0
    while shared < len(groups) and _bytes(groups[shared]) > _TOGETHER_BYTES:
        left = [_bytes(group) for group in groups[shared:]]
        if _longest(left, processes) <= _IDLE * sum(left) / processes:
            break
        shared += 1
    return list(groups[:shared]), list(groups[shared:])


def _longest(sizes: Sequence[int], processes: int) -> int:
    """The most that one process does if each takes the next piece of work when it is done with one."""
    busy = [0] * processes
    for size in sizes:
        heapq.heapreplace(busy, busy[0] + size)
    return max(busy)


def _bytes(group: Iterable[Planned]) -> int:
    return sum(each.size for each in group)


def _free(place: PurePath, taken: set[str]) -> str:
    """A name for the results of a recording that no other has, in any letter case."""
    whole = place.as_posix() if place.name != STDIN else "standard-input"
    without = str(place.with_suffix("").as_posix()) if place.suffix and place.name != STDIN else whole
    names = [_short(without), _short(whole)]
    names += [f"{names[1]}-{number}" for number in range(2, len(taken) + 3)]
    return next(name for name in names if folded(name) not in taken and folded(name) not in _RESERVED)


def _short(name: str) -> str:
    """The name, with each part short enough for a file system."""
    parts = []
    for part in name.split("/"):
        content = os.fsencode(part)
        if len(content) > _LONGEST:
            digest = hashlib.sha256(content).hexdigest()[:8]
            part = f"{content[:_LONGEST].decode('utf-8', 'ignore')}-{digest}"
        parts.append(part)
    return "/".join(parts)


def _status(path: Path) -> tuple[int, float]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0.0
    return (0, 0.0) if str(path) == STDIN else (status.st_size, status.st_mtime)
