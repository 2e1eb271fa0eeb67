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
from bayes_panns.clips import Task, read_labels
from bayes_panns.core.archives import check_zip, is_zip
from bayes_panns.core.choices import CheckpointKind, Choice, Dropout, PosteriorKind, PriorKind, ScaleRule, ShortClips
from bayes_panns.core.digests import sha256_of
from bayes_panns.core.errors import CheckpointError
from bayes_panns.interop.recognition import default_rate, recognised
from bayes_panns.jobs import with_fisher_widths
from bayes_panns.nets import build
from bayes_panns.posterior import Posterior
from bayes_panns.recipes import read_strategy

logger = logging.getLogger(__name__)

LABELS, AUDIOSET_LABELS = "class_labels_indices.csv", 527
"""The file of AudioSet's label names, as ``fetch`` saves it, and how many there are."""

FRONT_END_PREFIXES = ("spectrogram_extractor.", "logmel_extractor.")
"""How the names of a checkpoint's spectrogram and mel matrices begin. They are constants, not weights."""

_STFT = "spectrogram_extractor.stft.conv_real.weight"

_VARIATIONAL = re.compile(r"(?P<layer>.+)\.(?P<part>mu|rho)_(?P<what>kernel|weight|bias)")
"""bayesian-torch's names for the kernel of a convolution, and the weight or bias of a linear layer."""

_NUMBERS = 2**29
"""The numbers that the tensors of any checkpoint may claim to have together."""

# VI-PANN's files and PANNs' Cnn14_16k also hold the state of the training's sampler, in NumPy arrays. Those are data.
# NumPy 1 wrote them; NumPy 2 has renamed the module of the functions that make arrays.
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
    stores: str | Path | Sequence[str | Path] = (),
    clips: int | None = None,
    kl_weight: float = 1.0,
    device: str = "auto",
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
        net: One of :data:`~bayes_panns.nets.NETS`. By default the one that the checkpoint names, or else one of this
            kind whose parameters have the same names and shapes, and that takes the checkpoint's sample rate. Where
            several have, such as ``cnn14`` and ``cnn14-decision-level-max``, it is the one whose published file has
            this name, or else the first, with a warning.
        scale: One of :class:`~bayes_panns.core.choices.ScaleRule`, or None for point weights. ``fan-in``:
            ``factor`` / sqrt(fan-in). ``moped``: ``factor`` times the weight's absolute value (Krishnan et al., 2020,
            arXiv:1906.05323, where it is called delta), but at least a hundredth of the rule ``fan-in``'s, since a
            weight of 0 would have no scale otherwise.
        factor: See ``scale``; positive and finite.
        guide: With ``scale``, the guide recipe that says which weights are variational: a file, or its name.
        stores: With ``fisher``, clip stores or one, with any labels or none; at the sample rate of the checkpoint.
        clips: With ``fisher``, how many clips the posterior is to be of: by default those of the stores.
        kl_weight: With ``fisher``, the weight of the KL.
        device: With ``fisher``, where to compute.

    Raises:
        CheckpointError: The file is missing, damaged, holds code, is of another network or kind, or has other labels;
            or ``kind``, ``scale`` or ``factor`` is unknown or out of range; or ``fisher`` has no stores, or another
            scale has.
        RecipeError: There is no such net or guide recipe, or ``fisher`` cannot set the widths of the guide.
        StoreError: The stores do not hold what the checkpoint takes.
        SettingError: ``clips`` or ``kl_weight`` is out of range.
    """
    path, kind = Path(path), _chosen(CheckpointKind, kind, "kind")
    scale = None if scale is None else _chosen(ScaleRule, scale, "scale")
    if not 0 < factor < math.inf:
        raise CheckpointError(f"factor {factor}: must be positive and finite")
    if bool(stores) != (scale == ScaleRule.FISHER):
        raise CheckpointError(f'scale "{ScaleRule.FISHER}" and clip stores (--data) go together; give both or neither')
    if scale == ScaleRule.FISHER:
        points = import_checkpoint(path, kind, labels=labels, net=net)
        if points.gaussians():
            raise _own_scales(path)
        posterior = with_fisher_widths(points, stores, guide=guide, clips=clips, kl_weight=kl_weight, device=device)
        widths = posterior.provenance["widths"]
        posterior.provenance = points.provenance | {"scale": str(scale), "widths": widths}
        return posterior
    state, content = _read(path)
    locs, scales = _split(path, state, kind)
    header = _export_header(path, content)
    if net is None and header is not None:
        net = header.net
    rate = None if kind == CheckpointKind.EFFICIENTAT else _sample_rate(path, state)
    net, classes = recognised(path, locs, net, kind, rate)
    if labels is None and header is not None:
        labels = header.labels
    strategy = _strategy(path, net, classes, scales, scale, guide)
    posterior = Posterior.build(
        net=net,
        labels=_labels(path, classes, labels),
        task=header.task if header else Task.MULTI_LABEL,
        sample_rate=default_rate(net) if rate is None else rate,
        clip_seconds=header.clip_seconds if header else 10.0,
        strategy=None if strategy is None else strategy.started(build(net, classes), locs),
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


def _own_scales(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: has its own scales; leave --scale out")


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
    has_crcs = _check_crcs(path)
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
    # A view of a few bytes may claim any shape.
    if sum(value.numel() for value in state.values()) > max(_NUMBERS, path.stat().st_size):
        raise CheckpointError(f"{path}: its tensors claim to be far larger than the file; download it again")
    if not has_crcs:
        logger.info(f"{path}: is of PyTorch's format before 1.6, which has no checksums; damage may go unnoticed")
    return {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }, {} if state is content else dict(content)


def _check_crcs(path: Path) -> bool:
    """Check the CRCs that a file keeps of its tensors, which PyTorch does not look at.

    Returns:
        Whether it has any.

    Raises:
        CheckpointError: The file is damaged.
    """
    if not is_zip(path):
        return False
    try:
        check_zip(path)
    except ValueError as error:
        raise CheckpointError(f"{path}: is damaged ({error}); download it again") from error
    return True


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
    beside = path.with_name(LABELS)
    if labels is None and classes == AUDIOSET_LABELS and beside.is_file():
        logger.info(f"labels: those in {beside}")
        labels = read_labels(beside)
    if labels is None:
        raise CheckpointError(
            f"{path}: does not name its {classes} labels; give a CSV of their names with --labels, for AudioSet's 527 "
            "class_labels_indices.csv (bayes-panns fetch audioset-labels)"
        )
    if len(labels) != classes:
        raise CheckpointError(f"{path}: has {classes} labels, but {len(labels)} are named; give the names of its own")
    return tuple(labels)


def _sample_rate(path: Path, state: Mapping[str, Tensor]) -> int | None:
    """The rate of one of PANNs' front ends, each of which has its own window length; None without its matrix."""
    if _STFT not in state:
        return None
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
        raise _own_scales(path)
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
