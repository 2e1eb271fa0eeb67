"""What a person has said of the stretches of a results folder's recordings, in its ``labels.csv``.

The file is what ``pack timed`` reads. It is read again whenever another program has changed it, and written whole
after every change.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bayes_panns.clips.catalogs.labels import separated
from bayes_panns.clips.catalogs.timed_table import TimedRow, read_timed_table, separator_for, write_timed_table
from bayes_panns.core.errors import SettingError, StoreError

_SAME = 1e-5
"""Seconds; times that are nearer are the same: the table keeps six digits, and a record's events are no exact sums."""


@dataclass(frozen=True)
class Mark:
    """What is said of a stretch.

    Attributes:
        start: In seconds.
        end: In seconds; infinite for the end of the recording.
        labels: What is heard. Nothing says that none of the labels is.
        refuted: Labels that were proposed and are not heard.
    """

    start: float
    end: float
    labels: tuple[str, ...]
    refuted: tuple[str, ...]

    def about(self, start: float, end: float) -> bool:
        """Whether it is of this stretch."""
        return abs(self.start - start) < _SAME and (self.end == end or abs(self.end - end) < _SAME)

    def verdict(self, label: str) -> bool | None:
        """Whether ``label`` is heard there; None if that is not said.

        Example:
            >>> mark = Mark(0, 2.5, labels=("owl",), refuted=("dog",))
            >>> mark.verdict("owl"), mark.verdict("dog"), mark.verdict("rain")
            (True, False, None)
            >>> Mark(0, 2.5, labels=(), refuted=()).verdict("rain")
            False
        """
        if label in self.labels:
            return True
        return False if label in self.refuted or not (self.labels or self.refuted) else None


class LabelBook:
    """The labels of a results folder; safe to use from several threads.

    Args:
        path: The file; it need not exist.
        labels: The names of the posterior's labels.

    Attributes:
        path: The file.
        separator: What stands between several labels.
        problem: Why the file could not be read, if it could not; nothing is then known, and nothing is written.
    """

    def __init__(self, path: Path, labels: Sequence[str]):
        self.path, self.separator = path, separator_for(labels)
        self._names: Mapping[str, str] = {}
        self._aliases: Mapping[str, str] = {}
        self.problem: str | None = None
        self._lock = threading.RLock()
        self._rows: list[TimedRow] = []
        self._marks: dict[str, list[Mark]] = {}
        self._seen: tuple[int, int] | None = None

    def call(self, names: Mapping[str, str], aliases: Mapping[str, str]) -> None:
        """Say what the recordings are called.

        Args:
            names: What each is called in the rows that are written, by its key.
            aliases: Every name that a row may have for one, to its key.
        """
        with self._lock:
            self._names, self._aliases, self._seen = names, aliases, None

    def of(self, key: str) -> list[Mark]:
        """The marks of a recording, in order of time."""
        with self._lock:
            self._refresh()
            return list(self._marks.get(key, ()))

    def counts(self) -> dict[str, int]:
        """How many marks each recording has that has any, by its key."""
        with self._lock:
            self._refresh()
            return {key: len(marks) for key, marks in self._marks.items()}

    def names(self) -> set[str]:
        """All labels that are heard somewhere."""
        with self._lock:
            self._refresh()
            return {label for row in self._rows for label in self._mark(row).labels}

    def put(
        self, key: str, start: float, end: float, labels: Sequence[str] | None, refuted: Sequence[str] = ()
    ) -> Mark | None:
        """Say what is heard in a stretch, instead of what was said of it; the file is written before this returns.

        Args:
            key: The recording's.
            start: In seconds.
            end: In seconds.
            labels: What is heard; nothing for none of the labels; None to take back what was said.
            refuted: Labels that are not heard.

        Returns:
            What was said before.

        Raises:
            SettingError: A label cannot be written.
            StoreError: The file cannot be read; nothing is written.
            OSError: The file cannot be written.
        """
        made = None if labels is None else Mark(start, end, self._clean(labels), self._clean(refuted))
        if made is not None and set(made.labels) & set(made.refuted):
            raise SettingError("a label is heard in a stretch or is not; say one of them")
        with self._lock:
            self._refresh()
            if self.problem is not None:
                raise StoreError(self.problem)
            before = next((mark for mark in self._marks.get(key, ()) if mark.about(start, end)), None)
            rows = [self._renamed(row) for row in self._rows if not self._is(row, key, start, end)]
            if made is not None:
                rows.append(self._row(key, made))
            # Python's sort is stable: rows of the same stretch that a person wrote stay in their order.
            rows.sort(key=lambda row: (row.file, row.start or 0.0, row.end or 0.0))
            self._write(rows)
            return before

    def _clean(self, labels: Sequence[str]) -> tuple[str, ...]:
        cleaned = tuple(dict.fromkeys(" ".join(label.split()) for label in labels))
        for label in cleaned:
            if not label or self.separator in label or "\0" in label:
                raise SettingError(f"{label!r} cannot be a label; write a name without {self.separator!r}")
        return cleaned

    def _row(self, key: str, mark: Mark) -> TimedRow:
        of_same = [row for row in self._rows if self._aliases.get(row.file) == key]
        # pack asks for one fold and one source a recording.
        kept = {"fold": of_same[0].fold, "source": of_same[0].source} if of_same else {}
        return TimedRow(
            file=self._names[key],
            labels=self.separator.join(mark.labels),
            start=round(mark.start, 6),
            end=round(mark.end, 6),
            refuted=self.separator.join(mark.refuted),
            **kept,
        )

    def _renamed(self, row: TimedRow) -> TimedRow:
        """The row with its recording called as it is now, which may have moved since the row was written."""
        key = self._aliases.get(row.file)
        return row if key is None else row.model_copy(update={"file": self._names[key]})

    def _is(self, row: TimedRow, key: str, start: float, end: float) -> bool:
        return self._aliases.get(row.file) == key and self._mark(row).about(start, end)

    def _mark(self, row: TimedRow) -> Mark:
        return Mark(
            row.start or 0.0,
            float("inf") if row.end is None else row.end,
            separated(row.labels, self.separator),
            separated(row.refuted, self.separator),
        )

    def _refresh(self) -> None:
        """Read the file if it is not the one that was read or written last."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._take([], None)
            return
        now = (found.st_mtime_ns, found.st_size)
        if now == self._seen:
            return
        try:
            self._take([row for _, row in read_timed_table(self.path)], now)
        except StoreError as error:
            self._take([], now)
            self.problem = str(error)

    def _write(self, rows: list[TimedRow]) -> None:
        if not rows:
            # A table without rows is an error to whoever reads it.
            self.path.unlink(missing_ok=True)
            self._take([], None)
            return
        write_timed_table(self.path, rows)
        found = self.path.stat()
        self._take(rows, (found.st_mtime_ns, found.st_size))

    def _take(self, rows: list[TimedRow], seen: tuple[int, int] | None) -> None:
        marks: dict[str, list[Mark]] = {}
        for row in rows:
            if (key := self._aliases.get(row.file)) is not None:
                marks.setdefault(key, []).append(self._mark(row))
        for each in marks.values():
            each.sort(key=lambda mark: (mark.start, mark.end))
        self._rows, self._marks, self._seen, self.problem = rows, marks, seen, None
