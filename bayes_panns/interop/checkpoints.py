"""Checkpoints of PANNs and VI-PANN, to posteriors.

PANNs (Kong et al., 2020, arXiv:1912.10211) publishes point weights. VI-PANN (Fischer et al., 2024, arXiv:2401.05531)
publishes a file of each kind: point weights, and Flipout layers of bayesian-torch, whose ``mu_kernel`` and
``rho_kernel`` are a Normal's mean and, through softplus, its scale. Files are read as data: no code in them is run.
"""

import hashlib
import math
import pickle
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.nn import functional as F

from bayes_panns import __version__
from bayes_panns.audio.front_end import FRONT_ENDS
from bayes_panns.bayes import Rule, Settings, Strategy, sites
from bayes_panns.clips import Task
from bayes_panns.core.choices import Dropout, PosteriorKind, PriorKind, ShortClips
from bayes_panns.core.errors import CheckpointError
from bayes_panns.nets import NETS, build
from bayes_panns.nets.resnet import ResNet
from bayes_panns.posterior import Posterior
from bayes_panns.recipes.reading import read_strategy

KINDS = ("panns", "vi-pann")
"""Whose checkpoints are known."""

SCALES = ("fan-in", "moped")
"""The rules that give point weights scales."""

CONSTANTS = ("spectrogram_extractor.", "logmel_extractor.")
"""What the names of a checkpoint's spectrogram and mel matrices begin with."""

_STFT = "spectrogram_extractor.stft.conv_real.weight"

_VARIATIONAL = re.compile(r"(?P<layer>.+)\.(?P<part>mu|rho)_(?P<what>kernel|weight|bias)")
"""What bayesian-torch calls a convolution's kernel, or a linear layer's weight or bias."""

# VI-PANN's files also hold the training's sampler, in NumPy arrays. Those are data; NumPy before version 2, which wrote
# the files, called their maker by another name.
_NUMPY: list[Any] = [
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
    *(
        (example.__reduce__()[0], f"numpy.{core}.multiarray.{maker}")
        for example, maker in ((np.zeros(1), "_reconstruct"), (np.int64(0), "scalar"))
        for core in ("core", "_core")
    ),
]


class Remembered(BaseModel):
    """What an exported checkpoint says of the posterior it is the mean of, beside PANNs' own entries.

    Attributes:
        net: Its network: the keys of two may be the same. None in checkpoints of versions that did not say.
        labels: K label names.
        task: What they mean.
        sample_rate: In Hz.
        clip_seconds: The length of the clips it was fitted to.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    net: str | None = None
    labels: tuple[str, ...]
    task: Task
    sample_rate: int
    clip_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]


def import_checkpoint(
    path: str | Path,
    kind: str,
    *,
    labels: Sequence[str] | None = None,
    net: str | None = None,
    scale: str | None = None,
    factor: float = 0.1,
    guide: str = "flip",
) -> Posterior:
    """Make a posterior of a published checkpoint.

    Point weights stay points, under the guide recipe ``det``; with ``scale`` they become the locs of ``guide``, a
    Bayesian start for a fit. A Flipout checkpoint becomes a mean-field posterior, with loc = mu and
    scale = softplus(rho), of the layers that are variational in it (in the published file every convolution), under its
    prior Normal(0, 1); its other weights are points.

    Args:
        path: A ``.pth`` file: ``{"model": state_dict, ...}``, or a bare state_dict.
        kind: ``panns``, or ``vi-pann``, which may be Flipout or deterministic.
        labels: K label names, in the order of the head's rows; a checkpoint that was exported from here has its own.
        net: One of :data:`~bayes_panns.nets.NETS`; by default the one that it was exported from, or what its keys say.
        scale: How point weights get scales. ``fan-in``: ``factor`` / sqrt(fan-in). ``moped``: ``factor`` times the
            weight's size (Krishnan et al., 2020, arXiv:1906.05323, their delta), but at least a hundredth of the rule
            ``fan-in``'s, as a weight of 0 would else have no scale.
        factor: See ``scale``.
        guide: With ``scale``, the guide recipe that says which weights are variational: a file, or its name.

    Raises:
        CheckpointError: The file is missing, damaged, holds code, is of another network or kind, or has other labels.
        RecipeError: There is no such net or guide recipe.
    """
    path = Path(path)
    state, content = _read(path)
    locs, scales = _split(path, state, kind)
    remembered = _remembered(path, content)
    if net is None and remembered is not None:
        net = remembered.net
    net, classes = _recognised(path, locs, net)
    if labels is None and remembered is not None:
        labels = remembered.labels
    posterior = Posterior.build(
        net=net,
        labels=_labels(path, classes, labels),
        task=remembered.task if remembered else Task.MULTI_LABEL,
        sample_rate=_sample_rate(path, state),
        clip_seconds=remembered.clip_seconds if remembered else 10.0,
        strategy=_strategy(path, net, classes, scales, scale, guide),
    )
    if scale is not None:
        scales = {
            site.name: start_scale(scale, factor, locs[site.name], site.fan_in)
            for site in posterior.model.sites.values()
        }
    posterior.guide.assign({f"net.{name}": (locs[name], value) for name, value in scales.items()})
    for name, value in posterior.points().items():
        value.copy_(locs[name])
    posterior.model.eval()
    # As its authors' code does.
    posterior.short_clips = ShortClips.OWN_LENGTH
    posterior.provenance = {
        "imported": kind,
        "checkpoint": path.name,
        "sha256": _digest(path),
        **({"steps": content["iteration"]} if isinstance(content.get("iteration"), int) else {}),
        **({} if scale is None else {"scale": scale, "factor": factor}),
        "versions": {"bayes_panns": __version__, "torch": version("torch")},
    }
    return posterior


def start_scale(rule: str, factor: float, weight: Tensor, fan_in: int) -> Tensor:
    """Scales for point weights, of the shape of ``weight``; see :func:`import_checkpoint`."""
    unit = factor / math.sqrt(fan_in)
    return torch.full_like(weight, unit) if rule == "fan-in" else (factor * weight.abs()).clamp(min=0.01 * unit)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state_dict of a file, and whatever else it holds."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; bayes-panns fetch downloads the published ones")
    try:
        with torch.serialization.safe_globals(_NUMPY):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is None:
            raise CheckpointError(f"{path}: is damaged, or no checkpoint of torch's; get it again") from error
        raise CheckpointError(
            f"{path}: holds code ({foreign[1]}), not only weights, and is not opened; save its state_dict alone"
        ) from error
    except Exception as error:  # A damaged file can fail in any way.
        raise CheckpointError(f"{path}: is damaged, or no checkpoint of torch's; get it again") from error
    content = content if isinstance(content, Mapping) else {}
    state = content.get("model", content)
    if not (state and isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values())):
        raise CheckpointError(f'{path}: holds no state_dict, neither bare nor as "model"; save one in it')
    return {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }, {} if state is content else dict(content)


def _split(path: Path, state: Mapping[str, Tensor], kind: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The learned weights by PANNs' names, in the file's order, and the scales of those that have one."""
    locs: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(CONSTANTS):
            continue
        if not value.sum().isfinite():
            raise CheckpointError(f"{path}: {name} holds values that are not finite; get the file again")
        found = _VARIATIONAL.fullmatch(name)
        if found is None:
            locs[name] = value
            continue
        if kind == "panns":
            raise CheckpointError(f"{path}: has {name}, a Flipout layer's, which PANNs has not; import it as vi-pann")
        plain = f"{found['layer']}.{'bias' if found['what'] == 'bias' else 'weight'}"
        if found["part"] == "mu":
            locs[plain] = value
        else:
            scales[plain] = F.softplus(value)
    for name, value in scales.items():
        if name not in locs or locs[name].shape != value.shape:
            raise CheckpointError(f"{path}: has a rho for {name} and no mu of its shape; it is not whole")
    return locs, scales


def _recognised(path: Path, locs: Mapping[str, Tensor], net: str | None) -> tuple[str, int]:
    """The network whose parameters these are, and how many labels it has."""
    head = locs.get(f"{ResNet.head}.bias")
    classes = len(head) if head is not None and head.dim() == 1 else 1
    shapes = {name: tuple(value.shape) for name, value in locs.items()}
    nearest, fewest = "", math.inf
    for candidate in [net] if net is not None else NETS:
        expected = _shapes(candidate, classes)
        if shapes == expected:
            return candidate, classes
        differing = len(set(shapes.items()) ^ set(expected.items()))
        if differing < fewest:
            nearest, fewest = candidate, differing
    expected = _shapes(nearest, classes)
    for name, shape in expected.items():
        if name not in shapes:
            difference = f"lacks {name}"
            break
        if shapes[name] != shape:
            difference = f"has {name} of shape {_times(shapes[name])}, where it is {_times(shape)}"
            break
    else:
        difference = f"has {next(name for name in shapes if name not in expected)}, which that network has not"
    among = "" if net is not None else ", the nearest of those known"
    raise CheckpointError(f"{path}: is not of {NETS[nearest].summary} ({nearest}{among}): it {difference}")


def _shapes(net: str, classes: int) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build(net, classes).state_dict().items()}


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "()"


def _remembered(path: Path, content: Mapping[str, Any]) -> Remembered | None:
    if "bayes_panns" not in content:
        return None
    try:
        return Remembered.model_validate(content["bayes_panns"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("bayes_panns", *first["loc"]))
        raise CheckpointError(f"{path}: is damaged: {place}: {first['msg']}") from error


def _labels(path: Path, classes: int, labels: Sequence[str] | None) -> tuple[str, ...]:
    if labels is None:
        raise CheckpointError(
            f"{path}: does not say what its {classes} labels are; give their CSV with --labels, for AudioSet's 527 "
            "class_labels_indices.csv (bayes-panns fetch audioset-labels)"
        )
    if len(labels) != classes:
        raise CheckpointError(f"{path}: has {classes} labels, and {len(labels)} are named; give the CSV of its own")
    return tuple(labels)


def _sample_rate(path: Path, state: Mapping[str, Tensor]) -> int:
    """PANNs has one front end for each window; a file without a spectrogram matrix is taken for its usual 32 kHz."""
    if _STFT not in state:
        return 32000
    window = state[_STFT].shape[-1] if state[_STFT].dim() else 0
    for rate, front_end in FRONT_ENDS.items():
        if front_end.window == window:
            return rate
    known = ", ".join(str(front_end.window) for front_end in FRONT_ENDS.values())
    raise CheckpointError(f"{path}: its spectrogram has a window of {window} samples; those known have {known}")


def _strategy(
    path: Path, net: str, classes: int, scales: Mapping[str, Tensor], scale: str | None, guide: str
) -> Strategy:
    if not scales:
        return read_strategy("det" if scale is None else guide)
    if scale is not None:
        raise CheckpointError(f"{path}: has scales of its own; leave --scale out")
    with torch.device("meta"):
        found = sites(build(net, classes))
    for name in scales:
        if name not in found:
            raise CheckpointError(f"{path}: has a scale for {name}, which cannot be variational here")
    points = [name for name in found if name not in scales]
    return Strategy(
        description="A published Flipout posterior",
        dropout=Dropout.FIT,
        default=Settings(prior=PriorKind.NORMAL),
        rule=[Rule(match=points, posterior=PosteriorKind.POINT)] if points else [],
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
