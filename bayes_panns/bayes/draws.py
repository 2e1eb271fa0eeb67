"""Weights drawn from a guide, and the outputs of a model under them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import Tensor
from torch.nn import functional as F

from bayes_panns.bayes.estimators import Estimator, LazyWeight
from bayes_panns.bayes.estimators.draw_and_kl import flat, standard_normal_
from bayes_panns.bayes.guides import Part
from bayes_panns.bayes.model import BayesianNet
from bayes_panns.nets import Network

_ROTATIONS = (
    ((0, 1), (1, 1), (2, 1), (3, 1)),
    ((1, -1), (0, 1), (3, -1), (2, 1)),
    ((2, -1), (3, 1), (0, 1), (1, -1)),
    ((3, -1), (2, -1), (1, 1), (0, 1)),
)
"""For each of four rotations: which quarter of the noise each quarter of a weight takes, and with which sign.

They multiply by the quaternions 1, i, j and k. The values of a linear function under two of them are uncorrelated.
"""


@torch.no_grad()
def draw_weights(guide: Callable, *args: Any) -> dict[str, Tensor]:
    """One joint draw of the weights by site name, from any Pyro guide called with ``args``."""
    with Estimator("weights"):
        trace = poutine.trace(guide).get_trace(*args)
    drawn = {
        name: trace.nodes[name]["value"]
        for name in trace.stochastic_nodes
        if not trace.nodes[name]["infer"].get("is_auxiliary")
    }
    return {name: value.value if isinstance(value, LazyWeight) else value for name, value in drawn.items()}


@torch.no_grad()
def mirrored_draws(guide: Part, seed: int) -> Iterator[dict[str, Tensor]]:
    """Draw the weights again and again, in the same memory and in mirrored pairs, without end.

    Each draw is exactly one of the posterior: loc + scale * e with e standard Normal, or a linear function of such
    factors. Draws 2t and 2t + 1 have opposite e, so that odd functions of e cancel in their mean (Hammersley and
    Morton, 1956). Four pairs share one noise, in four rotations under which any linear function of the weights takes
    independent values (orthogonal coupling: Rowland et al., 2018, "Geometrically coupled Monte Carlo sampling"). So a
    draw costs little more than a pass over memory.
    Take the variance of a mean of draws over the pairs, which are independent to first order.

    Args:
        guide: The posterior; an explicit one.
        seed: Seeds the draws; draw t depends on it and on t alone.

    Yields:
        The weights by site name; the next draw overwrites them.
    """
    factors = guide.factors()
    locs = {name: loc.detach() for name, (loc, _) in factors.items()}
    scales = {name: scale for name, (_, scale) in factors.items()}
    values = {name: torch.empty_like(loc) for name, loc in locs.items()}
    noises = {name: loc.new_empty(4, -(-loc.numel() // 4)) for name, loc in locs.items()}
    seeds = torch.Generator().manual_seed(seed)
    while True:
        for noise in noises.values():
            standard_normal_(noise.view(-1), int(torch.randint(1 << 62, (), generator=seeds)))
        for rotation in _ROTATIONS:
            for name, value in values.items():
                _rotate(value, locs[name], scales[name], noises[name], rotation)
            yield guide.weights(values)
            for name, value in values.items():
                torch.lerp(value, locs[name], 2, out=value)  # loc - (value - loc)
            yield guide.weights(values)


def _rotate(weight: Tensor, loc: Tensor, scale: Tensor, noise: Tensor, rotation: Sequence[tuple[int, int]]) -> None:
    """Make ``weight`` loc + scale * noise, the noise's quarters rearranged."""
    parts = (flat(values, like=weight).split(noise.shape[1]) for values in (weight, loc, scale))
    # A weight of one or two elements has fewer quarters.
    for part, mean, width, (quarter, sign) in zip(*parts, rotation, strict=False):
        torch.addcmul(mean, width, noise[quarter, : len(part)], value=sign, out=part)


@torch.no_grad()
def mean_weights(guide: AutoGuide, *args: Any) -> dict[str, Tensor]:
    """The posterior medians by site name, from any Pyro autoguide called with ``args``; here they are the means."""
    return guide.median(*args)


@torch.no_grad()
def logits_under(model: BayesianNet, weights: Mapping[str, Tensor], clips: Tensor, *, embedded: bool = False) -> Tensor:
    """Logits ``(batch, K)`` of clips, or of their embeddings, under given weights; see :meth:`BayesianNet.forward`."""
    return poutine.condition(model, data=dict(weights))(clips, embedded=embedded)


@torch.no_grad()
def embeddings_under(
    model: BayesianNet,
    weights: Mapping[str, Tensor],
    clips: Tensor,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Embeddings ``(batch, E)`` of clips under given weights; see :meth:`BayesianNet.embed`."""
    return poutine.condition(model.embed, data=dict(weights))(clips, augment)


@torch.no_grad()
def head_logits(model: BayesianNet, weights: Mapping[str, Tensor], embedding: Tensor) -> Tensor:
    """Logits ``(N, K)`` of embeddings, as :meth:`BayesianNet.embed` makes them, under given weights."""
    # Not through Pyro, whose bookkeeping would take longer than the layer.
    drawn = all(site in weights for site in model.head_sites)
    points = {} if drawn else dict(model.net.named_parameters(prefix="net"))
    weight, bias = (weights[site] if site in weights else points[site] for site in model.head_sites)
    return cast(Network, model.net).clip_logits(F.linear(embedding, weight, bias))
