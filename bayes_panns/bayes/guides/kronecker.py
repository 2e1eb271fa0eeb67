"""Where a rotated last layer starts: the axes, scales and prior width of a Kronecker-factored Laplace approximation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_panns.bayes.likelihoods import Likelihood
from bayes_panns.clips import Task

_ROUNDS = 100
"""Of the fixed point of the prior's width, which settles in about ten."""


@dataclass(frozen=True)
class HeadLaplace:
    """The Gaussian that fits the posterior of a linear last layer around its mean, factors of K x E independent.

    Attributes:
        left: Axes of the labels, orthogonal, ``(K, K)``: eigenvectors of the logits' mean curvature.
        right: Axes of the embedding, orthogonal, ``(E, E)``: eigenvectors of its covariance.
        centre: The mean embedding, ``(E,)``.
        scale: The weight's standard deviations along the axes, ``(K, E)``.
        bias_scale: Those of the logits of the mean embedding, along ``left``, ``(K,)``.
        prior_scale: The prior's standard deviation that they are for.
    """

    left: Tensor
    right: Tensor
    centre: Tensor
    scale: Tensor
    bias_scale: Tensor
    prior_scale: float


@torch.no_grad()
def head_laplace(
    views: Tensor,
    weight: Tensor,
    bias: Tensor,
    likelihood: Likelihood,
    *,
    prior_scale: float | None = None,
    bias_prior_scale: float,
) -> HeadLaplace:
    """The Kronecker-factored Laplace approximation of a last layer.

    With embeddings phi of mean mu the curvature of N clips' log-likelihood is taken to be N times the Kronecker product
    of A = E[(phi - mu)(phi - mu)^T] and B = E[diag p - p p^T], or E[diag p (1 - p)] where labels are independent. Along
    their eigenvectors, of eigenvalues a and b, a weight's variance is 1 / (N a b + 1 / tau^2), and a logit's of mu
    1 / (N b + 1 / tau_b^2). A softmax does not see a shift of all its logits: there b is 0, and the variance that of
    the prior. Ritter et al., 2018, "A Scalable Laplace Approximation for Neural Networks".

    Args:
        views: Embeddings, shape ``(N, V, E)``: V views of each of N clips.
        weight: The layer's weight, ``(K, E)``.
        bias: Its bias, ``(K,)``.
        likelihood: What the labels are, given the logits.
        prior_scale: tau, the weights' standard deviation under the prior. By default that of the greatest evidence,
            the fixed point of tau^2 = |W|^2 / gamma, with gamma = sum(1 - s^2 / tau^2) the number of weights that the
            clips determine (MacKay, 1992, "A Practical Bayesian Framework for Backpropagation Networks"), from 1 on.
        bias_prior_scale: tau_b.
    """
    clips, flat = len(views), views.flatten(0, 1).double()
    centre = flat.mean(dim=0)
    centred = flat - centre
    spread, right = torch.linalg.eigh(centred.T @ centred / len(flat))
    probability = likelihood.probability(flat @ weight.double().T + bias.double())
    curvature = torch.diag(probability.mean(dim=0)) - probability.T @ probability / len(flat)
    if likelihood.task is Task.MULTI_LABEL:
        curvature = curvature.diag().diag()
    bend, left = torch.linalg.eigh(curvature)
    # Rounding leaves eigenvalues a little below 0.
    bend, spread = bend.clamp(min=0), spread.clamp(min=0)
    precision = clips * bend[:, None] * spread
    squares = weight.double().square().sum()
    variance = torch.tensor(1.0 if prior_scale is None else prior_scale**2, dtype=torch.float64)
    for _ in range(_ROUNDS if prior_scale is None else 0):
        determined = (1 - 1 / (precision * variance + 1)).sum()
        variance = squares / determined
    return HeadLaplace(
        left=left.to(weight),
        right=right.to(weight),
        centre=centre.to(weight),
        scale=(precision + 1 / variance).rsqrt().to(weight),
        bias_scale=(clips * bend + bias_prior_scale**-2).rsqrt().to(weight),
        prior_scale=variance.sqrt().item(),
    )


def fitted_head(
    views: Tensor, target: Tensor, labels: int, likelihood: Likelihood, *, bias_prior_scale: float
) -> tuple[Tensor, Tensor]:
    """Weight ``(K, E)`` and bias ``(K,)`` of the most probable last layer.

    Logistic regression by L-BFGS; each view counts 1 / V of a clip. The prior of the weights is Normal(0, 1) where
    embeddings are measured in their own spread, the root of their mean variance: the same for any backbone.

    Args:
        views: Embeddings, shape ``(N, V, E)``.
        target: The labels, as the likelihood takes them.
        labels: K.
        likelihood: What the labels are, given the logits.
        bias_prior_scale: The standard deviation of the bias under the prior, at the mean embedding.
    """
    clips, count, size = views.shape
    flat = views.flatten(0, 1).double()
    # From the mean embedding, the problem is conditioned far better.
    centre = flat.mean(dim=0)
    # Embeddings that are all the same have none.
    spread = flat.var(dim=0, correction=0).mean().clamp(min=torch.finfo(flat.dtype).tiny).sqrt()
    centred, repeated = (flat - centre) / spread, target.repeat_interleave(count, dim=0)
    weight = torch.zeros(labels, size, dtype=torch.float64, device=views.device, requires_grad=True)
    bias = torch.zeros(labels, dtype=torch.float64, device=views.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = centred @ weight.T + bias
        fit = likelihood(logits, repeated).log_prob(repeated.to(logits) if repeated.is_floating_point() else repeated)
        penalty = weight.square().sum() + (bias / bias_prior_scale).square().sum()
        total = (penalty / 2 - fit.sum() / count) / clips
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    weight = weight / spread
    return weight.detach().to(views), (bias - weight @ centre).detach().to(views)
