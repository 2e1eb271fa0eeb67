"""The choice of prior and KL weight of a last layer, and its calibration, by cross-validation over recordings.

Each inner fold is predicted by last layers that were fitted to the others, one for each prior width and KL weight. For
each, the power of the averaged predictive that minimises the smoothed NLL is fitted to these predictions. Of the pairs
whose smoothed NLL is within a standard error of the least, the one with the largest KL weight is taken, and among those
the one that needs its power least: the one with the least NLL without it. The standard error is that of the difference
from the least, over recordings.

The power is kept only if powers fitted without an inner fold lower the NLL of that fold, over all of them. For
multi-label the same comparison decides between one power and one for each label.

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
from bayes_panns.svi.last_layer.inference import find_axes, infer_head

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
) -> HeadChoice:
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

    Raises:
        ValueError: There are fewer than two folds.
    """
    if len(np.unique(folds)) < 2:
        raise ValueError("the inner cross-validation needs two folds or more")
    task = likelihood.task
    truth = _hot(target, labels)
    some = np.arange(len(truth))
    if len(some) > MOST_CLIPS:
        some = np.sort(np.random.default_rng(seed).choice(some, MOST_CLIPS, replace=False))

    def predicted(rows: NDArray[np.integer], pairs: list[tuple[float, float]]) -> NDArray[np.float32]:
        """The held-out predictions ``(G, n, K)`` of clips; NaN where the fold's fit has not seen the clip's label."""
        found = np.full((len(pairs), len(rows), labels), np.nan, dtype=np.float32)
        for fold in np.unique(folds[rows]):
            inside, held = (torch.from_numpy(rows[part]) for part in (folds[rows] != fold, folds[rows] == fold))
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
            p = np.concatenate([each.probability(views[held, 0], likelihood).cpu().numpy() for each in posteriors])
            if task is Task.ONE_OF_K:
                p[:, ~truth[inside][:, truth[held].argmax(axis=1)].any(axis=0)] = np.nan
            found[:, folds[rows] == fold] = p
            on_fold()
        return found

    pairs = [(float(scale), float(weight)) for weight in kl_weights for scale in prior_scales]
    p = predicted(some, pairs)
    scored = ~np.isnan(p).any(axis=(0, 2))
    if not scored.any():
        raise ValueError("no label has clips of two recordings")
    candidates = _candidates(pairs, p[:, scored], truth[some[scored]], recordings[some[scored]], task, smoothing)
    least = min(each.smoothed for each in candidates)
    near = [each for each in candidates if each.smoothed <= least + _NEAR * each.error]
    chosen = min(near, key=lambda each: (-each.kl_weight, each.nll))
    best = candidates.index(chosen)
    held, rows = p[best], some
    if len(some) < len(truth):
        rows = np.arange(len(truth))
        held = predicted(rows, [pairs[best]])[0]
        scored = ~np.isnan(held).any(axis=1)
    power, nll, powered = _power(held[scored], truth[rows[scored]], folds[rows[scored]], task, smoothing)
    return HeadChoice(chosen, candidates, power, len(np.unique(folds)), int(scored.sum()), float(nll), float(powered))


def _candidates(
    pairs: Sequence[tuple[float, float]],
    p: NDArray[np.float32],
    truth: NDArray[np.bool_],
    recordings: NDArray[np.integer],
    task: Task,
    smoothing: float,
) -> tuple[Candidate, ...]:
    """The candidates, from their held-out predictions ``(G, n, K)``."""
    powers = [float(fit_power(each, truth, task, smoothing=smoothing)) for each in p]
    losses = np.stack(
        [
            power_losses(each, truth, power, task, smoothing=smoothing).reshape(len(truth), -1).sum(axis=1)
            for each, power in zip(p, powers, strict=True)
        ]
    )
    best = int(losses.sum(axis=1).argmin())
    number = np.unique(recordings, return_inverse=True)[1]
    found = []
    for pair, each, power, loss in zip(pairs, p, powers, losses, strict=True):
        by_recording = np.bincount(number, loss - losses[best])
        error = np.sqrt(len(by_recording) * by_recording.var(ddof=1)) if len(by_recording) > 1 else 0.0
        nll = power_losses(each, truth, 1.0, task).sum()
        found.append(Candidate(*pair, power, *(float(total / len(truth)) for total in (nll, loss.sum(), error))))
    return tuple(found)


def _power(
    p: NDArray[np.float32], truth: NDArray[np.bool_], folds: NDArray[np.integer], task: Task, smoothing: float
) -> tuple[tuple[float, ...], float, float]:
    """The power that lowers the NLL of folds it was not fitted to; the NLL without it, and with it."""
    nll = power_losses(p, truth, 1.0, task).sum() / len(p)
    power: tuple[float, ...] = (1.0,)
    least = nll
    for by_label in (False, True) if task is Task.MULTI_LABEL else (False,):
        losses = 0.0
        for fold in np.unique(folds):
            others = folds != fold
            if not others.any():
                continue
            fitted = fit_power(p[others], truth[others], task, smoothing=smoothing, by_label=by_label)
            losses += power_losses(p[~others], truth[~others], fitted, task).sum()
        if losses / len(p) < least:
            least = losses / len(p)
            fitted = fit_power(p, truth, task, smoothing=smoothing, by_label=by_label)
            power = tuple(float(each) for each in np.atleast_1d(fitted))
    return power, nll, least


def _hot(target: Tensor, labels: int) -> NDArray[np.bool_]:
    """Targets as bool ``(N, K)``."""
    values = target.cpu()
    hot = values > 0.5 if values.is_floating_point() else torch.nn.functional.one_hot(values, labels).bool()
    return hot.numpy()
