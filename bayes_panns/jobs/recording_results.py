"""The results of recordings: predicted window by window and written, each recording's files whole or not at all."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bayes_panns.audio.notes import Note
from bayes_panns.audio.times import RecordedAt, recorded_at
from bayes_panns.core.choices import Precision
from bayes_panns.core.files import whole_file
from bayes_panns.core.memory import give_back
from bayes_panns.jobs.planning import Planned
from bayes_panns.jobs.results import RECORDS, Entry
from bayes_panns.posterior import Posterior, Predictor, choose_device, load_all
from bayes_panns.predictions import Draws, Skipped
from bayes_panns.predictions.deciding import decide, outside_of
from bayes_panns.predictions.events import EventFinder, EventRules
from bayes_panns.predictions.record_windows import windows_of
from bayes_panns.predictions.records import Record, RecordWriter
from bayes_panns.predictions.tagging import FileTags, Tagger


class RecordingFormat(Protocol):
    """Writes a recording's results as a file of one kind; the report has them."""

    @property
    def ending(self) -> str:
        """What the file's name ends in, such as ``.csv``."""

    def write(self, record: Record, path: Path, manifest: Mapping[str, Any]) -> None:
        """Write what a record holds.

        Args:
            record: The record, open.
            path: The file to write; what is left there after an error is removed.
            manifest: The content of ``results.json``.
        """


@dataclass(frozen=True)
class Setup:
    """How recordings are predicted, and what is written of each; another process can be given it.

    Attributes:
        out: The results folder.
        manifest: The content of ``results.json``.
        draws, window, hop, channel: As for :func:`~bayes_panns.predictions.tag_each`.
        rules: What makes an event; None to look for none.
        deciding: Whether decisions are made.
        abstain_above: Above which entropy a window is left to a person.
        formats: What is written of each recording beside its record.
        folders: The posteriors, for another process.
        device: Where to compute, for another process.
        precision: What to compute with, for another process.
        guide_function: ``module:function`` of a posterior's guide, for another process.
    """

    out: Path
    manifest: Mapping[str, Any]
    draws: Draws
    window: float | None
    hop: float | None
    channel: str
    rules: EventRules | None
    deciding: bool
    abstain_above: float | None
    formats: tuple[RecordingFormat, ...]
    folders: tuple[Path, ...] = ()
    device: str = "cpu"
    precision: Precision = Precision.FLOAT32
    guide_function: str | None = None

    def load(self) -> Posterior | Predictor:
        """The posterior, in another process.

        Raises:
            PosteriorError: It cannot be read.
        """
        return load_all(
            self.folders,
            device=choose_device(self.device),
            precision=self.precision,
            guide_function=self.guide_function,
        )

    def tagger(self, posterior: Predictor) -> Tagger:
        """What tags the recordings."""
        return Tagger(
            posterior, self.draws, window=self.window, hop=self.hop, channel=self.channel, samples=self.sampled
        )

    @property
    def sampled(self) -> bool:
        """Whether the draws themselves are kept, for bands and events; there are none of moments."""
        return self.draws != "moments"

    def record_of(self, name: str) -> str:
        """The path of a recording's record below the results folder."""
        return f"{RECORDS}/{name}.h5"

    def write_formats(self, name: str, *, missing: bool = False) -> None:
        """Write a recording's files beside its record.

        Args:
            name: That of its results.
            missing: Whether to leave those as they are that are there.

        Raises:
            OSError: One cannot be written.
            ResultsError: The record is missing or damaged.
        """
        places = [(each, self.out / (name + each.ending)) for each in self.formats]
        places = [(each, place) for each, place in places if not (missing and place.is_file())]
        if not places:
            return
        with Record.open(self.out / self.record_of(name)) as record:
            for each, place in places:
                place.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(place) as part:
                    each.write(record, part, self.manifest)


@dataclass(frozen=True)
class Heard:
    """So many seconds more of a recording were predicted."""

    seconds: float


def predict_group(setup: Setup, tagger: Tagger, group: Sequence[Planned]) -> Iterator[Entry | Heard]:
    """Predict recordings together, and write the results of those that are wanted.

    Yields:
        How much was heard as it goes; the entry of each wanted recording once its files are written.

    Raises:
        OSError: A file cannot be written.
    """
    finder = None if setup.rules is None else EventFinder(tagger.posterior.labels, setup.rules)
    waiting, writing = list(reversed(group)), None
    try:
        for each in tagger.each([planned.path for planned in group]):
            planned = waiting[-1]
            if isinstance(each, Skipped):
                if writing is not None:
                    writing.abandon()
                    writing = None
                if finder is not None:
                    finder.drop()
                waiting.pop()
                if planned.wanted:
                    yield _skipped(planned, each)
                continue
            if planned.wanted and writing is None:
                writing = _Writing(setup, tagger, planned)
            if writing is not None:
                yield Heard(writing.add(each, finder))
                give_back()
            if each.complete:
                waiting.pop()
                if writing is not None:
                    entry = writing.finish(each.notes)
                    writing = None
                    yield entry
    finally:
        if writing is not None:
            writing.abandon()


def _skipped(planned: Planned, skipped: Skipped) -> Entry:
    return Entry(planned.file, path=planned.absolute, skipped=skipped.reason, size=planned.size, mtime=planned.mtime)


class _Abandoned(Exception):  # noqa: N818
    """A recording's results are not to be kept."""


class _Writing:
    """The results of one recording, while it is predicted."""

    def __init__(self, setup: Setup, tagger: Tagger, planned: Planned) -> None:
        self._setup, self._tagger, self._planned = setup, tagger, planned
        self._recorded: RecordedAt | None = recorded_at(planned.path)
        place = setup.out / setup.record_of(planned.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self._record = self._stack.enter_context(
            RecordWriter(
                place,
                labels=tagger.posterior.labels,
                file=planned.file,
                source=planned.path,
                recorded_at=None if self._recorded is None else self._recorded.time,
            )
        )

    def add(self, tags: FileTags, finder: EventFinder | None) -> float:
        """Write more windows; returns how many seconds of the recording they add."""
        posterior, before = self._tagger.posterior, self._record.seconds
        if self._setup.deciding:
            decided = decide(posterior, tags.uncertainty, abstain_above=self._setup.abstain_above)
            windows = windows_of(tags, called=decided.called, left=decided.left, outside=decided.outside)
        else:
            outside = outside_of(posterior.calibration, tags.uncertainty)
            windows = windows_of(tags, left=np.zeros_like(outside), outside=outside)
        self._record.add(windows, [] if finder is None else finder.add(tags))
        return self._record.seconds - before

    def finish(self, notes: tuple[Note, ...]) -> Entry:
        """Put all files into place."""
        self._stack.close()
        self._setup.write_formats(self._planned.name)
        recorded = self._recorded
        if recorded is not None and recorded.note is not None:
            notes = (*notes, recorded.note)
        return Entry(
            self._planned.file,
            record=self._setup.record_of(self._planned.name),
            path=self._planned.absolute,
            seconds=self._record.seconds,
            windows=self._record.windows,
            recorded_at=None if recorded is None else recorded.time.isoformat(),
            notes=notes,
            events=self._record.events,
            size=self._planned.size,
            mtime=self._planned.mtime,
        )

    def abandon(self) -> None:
        """Remove what was written."""
        error = _Abandoned()
        self._stack.__exit__(type(error), error, None)
