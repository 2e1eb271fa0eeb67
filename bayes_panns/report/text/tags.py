"""Tags of sound files as JSON, CSV, an Audacity label track, or a table for the terminal."""

import csv
import io
import json
from pathlib import Path

import numpy as np

from bayes_panns.core.choices import TagFormat
from bayes_panns.core.strict_json import strict
from bayes_panns.core.text import printable
from bayes_panns.predictions import Tags
from bayes_panns.report.formatting import exact
from bayes_panns.report.text.layout import columns

_FIELDS = ("probability", "aleatoric", "epistemic")
"""The arrays of a prediction that have a value for each label."""


def render_tags(tags: Tags, form: str, *, top: int = 3) -> str:
    """Write tags as text.

    Args:
        tags: The predictions.
        form: One of :class:`~bayes_panns.core.choices.TagFormat`. All but ``audacity`` hold the label sets of a
            calibrated posterior.
        top: How many labels ``table`` and ``audacity`` name.

    Returns:
        The text, ending in a newline. Times are in seconds, uncertainties are variances of a probability, entropies are
        in nats. Times have all their digits in every format, the other numbers in ``json`` and ``csv``.

    Raises:
        ValueError: There is no such format, or an Audacity track is wanted for several files.
    """
    if form not in TagFormat.words():
        raise ValueError(f"format {form!r}: expected one of {', '.join(TagFormat.words())}")
    match TagFormat(form):
        case TagFormat.JSON:
            return _json(tags)
        case TagFormat.CSV:
            return _csv(tags)
        case TagFormat.AUDACITY:
            return _audacity(tags, top)
        case TagFormat.TABLE:
            return _table(tags, top)


def _json(tags: Tags) -> str:
    uncertainty = tags.uncertainty
    windows = [
        {
            "file": window.file,
            "start": window.start,
            "end": window.end,
            **{name: getattr(uncertainty, name)[index].tolist() for name in _FIELDS},
            "entropy": float(uncertainty.entropy[index]),
            "mutual_information": float(uncertainty.mutual_information[index]),
            **({} if tags.sets is None else {"set": _label_set(tags, index)}),
        }
        for index, window in enumerate(tags.windows)
    ]
    # ASCII, so that file names that are not valid Unicode survive.
    return json.dumps(strict({"labels": list(tags.labels), "windows": windows}), allow_nan=False) + "\n"


def _csv(tags: Tags) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    calibrated = [] if tags.sets is None else ["in_set"]
    writer.writerow(["file", "start", "end", "label", *_FIELDS, "entropy", "mutual_information", *calibrated])
    uncertainty = tags.uncertainty
    for index, window in enumerate(tags.windows):
        for column, label in enumerate(tags.labels):
            values = [getattr(uncertainty, name)[index, column] for name in _FIELDS]
            clip = [uncertainty.entropy[index], uncertainty.mutual_information[index]]
            # The shortest text that reads back as the same number.
            numbers = [repr(float(value)) for value in (*values, *clip)]
            within = [] if tags.sets is None else [int(tags.sets[index, column])]
            writer.writerow([window.file, exact(window.start), exact(window.end), label, *numbers, *within])
    return text.getvalue()


def _audacity(tags: Tags, top: int) -> str:
    if len({window.file for window in tags.windows}) > 1:
        raise ValueError("an Audacity label track is for one file; tag the files one at a time")
    rows = [
        "\t".join([exact(window.start, decimals=6), exact(window.end, decimals=6), _most_probable(tags, index, top)])
        for index, window in enumerate(tags.windows)
    ]
    return "\n".join(rows) + "\n"


def _table(tags: Tags, top: int) -> str:
    uncertainty = tags.uncertainty
    # A power calibrates the probabilities; the entropies are those of the draws before it.
    entropy = "entropy" if uncertainty.mean is None else "entropy of the draws"
    rows = [["file", "seconds", "most probable (probability ± epistemic sd)", entropy, "mutual information"]]
    if tags.coverage is not None:
        rows[0].append(f"{exact(round(100 * tags.coverage, 6))} % set")
    for index, window in enumerate(tags.windows):
        rows.append(
            [
                Path(window.file).name,
                f"{exact(window.start)}-{exact(window.end)}",
                _most_probable(tags, index, top),
                f"{uncertainty.entropy[index]:.3f}",
                f"{uncertainty.mutual_information[index]:.3f}",
                *([] if tags.sets is None else [", ".join(_label_set(tags, index)) or "none"]),
            ]
        )
    return columns(rows)


def _label_set(tags: Tags, index: int) -> list[str]:
    """The labels in a window's set, the most probable first."""
    assert tags.sets is not None
    order = np.argsort(-tags.uncertainty.probability[index], kind="stable")
    return [tags.labels[k] for k in order if tags.sets[index, k]]


def _most_probable(tags: Tags, index: int, top: int) -> str:
    """The most probable labels of a window, each with its probability and its epistemic standard deviation."""
    probability, epistemic = tags.uncertainty.probability[index], tags.uncertainty.epistemic[index]
    order = np.argsort(-probability, kind="stable")[:top]
    return ", ".join(f"{printable(tags.labels[k])} {probability[k]:.2f}±{epistemic[k] ** 0.5:.2f}" for k in order)
