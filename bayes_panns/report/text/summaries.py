"""What a store, a posterior or a run holds, in words."""

from pathlib import Path
from typing import Any

from bayes_panns.clips import Store
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.posterior.disk import read_header
from bayes_panns.recipes import read_run
from bayes_panns.svi import METRICS, read_metrics


def describe(path: str | Path) -> str:
    """Describe a store, a posterior's folder or a run's folder.

    Raises:
        BayesPannsError: There is nothing at ``path``, or it is none of the three, or it is damaged.
    """
    path = Path(path)
    if path.is_file():
        return _lines(Store(path).summary())
    if (path / "posterior.toml").is_file():
        return _posterior(path)
    if (path / "run.toml").is_file():
        return _run(path)
    if not path.exists():
        raise BayesPannsError(f"{path}: no such file or folder")
    raise BayesPannsError(f"{path}: is no store (a file), posterior (posterior.toml) or run (run.toml)")


def _posterior(path: Path) -> str:
    header = read_header(path)
    labels = header.pop("labels")
    return _lines({"posterior": path.name, **header, "labels": f"{len(labels)}: {', '.join(labels)}"})


def _run(path: Path) -> str:
    recipe = read_run(path / "run.toml").model_dump(exclude_none=True)
    described: dict[str, Any] = {"run": path.name, "recipe": recipe}
    lines = read_metrics(path / METRICS)
    if lines:
        described["last epoch"] = {name: value for name, value in lines[-1].items() if not name.startswith("scale/")}
    text = _lines(described)
    return text + "\n" + _posterior(path / "posterior") if (path / "posterior").is_dir() else text


def _lines(values: dict[str, Any], indent: str = "") -> str:
    width = max((len(str(key)) for key in values), default=0)
    text = ""
    for key, value in values.items():
        if isinstance(value, dict):
            text += f"{indent}{key}:\n{_lines(value, indent + '  ')}" if value else f"{indent}{key}: none\n"
        else:
            shown = "unknown" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
            text += f"{indent}{str(key).ljust(width)}  {shown}\n"
    return text
