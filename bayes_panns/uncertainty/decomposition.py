"""Predictive uncertainty split into what the sound leaves open and what the model does not know."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.uncertainty.checks import ONE_OF_K, check_task

_ARRAYS = (
    "probability",
    "standard_error",
    "aleatoric",
    "epistemic",
    "total",
    "entropy",
    "expected_entropy",
    "mutual_information",
)


@dataclass(frozen=True)
class Uncertainty:
    """The prediction for N clips and K labels, and its uncertainty, from T posterior draws; float64 throughout.

    Per label, by the law of total variance with the population variance, ``total = aleatoric + epistemic``. Per
    clip, in nats, ``entropy = expected_entropy + mutual_information`` (Depeweg et al., 2018, arXiv:1710.07283).

    Attributes:
        probability: ``(N, K)``, the mean p of the draws p_t.
        standard_error: ``(N, K)``, that of ``probability`` for its finite number of draws; NaN where there are fewer
            than two that are independent. ``epistemic`` is on average its square below that of endless draws.
        aleatoric: ``(N, K)``, mean_t p_t (1 - p_t): the sound is ambiguous.
        epistemic: ``(N, K)``, var_t p_t: the draws disagree. 0 for a single draw.
        total: ``(N, K)``, p (1 - p).
        entropy: ``(N,)``, H(p): the categorical entropy, or the sum of the labels' Bernoulli entropies for multi-label.
        expected_entropy: ``(N,)``, mean_t H(p_t).
        mutual_information: ``(N,)``, between a clip's label and the weights; never negative. For multi-label it is
            the sum of the labels' own mutual informations.
        draws: T; or ``"moments"``, where the moments of the logits were propagated instead.
        task: ``"one-of-k"`` or ``"multi-label"``.
    """

    probability: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    epistemic: NDArray[np.float64]
    total: NDArray[np.float64]
    entropy: NDArray[np.float64]
    expected_entropy: NDArray[np.float64]
    mutual_information: NDArray[np.float64]
    draws: int | Literal["moments"]
    task: str

    def take(self, index: NDArray[np.integer]) -> "Uncertainty":
        """The predictions of some of the clips: ``index``, integers of shape ``(M,)``, in this order."""
        return replace(self, **{name: getattr(self, name)[index] for name in _ARRAYS})

    def per_clip(self) -> dict[str, NDArray[np.float64]]:
        """``total``, ``aleatoric`` and ``epistemic`` summed over the labels, each ``(N,)``.

        For one-of-K ``total`` is then the Gini form 1 - sum_k p_k^2.
        """
        return {name: getattr(self, name).sum(axis=1) for name in ("total", "aleatoric", "epistemic")}


class Moments:
    """Gathers the moments of posterior draws as they come, in memory that does not grow with their number.

    Welford's recurrence (1962) in float64, on the draws' own device. Every draw is of the same clips.

    Example:
        >>> moments = Moments("one-of-k")
        >>> for draw in (torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])):
        ...     moments.update(draw)
        >>> moments.result().epistemic.round(4)
        array([[0.04, 0.04]])

    Args:
        task: ``"one-of-k"`` or ``"multi-label"``; decides which entropy.
        mirrored: The draws come in pairs that depend on each other, first and second, third and fourth; the pairs do
            not. The standard error is then taken over the pairs.

    Raises:
        ValueError: ``task`` is neither.
    """

    _mean: Tensor
    _waiting: Tensor | None
    _group_squares: Tensor
    _weighted_groups: Tensor
    _squares: Tensor
    _aleatoric: Tensor
    _entropy: Tensor

    def __init__(self, task: str, *, mirrored: bool = False):
        check_task(task)
        self.task = task
        self.mirrored = mirrored
        self.draws = 0
        self._waiting = None

    @torch.no_grad()
    def update(self, probabilities: Tensor) -> None:
        """Takes in one draw.

        Args:
            probabilities: ``(N, K)``, of any floating type: one draw's probabilities for all clips.

        Raises:
            ValueError: the shape is not ``(N, K)``, or not that of the draws before.
        """
        if probabilities.ndim != 2 or (self.draws and probabilities.shape != self._mean.shape):
            expected = tuple(self._mean.shape) if self.draws else "(N, K)"
            raise ValueError(f"a draw has shape {tuple(probabilities.shape)}: expected {expected}")
        p = probabilities.double()
        if not self.draws:
            self._mean = self._squares = self._aleatoric = torch.zeros_like(p)
            self._entropy = p.new_zeros(len(p))
            self._group_squares = self._weighted_groups = torch.zeros_like(p)
        if not self.mirrored:
            self._group_squares, self._weighted_groups = self._with_group(p, 1)
        elif self._waiting is None:
            self._waiting = p
        else:
            self._group_squares, self._weighted_groups = self._with_group(self._waiting + p, 2)
            self._waiting = None
        self.draws += 1
        # Out of place: the first draw may come from inference mode, whose tensors cannot be changed outside it.
        deviation = p - self._mean
        self._mean = self._mean + deviation / self.draws
        self._squares = self._squares + deviation * (p - self._mean)
        self._aleatoric = self._aleatoric + (p * (1 - p) - self._aleatoric) / self.draws
        self._entropy = self._entropy + (_entropy(p, self.task) - self._entropy) / self.draws

    @torch.no_grad()
    def result(self) -> Uncertainty:
        """The uncertainty from the draws so far; more may follow.

        Raises:
            ValueError: there was no draw.
        """
        if not self.draws:
            raise ValueError("no draws: call update first")
        entropy = _entropy(self._mean, self.task)
        return Uncertainty(
            probability=self._mean.cpu().numpy(),
            standard_error=self._standard_error().cpu().numpy(),
            aleatoric=self._aleatoric.cpu().numpy(),
            epistemic=(self._squares / self.draws).cpu().numpy(),
            total=(self._mean * (1 - self._mean)).cpu().numpy(),
            entropy=entropy.cpu().numpy(),
            expected_entropy=self._entropy.cpu().numpy(),
            # Jensen's inequality makes it non-negative; rounding may not.
            mutual_information=(entropy - self._entropy).clamp(min=0).cpu().numpy(),
            draws=self.draws,
            task=self.task,
        )

    def _with_group(self, total: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The sums over groups of S^2 and of n S with one group more, its n draws adding up to S."""
        return self._group_squares + total**2, self._weighted_groups + size * total

    def _standard_error(self) -> Tensor:
        """That of a mean of dependent groups: the square root of G / (G - 1) sum_g (S_g - n_g p)^2 / T^2."""
        squares, weighted = self._group_squares, self._weighted_groups
        pairs, single = divmod(self.draws, 2) if self.mirrored else (0, self.draws)
        if self._waiting is not None:
            squares, weighted = self._with_group(self._waiting, 1)
        groups = pairs + single
        if groups < 2:
            return torch.full_like(self._mean, torch.nan)
        spread = squares - 2 * self._mean * weighted + self._mean**2 * (4 * pairs + single)
        return (spread.clamp(min=0) * (groups / (groups - 1))).sqrt() / self.draws


def decompose(draws: Tensor, task: str, *, mirrored: bool = False) -> Uncertainty:
    """The uncertainty from draws that are all at hand.

    Args:
        draws: ``(T, N, K)``, probabilities.
        task: ``"one-of-k"`` or ``"multi-label"``.
        mirrored: Whether the draws come in pairs, as :class:`Moments` takes them.
    """
    moments = Moments(task, mirrored=mirrored)
    for draw in draws:
        moments.update(draw)
    return moments.result()


def concatenate(parts: Sequence[Uncertainty]) -> Uncertainty:
    """Joins batches of clips, in order.

    Args:
        parts: at least one, all of the same task, labels and number of draws.

    Raises:
        ValueError: there are none, or they differ in task, labels or draws.
    """
    if len({(part.task, part.draws, part.probability.shape[1]) for part in parts}) != 1:
        raise ValueError("parts must be of one task, one number of draws and the same labels")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    return Uncertainty(**arrays, draws=parts[0].draws, task=parts[0].task)


def _entropy(p: Tensor, task: str) -> Tensor:
    entropy = torch.special.entr(p)
    if task != ONE_OF_K:
        entropy = entropy + torch.special.entr(1 - p)
    return entropy.sum(dim=1)
