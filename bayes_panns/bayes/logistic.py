"""Logistic regression on embeddings: the most probable last layer of a given backbone."""

import torch
from torch import Tensor

from bayes_panns.bayes.likelihoods import Likelihood
from bayes_panns.devices import as_float64


def logistic_regression(
    views: Tensor,
    target: Tensor,
    labels: int,
    likelihood: Likelihood,
    *,
    bias_prior_scale: float,
    prior_scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Weight ``(K, E)`` and bias ``(K,)`` of the most probable last layer, by L-BFGS.

    Each view counts as 1 / V of a clip. The weights have a Normal prior in units of the embeddings' spread, the root of
    their mean variance, so that it means the same for any backbone.

    Args:
        views: Embeddings, shape ``(N, V, E)``.
        target: The labels, as the likelihood takes them.
        labels: K.
        likelihood: The likelihood of the labels.
        bias_prior_scale: The standard deviation of the bias under the prior, at the mean embedding.
        prior_scale: The standard deviation of the weights under it, in those units.
    """
    clips, count, size = views.shape
    flat = as_float64(views.flatten(0, 1))
    # From the mean embedding, the problem is conditioned far better.
    centre = flat.mean(dim=0)
    # Embeddings that are all the same have none.
    spread = flat.var(dim=0, correction=0).mean().clamp(min=torch.finfo(flat.dtype).tiny).sqrt()
    centred, repeated = (flat - centre) / spread, target.to(flat.device).repeat_interleave(count, dim=0)
    weight, bias = (flat.new_zeros(shape, requires_grad=True) for shape in ((labels, size), (labels,)))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = centred @ weight.T + bias
        fit = likelihood(logits, repeated).log_prob(repeated.to(logits) if repeated.is_floating_point() else repeated)
        penalty = (weight / prior_scale).square().sum() + (bias / bias_prior_scale).square().sum()
        total = (penalty / 2 - fit.sum() / count) / clips
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    weight = weight / spread
    return weight.detach().to(views), (bias - weight @ centre).detach().to(views)
