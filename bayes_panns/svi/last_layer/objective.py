"""The objective of a rotated last layer, with its gradients and curvatures, and the natural-gradient step.

The symbols and equations are those of :mod:`bayes_panns.svi.last_layer.inference`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from bayes_panns.bayes import Likelihood
from bayes_panns.core.choices import Task
from bayes_panns.svi.last_layer.axes import HeadAxes

NUMBERS = 1 << 24
"""How many probabilities are held at a time."""

_SMALLEST = 1e-12
"""The least curvature: that of a clip that is classified for certain rounds to 0."""


@dataclass(frozen=True)
class Chunk:
    """Some of the rows: a row is a view of a clip.

    Attributes:
        x: ``(n, R)``.
        target: One-hot or multi-hot, ``(n, K)``.
        noise: ``(pairs, n, 1, K)``.
    """

    x: Tensor
    target: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Problem:
    """The clips of a fit.

    Attributes:
        chunks: All rows.
        left: U, ``(K, K)``.
        multi: Whether the labels are independent.
        clips: N.
        share: What a row counts as, 1 / V.
    """

    chunks: tuple[Chunk, ...]
    left: Tensor
    multi: bool
    clips: int
    share: float

    @classmethod
    def of(
        cls, views: Tensor, target: Tensor, likelihood: Likelihood, axes: HeadAxes, pairs: int, seed: int
    ) -> "Problem":
        """The clips of embeddings ``(N, V, E)`` with noise of their own; arguments as for :func:`infer_head`."""
        clips, count, _ = views.shape
        labels = len(axes.left)
        hot = target.float() if target.is_floating_point() else torch.nn.functional.one_hot(target, labels).float()
        generator = torch.Generator().manual_seed(seed)
        rows = max(1, NUMBERS // (2 * pairs * labels))
        x = axes.inputs(views.flatten(0, 1))
        chunks = tuple(
            Chunk(part, truth.to(part), torch.randn(pairs, len(part), 1, labels, generator=generator).to(part))
            for part, truth in zip(x.split(rows), hot.repeat_interleave(count, dim=0).split(rows), strict=True)
        )
        return cls(chunks, axes.left.to(x), likelihood.task is Task.MULTI_LABEL, clips, 1 / count)

    @property
    def device(self) -> torch.device:
        """Where the clips are."""
        return self.left.device

    @property
    def squares(self) -> Tensor:
        """sum_n x_n^2, ``(R,)``."""
        return self.share * torch.stack([chunk.x.square().sum(dim=0) for chunk in self.chunks]).sum(dim=0)


class _Group:
    """Tensors that all have G in front."""

    def where(self, better: Tensor, other: Self) -> Self:
        """The other's values where ``better``, bool ``(G,)``."""
        chosen = {
            name: torch.where(better.view(-1, *[1] * (mine.dim() - 1)), vars(other)[name], mine)
            for name, mine in vars(self).items()
        }
        return type(self)(**chosen)


@dataclass(frozen=True)
class State(_Group):
    """M, c and the precisions 1 / S^2 and 1 / s^2, each with G in front."""

    loc: Tensor
    bias: Tensor
    precision: Tensor
    bias_precision: Tensor


@dataclass(frozen=True)
class Value(_Group):
    """What a step needs to know at a state.

    Attributes:
        nll: ``(G,)``.
        kl: ``(G,)``.
        objective: ``(G,)``.
        slope: The gradient of minus the objective in M, ``(G, K, R)``.
        bias_slope: In c, ``(G, K)``.
        curvature: sum_n h_n x_n^2, ``(G, K, R)``.
        bias_curvature: sum_n h_n, ``(G, K)``.
    """

    nll: Tensor
    kl: Tensor
    objective: Tensor
    slope: Tensor
    bias_slope: Tensor
    curvature: Tensor
    bias_curvature: Tensor


@dataclass(frozen=True)
class Fixed:
    """The prior and the weight of the KL.

    Attributes:
        tau: Standard deviations of the prior of M, ``(G, 1, 1)`` or ``(1, K, R)``.
        kappa: ``(G, 1, 1)``.
        tau_bias: Standard deviations of the prior of c, a number or ``(1, K)``.
        centre: The means of the prior of M, 0 or ``(1, K, R)``.
        bias_centre: The means of the prior of c, 0 or ``(1, K)``.
    """

    tau: Tensor
    kappa: Tensor
    tau_bias: float | Tensor
    centre: float | Tensor = 0.0
    bias_centre: float | Tensor = 0.0

    def precisions(self, curvature: Tensor, bias_curvature: Tensor) -> tuple[Tensor, Tensor]:
        """The precisions at which the widths would rest."""
        kappa = self.kappa[:, :, 0]
        return curvature / self.kappa + self.tau**-2, bias_curvature / kappa + self.tau_bias**-2

    def step(self, state: State, value: Value, size: Tensor) -> State:
        """The natural-gradient step of ``size`` ``(G,)``."""
        wanted, wanted_bias = self.precisions(value.curvature, value.bias_curvature)
        r, r_bias = size[:, None, None], size[:, None]
        precision = state.precision ** (1 - r) * wanted**r
        bias_precision = state.bias_precision ** (1 - r_bias) * wanted_bias**r_bias
        return State(
            state.loc + r * value.slope / (self.kappa * precision),
            state.bias + r_bias * value.bias_slope / (self.kappa[:, :, 0] * bias_precision),
            precision,
            bias_precision,
        )

    def kl(self, state: State) -> Tensor:
        """The KL from the prior, in nats, ``(G,)``."""
        tau_bias = torch.as_tensor(self.tau_bias).to(state.bias).expand_as(state.bias)
        both = (
            (state.loc - self.centre, state.precision, self.tau),
            (state.bias - self.bias_centre, state.bias_precision, tau_bias),
        )
        parts = [
            (((1 / precision + mean.square()) / tau.square()) - 1 + (precision * tau.square()).log()).flatten(1).sum(1)
            for mean, precision, tau in both
        ]
        return 0.5 * (parts[0] + parts[1])


def evaluate(state: State, problem: Problem, fixed: Fixed) -> Value:
    """The objective at a state, and what the next step needs."""
    count, labels, rank = state.loc.shape
    variance, bias_variance = 1 / state.precision, 1 / state.bias_precision
    left = problem.left
    nll = torch.zeros(count, device=left.device)
    slope, curvature = torch.zeros(2, count * labels, rank, device=left.device)
    bias_slope, bias_curvature = torch.zeros(2, count, labels, device=left.device)
    for chunk in _pieces(problem, count):
        x = chunk.x
        mean = along(x, state.loc) + state.bias
        deviation = (along(x.square(), variance) + bias_variance).sqrt() * chunk.noise
        logits = torch.cat([mean + deviation, mean - deviation]) @ left.T
        truth = chunk.target[:, None]
        if problem.multi:
            p = logits.sigmoid()
            log_p = truth * torch.nn.functional.logsigmoid(logits)
            log_p += (1 - truth) * torch.nn.functional.logsigmoid(-logits)
            spread = (p * (1 - p)).mean(dim=0) @ left.square()
        else:
            each = logits.log_softmax(dim=-1)
            p, log_p = each.exp(), truth * each
            spread = p.mean(dim=0) @ left.square() - (p @ left).square().mean(dim=0)
        nll -= log_p.mean(dim=0).sum(dim=(0, 2))
        residual = (truth - p.mean(dim=0)) @ left
        spread = spread.clamp(min=_SMALLEST)
        slope += residual.flatten(1).T @ x
        curvature += spread.flatten(1).T @ x.square()
        bias_slope += residual.sum(dim=0)
        bias_curvature += spread.sum(dim=0)
    share, kappa = problem.share, fixed.kappa
    kl = fixed.kl(state)
    return Value(
        share * nll,
        kl,
        share * nll + kappa.flatten() * kl,
        share * slope.view(count, labels, rank) - kappa * (state.loc - fixed.centre) / fixed.tau.square(),
        share * bias_slope - kappa[:, :, 0] * (state.bias - fixed.bias_centre) / fixed.tau_bias**2,
        share * curvature.view(count, labels, rank),
        share * bias_curvature,
    )


def _pieces(problem: Problem, count: int) -> Iterator[Chunk]:
    """The chunks, smaller if there are many (tau, kappa)."""
    for chunk in problem.chunks:
        size = max(1, len(chunk.x) // count)
        parts = (chunk.x.split(size), chunk.target.split(size), chunk.noise.split(size, dim=1))
        for x, target, noise in zip(*parts, strict=True):
            yield Chunk(x, target, noise)


def along(x: Tensor, weight: Tensor) -> Tensor:
    """The products of inputs ``(n, R)`` with weights ``(G, K, R)``: ``(n, G, K)``."""
    return (x @ weight.flatten(0, 1).T).view(len(x), *weight.shape[:2])
