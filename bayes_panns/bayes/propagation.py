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

from bayes_panns.bayes.guides.mean_field import MeanField
from bayes_panns.bayes.model import BayesianNet

SEED = 0
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
    _kernels: dict[float, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]

    @classmethod
    def make(cls, loc: Tensor, scale: Tensor, signs: Tensor) -> Self:
        """A weight from its attributes."""
        weight = loc.as_subclass(cls)
        weight.loc, weight.scale, weight.signs = loc, scale, signs
        weight._kernels = {}
        return weight

    def coarse(self, width: float) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Mean and variance of a kernel as cells of that many mels see it; worked out once."""
        if width not in self._kernels:
            self._kernels[width] = _coarse(self.loc, width), _coarse(self.scale.square(), width)
        return self._kernels[width]


class Gaussian(_Propagated):
    """A batch of jointly Gaussian activations.

    Attributes:
        loc: The mean, shape ``(batch, ...)``, which the tensor's own elements are too.
        deviations: The factor of the covariance, shape ``(R * batch, ...)``; elements i and j of clip b have covariance
            sum_r d_rbi d_rbj. Those of maps are averages over the cells of a grid.
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
        # In the order they lie in memory.
        columns = self.deviations.movedim(1, -1).unflatten(0, (DEVIATIONS, -1))
        return columns.square().sum(dim=0).movedim(-1, 1)


@torch.no_grad()
def gaussian_weights(guide: MeanField) -> dict[str, GaussianWeight]:
    """The weights by site name, for :func:`moments_under`, of a posterior in which all are independent."""
    # Seeded: the same posterior has the same moments.
    generator = torch.Generator().manual_seed(SEED)
    gaussians = guide.gaussians()
    weights = {}
    for site, loc in guide.means().items():
        scale = gaussians[site][1] if site in gaussians else torch.zeros_like(loc)
        weights[site] = GaussianWeight.make(loc, scale, _signs(len(loc), generator).to(loc))
    return weights


@torch.no_grad()
def moments_under(model: BayesianNet, weights: Mapping[str, GaussianWeight], logmel: Tensor) -> tuple[Tensor, Tensor]:
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
    """Columns of random orthogonal matrices, as many as it takes."""
    noise = torch.randn(-(-channels // DEVIATIONS), DEVIATIONS, DEVIATIONS, generator=generator)
    return torch.cat([*torch.linalg.qr(noise)[0]], dim=1)[:, :channels]


def _grid(like: Tensor, finest: tuple[int, ...]) -> tuple[int, int]:
    frames, mels = like.shape[2:]
    return min(frames, finest[0]), min(mels, finest[1])


def _averages(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == grid else F.adaptive_avg_pool2d(maps, grid)


def _coarse(kernel: Tensor, width: float) -> tuple[Tensor, ...]:
    """What a kernel is to values that are even over cells of ``width`` mels, two cells side by side.

    Taps in time add up. A tap to a neighbouring mel leads out of the cell from one mel in ``width``: into the other
    cell, or into the padding.

    Returns:
        Matrices ``(out, in)``: from a cell to itself and, for a kernel wider than 1, from the low cell to the high one
        and from the high to the low.
    """
    taps = kernel.sum(dim=2)
    if taps.shape[2] == 1:
        return (taps[:, :, 0],)
    below, here, above = taps.unbind(dim=2)
    return here + (1 - 1 / width) * (below + above), below / width, above / width


def _convolved(cells: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
    """Cells ``(batch, in, frames, 2)`` through the matrices of :func:`_coarse`."""
    cells = cells.movedim(1, 3)
    output = F.linear(cells, kernels[0])
    if len(kernels) > 1 and cells.shape[2] == 2:
        output[:, :, 1] += F.linear(cells[:, :, 0], kernels[1])
        output[:, :, 0] += F.linear(cells[:, :, 1], kernels[2])
    return output.movedim(3, 1)


def _parts(value: Tensor) -> tuple[Tensor, Tensor | None]:
    return (value.loc, value.deviations) if isinstance(value, Gaussian) else (value, None)


def _mean(weight: Any) -> Any:
    return weight.loc if isinstance(weight, GaussianWeight) else weight


def _squares(means: Tensor, inputs: Tensor) -> Tensor:
    """Expected squares of a layer's inputs, given their means."""
    return means.square() + inputs.variance if isinstance(inputs, Gaussian) else means.square()


def _added(carried: Tensor | None, variance: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The deviations of a layer's output: those that came in, and those of its own weights.

    Args:
        carried: What the layer makes of the deviations of its input.
        variance: What its weight adds to the variance of each output; 0 if that is no random one.
        weight: Its weight, random or not.
        bias: Its bias, random or not.
    """
    random = [value for value in (weight, bias) if isinstance(value, GaussianWeight)]
    if not random:
        return cast(Tensor, carried)
    channels = [-1] + [1] * (variance.dim() - 2)
    if isinstance(bias, GaussianWeight):
        variance = variance + bias.scale.square().view(channels)
    signs = random[0].signs.view(DEVIATIONS, 1, *channels)
    if carried is None:
        return (variance.sqrt() * signs).flatten(0, 1)
    return carried.unflatten(0, (DEVIATIONS, -1)).addcmul_(variance.sqrt(), signs).flatten(0, 1)


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Gaussian:
    loc, deviations = _parts(inputs)
    if loc.dim() != 2:
        raise NotImplementedError(f"no moments are known of linear with {loc.dim()} dimensions: use draws")
    output = F.linear(loc, _mean(weight), _mean(bias))
    carried = None if deviations is None else F.linear(deviations, _mean(weight))
    if isinstance(weight, GaussianWeight):
        variance = F.linear(_squares(loc, inputs), weight.scale.square())
    else:
        variance = torch.zeros_like(output)
    return Gaussian.make(output, _added(carried, variance, weight, bias))


def _conv2d(inputs: Tensor, weight: Tensor, bias: Tensor | None = None, *options: Any) -> Gaussian:
    loc, deviations = _parts(inputs)
    output = F.conv2d(loc, _mean(weight), _mean(bias), *options)
    channels, kernel = _mean(weight).shape[1], _mean(weight).shape[2:]
    if kernel not in ((1, 1), (3, 3)) or channels != loc.shape[1] or output.shape[2:] != loc.shape[2:]:
        raise NotImplementedError("moments are known only of 1 x 1 and 3 x 3 conv2d that keep the size: use draws")
    grid = _grid(loc, CELLS if deviations is None else deviations.shape[2:])
    width = loc.shape[3] / grid[1]
    if isinstance(weight, GaussianWeight):
        mean_kernel, variance_kernel = weight.coarse(width)
        variance = _convolved(_squares(_averages(loc, grid), inputs), variance_kernel)
    else:
        mean_kernel = _coarse(weight, width)
        variance = output.new_zeros(*output.shape[:2], *grid)
    carried = None if deviations is None else _convolved(deviations, mean_kernel)
    return Gaussian.make(output, _added(carried, variance, weight, bias))


def _batch_norm(
    inputs: Gaussian,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Gaussian:
    if training:
        raise NotImplementedError("no moments are known of batch_norm while it is fitted: use eval()")
    output = F.batch_norm(inputs.loc, running_mean, running_var, weight, bias, eps=eps)
    factor = weight * (running_var + eps).rsqrt()
    return Gaussian.make(output, inputs.deviations * factor.view(-1, *[1] * (output.dim() - 2)))


def _relu(inputs: Gaussian, inplace: bool = False) -> Gaussian:
    """Mean l P(x > 0) + s phi(l / s) of a rectified Gaussian (l, s^2); deviations times P(x > 0), by Stein's lemma."""
    loc = inputs.loc
    # 2^0.5 s, as exp(-u^2) takes it; never 0, so that what is certain keeps its sign.
    wide = (2 * inputs.variance).clamp_(min=torch.finfo(loc.dtype).tiny).sqrt_()
    grid = (wide.shape[2], wide.shape[3]) if loc.dim() == 4 else None
    if grid is not None:
        wide = F.interpolate(wide, loc.shape[2:])
    standard = loc / wide
    sign = standard.erf()
    density = standard.square_().neg_().exp_()
    output = torch.addcmul(loc, loc, sign).addcmul_(wide, density, value=math.pi**-0.5).mul_(0.5)
    positive = (sign if grid is None else _averages(sign, grid)).add(1).mul_(0.5)
    deviations = inputs.deviations.unflatten(0, (DEVIATIONS, -1)) * positive
    return Gaussian.make(output, deviations.flatten(0, 1))


def _avg_pool2d(inputs: Gaussian, *options: Any) -> Gaussian:
    return Gaussian.make(F.avg_pool2d(inputs.loc, *options), inputs.deviations)


def _average(inputs: Gaussian, dim: int) -> Gaussian:
    return Gaussian.make(inputs.loc.mean(dim), inputs.deviations.mean(dim))


def _maximum(inputs: Gaussian, dim: int) -> Gaussian:
    output, place = inputs.loc.max(dim, keepdim=True)
    cell = place * inputs.deviations.shape[dim] // inputs.loc.shape[dim]
    cells = cell.expand(DEVIATIONS, *cell.shape).flatten(0, 1)
    return Gaussian.make(output.squeeze(dim), inputs.deviations.gather(dim, cells).squeeze(dim))


def _sum(first: Tensor, second: Tensor) -> Gaussian:
    (loc, deviations), (other, others) = _parts(first), _parts(second)
    if loc.shape != other.shape:
        raise NotImplementedError(f"no moments are known of a sum of {tuple(loc.shape)} and {tuple(other.shape)}")
    terms = [term for term in (deviations, others) if term is not None]
    return Gaussian.make(loc + other, sum(terms[1:], terms[0]))


def _dropout(inputs: Gaussian, p: float, training: bool, inplace: bool = False) -> Gaussian:
    if training:
        raise NotImplementedError("no moments are known of dropout that is on: use draws")
    return inputs


_RULES: dict[Callable, Callable] = {
    F.linear: _linear,
    F.conv2d: _conv2d,
    F.batch_norm: _batch_norm,
    F.relu: _relu,
    F.relu_: _relu,
    F.avg_pool2d: _avg_pool2d,
    F.dropout: _dropout,
    Tensor.mean: _average,
    Tensor.amax: _maximum,
    Tensor.add: _sum,
    Tensor.dim: Tensor.dim,
}
"""What becomes of moments in each operation."""
