"""Predictive uncertainty split into what the sound leaves open and what the model does not know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.metrics.checks import ONE_OF_K, check_task
from bayes_panns.metrics.plotting import clean, legend_above, next_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GROUPS = 20
"""Groups of draws, of which the jackknife leaves out one at a time: a standard error is good to about a sixth."""

_SUMMED = ("total", "aleatoric", "epistemic")


@dataclass(frozen=True)
class StandardError:
    """How far each part of an :class:`Uncertainty` may be from its value for endless draws.

    By the jackknife over up to 20 groups of draws (Busing, Meijer and van der Leeden, 1999, for groups of unequal
    size); a mirrored pair stays in one group. For a mean of up to 20 independent draws it is exactly s / sqrt(T). NaN
    where there are fewer than two independent draws. It says nothing about the posterior itself being wrong.

    Attributes:
        probability, aleatoric, epistemic, total: ``(N, K)``, of the attributes of the same name.
        entropy, expected_entropy, mutual_information: ``(N,)``, of the attributes of the same name.
        clip_total, clip_aleatoric, clip_epistemic: ``(N,)``, of the sums over labels; see :meth:`per_clip`.
        covariance: ``(N, K, K)``, where that was asked for.
    """

    probability: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    epistemic: NDArray[np.float64]
    total: NDArray[np.float64]
    entropy: NDArray[np.float64]
    expected_entropy: NDArray[np.float64]
    mutual_information: NDArray[np.float64]
    clip_total: NDArray[np.float64]
    clip_aleatoric: NDArray[np.float64]
    clip_epistemic: NDArray[np.float64]
    covariance: NDArray[np.float64] | None = None

    def per_clip(self) -> dict[str, NDArray[np.float64]]:
        """Those of :meth:`Uncertainty.per_clip`, each ``(N,)``; labels vary together, so they do not just add up."""
        return {name: getattr(self, f"clip_{name}") for name in _SUMMED}

    def unknown(self) -> StandardError:
        """The same with NaN everywhere."""
        return _joined([self], lambda arrays: np.full_like(arrays[0], np.nan))


@dataclass(frozen=True)
class Uncertainty:
    """The prediction for N clips and K labels, and its uncertainty, from T posterior draws; float64 throughout.

    Per label, by the law of total variance with the population variance, ``total = aleatoric + epistemic``. Per
    clip, in nats, ``entropy = expected_entropy + mutual_information`` (Depeweg et al., 2018, arXiv:1710.07283).

    Attributes:
        probability: ``(N, K)``, the mean p of the draws p_t.
        aleatoric: ``(N, K)``, mean_t p_t (1 - p_t): the sound is ambiguous.
        epistemic: ``(N, K)``, var_t p_t: the draws disagree. 0 for a single draw; on average it is the square of the
            probability's standard error below that of endless draws.
        total: ``(N, K)``, p (1 - p).
        entropy: ``(N,)``, H(p): the categorical entropy, or the sum of the labels' Bernoulli entropies for multi-label.
        expected_entropy: ``(N,)``, mean_t H(p_t).
        mutual_information: ``(N,)``, between a clip's label and the weights; never negative. For multi-label it is
            the sum of the labels' own mutual informations.
        standard_error: of each of these, for the finite number of draws.
        draws: T; or ``"moments"``, where the moments of the logits were propagated instead.
        task: ``"one-of-k"`` or ``"multi-label"``.
        covariance: ``(N, K, K)``, where it was asked for: cov_t(p_ti, p_tj), the epistemic covariance between labels,
            with ``epistemic`` on its diagonal. The labels of a multi-label clip are independent given the weights, so
            off the diagonal it is all of the labels' covariance (the law of total covariance). For one-of-K its rows
            add up to 0.
    """

    probability: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    epistemic: NDArray[np.float64]
    total: NDArray[np.float64]
    entropy: NDArray[np.float64]
    expected_entropy: NDArray[np.float64]
    mutual_information: NDArray[np.float64]
    standard_error: StandardError
    draws: int | Literal["moments"]
    task: str
    covariance: NDArray[np.float64] | None = None

    def take(self, index: NDArray[np.integer]) -> Uncertainty:
        """The predictions of some of the clips: ``index``, integers of shape ``(M,)``, in this order."""
        return replace(
            _joined([self], lambda arrays: arrays[0][index]),
            standard_error=_joined([self.standard_error], lambda arrays: arrays[0][index]),
        )

    def per_clip(self) -> dict[str, NDArray[np.float64]]:
        """``total``, ``aleatoric`` and ``epistemic`` summed over the labels, each ``(N,)``.

        For one-of-K ``total`` is then the Gini form 1 - sum_k p_k^2.
        """
        return {name: getattr(self, name).sum(axis=1) for name in _SUMMED}

    def correlation(self) -> NDArray[np.float64]:
        """The epistemic correlation between labels, ``(N, K, K)``; NaN where a label's draws all agree.

        Raises:
            ValueError: the covariance was not asked for.
        """
        deviation = np.sqrt(self.epistemic)
        scale = deviation[:, :, None] * deviation[:, None, :]
        return np.divide(self._known_covariance(), scale, out=np.full_like(scale, np.nan), where=scale > 0)

    def confused_together(self, labels: Sequence[str]) -> list[tuple[str, str, float]]:
        """The pairs of labels with the mean over the clips of their epistemic covariance, the furthest from 0 first.

        Below 0 the draws hear one label *or* the other; above 0 they hear both or neither.

        Args:
            labels: K names.

        Raises:
            ValueError: the covariance was not asked for, or the names are not K.
        """
        mean = self._known_covariance().mean(axis=0)
        if len(labels) != len(mean):
            raise ValueError(f"{len(labels)} names for {len(mean)} labels")
        first, second = np.triu_indices(len(mean), k=1)
        order = np.argsort(-np.abs(mean[first, second]), kind="stable")
        return [(labels[i], labels[j], float(mean[i, j])) for i, j in zip(first[order], second[order], strict=True)]

    def plot(self, ax: Axes, label: str | None = None, color: str | None = None) -> None:
        """Draws a dot a clip: its aleatoric against its epistemic part, in nats; several sets may share the Axes.

        Args:
            ax: where to draw.
            label: what the clips are called.
            color: by default the palette's next.
        """
        style = next_line(ax, color)
        ax.plot(self.expected_entropy, self.mutual_information, "o", ms=4, alpha=0.6, color=style["color"], label=label)
        ax.set(xlabel="aleatoric: expected entropy / nats", ylabel="epistemic: mutual information / nats")
        if label is not None:
            legend_above(ax)
        clean(ax)

    def plot_covariance(self, ax: Axes, labels: Sequence[str], top: int = 12) -> None:
        """Draws which labels the draws confuse together, as a heat map of the mean epistemic covariance.

        Args:
            ax: where to draw.
            labels: K names.
            top: how many labels, those of the largest epistemic variance; in the order of ``labels``.

        Raises:
            ValueError: the covariance was not asked for.
        """
        mean = self._known_covariance().mean(axis=0)
        shown = np.sort(np.argsort(-np.diagonal(mean), kind="stable")[:top])
        values = mean[np.ix_(shown, shown)]
        between = values[~np.eye(len(shown), dtype=bool)]
        most = np.abs(between).max() if between.any() else 1.0
        image = ax.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most)
        ax.set_xticks(range(len(shown)), [labels[k] for k in shown], rotation=45, ha="right")
        ax.set_yticks(range(len(shown)), [labels[k] for k in shown])
        ax.figure.colorbar(image, ax=ax, label="epistemic covariance", extend="max")
        clean(ax)

    def _known_covariance(self) -> NDArray[np.float64]:
        if self.covariance is None:
            raise ValueError("no covariance between labels was kept: ask for it with covariance=True")
        return self.covariance


def scores(uncertainty: Uncertainty) -> dict[str, NDArray[np.float64]]:
    """The scores by which a clip is given up or flagged as strange, all higher for the less certain.

    ``confidence``, for one-of-K only, is minus the probability of the most probable label; ``entropy``,
    ``mutual_information`` and ``expected_entropy`` are in nats; ``total``, ``aleatoric`` and ``epistemic`` are
    variances summed over the labels.

    Args:
        uncertainty: the predictions for N clips.

    Returns:
        Name to ``(N,)``.
    """
    confidence = {"confidence": -uncertainty.probability.max(axis=1)} if uncertainty.task == ONE_OF_K else {}
    return {
        **confidence,
        "entropy": uncertainty.entropy,
        "mutual_information": uncertainty.mutual_information,
        "expected_entropy": uncertainty.expected_entropy,
        **uncertainty.per_clip(),
    }


class Moments:
    """Gathers the moments of posterior draws as they come, in memory that does not grow with their number.

    Sums in float64 of how far each draw is from the first one, by groups of draws, on the draws' own device. Every draw
    is of the same clips.

    Example:
        >>> moments = Moments("one-of-k")
        >>> for draw in (torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])):
        ...     moments.update(draw)
        >>> moments.result().epistemic.round(4)
        array([[0.04, 0.04]])

    Args:
        task: ``"one-of-k"`` or ``"multi-label"``; decides which entropy.
        mirrored: The draws come in pairs that depend on each other, first and second, third and fourth; the pairs do
            not. Standard errors are then taken over the pairs.
        covariance: Whether to keep the covariance between labels too: some 20 x N x K x K numbers.

    Raises:
        ValueError: ``task`` is neither.
    """

    _first: Tensor

    def __init__(self, task: str, *, mirrored: bool = False, covariance: bool = False):
        check_task(task)
        self.task = task
        self.mirrored = mirrored
        self.covariance = covariance
        self.draws = 0
        self._groups: list[_Sums] = []

    @torch.no_grad()
    def update(self, probabilities: Tensor) -> None:
        """Takes in one draw.

        Args:
            probabilities: ``(N, K)``, of any floating type: one draw's probabilities for all clips.

        Raises:
            ValueError: the shape is not ``(N, K)``, or not that of the draws before.
        """
        if probabilities.ndim != 2 or (self.draws and probabilities.shape != self._first.shape):
            expected = tuple(self._first.shape) if self.draws else "(N, K)"
            raise ValueError(f"a draw has shape {tuple(probabilities.shape)}: expected {expected}")
        p = probabilities.double()
        if not self.draws:
            self._first = p
        deviation = p - self._first
        products = deviation.unsqueeze(2) * deviation.unsqueeze(1) if self.covariance else deviation**2
        draw = _Sums(1, deviation, products, _entropy(p, self.task))
        group = (self.draws // 2 if self.mirrored else self.draws) % _GROUPS
        if group < len(self._groups):
            self._groups[group] = self._groups[group] + draw
        else:
            self._groups.append(draw)
        self.draws += 1

    @torch.no_grad()
    def result(self) -> Uncertainty:
        """The uncertainty from the draws so far; more may follow.

        Raises:
            ValueError: there was no draw.
        """
        if not self.draws:
            raise ValueError("no draws: call update first")
        everything = sum(self._groups[1:], start=self._groups[0])
        parts = self._parts(everything)
        errors = self._standard_errors(everything, parts)
        # Jensen's inequality makes it non-negative; rounding may not.
        parts["mutual_information"] = parts["mutual_information"].clamp(min=0)
        return Uncertainty(
            **{name: value.cpu().numpy() for name, value in parts.items() if not name.startswith("clip_")},
            standard_error=StandardError(**{name: error.cpu().numpy() for name, error in errors.items()}),
            draws=self.draws,
            task=self.task,
        )

    def _parts(self, sums: _Sums) -> dict[str, Tensor]:
        """What the draws in ``sums`` say, by the names of :class:`StandardError`."""
        shift = sums.deviation / sums.draws
        p = (self._first + shift).clamp(0, 1)
        parts = {"probability": p, "total": p * (1 - p)}
        if self.covariance:
            covariance = sums.products / sums.draws - shift.unsqueeze(2) * shift.unsqueeze(1)
            parts["covariance"] = covariance
            parts["epistemic"] = covariance.diagonal(dim1=1, dim2=2).clamp(min=0)
        else:
            parts["epistemic"] = (sums.products / sums.draws - shift**2).clamp(min=0)
        # As mean_t p_t (1 - p_t) to rounding.
        parts["aleatoric"] = (parts["total"] - parts["epistemic"]).clamp(min=0)
        parts |= {f"clip_{name}": parts[name].sum(dim=1) for name in _SUMMED}
        parts["entropy"] = _entropy(p, self.task)
        parts["expected_entropy"] = sums.entropy / sums.draws
        return parts | {"mutual_information": parts["entropy"] - parts["expected_entropy"]}

    def _standard_errors(self, everything: _Sums, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The delete-a-group jackknife for groups of unequal size: equations 5 and 6 of Busing et al., 1999."""
        if len(self._groups) < 2:
            return {name: torch.full_like(part, torch.nan) for name, part in parts.items()}
        shares = [group.draws / self.draws for group in self._groups]
        # Kept as differences from the whole: pseudo-values of nearly equal estimates would lose their digits.
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
    """Sums over some draws: how many, their deviation from the first, products of deviations, and entropies."""

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
    """The uncertainty from draws that are all at hand.

    Args:
        draws: ``(T, N, K)``, probabilities.
        task: ``"one-of-k"`` or ``"multi-label"``.
        mirrored: Whether the draws come in pairs, as :class:`Moments` takes them.
        covariance: Whether to keep the covariance between labels too.
    """
    moments = Moments(task, mirrored=mirrored, covariance=covariance)
    for draw in draws:
        moments.update(draw)
    return moments.result()


def concatenate(parts: Sequence[Uncertainty]) -> Uncertainty:
    """Joins batches of clips, in order.

    Args:
        parts: at least one, all of the same task, labels and number of draws, and all with the covariance or none.

    Raises:
        ValueError: there are none, or they differ.
    """
    kinds = {(part.task, part.draws, part.probability.shape[1], part.covariance is None) for part in parts}
    if len(kinds) != 1:
        raise ValueError("parts must be of one task, one number of draws and the same labels")
    errors = _joined([part.standard_error for part in parts], np.concatenate)
    return replace(_joined(parts, np.concatenate), standard_error=errors)


def mixture(parts: Sequence[Uncertainty]) -> Uncertainty:
    """The predictions of several posteriors for the same clips as those of one, each posterior as likely as the others.

    By the law of total variance over posteriors and draws: probability, aleatoric part and expected entropy are means,
    and the epistemic part, or covariance, is the mean one plus the population variance of the means. Where all have
    equally many draws, it is what :func:`decompose` makes of all draws together. Posteriors of a single draw make the
    deep ensemble of Lakshminarayanan et al., 2017 (arXiv:1612.01474).

    Standard errors are NaN: the draws of several posteriors may come from the same random numbers.

    Args:
        parts: at least one, of the same task and of N clips and K labels in the same order, and all with the covariance
            or none. The mixture's ``draws`` is the sum of theirs, or ``"moments"`` where all are of moments.

    Raises:
        ValueError: there are none, or they differ.
    """
    kinds = {(part.task, part.draws == "moments", part.probability.shape, part.covariance is None) for part in parts}
    if len(kinds) != 1:
        raise ValueError("parts must be of one task, the same clips and labels, and all of draws or all of moments")
    first = parts[0]
    # A mean may leave [0, 1] by rounding.
    p = np.mean([part.probability for part in parts], axis=0).clip(0, 1)
    away = [part.probability - p for part in parts]
    total = p * (1 - p)
    epistemic = np.mean([part.epistemic + each**2 for part, each in zip(parts, away, strict=True)], axis=0)
    entropy = _entropy(torch.from_numpy(p), first.task).numpy()
    expected = np.mean([part.expected_entropy for part in parts], axis=0)
    covariance = (
        None
        if first.covariance is None
        else np.mean(
            [part.covariance + each[:, :, None] * each[:, None, :] for part, each in zip(parts, away, strict=True)],
            axis=0,
        )
    )
    return Uncertainty(
        probability=p,
        aleatoric=np.mean([part.aleatoric for part in parts], axis=0),
        epistemic=epistemic,
        total=total,
        entropy=entropy,
        expected_entropy=expected,
        mutual_information=np.maximum(entropy - expected, 0),
        standard_error=first.standard_error.unknown(),
        draws="moments" if first.draws == "moments" else sum(int(part.draws) for part in parts),
        task=first.task,
        covariance=covariance,
    )


_Arrays = TypeVar("_Arrays", Uncertainty, StandardError)


def _joined(parts: Sequence[_Arrays], join: Callable[[list[NDArray]], NDArray]) -> _Arrays:
    """Each array of the first part replaced by what ``join`` makes of those of all parts."""
    names = [field.name for field in fields(parts[0]) if isinstance(getattr(parts[0], field.name), np.ndarray)]
    arrays: dict[str, Any] = {name: join([getattr(part, name) for part in parts]) for name in names}
    return replace(parts[0], **arrays)


def _entropy(p: Tensor, task: str) -> Tensor:
    entropy = torch.special.entr(p)
    if task != ONE_OF_K:
        entropy = entropy + torch.special.entr(1 - p)
    return entropy.sum(dim=1)
