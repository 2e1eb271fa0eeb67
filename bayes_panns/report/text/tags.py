"""Tags of sound files as JSON, CSV, Audacity labels or a table for the terminal."""

import csv
import io
import json
from pathlib import Path

import numpy as np

from bayes_panns.predictions import Tags

FORMATS = ("table", "json", "csv", "audacity")

_FIELDS = ("probability", "aleatoric", "epistemic")


def render(tags: Tags, form: str, *, top: int = 3) -> str:
    """Write tags down.

    Args:
        tags: The predictions.
        form: ``json``: everything, as DESIGN's ``labels`` and ``windows``; ``csv``: a row for each window and label;
            ``audacity``: a label track, for one file; ``table``: the likeliest labels of each window. All but
            ``audacity`` hold the label sets of a calibrated posterior.
        top: How many labels ``table`` and ``audacity`` name.

    Returns:
        The text, ending in a newline. Uncertainties are variances of a probability; entropies are in nats.

    Raises:
        ValueError: There is no such form, or an Audacity track is wanted for several files.
    """
    writers = {"table": _table, "json": _json, "csv": _csv, "audacity": _audacity}
    if form not in writers:
        raise ValueError(f"format {form!r}: there are {', '.join(FORMATS)}")
    return writers[form](tags, top)


def _json(tags: Tags, top: int) -> str:
    del top
    uncertainty = tags.uncertainty
    windows = [
        {
            "file": window.file,
            "start": window.start,
            "end": window.end,
            **{name: getattr(uncertainty, name)[index].tolist() for name in _FIELDS},
            "entropy": uncertainty.entropy[index],
            "mutual_information": uncertainty.mutual_information[index],
            **({} if tags.sets is None else {"set": _set(tags, index)}),
        }
        for index, window in enumerate(tags.windows)
    ]
    return json.dumps({"labels": list(tags.labels), "windows": windows}) + "\n"


def _csv(tags: Tags, top: int) -> str:
    del top
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    calibrated = [] if tags.sets is None else ["in_set"]
    writer.writerow(["file", "start", "end", "label", *_FIELDS, "entropy", "mutual_information", *calibrated])
    uncertainty = tags.uncertainty
    for index, window in enumerate(tags.windows):
        for column, label in enumerate(tags.labels):
            values = [getattr(uncertainty, name)[index, column] for name in _FIELDS]
            clip = [uncertainty.entropy[index], uncertainty.mutual_information[index]]
            numbers = [f"{value:.6g}" for value in (*values, *clip)]
            within = [] if tags.sets is None else [int(tags.sets[index, column])]
            writer.writerow([window.file, f"{window.start:g}", f"{window.end:g}", label, *numbers, *within])
    return text.getvalue()


def _set(tags: Tags, index: int) -> list[str]:
    """The labels in a window's set, the likeliest first."""
    assert tags.sets is not None
    order = np.argsort(-tags.uncertainty.probability[index], kind="stable")
    return [tags.labels[k] for k in order if tags.sets[index, k]]


def _likeliest(tags: Tags, index: int, top: int) -> list[str]:
    """The likeliest labels of a window, each with its probability and the epistemic standard deviation of it."""
    probability, epistemic = tags.uncertainty.probability[index], tags.uncertainty.epistemic[index]
    order = np.argsort(-probability)[:top]
    return [f"{tags.labels[k]} {probability[k]:.2f}±{epistemic[k] ** 0.5:.2f}" for k in order]


def _audacity(tags: Tags, top: int) -> str:
    if len({window.file for window in tags.windows}) > 1:
        raise ValueError("an Audacity label track is for one file; tag the files one at a time")
    rows = [
        f"{window.start:.6f}\t{window.end:.6f}\t{', '.join(_likeliest(tags, index, top))}"
        for index, window in enumerate(tags.windows)
    ]
    return "\n".join(rows) + "\n"


def _table(tags: Tags, top: int) -> str:
    uncertainty = tags.uncertainty
    rows = [["file", "seconds", "likeliest (probability ± epistemic sd)", "entropy", "mutual inf."]]
    if tags.coverage is not None:
        rows[0].append(f"{100 * tags.coverage:g} % set")
    for index, window in enumerate(tags.windows):
        rows.append(
            [
                Path(window.file).name,
                f"{window.start:.1f}-{window.end:.1f}",
                ", ".join(_likeliest(tags, index, top)),
                f"{uncertainty.entropy[index]:.3f}",
                f"{uncertainty.mutual_information[index]:.3f}",
                *([] if tags.sets is None else [", ".join(_set(tags, index)) or "none"]),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )
