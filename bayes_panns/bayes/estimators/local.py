"""Local reparameterization: the outputs of a linear layer are drawn instead of its weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from bayes_panns.bayes.estimators.lazy_weight import LazyWeight, along_channels
from bayes_panns.ranks import per_clip

LOCAL_REFUSED = (
    "the estimator local is for a linear layer that is applied once to each clip; a convolution, or a layer that is "
    "applied to each segment of a clip, would see another weight at each place: use flipout or mirrored"
)
"""Why local reparameterization is refused."""


class LocalWeight(LazyWeight):
    """Draws a linear layer's outputs instead of its weights, for each clip its own, at the price of a second layer.

        output ~ Normal(F.linear(x, loc), F.linear(x^2, scale^2))

    Kingma et al., 2015, arXiv:1506.02557. It is exact only where a weight is applied once to a clip. On a convolution
    it would draw another weight at each place of the clip, which biases the likelihood and its gradient: refused.
    """

    form = "sum"

    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """Normal outputs with the mean and variance that the weights give them.

        Raises:
            ValueError: The layer is a convolution, or is applied to each clip more than once.
        """
        if layer is not F.linear or inputs.dim() != 2:
            raise ValueError(LOCAL_REFUSED)
        mean = layer(inputs, self.loc)
        # The square root has no gradient at 0, where all a clip's inputs are 0.
        deviation = (layer(inputs**2, (2 * self.log_scale).exp()) + torch.finfo(inputs.dtype).tiny).sqrt()
        return mean + deviation * _noise(mean, mean.shape[1:])

    def added(self, output: Tensor, dim: int) -> Tensor:
        """The mean, and noise of each clip's own."""
        shape = [1] * (output.dim() - 1)
        shape[dim - 1 if dim > 0 else dim] = len(self.loc)
        noise = _noise(output, shape)
        loc, scale = (along_channels(each, output, dim) for each in (self.loc, self.log_scale.exp()))
        return output + loc + scale * noise


def _noise(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard Normal numbers of ``shape`` for each clip of a tensor like ``like``, and of its type.

    In half precision they are those of float32, rounded.
    """
    wide = torch.promote_types(like.dtype, torch.float32)
    noise = per_clip(lambda clips: torch.randn(clips, *shape, dtype=wide, device=like.device), len(like))
    return noise.to(like.dtype)
