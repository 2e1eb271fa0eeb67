"""From posterior draws to their uncertainty, one draw at a time.

T draws of the probabilities p_t of N clips and K labels are summed as deviations d_t = p_t - p_1 from the first draw,
in float64, so that small variances keep their digits. Draws go to up to G = 20 groups in turn, for the jackknife.

=============  ==================================  =================
sum            formula                             shape
=============  ==================================  =================
``deviation``  sum_t d_t                           (N, K)
``products``   sum_t d_t^2                         (N, K)
               or sum_t d_t d_t', with covariance  (N, K, K)
``entropy``    sum_t H(p_t)                        (N,)
=============  ==================================  =================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.core.choices import Task
from bayes_panns.devices import as_float64
from bayes_panns.metrics import apply_power
from bayes_panns.metrics.checks import check_task
from bayes_panns.predictions.uncertainty import PARTS, StandardError, Uncertainty

_GROUPS = 20
"""Groups of draws. The jackknife leaves out one at a time; its standard error is itself known to about a sixth."""


class UncertaintyAccumulator:
    """Accumulates posterior draws into an :class:`Uncertainty`, in memory that does not grow with their number.

    Every draw is of the same clips. Sums are kept on the draws' own device, or on the CPU if that has no float64.

    Example:
        >>> accumulator = UncertaintyAccumulator("one-of-k")
        >>> for draw in (torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]])):
        ...     accumulator.update(draw)
        >>> accumulator.result().epistemic
        array([[0.0625, 0.0625]])

    Args:
        task: ``"one-of-k"`` or ``"multi-label"``; decides which entropy.
        mirrored: Whether the draws come in dependent pairs: first and second, third and fourth. The pairs are
            independent of each other. Standard errors are then taken over the pairs.
        covariance: Whether to keep the covariance between labels too: some 20 x N x K x K numbers.
        power: The power of the mean of the draws, shape ``(1,)`` or ``(K,)``, if there is one: see
            :func:`~bayes_panns.metrics.apply_power`.
        samples: Whether to keep the draws themselves too: T x N x K numbers.

    Raises:
        ValueError: ``task`` is neither.
    """

    _first: Tensor

    def __init__(
        self,
        task: str,
        *,
        mirrored: bool = False,
        covariance: bool = False,
        power: NDArray[np.floating] | None = None,
        samples: bool = False,
    ):
        check_task(task)
        self.task = task
        self.mirrored = mirrored
        self.covariance = covariance
        self.power = power
        self.draws = 0
        self._groups: list[_Sums] = []
        self._samples: list[Tensor] | None = [] if samples else None

    @torch.no_grad()
    def update(self, probabilities: Tensor) -> None:
        """Add one draw.

        Args:
            probabilities: ``(N, K)``, of any floating type: one draw's probabilities for all clips.

        Raises:
            ValueError: The shape is not ``(N, K)``, or differs from that of the draws before.
        """
        if probabilities.ndim != 2 or (self.draws and probabilities.shape != self._first.shape):
            expected = tuple(self._first.shape) if self.draws else "(N, K)"
            raise ValueError(f"a draw has shape {tuple(probabilities.shape)}: expected {expected}")
        p = as_float64(probabilities)
        if not self.draws:
            self._first = p
        deviation = p - self._first
        products = deviation.unsqueeze(2) * deviation.unsqueeze(1) if self.covariance else deviation**2
        draw = _Sums(1, deviation, products, entropy(p, self.task))
        group = (self.draws // 2 if self.mirrored else self.draws) % _GROUPS
        if group < len(self._groups):
            self._groups[group] = self._groups[group] + draw
        else:
            self._groups.append(draw)
        if self._samples is not None:
            self._samples.append(p.float())
        self.draws += 1

    @torch.no_grad()
    def result(self) -> Uncertainty:
        """The uncertainty from the draws so far; more may follow.

        Raises:
            ValueError: There was no draw.
        """
        if not self.draws:
            raise ValueError("no draws: call update first")
        everything = sum(self._groups[1:], start=self._groups[0])
        parts = self._parts(everything)
        errors = self._standard_errors(everything, parts)
        # Jensen's inequality makes it non-negative, but rounding may not.
        parts["mutual_information"] = parts["mutual_information"].clamp(min=0)
        return Uncertainty(
            **{name: value.cpu().numpy() for name, value in parts.items() if not name.startswith("clip_")},
            samples=self._kept(parts),
            standard_error=StandardError(
                **{name: error.cpu().numpy() for name, error in errors.items() if name != "mean"}
            ),
            draws=self.draws,
            task=self.task,
        )

    def _parts(self, sums: _Sums) -> dict[str, Tensor]:
        """The parts of the uncertainty from the draws in ``sums``, by the names of :class:`StandardError`."""
        shift = sums.deviation / sums.draws
        p = (self._first + shift).clamp(0, 1)
        parts = {"probability": p, "total": p * (1 - p)}
        if self.covariance:
            covariance = sums.products / sums.draws - shift.unsqueeze(2) * shift.unsqueeze(1)
            parts["covariance"] = covariance
            parts["epistemic"] = covariance.diagonal(dim1=1, dim2=2).clamp(min=0)
        else:
            parts["epistemic"] = (sums.products / sums.draws - shift**2).clamp(min=0)
        # Equal to mean_t p_t (1 - p_t), up to rounding.
        parts["aleatoric"] = (parts["total"] - parts["epistemic"]).clamp(min=0)
        if self.power is not None:
            parts |= self._powered(parts)
        parts |= {f"clip_{name}": parts[name].sum(dim=1) for name in PARTS}
        # The entropies are those of the draws, before any power.
        parts["entropy"] = entropy(p, self.task)
        parts["expected_entropy"] = sums.entropy / sums.draws
        return parts | {"mutual_information": parts["entropy"] - parts["expected_entropy"]}

    def _kept(self, parts: dict[str, Tensor]) -> NDArray[np.float32] | None:
        """The draws, ``(N, T, K)``; with a power they have the mean and the variance of ``parts``."""
        if self._samples is None:
            return None
        samples = torch.stack(self._samples, dim=1)
        if self.power is not None:
            mean = samples.mean(dim=1, keepdim=True)
            variance = samples.var(dim=1, keepdim=True, correction=0)
            wanted = parts["epistemic"].unsqueeze(1)
            scale = torch.where(variance > 0, wanted / variance, 0).sqrt()
            samples = (parts["probability"].unsqueeze(1) + (samples - mean) * scale).clamp(0, 1).float()
        return samples.cpu().numpy()

    def _powered(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean at the power, with the draws' shares of its variance; ``mean`` is the mean before it."""
        assert self.power is not None
        before = parts["probability"]
        p = torch.from_numpy(apply_power(before.cpu().numpy(), self.power, self.task)).to(before)
        total = p * (1 - p)
        scale = torch.where(parts["total"] > 0, total / parts["total"], 0)
        epistemic = torch.minimum(parts["epistemic"] * scale, total)
        found = {"probability": p, "mean": before, "total": total, "epistemic": epistemic}
        found["aleatoric"] = total - epistemic
        if self.covariance:
            deviation = scale.sqrt()
            found["covariance"] = parts["covariance"] * deviation.unsqueeze(2) * deviation.unsqueeze(1)
        return found

    def _standard_errors(self, everything: _Sums, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The delete-a-group jackknife for groups of unequal size, equations 5 and 6 of Busing et al., 1999.

        With theta the estimate from all T draws, theta_g that without the n_g draws of group g, and w_g = n_g / T::

            a_g = (1 - w_g) (theta - theta_g)
            SE^2 = mean_g (a_g / w_g - sum_h a_h)^2 w_g / (1 - w_g)
        """
        if len(self._groups) < 2:
            return {name: torch.full_like(part, torch.nan) for name, part in parts.items()}
        shares = [group.draws / self.draws for group in self._groups]
        # Differences from the whole: pseudo-values of nearly equal estimates would lose their digits.
        without = [self._parts(everything - group) for group in self._groups]
        errors = {}
        for name, part in parts.items():
            away = [(1 - share) * (part - left[name]) for share, left in zip(shares, without, strict=True)]
            centre = torch.stack(away).sum(dim=0)
            squares = [
                (one / share - centre) ** 2 * share / (1 - share) for one, share in zip(away, shares, strict=True)
            ]
            errors[name] = torch.stack(squares).mean(dim=0).sqrt()
        return errors


@dataclass(frozen=True)
class _Sums:
    """Sums over some draws; see the table above."""

    draws: int
    deviation: Tensor
    products: Tensor
    entropy: Tensor

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.draws + other.draws,
            self.deviation + other.deviation,
            self.products + other.products,
            self.entropy + other.entropy,
        )

    def __sub__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.draws - other.draws,
            self.deviation - other.deviation,
            self.products - other.products,
            self.entropy - other.entropy,
        )


def decompose(draws: Tensor, task: str, *, mirrored: bool = False, covariance: bool = False) -> Uncertainty:
    """The uncertainty from draws that are all in memory.

    Example:
        >>> decompose(torch.tensor([[[0.75, 0.25]], [[0.25, 0.75]]]), "one-of-k").probability
        array([[0.5, 0.5]])

    Args:
        draws: ``(T, N, K)``, probabilities.
        task: ``"one-of-k"`` or ``"multi-label"``.
        mirrored: Whether the draws come in dependent pairs, as in :class:`UncertaintyAccumulator`.
        covariance: Whether to keep the covariance between labels too.

    Raises:
        ValueError: ``task`` is neither, there is no draw, or the shape is not ``(T, N, K)``.
    """
    accumulator = UncertaintyAccumulator(task, mirrored=mirrored, covariance=covariance)
    for draw in draws:
        accumulator.update(draw)
    return accumulator.result()


def entropy(p: Tensor, task: str) -> Tensor:
    """The entropy of each clip's labels, in nats: categorical for one-of-K, summed Bernoulli ones for multi-label.

    Args:
        p: ``(N, K)``, probabilities.
        task: ``"one-of-k"`` or ``"multi-label"``.

    Returns:
        ``(N,)``.
    """
    each = torch.special.entr(p)
    if task != Task.ONE_OF_K:
        each = each + torch.special.entr(1 - p)
    return each.sum(dim=1)
