"""Gradient estimators: how a guide's draw reaches the layers.

An estimator is an effect handler around a guide. It makes the guide's Normal sites draw in another way with the same
marginal distribution, so that the expectation of the ELBO and of its gradient is unchanged and only the variance
differs::

    with Estimator("flipout"):
        elbo.loss_and_grads(model, guide, x, y)

The outermost handler wins, so a context manager overrides what a guide chooses for itself. Nothing in
``torch.nn.functional`` is patched: a drawn weight is a tensor that knows how a layer should use it, and that is the
drawn weight, never its mean, to every other operation.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.nn import functional as F

_CHANNEL_DIM = {F.linear: -1, F.conv1d: 1, F.conv2d: 1}
"""The layers that estimators know, and where their outputs have the channels."""


class DrawnWeight(Tensor):
    """A weight drawn from Normal(loc, scale) that a layer may use otherwise than as one weight for all clips.

    Attributes:
        loc: The mean.
        scale: The standard deviation.
        noise: What was drawn, less the mean: the tensor's own values are ``loc + noise``.
    """

    loc: Tensor
    scale: Tensor
    noise: Tensor

    @classmethod
    def draw(cls, loc: Tensor, scale: Tensor) -> Self:
        """Draw a weight of the shape of ``loc`` and ``scale``."""
        noise = scale * torch.randn_like(loc)
        weight = (loc + noise).as_subclass(cls)
        weight.loc, weight.scale, weight.noise = loc, scale, noise
        return weight

    @abstractmethod
    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """What ``layer`` makes of ``inputs``, shape ``(batch, ...)``, under this weight and without a bias."""

    @abstractmethod
    def added(self, output: Tensor, dim: int) -> Tensor:
        """``output`` with this weight added as a bias to the channels, which are dimension ``dim``."""

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        keywords = kwargs or {}
        if func in _CHANNEL_DIM and not keywords.keys() & {"input", "weight", "bias"}:
            inputs, weight, *rest = args
            bias, *options = rest or (None,)
            batched = inputs.dim() >= 2 if func is F.linear else inputs.dim() == weight.dim()
            if batched and not isinstance(inputs, DrawnWeight):
                if not isinstance(weight, DrawnWeight):
                    output = func(inputs, weight, None, *options, **keywords)
                else:
                    output = weight.through(func, inputs, options, keywords)
                if bias is None:
                    return output
                dim = _CHANNEL_DIM[func]
                return bias.added(output, dim) if isinstance(bias, DrawnWeight) else output + _along(bias, output, dim)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **keywords)


class FlipoutWeight(DrawnWeight):
    """Lets each clip of a batch see the noise under its own random signs.

    ``f(x, loc) + s_out * f(x * s_in, noise)`` with independent signs s_in per (clip, input channel) and s_out per
    (clip, output channel): clips see decorrelated weights, each with the right distribution, at the price of a second
    convolution. Signs are constant over time and frequency, since the weight is shared there; signs per pixel would
    draw another weight at each place and bias both the likelihood and its gradient.

    Wen et al., "Flipout", ICLR 2018, arXiv:1803.04386, equations 4 and 5.
    """

    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """Two layers: one of the means, one of the noise between signs."""
        dim = _CHANNEL_DIM[layer]
        flipped = layer(inputs * _signs(inputs, inputs.shape[dim], dim), self.noise, None, *options, **keywords)
        output = layer(inputs, self.loc, None, *options, **keywords)
        return output + flipped * _signs(output, len(self.loc), dim)

    def added(self, output: Tensor, dim: int) -> Tensor:
        """The mean, and the noise under a sign per clip and channel."""
        return (
            output
            + _along(self.loc, output, dim)
            + _along(self.noise, output, dim) * _signs(output, len(self.loc), dim)
        )


class MirroredWeight(DrawnWeight):
    """Half the batch sees loc + noise, the other half loc - noise: what is odd in the noise cancels between them.

    About the price of one layer, since each half goes through once. A batch of one sees loc + noise.
    """

    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """Two layers, each of half the batch."""
        half = (len(inputs) + 1) // 2
        plus = layer(inputs[:half], self.loc + self.noise, None, *options, **keywords)
        if half == len(inputs):
            return plus
        return torch.cat([plus, layer(inputs[half:], self.loc - self.noise, None, *options, **keywords)])

    def added(self, output: Tensor, dim: int) -> Tensor:
        """The mean, and the noise with the sign of the clip's half."""
        half = (len(output) + 1) // 2
        sign = torch.ones([len(output)] + [1] * (output.dim() - 1), dtype=output.dtype, device=output.device)
        sign[half:] = -1
        return output + _along(self.loc, output, dim) + sign * _along(self.noise, output, dim)


class LocalWeight(DrawnWeight):
    """Draws a linear layer's outputs instead of its weights: each clip's own, at the price of a second layer.

    Kingma et al., 2015, arXiv:1506.02557. Exact only where a weight meets a clip once; on a convolution it would draw
    another weight at each place of the clip, which biases the likelihood and its gradient, so it is refused there.
    """

    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """Normal outputs with the mean and variance that the weights give them.

        Raises:
            ValueError: The layer is a convolution, or meets each clip more than once.
        """
        if layer is not F.linear or inputs.dim() != 2:
            raise ValueError(LOCAL_REFUSED)
        mean = layer(inputs, self.loc)
        # The square root has no gradient at 0, where all a clip's inputs are 0.
        deviation = (layer(inputs**2, self.scale**2) + torch.finfo(inputs.dtype).tiny).sqrt()
        return mean + deviation * torch.randn_like(mean)

    def added(self, output: Tensor, dim: int) -> Tensor:
        """The mean, and noise of each clip's own."""
        shape = [1] * output.dim()
        shape[0], shape[dim] = len(output), len(self.loc)
        noise = torch.randn(shape, dtype=output.dtype, device=output.device)
        return output + _along(self.loc, output, dim) + _along(self.scale, output, dim) * noise


LOCAL_REFUSED = (
    "the estimator local is for a linear layer that meets each clip once; in a convolution it would draw another "
    "weight at each place: use flipout or mirrored"
)
"""Why local reparameterization is refused."""


def _along(values: Tensor, like: Tensor, dim: int) -> Tensor:
    """A vector of channels, shaped to be added to ``like``."""
    shape = [1] * like.dim()
    shape[dim] = len(values)
    return values.view(shape)


def _signs(like: Tensor, channels: int, dim: int) -> Tensor:
    """Random signs per (clip, channel), shaped to be multiplied with a tensor of the rank of ``like``."""
    shape = [1] * like.dim()
    shape[0], shape[dim] = like.shape[0], channels
    return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(0.5).mul_(2).sub_(1)


class _Normal(dist.Normal):
    """A Normal whose draws are of a kind of :class:`DrawnWeight`; its density and KL are those of the Normal."""

    kind: ClassVar[type[DrawnWeight]]

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        if sample_shape:
            return super().rsample(sample_shape)
        return self.kind.draw(self.loc, self.scale)


class _Flipout(_Normal):
    kind = FlipoutWeight


class _Mirrored(_Normal):
    kind = MirroredWeight


class _Local(_Normal):
    kind = LocalWeight


_DRAWS: dict[str, type[dist.Normal]] = {
    "weights": dist.Normal,
    "flipout": _Flipout,
    "mirrored": _Mirrored,
    "local": _Local,
}

ESTIMATORS = tuple(_DRAWS)
"""The estimators by name: ``weights`` draws once for the batch; the others are the kinds of :class:`DrawnWeight`."""


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
