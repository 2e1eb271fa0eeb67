"""A description of a store, a posterior or a run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bayes_panns.clips import Store
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.jobs import RunFolder, determined
from bayes_panns.posterior.disk import read_header
from bayes_panns.report.formatting import exact
from bayes_panns.report.text.decisions import shown_calibration
from bayes_panns.report.text.layout import columns
from bayes_panns.svi import OF_PARAMETERS, read_metrics


def describe(path: str | Path) -> str:
    """Describe a store, a posterior's folder or a run's folder.

    Args:
        path: A file or a folder.

    Returns:
        Lines of a name and a value, ending in a newline. Numbers have all their digits.

    Raises:
        BayesPannsError: ``path`` does not exist, is none of the three, or is damaged.
    """
    path = Path(path)
    if path.is_file():
        return _lines(Store(path).summary())
    if (path / "posterior.toml").is_file():
        return _lines(_posterior(path))
    run = RunFolder(path)
    if run.is_run:
        return _lines(_run(run))
    if not path.exists():
        raise BayesPannsError(f"{path}: no such file or folder")
    raise BayesPannsError(f"{path}: is not a store (a file), a posterior (posterior.toml) or a run (run.toml)")


def _posterior(path: Path) -> dict[str, Any]:
    header = read_header(path)
    labels = header.pop("labels")
    if not header["sample_rate"]:
        # It takes embeddings of another model: it knows no rate and no length.
        header = {key: value for key, value in header.items() if key not in ("sample_rate", "clip_seconds")}
    calibration = header.get("calibration")
    if calibration is not None:
        header["calibration"] = shown_calibration(calibration, labels)
    described = {"posterior": path.name, **header, "labels": f"{len(labels)}: {', '.join(labels)}"}
    effective = determined(header.get("provenance", {}))
    return described if effective is None else described | {"effective parameters": str(effective)}


def _run(run: RunFolder) -> dict[str, Any]:
    described: dict[str, Any] = {"run": run.path.name, "recipe": run.read_recipe().model_dump(exclude_none=True)}
    lines = read_metrics(run.metrics)
    if lines:
        described["last epoch"] = {
            name: value for name, value in lines[-1].items() if not name.startswith(OF_PARAMETERS)
        }
    return described | (_posterior(run.posterior) if run.posterior.is_dir() else {})


def _lines(values: Mapping[str, Any]) -> str:
    return columns(list(_rows(values)))


def _rows(values: Mapping[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    """A row for each value; tables follow their own row, indented."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:", "" if value else "none"
            yield from _rows(value, f"{indent}  ")
        else:
            shown = "unknown" if value is None else exact(value) if isinstance(value, float) else str(value)
            yield f"{indent}{key}", shown
