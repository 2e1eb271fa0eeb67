"""Draws as ArviZ's ``InferenceData``."""

import warnings
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bayes_panns import __version__
from bayes_panns.bayes import mirrored_draws
from bayes_panns.clips import ClipSet
from bayes_panns.core.errors import BayesPannsError, PosteriorError, StoreError
from bayes_panns.core.files import whole_file
from bayes_panns.posterior import Posterior
from bayes_panns.predictions import predict_logits

if TYPE_CHECKING:
    from arviz import InferenceData


def to_inference_data(posterior: Posterior, clips: ClipSet | None = None, *, draws: int = 100) -> "InferenceData":
    """Draws of the last layer's weights, and what the whole network predicts in the same draws.

    Draw t of a prediction is made with draw t of the weights. The draws of a mean-field guide come in mirrored pairs
    (the attribute ``mirrored`` is then 1), which estimate means better than as many independent draws, and all are of
    one chain.

    Args:
        posterior: Mean-field or point.
        clips: What to predict; without them there are only weights.
        draws: How many; at least 1.

    Returns:
        Group ``posterior`` with ``head_weight`` (chain, draw, label, feature) and ``head_bias`` (chain, draw, label),
        or the same without chain and draw in ``constant_data`` where the last layer is a point. With ``clips``, group
        ``predictions`` with ``probability`` (chain, draw, clip, label); and ``predictions_constant_data`` with
        ``target`` (clip, label), 0 or 1, if the clips have the posterior's labels.

    Raises:
        BayesPannsError: ArviZ is not installed.
        PosteriorError: The guide is neither mean-field nor point, or its last layer is drawn and dropout with it.
        StoreError: The clips are not at the posterior's sample rate.
    """
    arviz = _arviz()
    if not posterior.guide.explicit:
        raise PosteriorError("draws of the last layer are known of mean-field and point guides only")
    if clips is not None and clips.sample_rate != posterior.sample_rate:
        raise StoreError(
            f"{clips.stores[0].path}: is at {clips.sample_rate} Hz and the posterior at {posterior.sample_rate} Hz; "
            "pack it at that rate"
        )
    drawn, points = _head(posterior, draws)
    groups: dict[str, Any] = {"posterior": drawn or None, "constant_data": points or None}
    coords: dict[str, Any] = {"label": list(posterior.labels)}
    if clips is not None:
        logits = torch.from_numpy(predict_logits(posterior, clips, draws))
        groups["predictions"] = {"probability": posterior.probability(logits).numpy()[None]}
        coords["clip"] = clips.names
        if clips.labels == posterior.labels:
            groups["predictions_constant_data"] = {"target": clips.target().astype(np.int8)}
    dims = {
        "head_weight": ["label", "feature"],
        "head_bias": ["label"],
        "probability": ["clip", "label"],
        "target": ["clip", "label"],
    }
    attributes = {
        "inference_library": "bayes_panns",
        "inference_library_version": __version__,
        "net": posterior.net,
        "task": str(posterior.task),
        "mirrored": int(posterior.mirrored),
    }
    return arviz.from_dict(
        **groups, coords=coords, dims=dims, pred_coords=coords, pred_dims=dims, attrs=attributes, save_warmup=False
    )


def export_arviz(posterior: Posterior, path: str | Path, clips: ClipSet | None = None, *, draws: int = 100) -> None:
    """Write :func:`to_inference_data` to a netCDF file, whole or not at all; ``arviz.from_netcdf`` reads it.

    Raises:
        BayesPannsError: As :func:`to_inference_data`.
        OSError: The file cannot be written.
    """
    data = to_inference_data(posterior, clips, draws=draws)
    with whole_file(Path(path)) as fresh:
        data.to_netcdf(str(fresh), engine="h5netcdf")


def _head(posterior: Posterior, draws: int) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """The last layer's weights: those drawn, each ``(1, draws, ...)``, and those that are points."""
    head = posterior.model.head
    names = {"head_weight": f"{head}.weight", "head_bias": f"{head}.bias"}
    points = posterior.points()
    still = {short: points[name].cpu().numpy() for short, name in names.items() if name in points}
    moving = {short: f"net.{name}" for short, name in names.items() if name not in points}
    if not moving:
        return {}, still
    if not posterior.mirrored:
        raise PosteriorError("the last layer's draws cannot be told from dropout's; fit it with dropout off or fit")
    values: dict[str, list[NDArray]] = {short: [] for short in moving}
    for weights in islice(mirrored_draws(posterior.guide, seed=0), draws):
        for short, site in moving.items():
            # The next draw takes the same memory.
            values[short].append(weights[site].cpu().numpy().copy())
    return {short: np.stack(each)[None] for short, each in values.items()}, still


def _arviz() -> Any:
    try:
        with warnings.catch_warnings():
            # It announces its next version whenever it is imported.
            warnings.simplefilter("ignore", FutureWarning)
            import arviz
    except ImportError as error:
        raise BayesPannsError(f"ArviZ is needed for that: pip install 'bayes-panns[arviz]' ({error})") from error
    return arviz
