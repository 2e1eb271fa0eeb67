"""The choice of prior and KL weight of a last layer, and its calibration, by cross-validation over recordings.

Each inner fold is predicted by last layers that were fitted to the others, one for each prior width and KL weight. For
each, the power of the averaged predictive that minimises the smoothed NLL is fitted to these predictions. Of the pairs
whose smoothed NLL is within a standard error of the least, the one with the largest KL weight is taken, and among those
the one that needs its power least: the one with the least NLL without it. The standard error is that of the difference
from the least, over recordings.

The power is kept only if powers fitted without an inner fold lower the NLL of that fold, over all of them and by more
than a standard error. For multi-label the same comparison decides for each label between no power, the one of all
labels, and its own. A label that an inner fit has not seen is not scored.

An isotropic Gaussian prior makes the exact posterior underconfident where the classes separate, and its evidence does
not notice; the power does. See ``docs/last-layer.md``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.bayes import Likelihood
from bayes_panns.core.choices import Task
from bayes_panns.metrics import fit_power, power_losses
from bayes_panns.svi.last_layer.inference import HeadPosterior, find_axes, infer_head

MOST_CLIPS = 4000
"""With more clips, prior and KL weight are chosen by so many, drawn at random; the power is fitted to all."""

_NEAR = 1.0
"""Candidates whose smoothed NLL differs by at most so many standard errors are taken for equally good."""


@dataclass(frozen=True)
class Candidate:
    """A prior width and a KL weight, and what the inner folds say.

    Attributes:
        prior_scale: In units of the embeddings' spread.
        kl_weight: The KL's weight.
        power: The power of the least smoothed NLL.
        nll: The NLL without it, in nats a clip.
        smoothed: The smoothed NLL with it, in nats a clip.
        error: The standard error over recordings of the difference from the least smoothed NLL, in nats a clip.
    """

    prior_scale: float
    kl_weight: float
    power: float
    nll: float
    smoothed: float
    error: float


@dataclass(frozen=True)
class HeadChoice:
    """What the cross-validation chose.

    Attributes:
        chosen: The candidate taken.
        candidates: All of them.
        power: The power to predict with: one number, or one for each label; 1 if it does not help.
        folds: How many inner folds there were.
        clips: How many clips were scored.
        nll: The NLL of the inner folds without a power, in nats a clip.
        powered_nll: The same with powers that were fitted without the fold.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    power: tuple[float, ...]
    folds: int
    clips: int
    nll: float
    powered_nll: float


def choose_head(
    views: Tensor,
    target: Tensor,
    labels: int,
    likelihood: Likelihood,
    folds: NDArray[np.integer],
    recordings: NDArray[np.integer],
    *,
    prior_scales: Sequence[float],
    kl_weights: Sequence[float],
    smoothing: float,
    bias_prior_scale: float,
    steps: int,
    seed: int = 0,
    on_fold: Callable[[], None] = lambda: None,
) -> HeadChoice | None:
    """Choose prior width and KL weight of a last layer, and fit its power; see the module.

    Args:
        views: Embeddings ``(N, V, E)``: V views of each clip. The first of a held-out clip is predicted.
        target: The labels, as the likelihood takes them.
        labels: K.
        likelihood: The likelihood.
        folds: The inner fold of each clip, two or more of them.
        recordings: Which recording each clip is of.
        prior_scales: The widths to choose from, in units of the embeddings' spread.
        kl_weights: The KL weights to choose from.
        smoothing: See :func:`~bayes_panns.metrics.power_losses`.
        bias_prior_scale: The standard deviation of the bias under its prior, at the mean embedding.
        steps: The most steps of a fit.
        seed: Seeds the draws, and which clips are taken where there are many.
        on_fold: Called after each fold of each round.

    Returns:
        The choice; None where no label has clips of two recordings, so that nothing can be scored.

    Raises:
        ValueError: There are fewer than two folds, or no candidate has finite predictions.
    """
    if len(np.unique(folds)) < 2:
        raise ValueError("the inner cross-validation needs two folds or more")
    truth = _hot(target, labels)
    some = np.arange(len(truth))
    if len(some) > MOST_CLIPS:
        some = np.sort(np.random.default_rng(seed).choice(some, MOST_CLIPS, replace=False))

    def predicted(rows: NDArray[np.integer], pairs: list[tuple[float, float]]) -> NDArray[np.float32]:
        """The held-out predictions ``(G, n, K)`` of clips."""
        found = np.empty((len(pairs), len(rows), labels), dtype=np.float32)
        for fold in np.unique(folds[rows]):
            part = folds[rows] == fold
            inside, held = torch.from_numpy(rows[~part]), torch.from_numpy(rows[part])
            axes, *start = find_axes(views[inside], target[inside], labels, likelihood)
            # Those of one KL weight take about as many steps.
            posteriors = [
                infer_head(
                    views[inside],
                    target[inside],
                    likelihood,
                    axes,
                    *zip(*alike, strict=True),
                    bias_prior_scale=bias_prior_scale,
                    start=(start[0], start[1]),
                    steps=steps,
                    seed=seed,
                )
                for _, alike in groupby(pairs, key=lambda pair: pair[1])
            ]
            for each, alike in zip(posteriors, _slices(posteriors), strict=True):
                found[alike, part] = each.probability(views[held, 0], likelihood).cpu().numpy()
            on_fold()
        return found

    pairs = [(float(scale), float(weight)) for weight in kl_weights for scale in prior_scales]
    task = likelihood.task
    scored = _Scored.of(some, truth, folds, recordings, task, smoothing)
    if scored is None:
        return None
    p = predicted(some, pairs)[:, scored.rows]
    candidates = scored.candidates(pairs, p)
    least = min(each.smoothed for each in candidates)
    near = [each for each in candidates if each.smoothed <= least + _NEAR * each.error]
    chosen = min(near, key=lambda each: (-each.kl_weight, each.nll))
    held = p[pairs.index((chosen.prior_scale, chosen.kl_weight))]
    if len(some) < len(truth):
        everyone = np.arange(len(truth))
        scored = _Scored.of(everyone, truth, folds, recordings, task, smoothing) or scored
        held = predicted(everyone, [(chosen.prior_scale, chosen.kl_weight)])[0, scored.rows]
    power, nll, powered = scored.power(held)
    return HeadChoice(chosen, candidates, power, len(np.unique(folds)), len(scored.truth), nll, powered)


@dataclass(frozen=True)
class _Scored:
    """The clips whose predictions are scored.

    Attributes:
        rows: Which of the predicted clips they are, int.
        truth: Their targets, bool ``(n, K)``.
        known: For multi-label: whether clips with and without the label were among those that the clip's fold was
            predicted by, bool ``(n, K)``. A fit says nothing of a label that it has not seen.
        folds: ``(n,)``.
        recordings: ``(n,)``.
        task: What the labels mean.
        smoothing: See :func:`~bayes_panns.metrics.power_losses`.
    """

    rows: NDArray[np.integer]
    truth: NDArray[np.bool_]
    known: NDArray[np.bool_] | None
    folds: NDArray[np.integer]
    recordings: NDArray[np.integer]
    task: Task
    smoothing: float

    @classmethod
    def of(
        cls,
        clips: NDArray[np.integer],
        truth: NDArray[np.bool_],
        folds: NDArray[np.integer],
        recordings: NDArray[np.integer],
        task: Task,
        smoothing: float,
    ) -> "_Scored | None":
        """Those of ``clips`` that can be scored; for one-of-K their label must have been seen. None if none can."""
        truth, folds = truth[clips], folds[clips]
        known = np.empty_like(truth)
        for fold in np.unique(folds):
            inside = truth[folds != fold]
            seen = inside.any(axis=0) if task is Task.ONE_OF_K else inside.any(axis=0) & ~inside.all(axis=0)
            known[folds == fold] = seen
        rows = np.flatnonzero((truth & known).any(axis=1) if task is Task.ONE_OF_K else known.any(axis=1))
        if not len(rows):
            return None
        mask = None if task is Task.ONE_OF_K else known[rows]
        return cls(rows, truth[rows], mask, folds[rows], recordings[clips][rows], task, smoothing)

    def losses(self, p: NDArray[np.floating], power: float | NDArray[np.floating], smoothing: float = 0.0) -> NDArray:
        """The losses of predictions ``(n, K)`` at a power: ``(n, 1)``, or for multi-label ``(n, K)``."""
        found = power_losses(p, self.truth, power, self.task, smoothing=smoothing, mask=self.known)
        return found.reshape(len(found), -1)

    def fitted(self, p: NDArray[np.floating], part: NDArray[np.bool_], *, by_label: bool = False) -> NDArray:
        """The power of the predictions of a part of the clips, bool ``(n,)``: ``(1,)``, or for each label ``(K,)``."""
        mask = None if self.known is None else self.known[part]
        return np.atleast_1d(
            fit_power(p[part], self.truth[part], self.task, smoothing=self.smoothing, by_label=by_label, mask=mask)
        )

    def candidates(self, pairs: Sequence[tuple[float, float]], p: NDArray[np.floating]) -> tuple[Candidate, ...]:
        """The candidates, from their predictions ``(G, n, K)``; those whose predictions are not finite are left out."""
        everyone = np.ones(len(self.truth), dtype=bool)
        finite = [index for index in range(len(pairs)) if np.isfinite(p[index]).all()]
        if not finite:
            raise ValueError("no candidate has finite predictions")
        powers = {index: self.fitted(p[index], everyone) for index in finite}
        losses = {index: self.losses(p[index], powers[index], self.smoothing).sum(axis=1) for index in finite}
        best = min(finite, key=lambda index: losses[index].sum())
        found = []
        for index in finite:
            error = self.error(losses[index] - losses[best])
            totals = (self.losses(p[index], 1.0).sum(), losses[index].sum(), error)
            clips = len(self.truth)
            found.append(Candidate(*pairs[index], float(powers[index][0]), *(float(each / clips) for each in totals)))
        return tuple(found)

    def power(self, p: NDArray[np.floating]) -> tuple[tuple[float, ...], float, float]:
        """The power of predictions ``(n, K)`` that helps; the NLL without it, and with it, in nats a clip.

        It must lower the NLL of folds it was not fitted to by more than a standard error. For multi-label each label
        takes what serves it best: no power, the one of all labels, or its own.
        """
        everyone = np.ones(len(self.truth), dtype=bool)
        # Each label's losses at no power, and at powers that were fitted without the clip's fold.
        plain = self.losses(p, 1.0)
        power, least = np.ones(plain.shape[1]), plain.sum(axis=0)
        for by_label in (False, True) if self.task is Task.MULTI_LABEL else (False,):
            losses = plain.copy()
            for fold in np.unique(self.folds):
                others = self.folds != fold
                # Clips of one fold alone have nothing to be fitted by.
                if others.any():
                    losses[~others] = self.losses(p, self.fitted(p, others, by_label=by_label))[~others]
            helps = (losses - plain).sum(axis=0) + self.error(losses - plain) < 0
            better = helps & (losses.sum(axis=0) < least)
            power = np.where(better, self.fitted(p, everyone, by_label=by_label), power)
            least = np.where(better, losses.sum(axis=0), least)
        clips = len(self.truth)
        shared = (float(power[0]),) if len(set(power.tolist())) == 1 else tuple(float(each) for each in power)
        return shared, float(plain.sum() / clips), float(least.sum() / clips)

    def error(self, losses: NDArray[np.floating]) -> NDArray[np.float64]:
        """The standard errors of the sums of losses ``(n, ...)`` over clips, from those over recordings: ``(...)``."""
        number = np.unique(self.recordings, return_inverse=True)[1]
        totals = np.zeros((number.max() + 1, *losses.shape[1:]))
        np.add.at(totals, number, losses)
        return np.sqrt(len(totals) * totals.var(axis=0, ddof=1)) if len(totals) > 1 else np.zeros(losses.shape[1:])


def _slices(posteriors: Sequence[HeadPosterior]) -> list[slice]:
    """Where each one's candidates are among all."""
    ends = np.cumsum([len(each.loc) for each in posteriors])
    return [slice(end - len(each.loc), end) for each, end in zip(posteriors, ends.tolist(), strict=True)]


def _hot(target: Tensor, labels: int) -> NDArray[np.bool_]:
    """Targets as bool ``(N, K)``."""
    values = target.cpu()
    hot = values > 0.5 if values.is_floating_point() else torch.nn.functional.one_hot(values, labels).bool()
    return hot.numpy()
