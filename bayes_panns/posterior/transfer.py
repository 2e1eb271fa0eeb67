"""What a posterior shares with the one that it starts from: the only place that decides it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayes_panns.core.errors import PosteriorError
from bayes_panns.nets import same_backbone

if TYPE_CHECKING:
    from bayes_panns.posterior.posterior import Posterior


@dataclass(frozen=True)
class Inherited:
    """What a posterior took over from the one it started from: parameter names, BatchNorm's included.

    Attributes:
        taken: Started from the upstream posterior.
        new: Started afresh, such as the head for other labels.
    """

    taken: tuple[str, ...]
    new: tuple[str, ...]


def shared_weights(
    upstream: "Posterior", *, net: str, sample_rate: int, labels: tuple[str, ...], shapes: Mapping[str, torch.Size]
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """The weights of an upstream posterior that mean the same in another one.

    Its start and its prior ``upstream`` take these.

    They are the weights of the same name and shape. The last layer is among them only if the label names are the same:
    a head for as many other labels has the same shape and means something else.

    Args:
        upstream: The upstream posterior.
        net: The name of the other's network.
        sample_rate: Its sample rate.
        labels: Its label names.
        shapes: The shapes of its weights and BatchNorm statistics, by name.

    Returns:
        Mean and standard deviation by name; no deviation for a point.

    Raises:
        PosteriorError: The network or the front end is another, or the upstream posterior has a custom guide.
    """
    for what, own, other, same in (
        ("net", net, upstream.net, same_backbone(net, upstream.net)),
        ("sample_rate", sample_rate, upstream.sample_rate, sample_rate == upstream.sample_rate),
    ):
        if not same:
            raise PosteriorError(f"the upstream posterior's {what} is {other}, but this run's is {own}; use the same")
    if not upstream.guide.explicit:
        raise PosteriorError("starting from a posterior with a custom guide is not supported")
    known: dict[str, tuple[Tensor, Tensor | None]] = {**upstream.gaussians()}
    known |= {name: (value, None) for name, value in upstream.points().items()}
    head = f"{upstream.model.head}."
    return {
        name: pair
        for name, pair in known.items()
        if shapes.get(name) == pair[0].shape and (upstream.labels == labels or not name.startswith(head))
    }
