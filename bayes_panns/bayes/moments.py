"""Means and covariances of what a network says under a mean-field posterior, from one pass and without a draw.

A layer that meets a :class:`GaussianWeight` answers with a :class:`Gaussian`: the mean of its output, and deviations
whose products are the output's covariance. The layers after it take both on, so that an ordinary network needs to know
nothing of them::

    weights = gaussian_weights(guide)
    mean, deviations = moments_under(model, weights, logmel)
    variance = deviations.square().sum(dim=0)

A weight is the same at every place of a clip, and all channels of the next layer read what it makes. Variances alone,
as assumed density filtering propagates them (Hernández-Lobato and Adams, 2015, arXiv:1502.05336), forget both and miss
most of the uncertainty; so the covariance is kept, between all channels and all places of a clip:

- BatchNorm, sums, averages and linear layers are exact, but for what a layer's weights and its inputs have in common.
- ReLU: the mean of a rectified Gaussian (Frey and Hinton, 1999); the covariance by Stein's lemma, times the
  probability of being positive.
- Convolutions: the mean is exact. Deviations are known as averages over the cells of a coarse grid, and those that come
  in are taken to be even within a cell and between frames. What the layer's own weights add is one number for
  each clip and output channel, with the same sign in all cells.
- The maximum is where that of the means is.
- The covariance is held as a factor of :data:`DEVIATIONS` columns; see :class:`GaussianWeight`.

``docs/moments.md`` says how far off this is.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import torch
from pyro import poutine
from torch import Tensor
from torch.nn import functional as F

from bayes_panns.bayes.guide import MeanField
from bayes_panns.bayes.model import BayesianNet

DEVIATIONS = 32
"""Columns R of the factor whose product with its transpose is the covariance; a power of two."""

CELLS = (16, 2)
"""The finest grid on which the deviations of a map are held: in time, and in frequency."""


class _Propagated(Tensor):
    """What layers take on by the rules of this module; every other operation is an error."""

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func in _RULES:
                return _RULES[func](*args, **(kwargs or {}))
        name = torch.overrides.resolve_name(func) or getattr(func, "__name__", str(func))
        raise NotImplementedError(f"no moments are known of {name}: use draws")


class GaussianWeight(_Propagated):
    """A weight or bias with independent Gaussian elements.

    What it adds to an output channel is independent of what it adds to another. The deviations of a channel are
    therefore along a column of signs, and those of different channels along columns that are orthogonal: those of a
    Hadamard matrix up to :data:`DEVIATIONS` channels, and on average from there on, as between layers.

    Attributes:
        loc: The mean, which the tensor's own elements are too.
        scale: The standard deviation.
        signs: +-1 / sqrt(R), shape ``(R, output channels)``.
    """

    loc: Tensor
    scale: Tensor
    signs: Tensor
    _kernels: dict[float, tuple[Tensor, Tensor]]

    @classmethod
    def make(cls, loc: Tensor, scale: Tensor, signs: Tensor) -> Self:
        """A weight from its attributes."""
        weight = loc.as_subclass(cls)
        weight.loc, weight.scale, weight.signs = loc, scale, signs
        weight._kernels = {}
        return weight

    def coarse(self, width: float) -> tuple[Tensor, Tensor]:
        """Mean and variance of a kernel as cells of that many mels see it; worked out once."""
        if width not in self._kernels:
            self._kernels[width] = _coarse(self.loc, width), _coarse(self.scale.square(), width)
        return self._kernels[width]


class Gaussian(_Propagated):
    """A batch of jointly Gaussian activations.

    Attributes:
        loc: The mean, shape ``(batch, ...)``, which the tensor's own elements are too.
        deviations: The factor of the covariance, shape ``(R * batch, ...)``: elements i and j of clip b have covariance
            sum_r d_rbi d_rbj. Those of maps, ``(batch, channels, frames, mels)``, are averages over the cells of a grid.
    """

    loc: Tensor
    deviations: Tensor

    @classmethod
    def make(cls, loc: Tensor, deviations: Tensor) -> Self:
        """Activations from their attributes; of a map that is smaller than the grid, the grid shrinks to it."""
        if loc.dim() == 4:
            deviations = _averages(deviations, _grid(loc, deviations.shape[2:]))
        gaussian = loc.as_subclass(cls)
        gaussian.loc, gaussian.deviations = loc, deviations
        return gaussian

    @property
    def variance(self) -> Tensor:
        """Variances, shape ``(batch, ...)``; those of a map's cells."""
        return self.deviations.unflatten(0, (DEVIATIONS, -1)).square().sum(dim=0)


@torch.no_grad()
def gaussian_weights(guide: MeanField) -> dict[str, GaussianWeight]:
    """The posterior's weights by site name, for :func:`moments_under`."""
    # Seeded: the same posterior has the same moments.
    generator = torch.Generator().manual_seed(0)
    return {
        site: GaussianWeight.make(
            loc := guide.loc(site).detach(), guide.scale(site), _signs(len(loc), generator).to(loc)
        )
        for site in guide.sites
    }


@torch.no_grad()
def moments_under(
    model: BayesianNet, weights: Mapping[str, GaussianWeight], logmel: Tensor
) -> tuple[Tensor, Tensor]:
    """The moments of the logits of clips.

    Args:
        model: The model, in eval mode, with its dropouts off.
        weights: Every sample site's weight, by site name.
        logmel: dB, shape ``(batch, frames, 64)``.

    Returns:
        The mean, shape ``(batch, K)``, and deviations ``(R, batch, K)``: the covariance of a clip's logits i and j is
        the sum over R of their products. All zero for a network without sample sites.

    Raises:
        NotImplementedError: The network does what has no rule here.
    """
    # The network alone: the model would go on to sample labels.
    logits = poutine.condition(model.net, data=dict(weights))(logmel)
    if not isinstance(logits, Gaussian):
        return logits, logits.new_zeros(DEVIATIONS, *logits.shape)
    return logits.loc, logits.deviations.unflatten(0, (DEVIATIONS, -1))


def _signs(channels: int, generator: torch.Generator) -> Tensor:
    """Columns of Hadamard matrices in random order with randomly signed rows, divided by sqrt(R)."""
    hadamard = torch.ones(1, 1)
    while len(hadamard) < DEVIATIONS:
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
    matrices = []
    for _ in range(-(-channels // DEVIATIONS)):
        rows = torch.randint(0, 2, (DEVIATIONS, 1), generator=generator) * 2 - 1
        matrices.append((rows * hadamard)[:, torch.randperm(DEVIATIONS, generator=generator)])
    return torch.cat(matrices, dim=1)[:, :channels] / DEVIATIONS**0.5


def _grid(like: Tensor, finest: tuple[int, ...]) -> tuple[int, int]:
    frames, mels = like.shape[2:]
    return min(frames, finest[0]), min(mels, finest[1])


def _averages(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == grid else F.adaptive_avg_pool2d(maps, grid)


def _coarse(kernel: Tensor, width: float) -> Tensor:
    """What a kernel is to deviations that are even over cells of ``width`` mels: shape ``(out, in, 1, 1 or 3)``.

    A mel at a cell's edge has its neighbour in the next cell; in time, where cells are many and edges few, not.
    """
    if kernel.shape[3] == 1:
        return kernel.sum(dim=2, keepdim=True)
    below, here, above = kernel.sum(dim=2).unbind(dim=2)
    inside = here + (1 - 1 / width) * (below + above)
    return torch.stack([below / width, inside, above / width], dim=2).unsqueeze(2)


def _moments(value: Tensor) -> tuple[Tensor, Tensor | None]:
    return (value.loc, value.deviations) if isinstance(value, Gaussian) else (value, None)


def _mean(weight: Tensor | None) -> Tensor | None:
    return weight.loc if isinstance(weight, GaussianWeight) else weight


def _own(variance: Tensor, weight: GaussianWeight, bias: Tensor | None) -> Tensor:
    """The deviations that a layer's own weights add, from the variance that ``weight`` adds."""
    channels = [-1] + [1] * (variance.dim() - 2)
    if isinstance(bias, GaussianWeight):
        variance = variance + bias.scale.square().view(channels)
    return (variance.sqrt() * weight.signs.view(DEVIATIONS, 1, *channels)).flatten(0, 1)


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    loc, deviations = _moments(inputs)
    output = F.linear(loc, cast(Tensor, _mean(weight)), _mean(bias))
    parts = []
    if deviations is not None:
        parts.append(F.linear(deviations, cast(Tensor, _mean(weight))))
    if isinstance(weight, GaussianWeight):
        squares = loc.square() + (inputs.variance if isinstance(inputs, Gaussian) else 0)
        parts.append(_own(F.linear(squares, weight.scale.square()), weight, bias))
    return Gaussian.make(output, sum(parts))
