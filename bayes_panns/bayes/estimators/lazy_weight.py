"""A weight that is drawn when a layer consumes it, in the way that suits the layer.

Nothing in ``torch.nn.functional`` is patched: the value of a Pyro site is a tensor subclass that stands for a weight
not yet drawn. A layer that consumes it decides how to draw. Every other operation gets a drawn weight, never the mean.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from bayes_panns.bayes.estimators.draw_and_kl import Form, NormalPrior, copy_gradient, draw

CHANNEL_DIM = {F.linear: -1, F.conv1d: 1, F.conv2d: 1}
"""The layers that estimators know, and which dimension of their inputs and outputs the channels are."""

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
"""Properties of a weight that are known before it is drawn."""


class LazyWeight(Tensor):
    """A weight from Normal(loc, scale) that is drawn when an operation first needs it.

    A subclass is an estimator: it says what a layer makes of the weight. To every operation that is not a layer the
    weight is :attr:`value`. The elements of the tensor itself are NaN and are never used.

    Args:
        loc: The mean.
        log_scale: The logarithm of the standard deviation, shape of ``loc``.
    """

    form: ClassVar[Form]
    loc: Tensor
    log_scale: Tensor
    _prior: dist.TorchDistribution | None
    _drawn: tuple[Tensor, ...] | None
    _kl: Tensor | None

    def __new__(cls, loc: Tensor, log_scale: Tensor) -> Self:
        """An undrawn weight of the shape of ``loc``."""
        weight = torch.full((), torch.nan, dtype=loc.dtype, device=loc.device).expand(loc.shape).as_subclass(cls)
        weight.loc, weight.log_scale = loc, log_scale
        weight._prior, weight._drawn, weight._kl = None, None, None
        return weight

    def set_prior(self, prior: dist.TorchDistribution) -> None:
        """Set the prior, so that a draw yet to come computes the KL from it in the same pass over memory."""
        if self._drawn is None:
            self._prior = prior

    def kl(self, prior: dist.TorchDistribution) -> Tensor:
        """KL of Normal(loc, scale) from ``prior``, in nats, 0-d.

        Raises:
            NotImplementedError: It has no closed form.
        """
        if self._prior is prior and self.drawn and self._kl is not None:
            return self._kl
        posterior = dist.Normal(self.loc, self.log_scale.exp(), validate_args=False).to_event(self.loc.dim())
        return torch.distributions.kl_divergence(posterior, prior)

    @property
    def drawn(self) -> tuple[Tensor, ...]:
        """The draw in this estimator's :attr:`form`; always the same one.

        The backward pass overwrites its gradient: give it to a layer as the weight, or else through
        :func:`~bayes_panns.bayes.estimators.draw_and_kl.copy_gradient`.
        """
        if self._drawn is None:
            constants = None if self._prior is None else _constants(self._prior, self.loc)
            # Autocast would turn some of the arithmetic to half precision.
            with torch.autocast(self.loc.device.type, enabled=False):
                drawn: Sequence[Tensor] = draw(self.loc, self.log_scale, self.form, constants)
            if constants is not None:
                *drawn, self._kl = drawn
            self._drawn = tuple(drawn)
        return self._drawn

    @property
    def value(self) -> Tensor:
        """The drawn weight, an ordinary tensor."""
        if self.form == "separate":
            loc, noise = self.drawn
            return copy_gradient(loc) + copy_gradient(noise)
        return copy_gradient(self.drawn[0])

    @abstractmethod
    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """The output of ``layer`` for ``inputs``, shape ``(batch, ...)``, under this weight and without a bias."""

    @abstractmethod
    def added(self, output: Tensor, dim: int) -> Tensor:
        """``output`` with this weight added as a bias to the channels, which are dimension ``dim``."""

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        keywords = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in _METADATA:
                return func(*args, **keywords)
            if func in CHANNEL_DIM and not keywords.keys() & {"input", "weight", "bias"}:
                inputs, weight, *rest = args
                bias, *options = rest or (None,)
                batched = inputs.dim() >= 2 if func is F.linear else inputs.dim() == weight.dim()
                if batched and not isinstance(inputs, LazyWeight):
                    return _layer(func, inputs, weight, bias, options, keywords)
            return func(*tree_map(_value, args), **tree_map(_value, keywords))


def along_channels(values: Tensor, like: Tensor, dim: int) -> Tensor:
    """A vector of channels, shaped to be added to ``like``, and of its type."""
    shape = [1] * like.dim()
    shape[dim] = len(values)
    # A float32 bias would make all that comes after a layer in half precision float32 again.
    return values.view(shape).to(like.dtype)


def _layer(
    layer: Callable, inputs: Tensor, weight: Tensor, bias: Tensor | None, options: list, keywords: dict
) -> Tensor:
    if isinstance(weight, LazyWeight):
        output = weight.through(layer, inputs, options, keywords)
    else:
        output = layer(inputs, weight, None, *options, **keywords)
    if bias is None:
        return output
    dim = CHANNEL_DIM[layer]
    return bias.added(output, dim) if isinstance(bias, LazyWeight) else output + along_channels(bias, output, dim)


def _value(value: Any) -> Any:
    return value.value if isinstance(value, LazyWeight) else value


def normal_prior(prior: dist.TorchDistribution, like: Tensor) -> NormalPrior | None:
    """Loc and scale of ``prior``, detached; None unless it is a Normal over the whole of a weight like ``like``."""
    normal = prior.base_dist if isinstance(prior, dist.Independent) else prior
    if type(normal) is not dist.Normal or prior.event_shape != like.shape:
        return None
    loc, scale = _single(normal.loc.detach()), _single(normal.scale.detach())
    # Reading a number on another device would wait for that device.
    centred = loc.dim() == 0 and loc.device.type == "cpu" and not loc
    return NormalPrior(None if centred else loc, scale)


def prior_deviation(prior: dist.TorchDistribution) -> Tensor | None:
    """The standard deviations of a Normal or Laplace prior, detached, 0-d where all are one; None of any other."""
    base = prior.base_dist if isinstance(prior, dist.Independent) else prior
    if type(base) not in (dist.Normal, dist.Laplace):
        return None
    scale = _single(base.scale.detach())
    return scale if type(base) is dist.Normal else scale * 2**0.5


def _constants(prior: dist.TorchDistribution, like: Tensor) -> NormalPrior | None:
    """The same, and None for a prior that is learned."""
    normal = prior.base_dist if isinstance(prior, dist.Independent) else prior
    if type(normal) is not dist.Normal or normal.loc.requires_grad or normal.scale.requires_grad:
        return None
    return normal_prior(prior, like)


def _single(values: Tensor) -> Tensor:
    """``values``; or, where they are one number expanded, that number, 0-d."""
    return values.as_strided((), ()) if values.numel() and not any(values.stride()) else values
