"""A Normal over a weight that is independent along other axes than the weight's own.

| symbol | shape | what |
|---|---|---|
| U, V | (K, K), (E, E) | ``left`` and ``right``: orthogonal axes, a column each |
| m, s | (K, E) or (K,) | ``loc`` and ``scale`` of the independent factors |
| b | as m | ``shift`` |
| e | as m | standard Normal |

The weight::

    W = U (m + s e) V^T + b        a matrix
    w = U (m + s e) + b            a vector

Its log-density is that of the factors, since orthogonal axes keep volumes. Its marginal variances::

    var W = U^2 s^2 (V^2)^T,  squares taken element by element

Its KL from independent Normals p needs those and the entropy of the factors::

    KL = KL(Normal(E W, var W) || p) + sum log sd(W) - sum log s
"""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, kl_divergence, register_kl


class RotatedNormal(dist.TorchDistribution):
    """A Normal over a matrix or a vector whose covariance is diagonal along given axes; see the module.

    Args:
        loc: The factors' means, shape ``(K, E)`` or ``(K,)``, which is the event's too.
        scale: The factors' standard deviations, shape of ``loc``.
        left: Axes of the rows, orthogonal, ``(K, K)``, a column each.
        right: Axes of the columns, orthogonal, ``(E, E)``; none for a vector.
        shift: Added to all, shape of ``loc``.
    """

    arg_constraints: ClassVar[dict] = {}
    has_rsample = True

    def __init__(
        self, loc: Tensor, scale: Tensor, left: Tensor, right: Tensor | None = None, shift: Tensor | None = None
    ):
        self.loc, self.scale, self.left, self.right, self.shift = loc, scale, left, right, shift
        super().__init__(torch.Size(), loc.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All real weights of the shape."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> dist.TorchDistribution:
        """The same distribution with a larger batch shape."""
        return dist.ExpandedDistribution(self, batch_shape) if batch_shape else self

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, shape ``sample_shape + event_shape``."""
        noise = torch.randn(torch.Size(sample_shape) + self.event_shape, dtype=self.loc.dtype, device=self.loc.device)
        return rotate(self.loc + self.scale * noise, self.left, self.right, self.shift)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats, shape of ``value`` without the event: that of the factors."""
        centred = value if self.shift is None else value - self.shift
        factors = rotate(centred, self.left.T, None if self.right is None else self.right.T)
        normal = torch.distributions.Normal(self.loc, self.scale, validate_args=False)
        return normal.log_prob(factors).flatten(-len(self.event_shape)).sum(dim=-1)

    @property
    def mean(self) -> Tensor:
        """The weight's mean, shape of the event."""
        return rotate(self.loc, self.left, self.right, self.shift)

    @property
    def variance(self) -> Tensor:
        """Each element's own variance, shape of the event."""
        right = None if self.right is None else self.right.square()
        return rotate(self.scale.square(), self.left.square(), right)

    def entropy(self) -> Tensor:
        """The entropy in nats, 0-d: that of the factors."""
        return torch.distributions.Normal(self.loc, self.scale, validate_args=False).entropy().sum()


def rotate(factors: Tensor, left: Tensor, right: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """``left factors right^T + shift``; without ``right``, ``left factors + shift`` of vectors."""
    weight = factors @ left.T if right is None else left @ factors @ right.T
    return weight if shift is None else weight + shift


@register_kl(RotatedNormal, torch.distributions.Independent)
def _kl_rotated_independent(posterior: RotatedNormal, prior: torch.distributions.Independent) -> Tensor:
    """KL from independent Normals, in nats, 0-d; the last formula of the module."""
    normal = prior.base_dist
    if not isinstance(normal, torch.distributions.Normal) or prior.event_shape != posterior.event_shape:
        raise NotImplementedError
    marginal = torch.distributions.Normal(posterior.mean, posterior.variance.sqrt(), validate_args=False)
    entropies = marginal.scale.log().sum() - posterior.scale.log().sum()
    return kl_divergence(marginal, normal).sum() + entropies
