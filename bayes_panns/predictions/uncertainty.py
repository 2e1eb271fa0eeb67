"""A prediction and its uncertainty, split into an aleatoric and an epistemic part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import Score, Task
from bayes_panns.metrics.plotting import clean, legend_above, next_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draws = int | Literal["moments"]
"""How many posterior draws: 0 is one pass at the posterior mean, ``"moments"`` one pass that propagates moments."""

PARTS = ("total", "aleatoric", "epistemic")
"""The variances of each label, which are also given summed over the labels."""


@dataclass(frozen=True)
class StandardError:
    """The Monte Carlo standard error of each part of an :class:`Uncertainty`, due to the finite number of draws.

    From the delete-a-group jackknife over up to 20 groups of draws (Busing, Meijer and van der Leeden, 1999, for groups
    of unequal size); a mirrored pair stays in one group. For a mean of up to 20 independent draws it is exactly
    s / sqrt(T). It is NaN where there are fewer than two independent draws. It says nothing about how well the
    posterior itself is approximated.

    Attributes:
        probability, aleatoric, epistemic, total: ``(N, K)``, of the attributes of the same name.
        entropy, expected_entropy, mutual_information: ``(N,)``, of the attributes of the same name.
        clip_total, clip_aleatoric, clip_epistemic: ``(N,)``, of the sums over labels; see :meth:`per_clip`.
        covariance: ``(N, K, K)``, if it was asked for.
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
        """The errors of :meth:`Uncertainty.per_clip`, each ``(N,)``. Labels vary together, so theirs do not add up."""
        return {name: getattr(self, f"clip_{name}") for name in PARTS}

    def unknown(self) -> StandardError:
        """The same arrays with NaN everywhere."""
        return joined([self], lambda arrays: np.full_like(arrays[0], np.nan))


@dataclass(frozen=True)
class Uncertainty:
    """The predictions for N clips and K labels, and their uncertainty, from T posterior draws; float64 throughout.

    With p_t the probabilities under draw t, both splits hold exactly. Per label, the law of total variance, with the
    population variance::

        total = aleatoric + epistemic
        p (1 - p) = mean_t p_t (1 - p_t) + var_t p_t,    p = mean_t p_t

    Per clip, in nats (Depeweg et al., 2018, arXiv:1710.07283)::

        entropy = expected_entropy + mutual_information
        H(p) = mean_t H(p_t) + I(label; weights)

    A posterior may have a power that calibrates the mean of the draws (:func:`~bayes_panns.metrics.apply_power`).
    ``probability`` is then the mean at that power, and ``total`` its p (1 - p), which ``aleatoric`` and ``epistemic``
    share in the proportion in which the draws share theirs. ``mean`` is the mean before the power, and ``entropy``,
    ``expected_entropy`` and ``mutual_information`` are those of the draws: they say how far the draws disagree, which
    the power does not change.

    Attributes:
        probability: ``(N, K)``, p, the mean of the draws, at the posterior's power if it has one.
        aleatoric: ``(N, K)``, mean_t p_t (1 - p_t): the sound is ambiguous.
        epistemic: ``(N, K)``, var_t p_t: the draws disagree. 0 for a single draw. With few draws it is too small, on
            average by the square of the probability's standard error.
        total: ``(N, K)``, p (1 - p).
        entropy: ``(N,)``, H(p): the categorical entropy, or the sum of the labels' Bernoulli entropies for multi-label.
        expected_entropy: ``(N,)``, mean_t H(p_t).
        mutual_information: ``(N,)``, between a clip's label and the weights; never negative. For multi-label it is
            the sum of the labels' own mutual informations.
        standard_error: The Monte Carlo error of each of these.
        draws: T, the number of draws that were made, 1 for a pass at the posterior mean; or ``"moments"``, if the
            moments of the logits were propagated instead.
        task: ``"one-of-k"`` or ``"multi-label"``.
        covariance: ``(N, K, K)``, if it was asked for: cov_t(p_ti, p_tj), the epistemic covariance between labels,
            with ``epistemic`` on its diagonal. The labels of a multi-label clip are independent given the weights, so
            off the diagonal it is all of the labels' covariance (the law of total covariance). For one-of-K its rows
            add up to 0, before any power.
        mean: ``(N, K)``, the mean of the draws before the power; None without a power.
        samples: ``(N, T, K)``, float32, if they were asked for: the probabilities p_t under each draw. Where there is a
            power they are moved, so that their mean is ``probability`` and their variance ``epistemic``, up to what
            leaves [0, 1] and is cut off; they then no longer add up to 1 over the labels.
    """

    probability: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    epistemic: NDArray[np.float64]
    total: NDArray[np.float64]
    entropy: NDArray[np.float64]
    expected_entropy: NDArray[np.float64]
    mutual_information: NDArray[np.float64]
    standard_error: StandardError
    draws: Draws
    task: str
    covariance: NDArray[np.float64] | None = None
    mean: NDArray[np.float64] | None = None
    samples: NDArray[np.float32] | None = None

    @property
    def mean_of_draws(self) -> NDArray[np.float64]:
        """``(N, K)``, the mean of the draws, before any power."""
        return self.probability if self.mean is None else self.mean

    def take(self, index: NDArray[np.integer]) -> Uncertainty:
        """The predictions for some of the clips.

        Args:
            index: ``(M,)``, which clips, in the order wanted.
        """
        return replace(
            joined([self], lambda arrays: arrays[0][index]),
            standard_error=joined([self.standard_error], lambda arrays: arrays[0][index]),
        )

    def per_clip(self) -> dict[str, NDArray[np.float64]]:
        """``total``, ``aleatoric`` and ``epistemic`` summed over the labels, each ``(N,)``.

        For one-of-K ``total`` is then the Gini impurity 1 - sum_k p_k^2.
        """
        return {name: getattr(self, name).sum(axis=1) for name in PARTS}

    def correlation(self) -> NDArray[np.float64]:
        """The epistemic correlation between labels, ``(N, K, K)``; NaN if all draws of a label agree.

        Raises:
            ValueError: The covariance was not asked for.
        """
        deviation = np.sqrt(self.epistemic)
        scale = deviation[:, :, None] * deviation[:, None, :]
        return np.divide(self._known_covariance(), scale, out=np.full_like(scale, np.nan), where=scale > 0)

    def confused_together(self, labels: Sequence[str]) -> list[tuple[str, str, float]]:
        """All pairs of labels with their epistemic covariance, averaged over the clips; the largest in size first.

        Below 0 the draws predict one label *or* the other; above 0 they predict both or neither.

        Args:
            labels: K names.

        Raises:
            ValueError: The covariance was not asked for, or there are not K names.
        """
        mean = self._known_covariance().mean(axis=0)
        if len(labels) != len(mean):
            raise ValueError(f"{len(labels)} names for {len(mean)} labels")
        first, second = np.triu_indices(len(mean), k=1)
        order = np.argsort(-np.abs(mean[first, second]), kind="stable")
        return [(labels[i], labels[j], float(mean[i, j])) for i, j in zip(first[order], second[order], strict=True)]

    def plot(self, ax: Axes, label: str | None = None, color: str | None = None) -> None:
        """Draw a dot for each clip: its aleatoric against its epistemic part, in nats. Several sets can share the Axes.

        Args:
            ax: Where to draw.
            label: What the clips are called.
            color: By default the palette's next.
        """
        style = next_line(ax, color)
        ax.plot(self.expected_entropy, self.mutual_information, "o", ms=4, alpha=0.6, color=style["color"], label=label)
        ax.set(xlabel="aleatoric: expected entropy / nats", ylabel="epistemic: mutual information / nats")
        if label is not None:
            legend_above(ax)
        clean(ax)

    def plot_covariance(self, ax: Axes, labels: Sequence[str], top: int = 12) -> None:
        """Draw the epistemic covariance between labels, averaged over the clips, as a heat map.

        Args:
            ax: Where to draw.
            labels: K names.
            top: How many labels to show: those of the largest epistemic variance, in the order of ``labels``.

        Raises:
            ValueError: The covariance was not asked for.
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
            raise ValueError("the covariance between labels was not kept: ask for it with covariance=True")
        return self.covariance


def scores(uncertainty: Uncertainty) -> dict[str, NDArray[np.float64]]:
    """The scores by which clips are rejected or flagged as out of distribution; all are higher for the less certain.

    ``confidence``, for one-of-K only, is minus the probability of the most probable label. ``entropy``,
    ``mutual_information`` and ``expected_entropy`` are in nats. ``total``, ``aleatoric`` and ``epistemic`` are
    variances summed over the labels.

    Args:
        uncertainty: The predictions for N clips.

    Returns:
        Name to ``(N,)``.
    """
    confidence = {"confidence": -uncertainty.probability.max(axis=1)} if uncertainty.task == Task.ONE_OF_K else {}
    return {
        **confidence,
        "entropy": uncertainty.entropy,
        "mutual_information": uncertainty.mutual_information,
        "expected_entropy": uncertainty.expected_entropy,
        **uncertainty.per_clip(),
    }


def score_of(uncertainty: Uncertainty, score: Score) -> NDArray[np.float64]:
    """One of :func:`scores`, ``(N,)``."""
    return scores(uncertainty)[score.replace("-", "_")]


_Arrays = TypeVar("_Arrays", Uncertainty, StandardError)


def joined(parts: Sequence[_Arrays], join: Callable[[list[NDArray]], NDArray]) -> _Arrays:
    """The first part, with each of its arrays replaced by what ``join`` makes of that array of all parts."""
    names = [field.name for field in fields(parts[0]) if isinstance(getattr(parts[0], field.name), np.ndarray)]
    arrays: dict[str, Any] = {name: join([getattr(part, name) for part in parts]) for name in names if name != "mean"}
    if any(isinstance(part, Uncertainty) and part.mean is not None for part in parts):
        # The folds of a cross-validation may differ in whether a power helps.
        arrays["mean"] = join([part.mean_of_draws for part in parts if isinstance(part, Uncertainty)])
    return replace(parts[0], **arrays)
