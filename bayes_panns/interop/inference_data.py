"""Export of draws as ArviZ's ``InferenceData``."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bayes_panns import __version__
from bayes_panns.bayes import mirrored_draws
from bayes_panns.clips import ClipSet
from bayes_panns.core.draw_count import draw_count
from bayes_panns.core.errors import PosteriorError
from bayes_panns.core.files import require_space, whole_file
from bayes_panns.interop.optional import imported
from bayes_panns.posterior import Posterior, require_inputs
from bayes_panns.predictions import predict_logits

if TYPE_CHECKING:
    from arviz import InferenceData


_MARGIN = 1 << 20
"""Bytes of a netCDF file beside its arrays, at most."""


def to_inference_data(posterior: Posterior, clips: ClipSet | None = None, *, draws: int = 100) -> "InferenceData":
    """Draws of the last layer's weights, and the whole network's predictions with the same draws.

    Draw t of a prediction is made with draw t of the weights. All draws are in one chain. Those of a mean-field guide
    are mirrored pairs, loc + noise and loc - noise, and the attribute ``mirrored`` is 1: they estimate means better
    than as many independent draws.

    Args:
        posterior: Mean-field or point.
        clips: Clips to predict; without them there are only weights.
        draws: How many draws; at least 1.

    Returns:
        With T draws, K labels, F features and N clips:

        =============================  ===============  ================  =============================================
        group                          variable         shape             when
        =============================  ===============  ================  =============================================
        ``posterior``                  ``head_weight``  ``(1, T, K, F)``  the last layer is variational
        ``posterior``                  ``head_bias``    ``(1, T, K)``     the last layer is variational
        ``constant_data``              the same         without 1 and T   the last layer is a point
        ``predictions``                ``probability``  ``(1, T, N, K)``  with ``clips``
        ``predictions_constant_data``  ``target``       ``(N, K)``, 0, 1  ``clips`` have the posterior's labels
        =============================  ===============  ================  =============================================

    Raises:
        BayesPannsError: ArviZ is not installed.
        SettingError: ``draws`` is no whole number from 1 up.
        PosteriorError: The guide is neither mean-field nor point; or dropout is drawn together with the last layer.
        StoreError: The clips are not what the posterior takes, such as sound at another rate.
    """
    draws = draw_count(draws, least=1)
    arviz = imported("arviz", "ArviZ", "--format arviz", "arviz")
    if not posterior.guide.explicit:
        raise PosteriorError("--format arviz needs a mean-field or point guide; this posterior has another one")
    if clips is not None:
        require_inputs(posterior, clips)
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
    size = sum(data[group].nbytes for group in data.groups())
    with whole_file(Path(path)) as fresh:
        # A full disk crashes HDF5.
        require_space(fresh, size + _MARGIN)
        data.to_netcdf(str(fresh), engine="h5netcdf")


def _head(posterior: Posterior, draws: int) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """The last layer's weights: draws of the variational ones, each ``(1, draws, ...)``, and the point weights."""
    head = posterior.model.head
    names = {"head_weight": f"{head}.weight", "head_bias": f"{head}.bias"}
    points = posterior.points()
    still = {short: points[name].cpu().numpy() for short, name in names.items() if name in points}
    moving = {short: f"net.{name}" for short, name in names.items() if name not in points}
    if not moving:
        return {}, still
    if not posterior.mirrored:
        raise PosteriorError(
            "its predictions depend on dropout, not on draws of the last layer alone; export one that was fitted with "
            'dropout = "off" or "fit"'
        )
    values: dict[str, list[NDArray]] = {short: [] for short in moving}
    for weights in islice(mirrored_draws(posterior.guide, seed=0), draws):
        for short, site in moving.items():
            # The next draw overwrites the same memory.
            values[short].append(weights[site].cpu().numpy().copy())
    return {short: np.stack(each)[None] for short, each in values.items()}, still
