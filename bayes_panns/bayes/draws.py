"""Weights drawn from a guide, and what a model says under them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from bayes_panns.bayes.estimators import DrawnWeight, Estimator
from bayes_panns.bayes.model import BayesianNet


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
    return {name: value.value if isinstance(value, DrawnWeight) else value for name, value in drawn.items()}


@torch.no_grad()
def mean_weights(guide: AutoGuide, *args: Any) -> dict[str, Tensor]:
    """The posterior's medians by site name, which are the means of a mean-field guide; from any Pyro autoguide."""
    return guide.median(*args)


@torch.no_grad()
def logits_under(model: BayesianNet, weights: Mapping[str, Tensor], clips: Tensor, *, embedded: bool = False) -> Tensor:
    """Logits ``(batch, K)`` of clips, or of their embeddings, as :meth:`BayesianNet.forward` takes them."""
    return poutine.condition(model, data=dict(weights))(clips, embedded=embedded)
