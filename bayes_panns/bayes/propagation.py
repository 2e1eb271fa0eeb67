"""Propagated moments: mean and covariance of the logits under a mean-field posterior, from one pass without a draw.

A layer that consumes a :class:`GaussianWeight` returns a :class:`Gaussian`: the mean of its output, and deviations
whose products are its covariance. The layers after it propagate both, so an ordinary network needs no change::

    weights = gaussian_weights(guide)
    mean, deviations = moments_under(model, weights, features)
    variance = deviations.square().sum(dim=0)

| symbol | shape | what |
|---|---|---|
| m | (batch, ...) | the mean of a layer's output |
| D | (R, batch, ...) | its deviations, R = 32: cov(i, j) = sum_r D_ri D_rj |
| M, S | the weight's | mean and standard deviation of a layer's weight |
| u_c | (R,) | the direction of output channel c: a column of a random orthogonal R x R matrix |

The covariance is kept between all channels and all places of a clip. Variances alone, as assumed density filtering
propagates them (Hernández-Lobato and Adams, 2015, arXiv:1502.05336), forget that a weight is the same at every place
and that all channels of the next layer read its output, and miss most of the uncertainty.

The rules, for an input with mean m and deviations D::

    linear, conv     m' = f(m, M)                               exact
                     v  = f(m^2 + var, S^2)                     what the layer's own weights add to the variance
                     D' = f(D, M) + u_c sqrt(v)
    BatchNorm        m' = g m + h,      D' = g D                exact
    average, sum     of m and of D                              exact
    ReLU             m' = m P + s phi(m / s),   D' = P D        P = Phi(m / s), s the standard deviation
    maximum          of m, and D at its place

What is approximate:

- The random weights of a layer are taken to be independent of its inputs. What they add is independent between output
  channels, and the same at all places of a clip. Its directions u_c are orthogonal within each group of R channels;
  between groups and between layers they are so only on average, as the covariance is held in R columns.
- ReLU: m' is exact for a Gaussian (Frey and Hinton, 1999); D' is Stein's lemma.
- Convolutions: D is held as averages over the cells of a grid, at most :data:`CELLS`. Within a cell it is taken to be
  constant, and between neighbouring frames as well. Only 1 x 1 and 3 x 3 kernels that keep the size have rules.

``docs/moments.md`` measures how far off this is.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import torch
from pyro import poutine
from torch import Tensor
from torch.nn import functional as F

from bayes_panns.bayes.guides import Part
from bayes_panns.bayes.model import BayesianNet

SEED = 0
DEVIATIONS = 32
"""R, the columns of the factor of the covariance."""

CELLS = (16, 2)
"""The finest grid that deviations of a map are held on: in time, and in frequency."""


class _Propagated(Tensor):
    """A tensor that layers treat by the rules of this module; every other operation is an error."""

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func in _RULES:
                return _RULES[func](*args, **(kwargs or {}))
        name = torch.overrides.resolve_name(func) or getattr(func, "__name__", str(func))
        raise NotImplementedError(f"moments cannot be propagated through {name}: use draws")


class GaussianWeight(_Propagated):
    """A weight or bias with independent Gaussian elements.

    Attributes:
        loc: The mean, which the tensor's own elements are too.
        scale: The standard deviation.
        directions: Unit vectors, shape ``(R, output channels)``: along which the deviations of each channel lie.
    """

    loc: Tensor
    scale: Tensor
    directions: Tensor
    _kernels: dict[float, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]

    @classmethod
    def make(cls, loc: Tensor, scale: Tensor, directions: Tensor) -> Self:
        """A weight from its attributes."""
        weight = loc.as_subclass(cls)
        weight.loc, weight.scale, weight.directions = loc, scale, directions
        weight._kernels = {}
        return weight

    def coarse(self, width: float) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Mean and variance of a kernel on cells of ``width`` mels, see :func:`_coarse`; computed once."""
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
        """Activations from their attributes; the grid is no finer than the map."""
        if loc.dim() == 4:
            deviations = _averages(deviations, _grid(loc, deviations.shape[2:]))
        gaussian = loc.as_subclass(cls)
        gaussian.loc, gaussian.deviations = loc, deviations
        return gaussian

    @property
    def variance(self) -> Tensor:
        """Variances, shape ``(batch, ...)``; of maps, those of the cells."""
        # In memory order, which is faster.
        columns = self.deviations.movedim(1, -1).unflatten(0, (DEVIATIONS, -1))
        return columns.square().sum(dim=0).movedim(-1, 1)


@torch.no_grad()
def gaussian_weights(guide: Part) -> dict[str, GaussianWeight]:
    """The weights by site name, for :func:`moments_under`, of an explicit posterior in which all are independent."""
    # Seeded: the same posterior has the same moments.
    generator = torch.Generator().manual_seed(SEED)
    gaussians = guide.gaussians()
    weights = {}
    for site, loc in guide.means().items():
        scale = gaussians[site][1] if site in gaussians else torch.zeros_like(loc)
        weights[site] = GaussianWeight.make(loc, scale, _directions(len(loc), generator).to(loc))
    return weights


@torch.no_grad()
def moments_under(model: BayesianNet, weights: Mapping[str, GaussianWeight], features: Tensor) -> tuple[Tensor, Tensor]:
    """The moments of the logits of clips.

    Args:
        model: The model, in eval mode, with its dropouts off.
        weights: Every sample site's weight, by site name.
        features: What the front end makes, shape ``(batch, frames, mels)``.

    Returns:
        The mean, shape ``(batch, K)``, and deviations ``(R, batch, K)``: the covariance of a clip's logits i and j is
        the sum over R of their products. All zero for a network without sample sites.

    Raises:
        NotImplementedError: The network has an operation without a rule here.
    """
    # The network alone: the model would go on to sample labels.
    logits = poutine.condition(model.net, data=dict(weights))(features)
    if not isinstance(logits, Gaussian):
        return logits, logits.new_zeros(DEVIATIONS, *logits.shape)
    return logits.loc, logits.deviations.unflatten(0, (DEVIATIONS, -1))


def _directions(channels: int, generator: torch.Generator) -> Tensor:
    """That many columns of random orthogonal matrices, shape ``(R, channels)``."""
    noise = torch.randn(-(-channels // DEVIATIONS), DEVIATIONS, DEVIATIONS, generator=generator)
    return torch.cat([*torch.linalg.qr(noise)[0]], dim=1)[:, :channels]


def _grid(like: Tensor, finest: tuple[int, ...]) -> tuple[int, int]:
    frames, mels = like.shape[2:]
    return min(frames, finest[0]), min(mels, finest[1])


def _averages(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == grid else F.adaptive_avg_pool2d(maps, grid)


def _coarse(kernel: Tensor, width: float) -> tuple[Tensor, ...]:
    """A kernel as matrices between two neighbouring cells of ``width`` mels, for values constant in each.

    Taps in time add up. A tap to a neighbouring mel leaves the cell from one mel in ``width``: to the other cell, or to
    the padding.

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
    """The deviations of a layer's output.

    Args:
        carried: The layer's output for the deviations of its input.
        variance: What its weight adds to the variance of each output; 0 if the weight is not random.
        weight: Its weight, random or not.
        bias: Its bias, random or not.
    """
    random = [value for value in (weight, bias) if isinstance(value, GaussianWeight)]
    if not random:
        return cast(Tensor, carried)
    channels = [-1] + [1] * (variance.dim() - 2)
    if isinstance(bias, GaussianWeight):
        variance = variance + bias.scale.square().view(channels)
    directions = random[0].directions.view(DEVIATIONS, 1, *channels)
    if carried is None:
        return (variance.sqrt() * directions).flatten(0, 1)
    return carried.unflatten(0, (DEVIATIONS, -1)).addcmul_(variance.sqrt(), directions).flatten(0, 1)


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Gaussian:
    loc, deviations = _parts(inputs)
    if loc.dim() != 2:
        raise NotImplementedError(
            f"moments cannot be propagated through a linear layer over {loc.dim()} dimensions: use draws"
        )
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
        raise NotImplementedError(
            "moments are propagated only through 1 x 1 and 3 x 3 conv2d without groups that keep the size: use draws"
        )
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
        raise NotImplementedError("moments cannot be propagated through batch_norm in training mode: call eval() first")
    output = F.batch_norm(inputs.loc, running_mean, running_var, weight, bias, eps=eps)
    factor = weight * (running_var + eps).rsqrt()
    return Gaussian.make(output, inputs.deviations * factor.view(-1, *[1] * (output.dim() - 2)))


def _relu(inputs: Gaussian, inplace: bool = False) -> Gaussian:
    """Mean and deviations of a rectified Gaussian; the module's formula."""
    loc = inputs.loc
    # 2^0.5 s, so that phi is exp(-u^2); never 0, so that a certain value keeps its sign.
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
        raise NotImplementedError(
            f"moments cannot be propagated through a sum of {tuple(loc.shape)} and {tuple(other.shape)}: use draws"
        )
    terms = [term for term in (deviations, others) if term is not None]
    return Gaussian.make(loc + other, sum(terms[1:], terms[0]))


def _dropout(inputs: Gaussian, p: float, training: bool, inplace: bool = False) -> Gaussian:
    if training:
        raise NotImplementedError("moments cannot be propagated through dropout: use draws")
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
"""The rule of each operation."""
