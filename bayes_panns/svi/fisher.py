"""Widths from the Fisher information of clips, without a fit."""

from collections.abc import Sequence
from math import ceil

import torch
from pyro import poutine
from torch import Tensor

from bayes_panns.bayes import BayesianNet, Part
from bayes_panns.bayes.estimators.lazy_weight import normal_prior
from bayes_panns.core import progress
from bayes_panns.svi.embeddings import Embeddings
from bayes_panns.svi.features import Features
from bayes_panns.svi.natural_gradient import require_natural, trained_weights

CLIPS = 2000
"""The most clips that the information is estimated from, spread evenly over the set."""

_LEAST_BATCHES, _MOST_CLIPS = 100, 8


def fisher_information(
    model: BayesianNet, guide: Part, data: Features | Embeddings, sites: Sequence[str], *, device: torch.device | str
) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of a clip, at the posterior means.

    The mean, over clips x and labels y drawn from the model, of the squared gradient of -log p(y | x, w). It equals the
    diagonal of the Gauss-Newton matrix (Martens, 2020, arXiv:1412.1193), and needs no labels. A batch's gradient,
    squared, times its clips has the same mean and is as cheap as one clip's.

    Args:
        model: The model; it is left in eval mode, so that BatchNorm does not move.
        guide: Its guide.
        data: The clips.
        sites: The sites of the weights.
        device: Where to compute.

    Returns:
        By site name, the shape of the weight.
    """
    model.eval()
    means = guide.means()
    means |= {site: means[site].detach().clone().requires_grad_() for site in sites}
    weights = [means[site] for site in sites]
    found = {site: torch.zeros_like(means[site]) for site in sites}
    chosen = torch.linspace(0, len(data) - 1, min(len(data), CLIPS)).long()
    batches = chosen.tensor_split(max(ceil(len(chosen) / _MOST_CLIPS), min(len(chosen), _LEAST_BATCHES)))
    with progress.task("Fisher information", total=len(batches), unit="batch") as bar:
        for index in batches:
            clips, _ = data.batch(index, device)
            logits = poutine.condition(model, data=means)(clips, embedded=data.embedded)
            labels = model.likelihood(logits)
            nll = -labels.log_prob(labels.sample()).sum() / len(index)
            for site, gradient in zip(sites, torch.autograd.grad(nll, weights), strict=True):
                found[site].addcmul_(gradient, gradient, value=len(index) ** 2 / len(chosen))
            bar.advance()
    return found


@torch.no_grad()
def start_from_fisher(
    model: BayesianNet,
    guide: Part,
    data: Features | Embeddings,
    *,
    clips: int,
    kl_weight: float,
    device: torch.device | str,
) -> None:
    """Set the widths of the mean-field Normals that are trained: 1 / s^2 = 1 / s0^2 + (clips / kl_weight) h.

    This is the fixed point of :class:`~bayes_panns.svi.NaturalGradient` at the present means, with the Fisher
    information as the curvature h: a Laplace approximation with a diagonal (Ritter et al., 2018).

    Args:
        model: The model; the priors of the weights must be Normal with s0.
        guide: Its guide.
        data: The clips of the information.
        clips: How many clips the posterior is of.
        kl_weight: The weight of the KL, above 0.
        device: Where to compute.

    Raises:
        ValueError: Natural gradients cannot fit the guide.
    """
    require_natural(model, guide)
    weights = {weight.site: weight for weight in trained_weights(guide)}
    with torch.enable_grad():
        information = fisher_information(model, guide, data, tuple(weights), device=device)
    for site, weight in weights.items():
        prior = normal_prior(model.prior(site), weight.loc)
        assert prior is not None, "the prior was checked"
        precision = information[site].mul_(clips / kl_weight).add_(prior.scale.pow(-2))
        weight.log_scale.copy_(precision.log().mul_(-0.5))
