"""The recordings of a results folder: found by a key, never by a path; and where their sounds are now."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from bayes_panns.core.errors import AudioError
from bayes_panns.core.text import printable
from bayes_panns.jobs.results import RECORDINGS, Entry, ResultsFolder
from bayes_panns.predictions.events import Event
from bayes_panns.report.view.labels import LabelBook
from bayes_panns.report.view.tracks import Track

LABELS = "labels.csv"
"""The file of a person's labels in a results folder."""

TRACK_BYTES = 200_000_000
"""The memory that tracks may take together; the one in use stays, whatever it takes."""


@dataclass(frozen=True)
class Item:
    """A recording.

    Attributes:
        key: What it is asked for by.
        entry: Its line in the results.
        path: Where it is now, as far as that is known, or else where it was when it was predicted.
    """

    key: str
    entry: Entry
    path: Path


class Library:
    """What is to be seen of a results folder; safe to use from several threads.

    Args:
        results: The folder.
        recordings: Where the recordings are now, if they have moved.

    Attributes:
        folder: The results.
        labels: The names of the labels.
        book: What a person says of the recordings.

    Raises:
        ResultsError: The folder holds no results, or they are damaged.
    """

    def __init__(self, results: Path, recordings: Path | None = None) -> None:
        self.folder, self._moved_to = ResultsFolder(results), recordings
        self.labels = self.folder.labels
        self.book = LabelBook(results / LABELS, self.labels)
        self._lock = threading.RLock()
        self._items: dict[str, Item] = {}
        self._events: dict[str, list[Event]] = {}
        self._tracks: OrderedDict[str, Track] = OrderedDict()
        self._seen: tuple[int, int] | None = None
        self.items()

    def items(self) -> list[Item]:
        """All recordings; those too that ``predict`` has finished since.

        Raises:
            ResultsError: The list of recordings is damaged.
        """
        with self._lock:
            try:
                found = (self.folder.path / RECORDINGS).stat()
                now = (found.st_mtime_ns, found.st_size)
            except FileNotFoundError:
                now = (0, 0)
            if now != self._seen:
                self._take(self.folder.recordings())
                self._seen = now
            return list(self._items.values())

    def item(self, key: str) -> Item:
        """The recording of a key.

        Raises:
            KeyError: There is none.
        """
        with self._lock:
            return self._items[key]

    def track(self, item: Item) -> Track:
        """The windows of a recording, for its timeline.

        Raises:
            ResultsError: It was skipped, or its record is missing or damaged.
        """
        with self._lock:
            if item.key in self._tracks:
                self._tracks.move_to_end(item.key)
                return self._tracks[item.key]
            with self.folder.record(item.entry) as record:
                made = Track.of(record)
            self._tracks[item.key] = made
            while sum(track.nbytes for track in self._tracks.values()) > TRACK_BYTES and len(self._tracks) > 1:
                self._tracks.popitem(last=False)
            return made

    def events(self, item: Item) -> list[Event]:
        """The events of a recording, in order of time.

        Raises:
            ResultsError: Its record is missing or damaged.
        """
        if item.entry.skipped is not None or not item.entry.events:
            return []
        with self._lock:
            if item.key not in self._events:
                with self.folder.record(item.entry) as record:
                    self._events[item.key] = record.events()
            return self._events[item.key]

    def sound(self, item: Item) -> Path:
        """The file of a recording.

        Raises:
            AudioError: It is not where it was, or another one is there.
        """
        name, other = printable(item.entry.file), None
        for path in self._places(item):
            if path.is_file():
                if not item.entry.size or path.stat().st_size == item.entry.size:
                    return path
                other = path
        if other is not None:
            raise AudioError(f"{name}: {printable(str(other))} is not the file that was predicted; its size differs")
        where = item.path.parent if self._moved_to is None else self._moved_to
        raise AudioError(
            f"{name}: is not in {printable(str(where))} any more; open the results with --recordings FOLDER to say "
            "where the recordings are now"
        )

    @property
    def outside(self) -> bool:
        """Whether the labels name a recording that ``pack`` reads only with ``--allow-outside``."""
        base = self._base()
        paths = [self.item(key).path for key in self.book.counts()]
        return any(base is None or not path.resolve().is_relative_to(base.resolve()) for path in paths)

    @property
    def posterior(self) -> Path | None:
        """The folder of the posterior that predicted, if it is still there; of an ensemble the first."""
        told = self.folder.manifest.get("posterior")
        folder = told.get("folder") if isinstance(told, dict) else None
        return Path(folder) if isinstance(folder, str) and Path(folder).is_dir() else None

    def _take(self, entries: list[Entry]) -> None:
        self._items = {}
        for entry in entries:
            key = hashlib.sha256(entry.file.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            self._items[key] = Item(key, entry, self._path(entry))
        self._events.clear()
        self._tracks.clear()
        base, bases = self._base(), self._bases()
        names: dict[str, str] = {}
        aliases: dict[str, str] = {}
        for item in self._readable():
            names[item.key] = str(item.path) if base is None else item.path.relative_to(base).as_posix()
            # Rows may be of a time when it was elsewhere.
            for path in (item.path, Path(item.entry.path)):
                relative = [path.relative_to(each).as_posix() for each in bases if path.is_relative_to(each)]
                aliases |= dict.fromkeys((*relative, str(path)), item.key)
            aliases |= dict.fromkeys((item.entry.file, names[item.key]), item.key)
        self.book.call(names, aliases)

    def _readable(self) -> list[Item]:
        return [item for item in self._items.values() if item.entry.skipped is None]

    def _path(self, entry: Entry) -> Path:
        """Where a recording is."""
        if self._moved_to is not None:
            found = next((path for path in _below(self._moved_to, entry.file) if path.is_file()), None)
            if found is not None:
                return found.absolute()
        # Standard input has none: it is then looked for by what it is called, and said to be missing.
        return Path(entry.path or entry.file).absolute()

    def _places(self, item: Item) -> Iterator[Path]:
        yield item.path
        if self._moved_to is not None:
            yield from _below(self._moved_to, item.entry.file)

    def _bases(self) -> list[Path]:
        """The folders that ``pack timed`` takes names in a table to be relative to."""
        here = self.folder.path.absolute()
        return [here, *here.parents[:2]]

    def _base(self) -> Path | None:
        """The one of them that has all recordings below it, if any has."""
        paths = [item.path for item in self._readable()]
        return next((base for base in self._bases() if all(path.is_relative_to(base) for path in paths)), None)


def _below(folder: Path, file: str) -> Iterator[Path]:
    """Where a recording may be in a folder: by its name with all its folders, then with fewer of them."""
    parts = [part for part in PurePath(file).parts if part not in ("..", PurePath(file).anchor)]
    for count in range(len(parts), 0, -1):
        yield folder.joinpath(*parts[-count:])
