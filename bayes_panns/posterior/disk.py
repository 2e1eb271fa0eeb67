"""Posteriors on disk: a folder with ``posterior.toml`` and ``guide.safetensors``, data and never code.

``guide.safetensors`` holds ``<parameter>.loc`` and ``<parameter>.scale`` for each variational weight and
``<parameter>`` for each point weight and BatchNorm statistic, by PANNs' parameter names; ``<parameter>.prior_width`` is
what a prior's scale was multiplied by, where it was learned. A guide of the user's own stands under ``guide/`` as its
module names its parameters, and so does what a recipe's guide has beside locs and scales: a last layer of low rank; or
the axes of a rotated one, whose loc and scale are those of its factors.
"""

import hashlib
import tomllib
from operator import attrgetter
from pathlib import Path
from typing import Any

import tomli_w
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bayes_panns.bayes import MeanField, Strategy
from bayes_panns.clips import Task
from bayes_panns.core.errors import BayesPannsError, PosteriorError
from bayes_panns.core.files import whole_file, whole_folder
from bayes_panns.posterior.posterior import Calibration, Posterior

FORMAT = 3
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
    guide = posterior.guide
    tensors = posterior.points()
    tensors |= {f"{name}.prior_width": width for name, width in posterior.prior_widths().items()}
    if isinstance(guide, MeanField):
        for site in guide.scaled:
            name = site.removeprefix("net.")
            tensors |= {f"{name}.loc": guide.loc(site), f"{name}.scale": guide.scale(site)}
    tensors |= {f"guide/{name}": value for name, value in _beside(guide).items()}
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
    guide, left = posterior.guide, dict(tensors)
    for name, value in posterior.points().items():
        _copy(value, left.pop(name), name)
    for name in posterior.prior_widths():
        attrgetter(f"net.{name}")(posterior.model.prior_log_widths).copy_(left.pop(f"{name}.prior_width").log())
    if isinstance(guide, MeanField):
        names = {site: site.removeprefix("net.") for site in guide.scaled}
        guide.assign({site: (left.pop(f"{name}.loc"), left.pop(f"{name}.scale")) for site, name in names.items()})
    else:
        # Guides that build themselves from a run of the model need one before they can be filled.
        posterior.model.eval()
        target = torch.zeros(1).long() if posterior.task is Task.ONE_OF_K else torch.zeros(1, len(posterior.labels))
        guide(torch.zeros(1, round(posterior.clip_seconds * posterior.sample_rate)), target)
    for name, value in _beside(guide).items():
        _copy(value, left.pop(f"guide/{name}"), name)
    if left:
        raise KeyError(f"{len(left)} tensors too many, such as {next(iter(left))}")


def _beside(guide: nn.Module) -> dict[str, Tensor]:
    """The state of a guide, but for the locs and scales of a mean-field one; where it is kept, not copies."""
    state = guide.state_dict()
    if not isinstance(guide, MeanField):
        return state
    return {name: value for name, value in state.items() if not name.startswith(("locs.", "log_scales."))}


def _copy(into: Tensor, value: Tensor, name: str) -> None:
    if into.shape != value.shape:
        raise RuntimeError(f"{name} is of shape {tuple(value.shape)}, not {tuple(into.shape)}")
    into.copy_(value)


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
