"""An evaluation on disk: a folder with ``evaluation.json`` and ``predictions.npz``, data and never code.

``predictions.npz`` holds, for N clips, K labels and M out-of-distribution clips:

==============================  ======================================================================
array                           content
==============================  ======================================================================
``target``                      bool ``(N, K)``
``sets``                        bool ``(N, K)``, the label sets, if there are any
``clips/<name>``                an array of :class:`~bayes_panns.predictions.Uncertainty`
``clips/standard_error/<name>`` an array of :class:`~bayes_panns.predictions.StandardError`
``ood/...``                     the same for the M clips, if there are any
==============================  ======================================================================

``evaluation.json`` holds the rest, a digest of itself, and the SHA-256 of the other file; older ones
lack both. Its ``draws`` are those of the predictions, 1 for a pass at the posterior mean; the
``draws`` of its ``provenance`` are 0 then. Its ``metrics`` are for people: reading an evaluation measures again.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bayes_panns.core import strict_json
from bayes_panns.core.archives import check_npz
from bayes_panns.core.choices import Task
from bayes_panns.core.digests import sealed, sha256_of, unsealed
from bayes_panns.core.errors import EvaluationError, OutputError
from bayes_panns.core.files import whole_folder
from bayes_panns.metrics.checks import check_task
from bayes_panns.metrics.conformal import label_sets
from bayes_panns.posterior import Calibration
from bayes_panns.predictions import StandardError, Uncertainty

if TYPE_CHECKING:
    from bayes_panns.evaluations.evaluation import Evaluation

FORMAT = 1
"""The version of the folder's format."""

_JSON, _ARRAYS = "evaluation.json", "predictions.npz"

_PER_CLIP = ("entropy", "expected_entropy", "mutual_information", "clip_total", "clip_aleatoric", "clip_epistemic")
"""The arrays of predictions that are ``(N,)``. The covariance is ``(N, K, K)``, all others ``(N, K)``."""

_LEFT_OUT = ("samples",)
"""What an evaluation does not keep: it would be as large as all draws of all clips."""


class _Provenance(BaseModel):
    """The entries of the provenance that are read back, of new and of old evaluations."""

    model_config = ConfigDict(extra="allow")

    draws: Annotated[int, Field(ge=0)] | Literal["moments"] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    pooled: int = 1


class _Header(BaseModel):
    """What ``evaluation.json`` holds, but for the metrics."""

    format_version: Annotated[int, Field(ge=1)]
    task: Task
    draws: Annotated[int, Field(ge=1)] | Literal["moments"]
    labels: tuple[str, ...]
    names: list[str]
    sources: list[str] | None
    ood_names: list[str]
    calibration: Calibration | None = None
    provenance: dict[str, Any]
    sha256: str | None = None


def write(evaluation: Evaluation, folder: Path) -> None:
    """Write an evaluation; see :meth:`Evaluation.save`.

    Raises:
        OutputError: ``folder`` holds something else.
    """
    require_place(folder)
    arrays = {"target": evaluation.target} | _flat(evaluation.uncertainty, "clips/")
    if evaluation.sets is not None:
        arrays["sets"] = evaluation.sets
    if evaluation.ood is not None:
        arrays |= _flat(evaluation.ood, "ood/")
    table = {
        "format_version": FORMAT,
        "task": evaluation.task,
        "draws": evaluation.uncertainty.draws,
        "labels": evaluation.labels,
        "names": evaluation.names,
        "sources": None if evaluation.sources is None else evaluation.sources.tolist(),
        "ood_names": evaluation.ood_names,
        "calibration": None if evaluation.calibration is None else evaluation.calibration.model_dump(mode="json"),
        "provenance": evaluation.provenance | {"draws": evaluation.draws},
        "metrics": strict_json.defined(evaluation.metrics),
    }
    with whole_folder(folder) as fresh:
        np.savez_compressed(fresh / _ARRAYS, **arrays)
        table = sealed(table | {"sha256": sha256_of(fresh / _ARRAYS)})
        (fresh / _JSON).write_text(strict_json.dumps(table, indent=1), encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """Read the arguments of :meth:`Evaluation.of` from a folder that :func:`write` wrote.

    Raises:
        EvaluationError: It is missing, damaged or of a newer format.
    """
    if not is_evaluation(folder):
        raise EvaluationError(f"{folder}: not an evaluation ({_JSON} is missing)")
    header = _header(folder / _JSON)
    arrays = _arrays_of(folder / _ARRAYS, header.sha256)
    clips, labels = len(header.names), len(header.labels)
    provenance = _Provenance.model_validate(header.provenance)
    about = {"draws": header.draws, "task": header.task}
    try:
        uncertainty = _nested(arrays, "clips/", clips, labels, about)
        sets = _flags(arrays, "sets", clips, labels) if "sets" in arrays else None
        if provenance.threshold is not None and provenance.pooled == 1:
            # Before evaluations kept their label sets, they kept the threshold. A pooled one kept that of its first
            # member only, so its sets are not known.
            sets = label_sets(uncertainty.probability, provenance.threshold)
        outside = any(name.startswith("ood/") for name in arrays)
        if header.sources is not None and len(header.sources) != clips:
            raise ValueError(f"{len(header.sources)} sources for {clips} clips")
        return {
            "uncertainty": uncertainty,
            "target": _flags(arrays, "target", clips, labels),
            "ood": _nested(arrays, "ood/", len(header.ood_names), labels, about) if outside else None,
            "names": header.names,
            "labels": header.labels,
            "sources": None if header.sources is None else np.array(header.sources, dtype=str),
            "ood_names": header.ood_names,
            "draws": 0 if provenance.draws == 0 else header.draws,
            "calibration": header.calibration,
            "sets": sets,
            "provenance": {
                name: value for name, value in header.provenance.items() if name not in ("draws", "threshold")
            },
        }
    except ValueError as error:
        raise damaged(folder / _ARRAYS, error) from error


def is_evaluation(folder: Path) -> bool:
    """Whether ``folder`` holds an evaluation."""
    return (folder / _JSON).is_file()


def require_place(folder: Path) -> None:
    """Check, before any work, that an evaluation can be written to ``folder``.

    Raises:
        OutputError: It is a file, or a folder that holds something else.
    """
    if folder.exists() and not is_evaluation(folder) and (folder.is_file() or any(folder.iterdir())):
        raise OutputError(f"{folder}: already exists and is not an evaluation; choose another folder")


def damaged(path: Path, error: BaseException | str) -> EvaluationError:
    """The error for a damaged file of an evaluation, in one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return EvaluationError(f"{path}: is damaged ({reason}); run evaluate again")


def _header(path: Path) -> _Header:
    try:
        table = json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_json)
        if not isinstance(table, dict):
            raise ValueError("not a table")
        version = table.get("format_version")
        if isinstance(version, int) and version > FORMAT:
            raise EvaluationError(
                f"{path}: format {version} is newer than this bayes_panns reads ({FORMAT}); update bayes_panns"
            )
        header = _Header.model_validate(table)
        check_task(header.task)
        _Provenance.model_validate(header.provenance)
        unsealed(table)
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    return header


def _not_json(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _arrays_of(path: Path, sha256: str | None) -> dict[str, NDArray]:
    if not path.is_file():
        raise EvaluationError(f"{path}: no such file; run evaluate again")
    try:
        if sha256 is not None and sha256_of(path) != sha256:
            raise ValueError(f"its checksum is not the one in {_JSON}")
        check_npz(path)
        # Numpy leaves a file open that it opened itself and cannot read.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("not an npz file")
            with archive:
                return dict(archive)
    except Exception as error:
        # A damaged archive may raise nearly anything: zipfile, zlib and numpy's header parser have errors of their own.
        raise damaged(path, error) from error


def _flat(uncertainty: Uncertainty, prefix: str) -> dict[str, NDArray]:
    """The arrays of predictions by their names in the archive."""
    errors = {f"{prefix}standard_error/{name}": array for name, array in _named(uncertainty.standard_error).items()}
    return {f"{prefix}{name}": array for name, array in _named(uncertainty).items()} | errors


def _named(parts: Uncertainty | StandardError) -> dict[str, NDArray]:
    values = {field.name: getattr(parts, field.name) for field in fields(parts)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray) and name not in _LEFT_OUT}


def _nested(arrays: dict[str, NDArray], prefix: str, clips: int, labels: int, about: dict[str, Any]) -> Uncertainty:
    """The predictions under ``prefix``, checked.

    Raises:
        ValueError: An array is missing, or of another type or shape, or holds values that it cannot.
    """

    def checked(names: list[str], prefix: str, finite: bool) -> dict[str, NDArray]:
        found = {}
        for name in names:
            full = f"{prefix}{name}"
            if full not in arrays:
                if name in ("covariance", "mean"):
                    continue
                raise ValueError(f"{full} is missing")
            per_clip = () if name in _PER_CLIP else (labels, labels) if name == "covariance" else (labels,)
            array = arrays[full]
            if array.shape != (clips, *per_clip) or array.dtype != np.float64:
                raise ValueError(f"{full} is {array.dtype} {array.shape}, not float64 {(clips, *per_clip)}")
            if finite and not np.isfinite(array).all():
                raise ValueError(f"{full} holds NaN or infinity")
            found[name] = array
        return found

    others = ("standard_error", "draws", "task", *_LEFT_OUT)
    parts = checked([field.name for field in fields(Uncertainty) if field.name not in others], prefix, finite=True)
    errors = checked([field.name for field in fields(StandardError)], f"{prefix}standard_error/", finite=False)
    if not ((parts["probability"] >= 0) & (parts["probability"] <= 1)).all():
        raise ValueError(f"{prefix}probability holds values outside [0, 1]")
    values: dict[str, Any] = {**parts, **about}
    return Uncertainty(**values, standard_error=StandardError(**errors))


def _flags(arrays: dict[str, NDArray], name: str, clips: int, labels: int) -> NDArray[np.bool_]:
    """A bool array ``(clips, labels)``.

    Raises:
        ValueError: It is missing, or something else.
    """
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    array = arrays[name]
    if array.shape != (clips, labels) or array.dtype != np.bool_:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not bool {(clips, labels)}")
    return array
