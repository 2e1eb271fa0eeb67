"""Gradient estimators: how a guide's draw reaches the layers.

An estimator is an effect handler around a guide. It makes the guide's Normal sites draw in another way with the same
marginal distribution, so that the expectation of the ELBO and of its gradient is unchanged and only the variance
differs::

    with Estimator("flipout"):
        elbo.loss_and_grads(model, guide, x, y)

The outermost handler wins, so a context manager overrides what a guide chooses for itself. Nothing in
``torch.nn.functional`` is patched: a drawn weight is a tensor that knows how a layer should use it.
"""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.nn import functional as F


class FlipoutWeight(Tensor):
    """A drawn weight, loc + noise, that lets each clip of a batch see the noise under its own random signs.

    It is the drawn weight to every operation but convolution and linear layers. To those it gives
    ``f(x, loc) + s_out * f(x * s_in, noise)`` with independent signs s_in per (clip, input channel) and s_out per
    (clip, output channel): clips see decorrelated weights, each with the right distribution, at the price of a second
    convolution. Signs are constant over time and frequency, since the weight is shared there; signs per pixel would
    draw another weight at each place and bias both the likelihood and its gradient.

    Wen et al., "Flipout", ICLR 2018, arXiv:1803.04386, equations 4 and 5.
    """

    loc: Tensor
    noise: Tensor

    @staticmethod
    def of(loc: Tensor, noise: Tensor) -> "FlipoutWeight":
        """The weight ``loc + noise``, both of the weight's shape."""
        weight = (loc + noise).as_subclass(FlipoutWeight)
        weight.loc, weight.noise = loc, noise
        return weight

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in _CHANNEL_DIM and not (kwargs and kwargs.keys() & {"input", "weight", "bias"}):
            inputs, weight, *rest = args
            bias, *options = rest or (None,)
            batched = inputs.dim() >= 2 if func is F.linear else inputs.dim() == weight.dim()
            if batched and not isinstance(inputs, cls):
                return _flipout(func, inputs, weight, bias, options, kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


_CHANNEL_DIM = {F.linear: -1, F.conv1d: 1, F.conv2d: 1}


def _signs(like: Tensor, channels: int, dim: int) -> Tensor:
    """Random signs per (clip, channel), to be multiplied with ``like`` or an output of its rank."""
    shape = [1] * like.dim()
    shape[0], shape[dim] = like.shape[0], channels
    return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(0.5).mul_(2).sub_(1)


def _flipout(
    layer: Callable, inputs: Tensor, weight: Tensor, bias: Tensor | None, options: list, keywords: dict
) -> Tensor:
    dim = _CHANNEL_DIM[layer]
    channels_in, channels_out = inputs.shape[dim], weight.shape[0]
    loc = weight.loc if isinstance(weight, FlipoutWeight) else weight
    loc_bias = bias.loc if isinstance(bias, FlipoutWeight) else bias
    output = layer(inputs, loc, loc_bias, *options, **keywords)
    if isinstance(weight, FlipoutWeight):
        flipped = layer(inputs * _signs(inputs, channels_in, dim), weight.noise, None, *options, **keywords)
        output = output + flipped * _signs(output, channels_out, dim)
    if isinstance(bias, FlipoutWeight):
        shape = [1] * output.dim()
        shape[dim] = channels_out
        output = output + bias.noise.view(shape) * _signs(output, channels_out, dim)
    return output


class _FlipoutNormal(dist.Normal):
    """A Normal whose draws are :class:`FlipoutWeight`; its density and KL are those of the Normal."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        if sample_shape:
            return super().rsample(sample_shape)
        return FlipoutWeight.of(self.loc, self.scale * torch.randn_like(self.loc))


_DRAWS: dict[str, type[dist.Normal]] = {"weights": dist.Normal, "flipout": _FlipoutNormal}

ESTIMATORS = tuple(_DRAWS)
"""The estimators by name: ``weights`` draws once for the batch, ``flipout`` flips signs per clip and channel."""


class Estimator(Messenger):
    """The effect handler that makes every Normal site inside it draw by the named estimator.

    Args:
        name: One of :data:`ESTIMATORS`.

    Raises:
        ValueError: There is no estimator of that name.
    """

    def __init__(self, name: str):
        super().__init__()
        if name not in _DRAWS:
            raise ValueError(f"estimator {name!r}: there are {', '.join(ESTIMATORS)}")
        self._draw = _DRAWS[name]

    def _pyro_sample(self, msg: dict) -> None:
        fn = msg["fn"]
        normal = fn.base_dist if isinstance(fn, dist.Independent) else fn
        if msg["is_observed"] or not isinstance(normal, dist.Normal) or fn.batch_shape:
            return
        msg["fn"] = self._draw(normal.loc, normal.scale, validate_args=False).to_event(normal.loc.dim())
