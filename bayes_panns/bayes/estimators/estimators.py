"""Gradient estimators: how a guide's draw reaches the layers.

An estimator is an effect handler around a guide. It makes the guide's Normal sites draw in another way with the same
marginal distribution, so that the expectation of the ELBO and of its gradient is unchanged and only the variance
differs::

    with Estimator("flipout"):
        elbo.loss_and_grads(model, guide, x, y)

The outermost handler wins, so a context manager overrides what a guide chooses for itself. Nothing in
``torch.nn.functional`` is patched: a site's value is a tensor that stands for a weight not yet drawn. A layer that
consumes it decides how to draw; any other operation gets a drawn weight, never the mean.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from bayes_panns.bayes.estimators.fused import Form, NormalPrior, draw, lent

_CHANNEL_DIM = {F.linear: -1, F.conv1d: 1, F.conv2d: 1}
"""The layers that estimators know, and where their outputs have the channels."""

_METADATA = frozenset(
    {
        Tensor.dim,
        Tensor.size,
        Tensor.numel,
        Tensor.is_floating_point,
        Tensor.__len__,
        Tensor.shape.__get__,  # type: ignore[attr-defined]
        Tensor.ndim.__get__,  # type: ignore[attr-defined]
        Tensor.dtype.__get__,  # type: ignore[attr-defined]
        Tensor.device.__get__,
    }
)
"""What can be told of a weight without drawing it."""


class DrawnWeight(Tensor):
    """A weight drawn from Normal(loc, scale), not before an operation needs it.

    A layer may use it otherwise than as one weight for all clips; to every other operation it is :attr:`value`. Its own
    elements are NaN, and should never be seen.

    Args:
        loc: The mean.
        log_scale: The logarithm of the standard deviation, shape of ``loc``.
    """

    form: ClassVar[Form]
    loc: Tensor
    log_scale: Tensor
    _prior: dist.TorchDistribution | None
    _parts: tuple[Tensor, ...] | None
    _kl: Tensor | None

    def __new__(cls, loc: Tensor, log_scale: Tensor) -> Self:
        """An undrawn weight of the shape of ``loc``."""
        weight = torch.full((), torch.nan, dtype=loc.dtype, device=loc.device).expand(loc.shape).as_subclass(cls)
        weight.loc, weight.log_scale = loc, log_scale
        weight._prior, weight._parts, weight._kl = None, None, None
        return weight

    def meet(self, prior: dist.TorchDistribution) -> None:
        """Say which prior the KL will be taken from, so that the draw, if it is yet to come, finds it in passing."""
        if self._parts is None:
            self._prior = prior

    def kl(self, prior: dist.TorchDistribution) -> Tensor:
        """KL of Normal(loc, scale) from ``prior``, in nats, 0-d.

        Raises:
            NotImplementedError: It has no closed form.
        """
        if self._prior is prior and self.parts and self._kl is not None:
            return self._kl
        posterior = dist.Normal(self.loc, self.log_scale.exp(), validate_args=False).to_event(self.loc.dim())
        return torch.distributions.kl_divergence(posterior, prior)

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """What is drawn, in the form that the layers of this kind need; one draw, however often it is asked for.

        For a layer's weight; for anything else through ``lent``: see :func:`~bayes_panns.bayes.estimators.fused.draw`.
        """
        if self._parts is None:
            constants = None if self._prior is None else _constants(self._prior, self.loc)
            # Autocast would turn some of the arithmetic to half precision.
            with torch.autocast(self.loc.device.type, enabled=False):
                parts: Sequence[Tensor] = draw(self.loc, self.log_scale, self.form, constants)
            if constants is not None:
                *parts, self._kl = parts
            self._parts = tuple(parts)
        return self._parts

    @property
    def value(self) -> Tensor:
        """The drawn weight, an ordinary tensor."""
        if self.form == "apart":
            loc, noise = self.parts
            return lent(loc) + lent(noise)
        return lent(self.parts[0])

    @abstractmethod
    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """What ``layer`` makes of ``inputs``, shape ``(batch, ...)``, under this weight and without a bias."""

    @abstractmethod
    def added(self, output: Tensor, dim: int) -> Tensor:
        """``output`` with this weight added as a bias to the channels, which are dimension ``dim``."""

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        keywords = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in _METADATA:
                return func(*args, **keywords)
            if func in _CHANNEL_DIM and not keywords.keys() & {"input", "weight", "bias"}:
                inputs, weight, *rest = args
                bias, *options = rest or (None,)
                batched = inputs.dim() >= 2 if func is F.linear else inputs.dim() == weight.dim()
                if batched and not isinstance(inputs, DrawnWeight):
                    return _layer(func, inputs, weight, bias, options, keywords)
            return func(*tree_map(_drawn, args), **tree_map(_drawn, keywords))


def _layer(
    layer: Callable, inputs: Tensor, weight: Tensor, bias: Tensor | None, options: list, keywords: dict
) -> Tensor:
    if isinstance(weight, DrawnWeight):
        output = weight.through(layer, inputs, options, keywords)
    else:
        output = layer(inputs, weight, None, *options, **keywords)
    if bias is None:
        return output
    dim = _CHANNEL_DIM[layer]
    return bias.added(output, dim) if isinstance(bias, DrawnWeight) else output + _along(bias, output, dim)


def _drawn(value: Any) -> Any:
    return value.value if isinstance(value, DrawnWeight) else value


def _constants(prior: dist.TorchDistribution, like: Tensor) -> NormalPrior | None:
    """Loc and scale of ``prior`` if it is a Normal over the whole weight that is itself not learned."""
    normal = prior.base_dist if isinstance(prior, dist.Independent) else prior
    if (
        type(normal) is not dist.Normal
        or prior.event_shape != like.shape
        or normal.loc.requires_grad
        or normal.scale.requires_grad
    ):
        return None
    loc, scale = _single(normal.loc), _single(normal.scale)
    # Looking at a number on another device would wait for it.
    centred = loc.dim() == 0 and loc.device.type == "cpu" and not loc
    return NormalPrior(None if centred else loc, scale)


def _single(values: Tensor) -> Tensor:
    """``values``, or the one number that all of them are when they were expanded from it."""
    return values.as_strided((), ()) if values.numel() and not any(values.stride()) else values


class SharedWeight(DrawnWeight):
    """One weight for all clips of a batch: the plain reparameterized draw.

    Blundell et al., 2015, arXiv:1505.05424.
    """

    form = "weight"

    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """The layer, with the drawn weight."""
        return layer(inputs, self.parts[0], None, *options, **keywords)

    def added(self, output: Tensor, dim: int) -> Tensor:
        """The drawn bias."""
        return output + _along(self.value, output, dim)


class FlipoutWeight(DrawnWeight):
    """Lets each clip of a batch see the noise under its own random signs.

    ``f(x, loc) + s_out * f(x * s_in, noise)`` with independent signs s_in per (clip, input channel) and s_out per
    (clip, output channel): clips see decorrelated weights, each with the right distribution, at the price of a second
    convolution. Signs are constant over time and frequency, since the weight is shared there; signs per pixel would
    draw another weight at each place and bias both the likelihood and its gradient.

    Wen et al., "Flipout", ICLR 2018, arXiv:1803.04386, equations 4 and 5.
    """

    form = "apart"

    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """Two layers: one of the means, one of the noise between signs."""
        dim = _CHANNEL_DIM[layer]
        loc, noise = self.parts
        flipped = layer(inputs * _signs(inputs, inputs.shape[dim], dim), noise, None, *options, **keywords)
        output = layer(inputs, loc, None, *options, **keywords)
        return output.addcmul_(flipped, _signs(output, len(loc), dim))

    def added(self, output: Tensor, dim: int) -> Tensor:
        """The mean, and the noise under a sign per clip and channel."""
        loc, noise = (_along(lent(part), output, dim) for part in self.parts)
        return output + loc + noise * _signs(output, len(self.loc), dim)


class MirroredWeight(DrawnWeight):
    """Half the batch sees loc + noise, the other half loc - noise: what is odd in the noise cancels between them.

    About the price of one layer, since each half goes through once. A batch of one sees loc + noise.
    """

    form = "mirrored"

    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """Two layers, each of half the batch."""
        half = (len(inputs) + 1) // 2
        halves = zip((inputs[:half], inputs[half:]), self.parts, strict=True)
        return torch.cat([layer(clips, weight, None, *options, **keywords) for clips, weight in halves if len(clips)])

    def added(self, output: Tensor, dim: int) -> Tensor:
        """The mean, and the noise with the sign of the clip's half."""
        half = (len(output) + 1) // 2
        first, second = (_along(lent(part), output, dim) for part in self.parts)
        return torch.cat([output[:half] + first, output[half:] + second])


class LocalWeight(DrawnWeight):
    """Draws a linear layer's outputs instead of its weights: each clip's own, at the price of a second layer.

    Kingma et al., 2015, arXiv:1506.02557. Exact only where a weight meets a clip once; on a convolution it would draw
    another weight at each place of the clip, which biases the likelihood and its gradient, so it is refused there.
    """

    form = "weight"

    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """Normal outputs with the mean and variance that the weights give them.

        Raises:
            ValueError: The layer is a convolution, or meets each clip more than once.
        """
        if layer is not F.linear or inputs.dim() != 2:
            raise ValueError(LOCAL_REFUSED)
        mean = layer(inputs, self.loc)
        # The square root has no gradient at 0, where all a clip's inputs are 0.
        deviation = (layer(inputs**2, (2 * self.log_scale).exp()) + torch.finfo(inputs.dtype).tiny).sqrt()
        return mean + deviation * torch.randn_like(mean)

    def added(self, output: Tensor, dim: int) -> Tensor:
        """The mean, and noise of each clip's own."""
        shape = [1] * output.dim()
        shape[0], shape[dim] = len(output), len(self.loc)
        noise = torch.randn(shape, dtype=output.dtype, device=output.device)
        return output + _along(self.loc, output, dim) + _along(self.log_scale.exp(), output, dim) * noise


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
    # Ten times as fast as Bernoulli draws.
    uniform = torch.rand(shape, dtype=like.dtype, device=like.device).sub_(0.5)
    return torch.ones_like(uniform).copysign_(uniform)


class DrawnNormal(dist.Normal):
    """Normal(``loc``, exp(``log_scale``)) over a weight, whose draws are of a kind of :class:`DrawnWeight`.

    Its density and its KL are those of the Normal.

    Args:
        loc: Means.
        log_scale: Logarithms of the standard deviations, shape of ``loc``.
        estimator: One of :data:`ESTIMATORS`.
    """

    arg_constraints: ClassVar[dict] = {"loc": constraints.real, "log_scale": constraints.real}

    def __init__(self, loc: Tensor, log_scale: Tensor, estimator: str):
        self.loc, self.log_scale, self.estimator = loc, log_scale, estimator
        # Unvalidated: it would read every weight, and there is no log-scale that is wrong.
        torch.distributions.Distribution.__init__(self, loc.shape, validate_args=False)

    @property
    def scale(self) -> Tensor:
        """Standard deviations."""
        return self.log_scale.exp()

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> dist.TorchDistribution:
        """An ordinary Normal with a larger batch shape."""
        return dist.Normal(self.loc, self.scale, validate_args=False).expand(batch_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """One weight, not yet drawn; or ordinary draws, where several are asked for."""
        if sample_shape:
            return dist.Normal(self.loc, self.scale, validate_args=False).rsample(sample_shape)
        return _KINDS[self.estimator](self.loc, self.log_scale)


_KINDS: dict[str, type[DrawnWeight]] = {
    "weights": SharedWeight,
    "flipout": FlipoutWeight,
    "mirrored": MirroredWeight,
    "local": LocalWeight,
}

ESTIMATORS = tuple(_KINDS)
"""The estimators by name: the kinds of :class:`DrawnWeight`."""


class Estimator(Messenger):
    """The effect handler that makes every Normal site inside it draw by the named estimator.

    Args:
        name: One of :data:`ESTIMATORS`.

    Raises:
        ValueError: There is no estimator of that name.
    """

    def __init__(self, name: str):
        super().__init__()
        if name not in _KINDS:
            raise ValueError(f"estimator {name!r}: there are {', '.join(ESTIMATORS)}")
        self.name = name

    def _pyro_sample(self, msg: dict) -> None:
        fn = msg["fn"]
        normal = fn.base_dist if isinstance(fn, dist.Independent) else fn
        # What a model replays has its value; its prior stays as it is.
        if msg["done"] or msg["is_observed"] or not isinstance(normal, dist.Normal) or fn.batch_shape:
            return
        log_scale = normal.log_scale if isinstance(normal, DrawnNormal) else normal.scale.log()
        msg["fn"] = DrawnNormal(normal.loc, log_scale, self.name).to_event(normal.loc.dim())
