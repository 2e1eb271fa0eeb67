"""The Kronecker-factored Laplace approximation of a last layer: where a rotated one starts.

| symbol | shape | what |
|---|---|---|
| phi, mu | (E,) | an embedding, and their mean |
| p | (K,) | a clip's probabilities |
| N | | the number of clips |
| a, b | (E,), (K,) | eigenvalues of A and B |
| tau, tau_b | | standard deviations of the prior of the weights and of the bias |

The curvature of the clips' log-likelihood is taken to be N times the Kronecker product of::

    A = E[(phi - mu) (phi - mu)^T]
    B = E[diag(p) - p p^T]           one-of-K
    B = E[diag(p (1 - p))]           multi-label

Along their eigenvectors the posterior variances of a weight, and of a logit of the mean embedding, are::

    1 / (N a b + 1 / tau^2)
    1 / (N b + 1 / tau_b^2)

A softmax does not change when all its logits shift: there b is 0, and the variance is the prior's.

tau of the greatest evidence is a fixed point, with gamma the number of weights that the clips determine::

    gamma = sum(1 - s^2 / tau^2)
    tau^2 = |W|^2 / gamma

Ritter et al., 2018, "A Scalable Laplace Approximation for Neural Networks"; MacKay, 1992, "A Practical Bayesian
Framework for Backpropagation Networks".
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_panns.bayes.likelihoods import Likelihood
from bayes_panns.core.choices import Task
from bayes_panns.devices import as_float64

_ROUNDS = 100
"""Iterations of the fixed point of tau, which converges in about ten."""


@dataclass(frozen=True)
class KroneckerGaussian:
    """A Gaussian approximation of the posterior of a linear last layer around its mean, independent along given axes.

    Attributes:
        left: Axes of the labels, orthogonal, ``(K, K)``: eigenvectors of the logits' mean curvature.
        right: Axes of the embedding, orthogonal, ``(E, E)``: eigenvectors of its covariance.
        centre: The mean embedding, ``(E,)``.
        scale: The weight's standard deviations along the axes, ``(K, E)``.
        bias_scale: Those of the logits of the mean embedding, along ``left``, ``(K,)``.
        prior_scale: tau, the prior's standard deviation.
    """

    left: Tensor
    right: Tensor
    centre: Tensor
    scale: Tensor
    bias_scale: Tensor
    prior_scale: float


@torch.no_grad()
def kronecker_gaussian(
    views: Tensor,
    weight: Tensor,
    bias: Tensor,
    likelihood: Likelihood,
    *,
    prior_scale: float | None = None,
    bias_prior_scale: float,
) -> KroneckerGaussian:
    """The Kronecker-factored Laplace approximation of a last layer; see the module.

    Args:
        views: Embeddings, shape ``(N, V, E)``: V views of each of N clips.
        weight: The layer's weight, ``(K, E)``.
        bias: Its bias, ``(K,)``.
        likelihood: The likelihood of the labels.
        prior_scale: tau; by default that of the greatest evidence, iterated from 1.
        bias_prior_scale: tau_b.
    """
    clips, flat = len(views), as_float64(views.flatten(0, 1))
    centre = flat.mean(dim=0)
    centred = flat - centre
    a, right = torch.linalg.eigh(centred.T @ centred / len(flat))
    probability = likelihood.probability(flat @ as_float64(weight).T + as_float64(bias))
    curvature = torch.diag(probability.mean(dim=0)) - probability.T @ probability / len(flat)
    if likelihood.task is Task.MULTI_LABEL:
        curvature = curvature.diag().diag()
    b, left = torch.linalg.eigh(curvature)
    # Rounding leaves eigenvalues a little below 0.
    b, a = b.clamp(min=0), a.clamp(min=0)
    precision = clips * b[:, None] * a
    squares = as_float64(weight).square().sum()
    variance = torch.tensor(1.0 if prior_scale is None else prior_scale**2, dtype=torch.float64)
    for _ in range(_ROUNDS if prior_scale is None else 0):
        gamma = (1 - 1 / (precision * variance + 1)).sum()
        variance = squares / gamma
    return KroneckerGaussian(
        left=left.to(weight),
        right=right.to(weight),
        centre=centre.to(weight),
        scale=(precision + 1 / variance).rsqrt().to(weight),
        bias_scale=(clips * b + bias_prior_scale**-2).rsqrt().to(weight),
        prior_scale=variance.sqrt().item(),
    )
