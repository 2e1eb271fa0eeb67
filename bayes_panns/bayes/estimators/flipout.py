"""Flipout: each clip sees the noise under random signs of its own."""

from collections.abc import Callable

import torch
from torch import Tensor

from bayes_panns.bayes.estimators.draw_and_kl import copy_gradient
from bayes_panns.bayes.estimators.lazy_weight import CHANNEL_DIM, LazyWeight, along_channels
from bayes_panns.ranks import per_clip


class FlipoutWeight(LazyWeight):
    """Lets each clip of a batch see the noise under its own random signs.

    With independent signs s_in per (clip, input channel) and s_out per (clip, output channel) a layer f returns

        f(x, loc) + s_out * f(s_in * x, noise)

    so clips see decorrelated weights, each with the right distribution, at the price of a second convolution. Signs are
    constant over time and frequency, since the weight is shared there; signs per pixel would draw another weight at
    each place, which biases the likelihood and its gradient.

    Wen et al., "Flipout", ICLR 2018, arXiv:1803.04386, equations 4 and 5.
    """

    form = "separate"

    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """Two layers: one with the means, one with the noise between signs."""
        dim = CHANNEL_DIM[layer]
        loc, noise = self.drawn
        flipped = layer(inputs * _signs(inputs, inputs.shape[dim], dim), noise, None, *options, **keywords)
        output = layer(inputs, loc, None, *options, **keywords)
        return output.addcmul_(flipped, _signs(output, len(loc), dim))

    def added(self, output: Tensor, dim: int) -> Tensor:
        """The mean, and the noise under a sign per clip and channel."""
        loc, noise = (along_channels(copy_gradient(part), output, dim) for part in self.drawn)
        return output + loc + noise * _signs(output, len(self.loc), dim)


def _signs(like: Tensor, channels: int, dim: int) -> Tensor:
    """Random signs per (clip, channel), shaped to multiply a tensor of the rank of ``like``."""
    shape = [1] * (like.dim() - 1)
    shape[dim - 1 if dim > 0 else dim] = channels
    # Half precision would round some of what is below a half up to it.
    wide = torch.promote_types(like.dtype, torch.float32)

    def draw(clips: int) -> Tensor:
        # Ten times as fast as Bernoulli draws.
        return torch.rand(clips, *shape, dtype=wide, device=like.device)

    uniform = per_clip(draw, len(like)).sub_(0.5)
    return torch.ones_like(uniform).copysign_(uniform).to(like.dtype)
