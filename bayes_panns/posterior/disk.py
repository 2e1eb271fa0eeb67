"""Posteriors on disk: a folder with ``posterior.toml`` and ``guide.safetensors``, data and never code.

``guide.safetensors`` holds ``<parameter>.loc`` and ``<parameter>.scale`` for each variational weight and
``<parameter>`` for each point weight and BatchNorm statistic, by PANNs' parameter names. A guide of the user's own
stands under ``guide/`` as its module names its parameters.
"""

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import tomli_w
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bayes_panns.bayes import MeanField, Strategy
from bayes_panns.clips import Task
from bayes_panns.errors import BayesPannsError, PosteriorError
from bayes_panns.posterior.posterior import Calibration, Posterior
from bayes_panns.writing import whole_file, whole_folder

FORMAT = 2
"""The version of the folder's format that this code writes; it reads this one and those before it."""

_TOML, _TENSORS = "posterior.toml", "guide.safetensors"


class _Header(BaseModel):
    """What ``posterior.toml`` holds."""

    model_config = ConfigDict(extra="forbid")

    format_version: int
    net: str
    task: Task
    sample_rate: int
    clip_seconds: float
    labels: tuple[str, ...]
    guide_function: str | None = None
    sha256: str
    strategy: Strategy
    calibration: Calibration | None = None
    provenance: dict[str, Any] = {}
    metrics: dict[str, float] = {}


def save(posterior: Posterior, folder: str | Path) -> None:
    """Write ``posterior`` to ``folder``, whole or not at all; one that is there is replaced.

    Raises:
        PosteriorError: ``folder`` holds something else.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / _TOML).is_file() and any(folder.iterdir()):
        raise PosteriorError(f"{folder}: is there and is no posterior; choose another folder")
    tensors = posterior.points()
    if isinstance(posterior.guide, MeanField):
        for name, (loc, scale) in posterior.gaussians().items():
            tensors |= {f"{name}.loc": loc, f"{name}.scale": scale}
    else:
        tensors |= {f"guide/{name}": value for name, value in posterior.guide.state_dict().items()}
    with whole_folder(folder) as fresh:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, fresh / _TENSORS)
        header = _Header(
            format_version=FORMAT,
            net=posterior.net,
            task=posterior.task,
            sample_rate=posterior.sample_rate,
            clip_seconds=posterior.clip_seconds,
            labels=posterior.labels,
            guide_function=posterior.guide_function,
            sha256=_digest(fresh / _TENSORS),
            strategy=posterior.strategy,
            calibration=posterior.calibration,
            provenance=posterior.provenance,
            metrics=posterior.metrics,
        )
        (fresh / _TOML).write_text(_toml(header), encoding="utf-8")


def save_calibration(posterior: Posterior) -> None:
    """Write ``posterior.calibration`` into the folder that the posterior was loaded from; nothing else there changes.

    Raises:
        PosteriorError: It was not loaded from a folder, or that is no longer a posterior.
    """
    if posterior.folder is None:
        raise PosteriorError("the posterior is not on disk yet: save it as a whole")
    header = _header(posterior.folder).model_copy(
        update={"calibration": posterior.calibration, "format_version": FORMAT}
    )
    with whole_file(posterior.folder / _TOML) as fresh:
        fresh.write_text(_toml(header), encoding="utf-8")


def read_header(folder: str | Path) -> dict[str, Any]:
    """What ``posterior.toml`` says, checked.

    Raises:
        PosteriorError: The folder is no posterior, or its header is damaged or of a newer format.
    """
    return _header(Path(folder)).model_dump(mode="json", exclude_none=True)


def load(folder: str | Path, *, device: torch.device | str = "cpu", guide_function: str | None = None) -> Posterior:
    """Read a posterior.

    Opening one runs no code of its maker's: a posterior whose guide is a Python function is opened only if the caller
    names that function.

    Args:
        folder: The folder, or a run's folder with a ``posterior/`` in it.
        device: Where to put it.
        guide_function: ``module:function`` of the guide, for a posterior that was fitted with one.

    Raises:
        PosteriorError: It is missing, damaged, of a newer format, or needs a guide function.
    """
    folder = Path(folder)
    if not (folder / _TOML).is_file() and (folder / "posterior" / _TOML).is_file():
        folder = folder / "posterior"
    header = _header(folder)
    path = folder / _TENSORS
    if not path.is_file():
        raise PosteriorError(f"{path}: is missing; the posterior is not whole")
    if _digest(path) != header.sha256:
        raise PosteriorError(f"{path}: is damaged or truncated: its checksum is not the one in {_TOML}")
    if header.guide_function is not None and guide_function is None:
        raise PosteriorError(
            f"{folder}: its guide is the Python function {header.guide_function}; give it with --guide if you trust it"
        )
    try:
        tensors = load_file(path)
        posterior = Posterior.build(
            net=header.net,
            labels=header.labels,
            task=header.task,
            sample_rate=header.sample_rate,
            clip_seconds=header.clip_seconds,
            # What was the upstream posterior's prior is not on disk, and not needed to predict.
            strategy=_without_upstream(header.strategy),
            guide_function=guide_function if header.guide_function else None,
        )
        _fill(posterior, tensors)
    except (SafetensorError, BayesPannsError, KeyError, RuntimeError) as error:
        raise PosteriorError(f"{folder}: does not hold what its header says ({str(error).splitlines()[0]})") from error
    posterior.strategy = header.strategy
    posterior.provenance, posterior.metrics = header.provenance, header.metrics
    posterior.calibration, posterior.folder = header.calibration, folder.resolve()
    posterior.model.to(device).eval()
    posterior.guide.to(device)
    return posterior


def _without_upstream(strategy: Strategy) -> Strategy:
    fan_in = {"prior": "fan-in"}
    default = strategy.default.model_copy(update=fan_in if strategy.default.prior == "upstream" else {})
    rules = [rule.model_copy(update=fan_in if rule.prior == "upstream" else {}) for rule in strategy.rule]
    return strategy.model_copy(update={"default": default, "rule": rules})


@torch.no_grad()
def _fill(posterior: Posterior, tensors: dict[str, Tensor]) -> None:
    """Put the tensors of a file into a posterior just built.

    Raises:
        KeyError, RuntimeError: One is missing, left over or of another shape.
    """
    left = dict(tensors)
    posterior.model.load_state_dict({f"net.{name}": left.pop(name) for name in posterior.points()})
    if isinstance(posterior.guide, MeanField):
        pairs = {name: (left.pop(f"{name}.loc"), left.pop(f"{name}.scale")) for name in posterior.gaussians()}
        posterior.guide.assign({f"net.{name}": pair for name, pair in pairs.items()})
    else:
        # Guides that build themselves from a run of the model need one before they can be filled.
        posterior.model.eval()
        target = torch.zeros(1).long() if posterior.task is Task.ONE_OF_K else torch.zeros(1, len(posterior.labels))
        posterior.guide(torch.zeros(1, round(posterior.clip_seconds * posterior.sample_rate)), target)
        state = {name: left.pop(f"guide/{name}") for name in posterior.guide.state_dict()}
        posterior.guide.load_state_dict(state)
    if left:
        raise KeyError(f"{len(left)} tensors too many, such as {next(iter(left))}")


def _toml(header: _Header) -> str:
    return tomli_w.dumps(header.model_dump(mode="json", exclude_none=True))


def _header(folder: Path) -> _Header:
    path = folder / _TOML
    if not path.is_file():
        raise PosteriorError(f"{folder}: no posterior there ({_TOML} is missing)")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PosteriorError(f"{path}: is damaged: {error}") from error
    version = table.get("format_version")
    if isinstance(version, int) and version > FORMAT:
        raise PosteriorError(f"{path}: format {version} is newer than this bayes_panns reads ({FORMAT}); update it")
    try:
        return _Header.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise PosteriorError(f"{path}: is damaged: {place}: {first['msg']}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
