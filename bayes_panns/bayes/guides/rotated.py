"""A Normal over a weight whose independent factors live along other axes than the weight's own."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints, kl_divergence, register_kl


class RotatedNormal(dist.TorchDistribution):
    """``left (loc + scale e) right^T + shift`` for a matrix, ``left (loc + scale e) + shift`` for a vector.

    e is standard Normal and independent, ``left`` and ``right`` are orthogonal: so the weight is Normal with a
    covariance that is diagonal along those axes. Its KL from independent Normals has a closed form.

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
        return turned(self.loc + self.scale * noise, self.left, self.right, self.shift)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats, shape of ``value`` without the event: that of the factors, as axes keep volumes."""
        centred = value if self.shift is None else value - self.shift
        factors = turned(centred, self.left.T, None if self.right is None else self.right.T)
        normal = torch.distributions.Normal(self.loc, self.scale, validate_args=False)
        return normal.log_prob(factors).flatten(-len(self.event_shape)).sum(dim=-1)

    @property
    def mean(self) -> Tensor:
        """The weight's mean, shape of the event."""
        return turned(self.loc, self.left, self.right, self.shift)

    @property
    def variance(self) -> Tensor:
        """Each element's own variance, shape of the event."""
        right = None if self.right is None else self.right.square()
        return turned(self.scale.square(), self.left.square(), right)

    def entropy(self) -> Tensor:
        """In nats, 0-d: that of the factors."""
        return torch.distributions.Normal(self.loc, self.scale, validate_args=False).entropy().sum()


class Axes(nn.Module):
    """The axes of a rotated last layer, and the embedding from which its bias counts; at first the weights' own, and 0.

    Args:
        weight: The layer's weight, ``(K, E)``.

    Attributes:
        left: Orthogonal, ``(K, K)``.
        right: Orthogonal, ``(E, E)``.
        centre: ``(E,)``: the factors of the bias are those of the logits of this embedding.
    """

    left: Tensor
    right: Tensor
    centre: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        labels, embedding = weight.shape
        self.register_buffer("left", torch.eye(labels).to(weight))
        self.register_buffer("right", torch.eye(embedding).to(weight))
        self.register_buffer("centre", weight.new_zeros(embedding))


def turned(factors: Tensor, left: Tensor, right: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """``left factors right^T + shift``, or ``left factors + shift`` of vectors, which a missing ``right`` tells."""
    weight = factors @ left.T if right is None else left @ factors @ right.T
    return weight if shift is None else weight + shift


@register_kl(RotatedNormal, torch.distributions.Independent)
def _kl_rotated_independent(posterior: RotatedNormal, prior: torch.distributions.Independent) -> Tensor:
    """KL from independent Normals, in nats, 0-d: the posterior's marginal moments against the prior's, and its entropy.

    E log p needs the marginal variances only; the entropy is that of the factors, as orthogonal axes keep volumes.
    """
    normal = prior.base_dist
    if not isinstance(normal, torch.distributions.Normal) or prior.event_shape != posterior.event_shape:
        raise NotImplementedError
    # Of a Normal with the same marginals, and then what the axes take from its entropy.
    marginal = torch.distributions.Normal(posterior.mean, posterior.variance.sqrt(), validate_args=False)
    lost = marginal.scale.log().sum() - posterior.scale.log().sum()
    return kl_divergence(marginal, normal).sum() + lost
