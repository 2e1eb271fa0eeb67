"""Predictions for windows as tables of pandas and Polars, as arrays of xarray, and as ArviZ's ``InferenceData``."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayes_panns import __version__
from bayes_panns.core.errors import PredictionError
from bayes_panns.core.text import readable
from bayes_panns.interop.optional import imported
from bayes_panns.predictions import Tags
from bayes_panns.predictions.record_windows import central_band

if TYPE_CHECKING:
    import pandas
    import polars
    import xarray
    from arviz import InferenceData

Band = tuple[NDArray[np.floating], NDArray[np.floating]]
"""The lower and the upper end of the probabilities, each ``(N, K)``."""

_OF_LABELS = ("probability", "aleatoric", "epistemic")
_OF_WINDOWS = ("entropy", "mutual_information")


def to_pandas(tags: Tags, *, wide: bool = False, band: Band | None = None) -> "pandas.DataFrame":
    """Predictions as a table of pandas.

    Args:
        tags: For N windows and K labels.
        wide: A row for each window and a column for each label's probability, rather than a row for each window and
            label.
        band: The central 90 % of the draws, where that is known already.

    Returns:
        N K rows of ``file``, ``start``, ``end`` (seconds), ``label``, ``probability``, ``aleatoric``, ``epistemic``
        (variances), ``low``, ``high`` (the central 90 % of the draws), ``entropy``, ``mutual_information`` (nats) and,
        for a calibrated posterior, ``in_set``. If ``wide``, N rows of file, start, end, the labels, and the entropies.

    Raises:
        BayesPannsError: pandas is not installed.
    """
    package = imported("pandas", "pandas", "to_pandas", "frames")
    table: pandas.DataFrame = package.DataFrame(columns_of(tags, wide=wide, band=band))
    return table


def to_polars(tags: Tags, *, wide: bool = False, band: Band | None = None) -> "polars.DataFrame":
    """Predictions as a table of Polars; see :func:`to_pandas`.

    Raises:
        BayesPannsError: Polars is not installed.
    """
    package = imported("polars", "Polars", "to_polars", "frames")
    table: polars.DataFrame = package.DataFrame(columns_of(tags, wide=wide, band=band))
    return table


def columns_of(tags: Tags, *, wide: bool = False, band: Band | None = None) -> dict[str, Any]:
    """The columns of :func:`to_pandas`, by name, each of as many rows."""
    found, labels, count = tags.uncertainty, [readable(label) for label in tags.labels], len(tags.windows)
    each = 1 if wide else len(labels)
    columns: dict[str, Any] = {
        "file": np.repeat(np.array([readable(window.file) for window in tags.windows], dtype=object), each),
        "start": np.repeat([window.start for window in tags.windows], each),
        "end": np.repeat([window.end for window in tags.windows], each),
    }
    if wide:
        taken = {*columns, *_OF_WINDOWS}
        for index, label in enumerate(labels):
            name = f"{label} (label)" if label in taken else label
            columns[name] = found.probability[:, index]
    else:
        low, high = central_band(found) if band is None else band
        columns["label"] = np.tile(np.array(labels, dtype=object), count)
        columns |= {name: getattr(found, name).reshape(-1) for name in _OF_LABELS}
        columns |= {"low": low.reshape(-1), "high": high.reshape(-1)}
    columns |= {name: np.repeat(getattr(found, name), each) for name in _OF_WINDOWS}
    if tags.sets is not None and not wide:
        columns["in_set"] = tags.sets.reshape(-1)
    return columns


def to_xarray(tags: Tags, *, band: Band | None = None) -> "xarray.Dataset":
    """Predictions as arrays with names.

    Args:
        tags: For N windows and K labels.
        band: The central 90 % of the draws, where that is known already.

    Returns:
        ``probability``, ``aleatoric``, ``epistemic``, ``low`` and ``high`` over (window, label), ``entropy`` and
        ``mutual_information`` over window, ``samples`` over (window, draw, label) where the draws were kept, and
        ``in_set`` for a calibrated posterior. The windows have the coordinates ``file``, ``start`` and ``end``.

    Raises:
        BayesPannsError: xarray is not installed.
    """
    package = imported("xarray", "xarray", "to_xarray", "frames")
    found, both = tags.uncertainty, ("window", "label")
    low, high = central_band(found) if band is None else band
    values: dict[str, Any] = {name: (both, getattr(found, name)) for name in _OF_LABELS}
    values |= {"low": (both, low), "high": (both, high)}
    values |= {name: ("window", getattr(found, name), {"units": "nats"}) for name in _OF_WINDOWS}
    if found.samples is not None:
        values["samples"] = (("window", "draw", "label"), found.samples)
    if tags.sets is not None:
        values["in_set"] = (both, tags.sets)
    seconds = {"units": "s"}
    dataset: xarray.Dataset = package.Dataset(
        values,
        coords={
            "label": [readable(label) for label in tags.labels],
            "file": ("window", [readable(window.file) for window in tags.windows]),
            "start": ("window", [window.start for window in tags.windows], seconds),
            "end": ("window", [window.end for window in tags.windows], seconds),
        },
        attrs={"task": str(found.task), "draws": found.draws, "bayes_panns": __version__},
    )
    return dataset


def to_arviz(tags: Tags) -> "InferenceData":
    """The draws of predictions for ArviZ, all in one chain.

    Args:
        tags: For N windows and K labels, with T draws that were kept.

    Returns:
        ``posterior_predictive`` with ``probability``, ``(1, T, N, K)``; and ``constant_data`` with ``start`` and
        ``end`` of the windows, in seconds.

    Raises:
        BayesPannsError: ArviZ is not installed.
        PredictionError: The draws were not kept, or there are none.
    """
    package = imported("arviz", "ArviZ", "to_arviz", "arviz")
    found = tags.uncertainty
    if found.samples is None:
        raise PredictionError("ArviZ needs the draws, and they were not kept; predict with draws and samples=True")
    dims = {"probability": ["window", "label"], "start": ["window"], "end": ["window"]}
    data: InferenceData = package.from_dict(
        posterior_predictive={"probability": found.samples.transpose(1, 0, 2)[None]},
        constant_data={
            "start": np.array([window.start for window in tags.windows]),
            "end": np.array([window.end for window in tags.windows]),
        },
        coords={
            "window": [f"{readable(window.file)} {window.start:g}-{window.end:g} s" for window in tags.windows],
            "label": [readable(label) for label in tags.labels],
        },
        dims=dims,
        attrs={"inference_library": "bayes_panns", "inference_library_version": __version__, "task": str(found.task)},
        save_warmup=False,
    )
    return data
