"""The axes of a rotated last layer: where its posterior is nearly independent.

| symbol | shape | what |
|---|---|---|
| phi, mu | (E,) | an embedding, and their mean |
| sigma | | the embeddings' spread: the root of their mean variance |
| V | (E, R) | eigenvectors of the embeddings' covariance, without those of no variance |
| x | (R,) | the input along the axes: V^T (phi - mu) / sigma |
| U | (K, K) | eigenvectors of the mean curvature of the log-likelihood in the logits |

In units of the spread a prior's standard deviation means the same for any backbone.

Axes are found in float64: on the embeddings' device, or on the CPU if that has none. They stay there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_panns.bayes import Likelihood
from bayes_panns.core.choices import Task
from bayes_panns.devices import as_float64

_NEGLIGIBLE = 1e-9
"""The variance of an axis, relative to the first, below which it counts as none."""


@dataclass(frozen=True)
class HeadAxes:
    """The axes of a rotated last layer; see the module.

    Attributes:
        left: U, ``(K, K)``.
        right: V, ``(E, R)``.
        centre: mu, ``(E,)``.
        spread: sigma.
    """

    left: Tensor
    right: Tensor
    centre: Tensor
    spread: float

    @property
    def complete(self) -> Tensor:
        """V with orthogonal axes for what lies outside its span, ``(E, E)``."""
        size, rank = self.right.shape
        if rank == size:
            return self.right
        basis = torch.linalg.qr(self.right, mode="complete").Q
        return torch.cat([self.right, basis[:, rank:]], dim=1)

    def inputs(self, embeddings: Tensor) -> Tensor:
        """The inputs x of embeddings ``(N, E)``: float32, ``(N, R)``."""
        return (self._scaled(embeddings) @ self.right).to(embeddings.device, torch.float32)

    def outside(self, embeddings: Tensor) -> Tensor:
        """The squared length of embeddings ``(N, E)`` outside the span of V, in units of the spread: ``(N,)``."""
        scaled = self._scaled(embeddings)
        outside = (scaled.square().sum(dim=1) - (scaled @ self.right).square().sum(dim=1)).clamp(min=0)
        return outside.to(embeddings.device, torch.float32)

    def _scaled(self, embeddings: Tensor) -> Tensor:
        return (embeddings.to(self.right) - self.centre) / self.spread


@torch.no_grad()
def realigned(axes: HeadAxes, free: Tensor, embeddings: Tensor) -> HeadAxes:
    """The axes of an earlier fit, with those that nothing was learned along turned to meet new embeddings.

    A posterior is the prior along these, the same for all, so turning them does not change it. Along axes that meet the
    new embeddings the posterior of these is nearly independent too.

    Args:
        axes: The axes; complete, so that V is ``(E, E)``.
        free: Which columns of V nothing was learned along, bool ``(E,)``.
        embeddings: ``(N, E)``.
    """
    if not bool(free.any()):
        return axes
    plane = as_float64(axes.right[:, free])
    left = (embeddings.to(plane) - axes.centre.to(plane)) @ plane
    turned = plane @ torch.linalg.svd(left, full_matrices=True).Vh.T
    right = axes.right.clone()
    right[:, free] = turned.to(right)
    return HeadAxes(axes.left, right, axes.centre, axes.spread)


@torch.no_grad()
def embedding_axes(embeddings: Tensor, labels: int) -> HeadAxes:
    """The axes of embeddings ``(N, E)``; those of K ``labels`` are the identity."""
    values = as_float64(embeddings)
    root_mean_square = values.square().mean().sqrt()
    centre = values.mean(dim=0)
    values = values - centre
    rows, size = values.shape
    spread = values.square().mean().sqrt()
    if spread <= _NEGLIGIBLE * root_mean_square:
        # Embeddings that are all the same have no spread, and no axes.
        return HeadAxes(torch.eye(labels).to(centre), values.new_zeros(size, 0), centre, 1.0)
    values = values / spread
    if rows < size:
        variance, left = torch.linalg.eigh(values @ values.T)
        kept = variance > _NEGLIGIBLE * variance[-1]
        right = values.T @ (left[:, kept] / variance[kept].sqrt())
    else:
        variance, right = torch.linalg.eigh(values.T @ values)
        right = right[:, variance > _NEGLIGIBLE * variance[-1]]
    return HeadAxes(torch.eye(labels).to(right), right, centre, float(spread))


@torch.no_grad()
def curvature_axes(probability: Tensor, likelihood: Likelihood) -> Tensor:
    """U for probabilities ``(N, K)``: the eigenvectors of their mean curvature; for multi-label the identity.

    The curvature of softmax is diag(p) - p p^T; that of independent sigmoids is diagonal already.
    """
    p = as_float64(probability)
    if likelihood.task is Task.MULTI_LABEL:
        return torch.eye(p.shape[1]).to(p)
    return torch.linalg.eigh(torch.diag(p.mean(dim=0)) - p.T @ p / len(p)).eigenvectors
