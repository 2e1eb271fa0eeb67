"""Folders searched for sound files, and what is passed over in them."""

import logging
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from bayes_panns.audio import ffmpeg
from bayes_panns.core.errors import AudioError
from bayes_panns.core.text import STDIN, printable

logger = logging.getLogger(__name__)

NATIVE = frozenset(
    {
        ".wav",
        ".wave",
        ".bwf",
        ".rf64",
        ".w64",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".mp2",
        ".mpga",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".snd",
        ".caf",
        ".voc",
        ".sph",
    }
)
"""The usual endings of what libsndfile reads, lower case."""

SUFFIXES = NATIVE | ffmpeg.SUFFIXES
"""File name endings, lower case, that a folder is searched for; where ffmpeg is missing, its files are refused."""

_NAMED = 5
"""Endings that are named; the others are only counted."""


@dataclass(frozen=True)
class Walk:
    """What is in a folder.

    Attributes:
        files: The sound files (by their endings), sorted by path.
        others: How many other files there are of each ending, lower case; the empty ending is that of names without.
        unreadable: Folders that could not be looked into, each with the reason.
        repeated: Links to folders that are looked into by another path.
    """

    files: tuple[Path, ...]
    others: dict[str, int]
    unreadable: tuple[tuple[Path, str], ...] = ()
    repeated: tuple[Path, ...] = ()

    def passed_over(self) -> str:
        """What was passed over, in words; empty if nothing was.

        Example:
            >>> Walk((), {".txt": 2, ".jpg": 1}).passed_over()
            'passed over 3 files that are not sound: 2 .txt, 1 .jpg'
        """
        said = []
        if self.others:
            counts = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
            named = [f"{count} {printable(ending) or 'without an ending'}" for ending, count in counts[:_NAMED]]
            rest = sum(count for _, count in counts[_NAMED:])
            total = sum(self.others.values())
            plural = "file that is" if total == 1 else "files that are"
            said.append(f"{total} {plural} not sound: {', '.join([*named, *([f'{rest} others'] if rest else [])])}")
        if self.unreadable:
            folder, reason = self.unreadable[0]
            more = f" and {len(self.unreadable) - 1} more" if len(self.unreadable) > 1 else ""
            said.append(f"what cannot be read: {printable(str(folder))}{more} ({reason})")
        if self.repeated:
            more = f" and {len(self.repeated) - 1} more" if len(self.repeated) > 1 else ""
            said.append(f"links to folders that are here anyway: {printable(str(self.repeated[0]))}{more}")
        return "passed over " + "; and ".join(said) if said else ""


def walk(folder: str | Path) -> Walk:
    """Look for sound files in a folder and all folders below it.

    Links to folders are followed, but no folder is looked into twice. Hidden files and folders are left out.

    Raises:
        AudioError: ``folder`` is not a folder, or it cannot be looked into.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AudioError(f"{printable(str(folder))}: no such folder")
    files: list[Path] = []
    others: Counter[str] = Counter()
    unreadable: list[tuple[Path, str]] = []
    repeated: list[Path] = []
    for path in _files(folder, unreadable, repeated):
        ending = path.suffix.lower()
        if ending in SUFFIXES:
            files.append(path)
        else:
            others[ending] += 1
    if unreadable and unreadable[0][0] == folder:
        raise AudioError(f"{printable(str(folder))}: cannot be looked into ({unreadable[0][1]})")
    return Walk(tuple(sorted(files)), dict(others), tuple(unreadable), tuple(repeated))


def find(folder: str | Path) -> list[Path]:
    """Every sound file below ``folder``, as :func:`walk` finds them.

    Raises:
        AudioError: ``folder`` is not a folder, cannot be looked into, or holds no sound file.
    """
    found = walk(folder)
    if not found.files:
        passed = found.passed_over() or f"nothing in it ends in {', '.join(sorted(NATIVE))} or the like"
        raise AudioError(f"{printable(str(folder))}: holds no sound file ({passed})")
    return list(found.files)


def named_files(named: Sequence[Path]) -> list[tuple[Path, PurePath]]:
    """The sound files that were named, and those in the folders that were named; what a folder has else is said.

    Args:
        named: Files and folders; ``-`` is standard input.

    Returns:
        Each file, and its place: below the folder that was named, with that folder's own name first if several things
        were named; of a file that was named itself, its name.

    Raises:
        AudioError: Some of them do not exist, all of which are named; or a folder holds no sound file.
    """
    missing = [printable(str(path)) for path in named if str(path) != STDIN and not path.exists()]
    if missing:
        raise AudioError(f"{', '.join(missing)}: no such file")
    found = list[tuple[Path, PurePath]]()
    for path in named:
        if str(path) == STDIN or not path.is_dir():
            found.append((path, PurePath(path.name)))
            continue
        inside = walk(path)
        above = PurePath(path.resolve().name if len(named) > 1 else "")
        # Of an empty folder, find() says what there is instead.
        found += [(file, above / file.relative_to(path)) for file in inside.files or find(path)]
        if passed := inside.passed_over():
            logger.info(f"{path}: {passed}")
    return found


def find_others(folder: str | Path, endings: Collection[str]) -> list[Path]:
    """Every file below ``folder`` with one of these endings, lower case, where :func:`walk` looks; sorted by path."""
    return sorted(path for path in _files(Path(folder), [], []) if path.suffix.lower() in endings)


def similar(path: Path) -> list[Path]:
    """Files beside ``path`` whose names differ from its own in letter case or in Unicode's normal form only."""
    wanted = folded(path.name)
    try:
        with os.scandir(path.parent) as entries:
            return sorted(path.parent / entry.name for entry in entries if folded(entry.name) == wanted)
    except OSError:
        return []


def folded(name: str) -> str:
    r"""A name without letter case, in one normal form.

    Example:
        >>> folded("Cafe\N{COMBINING ACUTE ACCENT}.WAV") == folded("café.wav")
        True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _files(folder: Path, unreadable: list[tuple[Path, str]], repeated: list[Path]) -> Iterator[Path]:
    """The files below a folder that are not hidden; folders by their own path come before those by links."""
    seen = set()
    linked: list[Path] = []
    waiting = [folder]
    while waiting or linked:
        here = waiting.pop() if waiting else linked.pop(0)
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                repeated.append(here)
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            unreadable.append((here, error.strerror or str(error)))
            continue
        below: list[Path] = []
        for entry in inside:
            if entry.name.startswith("."):
                continue
            path = here / entry.name
            try:
                mode = entry.stat().st_mode
            except OSError:  # A link to nothing or to itself: whoever reads it says so.
                yield path
                continue
            if stat.S_ISDIR(mode):
                (linked if entry.is_symlink() else below).append(path)
            elif stat.S_ISREG(mode):
                yield path
            else:
                unreadable.append((path, "is a pipe or a device"))
        waiting += reversed(below)
