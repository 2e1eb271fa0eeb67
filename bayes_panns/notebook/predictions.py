"""Tags that print, show themselves in a notebook, convert and plot."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import TagFormat
from bayes_panns.core.errors import PredictionError
from bayes_panns.core.text import printable
from bayes_panns.interop.frames import to_arviz, to_pandas, to_polars, to_xarray
from bayes_panns.notebook.sounds import Origin
from bayes_panns.posterior import Calibration
from bayes_panns.predictions import Event, EventRules, FileTags, Tags, Window, find_events
from bayes_panns.predictions.deciding import Decided, decided
from bayes_panns.report.text.tags import render_tags

if TYPE_CHECKING:
    import pandas
    import polars
    import xarray
    from arviz import InferenceData
    from matplotlib.axes import Axes

ROWS = 40
"""The most windows that a print shows."""


class Top(NamedTuple):
    """A label and the window in which it is most probable.

    Attributes:
        label: Its name.
        probability: The mean of the draws.
        low, high: Their central 90 %.
        file: The sound.
        start, end: The window, in seconds.
    """

    label: str
    probability: float
    low: float
    high: float
    file: str
    start: float
    end: float

    def __repr__(self) -> str:
        chance = f"{self.probability:.2f} ({self.low:.2f} to {self.high:.2f})"
        return printable(f"{self.label} {chance}, {self.start:g}-{self.end:g} s of {Path(self.file).name}")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Predictions(Tags):
    """The tags of some sounds, one set of numbers for each of N windows; what ``load(...).predict`` gives.

    Printed it is a table, and in a notebook it shows itself. ``tags[2]``, ``tags[2:5]`` and ``tags["a.wav"]`` are the
    tags of some windows, and going through it gives one window after the other.

    Attributes:
        low, high: ``(N, K)``, the central 90 % of the draws.
        found: The events, or None of propagated moments.
        calibration: What was fitted on held-out clips, for :meth:`decide`.
        sample_rate: The rate that the posterior hears, in Hz.
        origin: Where the sounds come from.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    found: tuple[Event, ...] | None
    calibration: Calibration | None
    sample_rate: int
    origin: Origin

    @property
    def probability(self) -> NDArray[np.float64]:
        """``(N, K)``, the probability of each label in each window."""
        return self.uncertainty.probability

    @property
    def epistemic(self) -> NDArray[np.float64]:
        """``(N, K)``, the variance of a probability over the draws: the model has not heard enough."""
        return self.uncertainty.epistemic

    @property
    def aleatoric(self) -> NDArray[np.float64]:
        """``(N, K)``, the rest of the variance: the sound is ambiguous."""
        return self.uncertainty.aleatoric

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the sounds that were tagged, in order."""
        return tuple(dict.fromkeys(window.file for window in self.windows))

    def __len__(self) -> int:
        """How many windows there are."""
        return len(self.windows)

    def __iter__(self) -> Iterator["Predictions"]:
        """The tags of each window."""
        return (self._take(np.array([index])) for index in range(len(self)))

    def __getitem__(self, which: int | slice | str | Path) -> "Predictions":
        """The tags of a window by its number, of several by a slice, or of a sound by its name.

        Raises:
            IndexError: There is no such window.
            KeyError: There is no such sound, or several have the last part of their paths alike.
        """
        if isinstance(which, str | Path):
            return self._of_file(str(which))
        indices = np.arange(len(self))[which]
        return self._take(np.atleast_1d(indices))

    def top(self, n: int = 3) -> list[Top]:
        """The most probable labels: each by the window in which it is most probable, the surest first.

        Args:
            n: How many labels.
        """
        if not len(self):
            return []
        best = self.probability.argmax(axis=0)
        order = np.argsort(-self.probability[best, np.arange(len(self.labels))], kind="stable")[:n]
        return [self._top(int(k), int(best[k])) for k in order]

    def events(self, rules: EventRules | None = None) -> list[Event]:
        """From when to when each label is heard, and how probable it is that it is.

        Args:
            rules: What makes an event; by default those of ``predict``.

        Raises:
            PredictionError: There were no draws; or there are other rules, and the draws were not kept.
        """
        if rules is None:
            if self.found is None:
                raise PredictionError("events need draws, and moments have none; predict with a number of draws")
            return list(self.found)
        parts = [
            FileTags(name, part.windows, part.uncertainty) for name in self.files for part in [self._of_file(name)]
        ]
        return find_events(self.labels, parts, rules)

    def decide(self, abstain_above: float | None = None) -> Decided:
        """Which labels are called, and which windows are left to a person.

        Args:
            abstain_above: An entropy in nats, above which a window is left to a person.

        Raises:
            PredictionError: The posterior has no decisions (see ``calibrate``), and no limit is given.
        """
        return decided(self.calibration, self.uncertainty, abstain_above=abstain_above)

    def table(self, top: int = 3) -> str:
        """A line for each window with its most probable labels.

        Args:
            top: How many labels.
        """
        return render_tags(self, TagFormat.TABLE, top=top)

    def to_pandas(self, *, wide: bool = False) -> "pandas.DataFrame":
        """A table of pandas: see :func:`bayes_panns.interop.to_pandas`."""
        return to_pandas(self, wide=wide, band=(self.low, self.high))

    def to_polars(self, *, wide: bool = False) -> "polars.DataFrame":
        """A table of Polars: see :func:`bayes_panns.interop.to_pandas`."""
        return to_polars(self, wide=wide, band=(self.low, self.high))

    def to_xarray(self) -> "xarray.Dataset":
        """Arrays over windows, labels and draws: see :func:`bayes_panns.interop.to_xarray`."""
        return to_xarray(self, band=(self.low, self.high))

    def to_arviz(self) -> "InferenceData":
        """The draws as a posterior predictive: see :func:`bayes_panns.interop.to_arviz`."""
        return to_arviz(self)

    def save(self, path: str | Path) -> Path:
        """Write the tags to a file, whole or not at all.

        Args:
            path: Ends in ``.csv``, ``.json`` or ``.parquet``; or of one sound in ``.txt`` (its events as a label track
                of Audacity), ``.raven.txt`` (a selection table of Raven) or ``.png`` (its timeline). They are as
                ``predict --format`` writes them.

        Returns:
            The path.

        Raises:
            SettingError: The ending is none of these, or there are several sounds for one of the last three.
            OutputError: The file cannot be written, or what it needs is not installed.
        """
        from bayes_panns.notebook.saving import save

        return save(self, Path(path))

    def plot(self, ax: "Axes | None" = None, *, top: int = 5) -> "Axes":
        """Draw the most probable labels with the central 90 % of the draws.

        A single window has a bar for each label; a sound a line over time; several sounds a row each.

        Args:
            ax: Where to draw; by default new Axes.
            top: How many labels.
        """
        from bayes_panns.notebook.plots import draw

        return draw(self, ax, top)

    def __repr__(self) -> str:
        count = len(self)
        if count <= ROWS:
            text = self.table()
        else:
            text = self[: ROWS // 2].table() + f"... {count - ROWS // 2} more windows; print(tags.table()) shows all\n"
        return (text + "".join(f"skipped {each.reason}\n" for each in self.skipped)).rstrip("\n")

    def _repr_html_(self) -> str:
        from bayes_panns.notebook.html import predictions_html

        return predictions_html(self)

    def _of_file(self, name: str) -> "Predictions":
        names = [window.file for window in self.windows]
        found = [each for each in self.files if each == name] or [
            each for each in self.files if Path(each).name == name
        ]
        if len(found) != 1:
            what = "is no sound that was tagged" if not found else f"is the name of {len(found)} sounds; give the path"
            raise KeyError(f"{name}: {what}")
        return self._take(np.flatnonzero(np.array(names, dtype=object) == found[0]))

    def _take(self, index: NDArray[np.integer]) -> "Predictions":
        """The tags of some windows, with the events that touch them."""
        windows = tuple(self.windows[i] for i in index.tolist())
        files = {window.file for window in windows}
        found = self.found
        if found is not None and len(index) < len(self):
            found = tuple(event for event in found if any(_touch(event, window) for window in windows))
        return replace(
            self,
            windows=windows,
            uncertainty=self.uncertainty.take(index),
            sets=None if self.sets is None else self.sets[index],
            skipped=self.skipped if len(index) == len(self) else (),
            notes=tuple(note for note in self.notes if note[0] in files),
            low=self.low[index],
            high=self.high[index],
            found=found,
        )

    def _top(self, label: int, window: int) -> Top:
        where = self.windows[window]
        return Top(
            self.labels[label],
            float(self.probability[window, label]),
            float(self.low[window, label]),
            float(self.high[window, label]),
            where.file,
            where.start,
            where.end,
        )


def _touch(event: Event, window: Window) -> bool:
    return event.file == window.file and event.onset < window.end and event.offset > window.start
