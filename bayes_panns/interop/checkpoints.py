"""Import of checkpoints that PANNs, VI-PANN and EfficientAT have published.

PANNs (Kong et al., 2020, arXiv:1912.10211) and EfficientAT (Schmid et al., 2023, arXiv:2211.04772) publish point
weights. VI-PANN (Fischer et al., 2024, arXiv:2401.05531) publishes one file with point weights and one with
bayesian-torch's Flipout layers, where a weight is distributed as Normal(mu, softplus(rho)), with mu in ``mu_kernel``
and rho in ``rho_kernel``. Files are read as data: no code in them is run.
"""

import logging
import math
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.nn import functional as F

from bayes_panns import __version__
from bayes_panns.audio.front_end import FRONT_ENDS
from bayes_panns.bayes import Rule, Settings, Strategy, sites
from bayes_panns.clips import Task
from bayes_panns.core.choices import CheckpointKind, Choice, Dropout, PosteriorKind, PriorKind, ScaleRule, ShortClips
from bayes_panns.core.digests import sha256_of
from bayes_panns.core.errors import CheckpointError
from bayes_panns.nets import NETS, Network, NetworkEntry, build
from bayes_panns.posterior import Posterior
from bayes_panns.recipes import read_strategy

logger = logging.getLogger(__name__)

FRONT_END_PREFIXES = ("spectrogram_extractor.", "logmel_extractor.")
"""How the names of a checkpoint's spectrogram and mel matrices begin. They are constants, not weights."""

_STFT = "spectrogram_extractor.stft.conv_real.weight"

_VARIATIONAL = re.compile(r"(?P<layer>.+)\.(?P<part>mu|rho)_(?P<what>kernel|weight|bias)")
"""bayesian-torch's names for the kernel of a convolution, and the weight or bias of a linear layer."""

# VI-PANN's files also hold the state of the training's sampler, in NumPy arrays. Those are data. NumPy 1 wrote them;
# NumPy 2 has renamed the module of the functions that make arrays.
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


class ExportHeader(BaseModel):
    """What :func:`~bayes_panns.interop.export_checkpoint` adds to a checkpoint, beside the weights.

    Attributes:
        net: The network, since two networks may have the same keys. None in checkpoints of earlier versions.
        labels: K label names.
        task: What the labels mean.
        sample_rate: In Hz.
        clip_seconds: The length of the clips that the posterior was fitted to.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    net: str | None = None
    labels: tuple[str, ...]
    task: Task
    sample_rate: int
    clip_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]


def import_checkpoint(
    path: str | Path,
    kind: CheckpointKind | str,
    *,
    labels: Sequence[str] | None = None,
    net: str | None = None,
    scale: ScaleRule | str | None = None,
    factor: float = 0.1,
    guide: str = "flip",
) -> Posterior:
    """Make a posterior from a published checkpoint.

    Point weights stay points, under the guide recipe ``det``. With ``scale`` they become the locs of ``guide``: a
    Bayesian start for a fit. A Flipout checkpoint becomes a mean-field posterior with loc = mu and
    scale = softplus(rho) under its prior, Normal(0, 1), in the layers that are variational in it (in the published file
    every convolution). Its other weights are points.

    Args:
        path: A ``.pth`` or ``.pt`` file: ``{"model": state_dict, ...}``, or a bare state_dict.
        kind: One of :class:`~bayes_panns.core.choices.CheckpointKind`.
        labels: K label names, in the order of the last layer's rows. A checkpoint that was exported by this package
            has its own.
        net: One of :data:`~bayes_panns.nets.NETS`. By default the one that the checkpoint names, or else the first one
            of this kind whose parameters have the same names and shapes. Where another one has them too, such as
            ``mn10`` and ``mn10_as_hop_5``, a warning says so.
        scale: One of :class:`~bayes_panns.core.choices.ScaleRule`, or None for point weights. ``fan-in``:
            ``factor`` / sqrt(fan-in). ``moped``: ``factor`` times the weight's absolute value (Krishnan et al., 2020,
            arXiv:1906.05323, where it is called delta), but at least a hundredth of the rule ``fan-in``'s, since a
            weight of 0 would have no scale otherwise.
        factor: See ``scale``; positive and finite.
        guide: With ``scale``, the guide recipe that says which weights are variational: a file, or its name.

    Raises:
        CheckpointError: The file is missing, damaged, holds code, is of another network or kind, or has other labels;
            or ``kind``, ``scale`` or ``factor`` is unknown or out of range.
        RecipeError: There is no such net or guide recipe.
    """
    path, kind = Path(path), _chosen(CheckpointKind, kind, "kind")
    scale = None if scale is None else _chosen(ScaleRule, scale, "scale")
    if not 0 < factor < math.inf:
        raise CheckpointError(f"factor {factor}: must be positive and finite")
    state, content = _read(path)
    locs, scales = _split(path, state, kind)
    header = _export_header(path, content)
    if net is None and header is not None:
        net = header.net
    net, classes = _network(path, locs, net, kind)
    if labels is None and header is not None:
        labels = header.labels
    posterior = Posterior.build(
        net=net,
        labels=_labels(path, classes, labels),
        task=header.task if header else Task.MULTI_LABEL,
        sample_rate=_sample_rate(path, state),
        clip_seconds=header.clip_seconds if header else 10.0,
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
        "imported": str(kind),
        "checkpoint": path.name,
        "sha256": sha256_of(path),
        **({"steps": content["iteration"]} if isinstance(content.get("iteration"), int) else {}),
        **({} if scale is None else {"scale": str(scale), "factor": factor}),
        "versions": {"bayes_panns": __version__, "torch": version("torch")},
    }
    return posterior


def start_scale(rule: ScaleRule, factor: float, weight: Tensor, fan_in: int) -> Tensor:
    """Scales for point weights, of the shape of ``weight``; see :func:`import_checkpoint`."""
    unit = factor / math.sqrt(fan_in)
    if rule == ScaleRule.FAN_IN:
        return torch.full_like(weight, unit)
    return (factor * weight.abs()).clamp(min=0.01 * unit)


_Chosen = TypeVar("_Chosen", bound=Choice)


def _chosen(choice: type[_Chosen], word: str, name: str) -> _Chosen:
    try:
        return choice(word)
    except ValueError as error:
        raise CheckpointError(f"{name} {word!r}: choose one of {choice.described()}") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state_dict in a file, and the other entries beside it."""
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
            raise CheckpointError(f"{path}: is damaged, or not a PyTorch checkpoint; download it again") from error
        raise CheckpointError(
            f"{path}: contains code ({foreign[1]}) and is not opened; save only its state_dict in a new file"
        ) from error
    except Exception as error:  # A damaged file can fail in any way.
        raise CheckpointError(f"{path}: is damaged, or not a PyTorch checkpoint; download it again") from error
    content = content if isinstance(content, Mapping) else {}
    state = content.get("model", content)
    if not (state and isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values())):
        raise CheckpointError(f'{path}: contains no state_dict; save one, by itself or as the entry "model"')
    return {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }, {} if state is content else dict(content)


def _split(
    path: Path, state: Mapping[str, Tensor], kind: CheckpointKind
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The learned weights by the network's parameter names, in the file's order; and scales of the variational ones."""
    locs: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for name, value in state.items():
        if kind != CheckpointKind.EFFICIENTAT and name.startswith(FRONT_END_PREFIXES):
            continue
        if not value.sum().isfinite():
            raise CheckpointError(f"{path}: {name} has values that are not finite; download the file again")
        found = _VARIATIONAL.fullmatch(name)
        if found is None:
            locs[name] = value
            continue
        if kind != CheckpointKind.VI_PANN:
            raise CheckpointError(f"{path}: is a Flipout checkpoint (it has {name}); import it as vi-pann")
        plain = f"{found['layer']}.{'bias' if found['what'] == 'bias' else 'weight'}"
        if found["part"] == "mu":
            locs[plain] = value
        else:
            scales[plain] = F.softplus(value)
    for name, value in scales.items():
        if name not in locs or locs[name].shape != value.shape:
            raise CheckpointError(f"{path}: {name} has a rho but no mu of the same shape; download the file again")
    return locs, scales


def _network(path: Path, locs: Mapping[str, Tensor], net: str | None, kind: CheckpointKind) -> tuple[str, int]:
    """The network of this kind that has parameters of these names and shapes, and its number of labels."""
    if net is not None and net not in NETS:
        build(net, 1)  # It says which networks there are.
    known = {name: _expected(NETS[name], locs) for name in ([net] if net is not None else NETS)}
    shapes = {name: tuple(value.shape) for name, value in locs.items()}
    fitting = [name for name, expected in known.items() if expected.shapes == shapes]
    among = [name for name, expected in known.items() if kind in expected.kinds]
    found = [name for name in fitting if name in among]
    if found:
        if len(found) > 1:
            logger.warning(
                f"{path}: is read as {found[0]}; its shapes are also those of {', '.join(found[1:])}: if it is one of "
                "these, name it with --net"
            )
        return found[0], known[found[0]].classes
    others = fitting if among else list(known)
    if others:
        kinds = known[others[0]].kinds
        advice = f"import it as {' or '.join(kinds)}" if kinds else "it cannot be imported"
        raise CheckpointError(f"{path}: {others[0]} is not a network of {kind} checkpoints; {advice}")
    nearest = min(among, key=lambda name: len(set(shapes.items()) ^ set(known[name].shapes.items())))
    most_similar = "" if net is not None else ", the most similar one"
    difference = _difference(shapes, known[nearest].shapes)
    raise CheckpointError(f"{path}: does not fit the network {nearest}{most_similar}: {difference}")


def _difference(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """The first difference between a checkpoint's shapes and those of a network."""
    for name, shape in expected.items():
        if name not in shapes:
            return f"{name} is missing"
        if shapes[name] != shape:
            return f"{name} has shape {_times(shapes[name])}, not {_times(shape)}"
    return f"{next(name for name in shapes if name not in expected)} is not one of its parameters"


@dataclass(frozen=True)
class _Expected:
    """A network's parameters by name and shape, its number of labels, and the kinds of its published checkpoints."""

    shapes: dict[str, tuple[int, ...]]
    classes: int
    kinds: tuple[CheckpointKind, ...]


def _expected(entry: NetworkEntry, locs: Mapping[str, Tensor]) -> _Expected:
    """What a checkpoint of a network would hold, with as many labels as these weights have in its last layer."""
    network = _without_values(entry)
    bias = locs.get(f"{network.head}.bias")
    classes = len(bias) if bias is not None and bias.dim() == 1 else 1
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name in (f"{network.head}.weight", f"{network.head}.bias"):
        shapes[name] = (classes, *shapes[name][1:])
    return _Expected(shapes, classes, network.checkpoints)


@cache
def _without_values(entry: NetworkEntry) -> Network:
    """A network for one label whose weights have shapes and no values."""
    with torch.device("meta"):
        return entry.make(1)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "()"


def _export_header(path: Path, content: Mapping[str, Any]) -> ExportHeader | None:
    if "bayes_panns" not in content:
        return None
    try:
        return ExportHeader.model_validate(content["bayes_panns"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("bayes_panns", *first["loc"]))
        raise CheckpointError(f"{path}: is damaged: {place}: {first['msg']}") from error


def _labels(path: Path, classes: int, labels: Sequence[str] | None) -> tuple[str, ...]:
    if labels is None:
        raise CheckpointError(
            f"{path}: does not name its {classes} labels; give a CSV of their names with --labels, for AudioSet's 527 "
            "class_labels_indices.csv (bayes-panns fetch audioset-labels)"
        )
    if len(labels) != classes:
        raise CheckpointError(f"{path}: has {classes} labels, but {len(labels)} are named; give the names of its own")
    return tuple(labels)


def _sample_rate(path: Path, state: Mapping[str, Tensor]) -> int:
    """Each of PANNs' front ends has its own window length. A file without a spectrogram matrix is taken as 32 kHz."""
    if _STFT not in state:
        return 32000
    window = state[_STFT].shape[-1] if state[_STFT].dim() else 0
    for rate, front_end in FRONT_ENDS.items():
        if front_end.window == window:
            return rate
    known = ", ".join(str(front_end.window) for front_end in FRONT_ENDS.values())
    raise CheckpointError(f"{path}: its spectrogram's window of {window} samples is not supported; PANNs has {known}")


def _strategy(
    path: Path, net: str, classes: int, scales: Mapping[str, Tensor], scale: ScaleRule | None, guide: str
) -> Strategy:
    if not scales:
        return read_strategy("det" if scale is None else guide)
    if scale is not None:
        raise CheckpointError(f"{path}: has its own scales; leave --scale out")
    with torch.device("meta"):
        found = sites(build(net, classes))
    for name in scales:
        if name not in found:
            raise CheckpointError(f"{path}: has a scale for {name}, which must be a point weight")
    points = [name for name in found if name not in scales]
    return Strategy(
        description="A published Flipout posterior",
        dropout=Dropout.FIT,
        default=Settings(prior=PriorKind.NORMAL),
        rule=[Rule(match=points, posterior=PosteriorKind.POINT)] if points else [],
    )
