"""Posteriors on disk: a folder of data, never of code.

| file | what |
|---|---|
| ``posterior.toml`` | the header: :class:`~bayes_panns.posterior.header.Header` |
| ``guide.safetensors`` | the weights |
| ``fitted-clips.npz`` | digests of the clips it was fitted to: :class:`~bayes_panns.posterior.FittedClips` |

``guide.safetensors`` names tensors by the network's parameter names:

| name | what |
|---|---|
| ``<parameter>`` | a point weight, or a BatchNorm statistic |
| ``<parameter>.loc``, ``<parameter>.scale`` | a variational weight; of a rotated last layer, its factors |
| ``<parameter>.prior_width`` | the learned factor on the scale of its prior |
| ``guide/axes.*`` | the axes of a rotated last layer |
| ``guide/low_rank.*`` | the parameters of a last layer of low rank |
| ``guide/*`` | the state of a guide of the user's own |
"""

import shutil
import tomllib
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bayes_panns.bayes import Strategy
from bayes_panns.core.choices import Precision, PriorKind, Task
from bayes_panns.core.digests import DIGEST, sha256_of
from bayes_panns.core.errors import BayesPannsError, PosteriorError
from bayes_panns.core.files import whole_file, whole_folder
from bayes_panns.nets import build
from bayes_panns.posterior.devices import choose_precision
from bayes_panns.posterior.fitted_clips import FittedClips
from bayes_panns.posterior.header import FORMAT, HEADER, Header, read
from bayes_panns.posterior.posterior import Posterior

_TENSORS, _CLIPS = "guide.safetensors", "fitted-clips.npz"
_OWN = (HEADER, _TENSORS, _CLIPS)

_SMALL = 1 << 26
"""Bytes of weights that any posterior may ask for."""


def save(posterior: Posterior, folder: str | Path) -> None:
    """Write ``posterior`` to ``folder``, whole or not at all; it replaces one that is there, and keeps other files.

    Raises:
        PosteriorError: ``folder`` holds something else.
        OSError: It cannot be written.
    """
    folder = Path(folder)
    others = [path for path in folder.iterdir() if path.name not in _OWN] if folder.is_dir() else []
    if folder.exists() and not (folder / HEADER).is_file() and (not folder.is_dir() or others):
        raise PosteriorError(f"{folder}: already exists and is not a posterior; choose another folder")
    tensors = posterior.model.deterministic() | posterior.guide.tensors()
    tensors |= {f"{name}.prior_width": width for name, width in posterior.prior_widths().items()}
    with whole_folder(folder) as fresh:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, fresh / _TENSORS)
        # Readable by whom the umask says, as other files are.
        (fresh / _TENSORS).chmod(fresh.stat().st_mode & 0o666)
        if posterior.fitted_clips != FittedClips():
            posterior.fitted_clips.save(fresh / _CLIPS)
        header = Header(
            format_version=FORMAT,
            net=posterior.net,
            task=posterior.task,
            sample_rate=posterior.sample_rate,
            clip_seconds=posterior.clip_seconds,
            embeddings_of=posterior.embeddings_of or None,
            labels=posterior.labels,
            guide_function=posterior.guide_function,
            short_clips=posterior.short_clips,
            sha256=sha256_of(fresh / _TENSORS),
            clips_sha256=sha256_of(fresh / _CLIPS) if (fresh / _CLIPS).is_file() else None,
            strategy=posterior.strategy,
            power=posterior.power,
            calibration=posterior.calibration,
            provenance=posterior.provenance,
            metrics=posterior.metrics,
        )
        (fresh / HEADER).write_text(header.toml(), encoding="utf-8")
        for other in others:
            if other.is_dir() and not other.is_symlink():
                shutil.copytree(other, fresh / other.name, symlinks=True)
            else:
                shutil.copy2(other, fresh / other.name, follow_symlinks=False)


def save_calibration(posterior: Posterior) -> None:
    """Write ``posterior.calibration`` into the folder that the posterior was loaded from; nothing else there changes.

    Raises:
        PosteriorError: It was not loaded from a folder, or that is no longer a posterior.
    """
    if posterior.folder is None:
        raise PosteriorError("the posterior is not on disk yet; save it as a whole")
    before = read(posterior.folder)
    header = before.model_copy(
        update={
            "calibration": posterior.calibration,
            "short_clips": before.shown_short_clips,
            "format_version": FORMAT,
        }
    )
    with whole_file(posterior.folder / HEADER) as fresh:
        fresh.write_text(header.toml(), encoding="utf-8")


def read_header(folder: str | Path) -> dict[str, Any]:
    """The contents of ``posterior.toml``, checked.

    Raises:
        PosteriorError: The folder is no posterior, or its header is damaged or of a newer format.
    """
    return read(Path(folder)).model_dump(mode="json", exclude_none=True)


def load(
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    precision: Precision | str = Precision.FLOAT32,
    guide_function: str | None = None,
) -> Posterior:
    """Read a posterior.

    Opening one runs none of its maker's code: a posterior whose guide is a Python function is opened only if the caller
    names that function.

    Args:
        folder: The folder, or a run's folder with a ``posterior/`` in it.
        device: Where to put it.
        precision: What its network computes predictions with: ``float32`` or ``bf16``.
        guide_function: ``module:function`` of the guide, for a posterior that was fitted with one.

    Raises:
        PosteriorError: It is missing, damaged, of a newer format, or needs a guide function.
        SettingError: There is no such precision.
    """
    folder, precision = Path(folder), choose_precision(precision)
    if not (folder / HEADER).is_file() and (folder / "posterior" / HEADER).is_file():
        folder = folder / "posterior"
    header, path = read(folder), folder / _TENSORS
    _require_files(folder, header)
    if header.guide_function is not None and guide_function is None:
        raise PosteriorError(
            f"{folder}: its guide is the Python function {header.guide_function}; name it with --guide if you trust it"
        )
    try:
        _require_weights(header, path)
        posterior = Posterior.build(
            net=header.net,
            labels=header.labels,
            task=header.task,
            sample_rate=header.sample_rate,
            clip_seconds=header.clip_seconds,
            # The upstream posterior that was the prior is not on disk, and not needed to predict.
            strategy=_without_upstream(header.strategy),
            guide_function=guide_function if header.guide_function else None,
        )
        _fill(posterior, load_file(path))
    except (SafetensorError, BayesPannsError, KeyError, RuntimeError, ValueError) as error:
        raise PosteriorError(f"{folder}: does not hold what its header says ({str(error).splitlines()[0]})") from error
    posterior.strategy, posterior.short_clips = header.strategy, header.shown_short_clips
    posterior.provenance, posterior.metrics = header.provenance, header.metrics
    posterior.power, posterior.calibration, posterior.folder = header.power, header.calibration, folder.resolve()
    posterior.fitted_clips = FittedClips.load(folder / _CLIPS)
    posterior.embeddings_of = header.embeddings_of or ""
    posterior.model.to(device).eval()
    posterior.model.precision = precision
    posterior.guide.to(device)
    return posterior


def verify(folder: Path) -> bool:
    """Check a posterior against its digests without loading it.

    Returns:
        Whether its header has a digest too, as it is written since format 7.

    Raises:
        PosteriorError: It is missing, damaged or of a newer format.
    """
    _require_files(folder, read(folder))
    return DIGEST in tomllib.loads((folder / HEADER).read_text(encoding="utf-8"))


def _require_files(folder: Path, header: Header) -> None:
    """Check that the files of a posterior are those that its header was written for.

    Raises:
        PosteriorError: One is missing or damaged.
    """
    for name, digest in ((_TENSORS, header.sha256), (_CLIPS, header.clips_sha256)):
        if digest is None:
            continue
        if not (folder / name).is_file():
            raise PosteriorError(f"{folder / name}: is missing; the posterior is not complete")
        if sha256_of(folder / name) != digest:
            raise PosteriorError(f"{folder / name}: is damaged or truncated: its checksum is not the one in {HEADER}")


def _require_weights(header: Header, path: Path) -> None:
    """Check, before a network is built, that the file of its weights is about as large as it.

    Raises:
        ValueError: The network is far larger.
    """
    with torch.device("meta"):
        state = build(header.net, len(header.labels)).state_dict()
    needed = sum(value.numel() * value.element_size() for value in state.values())
    if needed > _SMALL + 4 * path.stat().st_size:
        raise ValueError(f"its network has {needed} bytes of weights, and {_TENSORS} is far smaller")


def _without_upstream(strategy: Strategy) -> Strategy:
    fan_in = {"prior": PriorKind.FAN_IN}
    default = strategy.default.model_copy(update=fan_in if strategy.default.prior == PriorKind.UPSTREAM else {})
    rules = [rule.model_copy(update=fan_in if rule.prior == PriorKind.UPSTREAM else {}) for rule in strategy.rule]
    return strategy.model_copy(update={"default": default, "rule": rules})


@torch.no_grad()
def _fill(posterior: Posterior, tensors: dict[str, Tensor]) -> None:
    """Put the tensors of a file into a posterior just built.

    Raises:
        KeyError, RuntimeError: One is missing, left over or of another shape.
    """
    left = dict(tensors)
    for name, value in posterior.model.deterministic().items():
        found = left.pop(name)
        if found.shape != value.shape:
            raise RuntimeError(f"{name} is of shape {tuple(found.shape)}, not {tuple(value.shape)}")
        value.copy_(found)
    for name in posterior.prior_widths():
        attrgetter(f"net.{name}")(posterior.model.prior_log_widths).copy_(left.pop(f"{name}.prior_width").log())
    if not posterior.guide.explicit:
        # A guide that builds itself from a run of the model needs one before it can be filled.
        posterior.model.eval()
        target = torch.zeros(1).long() if posterior.task is Task.ONE_OF_K else torch.zeros(1, len(posterior.labels))
        posterior.guide(torch.zeros(1, posterior.width), target)
    posterior.guide.load_tensors(left)
    if left:
        raise KeyError(f"{len(left)} tensors too many, such as {next(iter(left))}")
