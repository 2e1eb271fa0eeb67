"""Tags of sound files as JSON, CSV, an Audacity label track, or a table for the terminal."""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import TagFormat
from bayes_panns.core.strict_json import strict
from bayes_panns.core.text import cell, printable
from bayes_panns.predictions import FileTags, Tags
from bayes_panns.report.formatting import exact
from bayes_panns.report.text.layout import Columns

_FIELDS = ("probability", "aleatoric", "epistemic")
"""The arrays of a prediction that have a value for each label."""


class TagText(ABC):
    """Tags as text that is made file by file: that of each part, then an end; made by :func:`tag_text`.

    Args:
        labels: K label names.
        coverage: The share of true labels that the label sets should contain, for a calibrated posterior.
        top: How many labels are named, by the formats that do not name all.
    """

    def __init__(self, labels: Sequence[str], coverage: float | None, top: int) -> None:
        self.labels, self.coverage, self.top = tuple(labels), coverage, top
        self.empty = True

    def add(self, tags: FileTags) -> str:
        """The text of more windows, with all that has to be before it."""
        text = self._header(tags) if self.empty else ""
        text += self._rows(tags)
        self.empty = False
        return text

    def end(self) -> str:
        """What has to follow the last window."""
        return ""

    def _header(self, tags: FileTags) -> str:
        return ""

    @abstractmethod
    def _rows(self, tags: FileTags) -> str: ...


def tag_text(form: str, labels: Sequence[str], *, coverage: float | None = None, top: int = 3) -> TagText:
    """What makes text of tags, file by file.

    Args:
        form: ``json``, ``csv``, ``audacity`` or ``table``. All but ``audacity`` hold the label sets of a calibrated
            posterior.
        labels: K label names.
        coverage: The share of true labels that the label sets should contain, for a calibrated posterior.
        top: How many labels ``table`` and ``audacity`` name.

    Raises:
        ValueError: There is no such format.
    """
    if form not in _FORMS:
        raise ValueError(f"format {form!r}: expected one of {', '.join(_FORMS)}")
    return _FORMS[TagFormat(form)](labels, coverage, top)


def render_tags(tags: Tags, form: str, *, top: int = 3) -> str:
    """Write tags as text.

    Args:
        tags: The predictions.
        form: As for :func:`tag_text`.
        top: Likewise.

    Returns:
        The text, ending in a newline. Times are in seconds, uncertainties are variances of a probability, entropies are
        in nats. Times have all their digits in every format, the other numbers in ``json`` and ``csv``.

    Raises:
        ValueError: There is no such format, or an Audacity track is wanted for several files.
    """
    text = tag_text(form, tags.labels, coverage=tags.coverage, top=top)
    return text.add(FileTags("", tags.windows, tags.uncertainty, tags.sets)) + text.end()


class _Json(TagText):
    """One document, with a window on each line so that one that was cut off can still be read."""

    def _header(self, tags: FileTags) -> str:
        # ASCII, so that file names that are not valid Unicode survive.
        return f'{{"labels": {json.dumps(self.labels)}, "windows": ['

    def _rows(self, tags: FileTags) -> str:
        rows = [json.dumps(strict(self._window(tags, index)), allow_nan=False) for index in range(len(tags.windows))]
        return ("\n" if self.empty else ",\n") + ",\n".join(rows)

    def _window(self, tags: FileTags, index: int) -> dict[str, object]:
        window, found = tags.windows[index], tags.uncertainty
        return {
            "file": window.file,
            "start": window.start,
            "end": window.end,
            **{name: _numbers(getattr(found, name)[index]) for name in _FIELDS},
            "entropy": float(str(found.entropy[index])),
            "mutual_information": float(str(found.mutual_information[index])),
            **({} if tags.sets is None else {"set": _label_set(self.labels, tags, index)}),
        }

    def end(self) -> str:
        return "" if self.empty else "\n]}\n"


class _Csv(TagText):
    """A row for each window and label."""

    def _header(self, tags: FileTags) -> str:
        calibrated = [] if tags.sets is None else ["in_set"]
        return _line(["file", "start", "end", "label", *_FIELDS, "entropy", "mutual_information", *calibrated])

    def _rows(self, tags: FileTags) -> str:
        found, lines = tags.uncertainty, list[str]()
        labels = [_field(cell(label)) for label in self.labels]
        for index, window in enumerate(tags.windows):
            before = f"{_field(cell(window.file))},{exact(window.start)},{exact(window.end)},"
            after = f",{found.entropy[index]},{found.mutual_information[index]}"
            # NumPy's text is the shortest that reads back as the same number.
            columns = [labels, *(map(str, getattr(found, name)[index]) for name in _FIELDS)]
            if tags.sets is None:
                lines += [f"{before}{','.join(row)}{after}\n" for row in zip(*columns, strict=True)]
            else:
                within = map(int, tags.sets[index])
                rows = zip(zip(*columns, strict=True), within, strict=True)
                lines += [f"{before}{','.join(row)}{after},{inside}\n" for row, inside in rows]
        return "".join(lines)


class _Audacity(TagText):
    """A label track of one file."""

    def __init__(self, labels: Sequence[str], coverage: float | None, top: int) -> None:
        super().__init__(labels, coverage, top)
        self._files = set[str]()

    def _rows(self, tags: FileTags) -> str:
        self._files |= {window.file for window in tags.windows}
        if len(self._files) > 1:
            raise ValueError("an Audacity label track is for one file; tag the files one at a time")
        return "".join(
            f"{exact(window.start, decimals=6)}\t{exact(window.end, decimals=6)}\t{self._named(tags, index)}\n"
            for index, window in enumerate(tags.windows)
        )

    def _named(self, tags: FileTags, index: int) -> str:
        return _most_probable(self.labels, tags, index, self.top)


class _Table(TagText):
    """The most probable labels of each window, in columns that widen where they must."""

    def __init__(self, labels: Sequence[str], coverage: float | None, top: int) -> None:
        super().__init__(labels, coverage, top)
        self._columns = Columns()

    def _rows(self, tags: FileTags) -> str:
        rows = [self._titles(tags)] if self.empty else []
        for index, window in enumerate(tags.windows):
            rows.append(
                [
                    Path(window.file).name,
                    f"{exact(window.start)}-{exact(window.end)}",
                    _most_probable(self.labels, tags, index, self.top),
                    f"{tags.uncertainty.entropy[index]:.3f}",
                    f"{tags.uncertainty.mutual_information[index]:.3f}",
                ]
            )
            if self.coverage is not None:
                rows[-1].append(", ".join(_label_set(self.labels, tags, index)) or "none")
        return self._columns.add(rows)

    def _titles(self, tags: FileTags) -> list[str]:
        # A power calibrates the probabilities; the entropies are those of the draws before it.
        entropy = "entropy" if tags.uncertainty.mean is None else "entropy of the draws"
        titles = ["file", "seconds", "most probable (probability ± epistemic sd)", entropy, "mutual information"]
        return titles if self.coverage is None else [*titles, f"{exact(round(100 * self.coverage, 6))} % set"]


_FORMS: dict[TagFormat, type[TagText]] = {
    TagFormat.JSON: _Json,
    TagFormat.CSV: _Csv,
    TagFormat.AUDACITY: _Audacity,
    TagFormat.TABLE: _Table,
}


def _numbers(values: NDArray[np.floating]) -> list[float]:
    """Numbers with no more digits than their own precision has."""
    found: list[float] = values.tolist() if values.dtype == np.float64 else [float(str(value)) for value in values]
    return found


def _field(text: str) -> str:
    """A text as a field of CSV."""
    return _line([text]).removesuffix("\n")


def _line(values: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _label_set(labels: Sequence[str], tags: FileTags, index: int) -> list[str]:
    """The labels in a window's set, the most probable first."""
    if tags.sets is None:
        return []
    order = np.argsort(-tags.uncertainty.probability[index], kind="stable")
    return [labels[k] for k in order if tags.sets[index, k]]


def _most_probable(labels: Sequence[str], tags: FileTags, index: int, top: int) -> str:
    """The most probable labels of a window, each with its probability and its epistemic standard deviation."""
    probability, epistemic = tags.uncertainty.probability[index], tags.uncertainty.epistemic[index]
    order = np.argsort(-probability, kind="stable")[:top]
    return ", ".join(f"{printable(labels[k])} {probability[k]:.2f}±{epistemic[k] ** 0.5:.2f}" for k in order)
