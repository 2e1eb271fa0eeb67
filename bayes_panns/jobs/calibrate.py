"""Calibrating a posterior on held-out clips: a temperature, and a threshold for label sets."""

import logging
import math

import numpy as np
import torch
from numpy.typing import NDArray

from bayes_panns.clips import ClipSet
from bayes_panns.core.choices import Target, Task
from bayes_panns.core.draw_count import draw_count
from bayes_panns.core.errors import StoreError
from bayes_panns.jobs.decisions_log import log_decisions
from bayes_panns.jobs.evaluate import target_for
from bayes_panns.metrics import conformal_threshold, fit_temperature, label_sets
from bayes_panns.metrics.deciding import CONFIDENCE
from bayes_panns.metrics.temperature import BOUNDS, PRIOR_SD
from bayes_panns.posterior import Calibration, Posterior, require_inputs
from bayes_panns.posterior.passes import NETWORK_DRAWS
from bayes_panns.predictions import (
    Uncertainty,
    UncertaintyAccumulator,
    concatenate,
    fit_confusion,
    fit_decisions,
    predict_logits,
    usual_scores,
)
from bayes_panns.predictions.deciding import above

logger = logging.getLogger(__name__)

_MOST_LOGITS = 1 << 26
"""About as many logits are held by default, 0.5 GiB; there are fewer draws of many clips."""

_NEAR = 1.05
"""A temperature within this factor of a bound is at the bound: the search comes close to it, and not quite there."""

_FEW = 1000
"""Clips from which on the prior of the temperature is not looked at: it then moves it by less than 1 %."""

_MOVED = 1.1
"""A temperature that the prior moves by this factor or more is not determined by the clips alone."""


def calibrate(
    posterior: Posterior,
    clips: ClipSet,
    *,
    coverage: float = 0.9,
    draws: int | None = None,
    seed: int = 0,
    target: Target | str | None = None,
    value: float | None = None,
    confidence: float = CONFIDENCE,
) -> Calibration:
    """Fit a temperature, and a threshold for label sets, to clips that the posterior was not fitted to.

    The temperature is fitted to one half of the clips, with the weak prior of
    :func:`~bayes_panns.metrics.fit_temperature`, which decides only where they are few or say little. The threshold is
    fitted, at that temperature, to the other half, so that the sets' coverage is guaranteed for clips like these whose
    recordings are independent of each other. All clips of a recording are in one half. Where the posterior has a power,
    it stays, and both are fitted with it. Warnings are logged where the result is not worth much, such as a temperature
    that comes from the prior.

    What is usual for such clips, and how each kind is called, is kept too: see
    :func:`~bayes_panns.predictions.usual_scores` and :func:`~bayes_panns.predictions.fit_confusion`. With a ``target``
    come thresholds for decisions that meet it (:func:`~bayes_panns.predictions.fit_decisions`). These three take all
    clips; that one half has also set the temperature, a single number, does not show in their guarantees.

    Args:
        posterior: The posterior. Its ``calibration`` becomes the one returned; it is unchanged if an error is raised.
        clips: Held-out clips with the posterior's labels.
        coverage: The share of true labels that the sets are to contain, in (0, 1).
        draws: Posterior draws; predict with as many. By default as many as
            :meth:`~bayes_panns.posterior.Posterior.draws_for` says, fewer of very many clips.
        seed: Seeds the split into halves.
        target: What decisions are to meet, if any: ``precision``, ``risk`` or ``false-alarms``.
        value: The precision of each label's calls, the share of decided windows that may be wrong, or the false alarms
            of each label an hour.
        confidence: How often, over sets of held-out clips, it is to be met.

    Raises:
        StoreError: The clips do not fit the posterior, or are too few for the coverage or the false alarms.
        SettingError: A value is out of range, or the task has no such target.
    """
    require_inputs(posterior, clips)
    if draws is None:
        # All draws of all logits are held at once.
        most = _MOST_LOGITS // (len(clips) * len(posterior.labels))
        draws = max(NETWORK_DRAWS, min(int(posterior.draws_for(None)), most))
    draws = draw_count(draws)
    first, second = clips.split(0.5, seed)
    logits, truth = predict_logits(posterior, first, draws), target_for(posterior, first)
    power = posterior.exponent(draws)
    temperature = fit_temperature(logits, truth, posterior.task, power=power)
    alone = temperature
    if len(first) < _FEW:
        alone = fit_temperature(logits, truth, posterior.task, power=power, prior_sd=np.inf)
    other, other_truth = predict_logits(posterior, second, draws), target_for(posterior, second)
    held = _uncertainty(posterior, other, temperature, draws)
    try:
        threshold = conformal_threshold(held.probability, other_truth, coverage)
    except ValueError as error:
        raise StoreError(f"{clips.stores[0].path}: {error}; calibrate on more clips, or ask for less") from error
    # Recordings are in one half each.
    groups = np.concatenate([first.recordings, second.recordings + len(first)])
    both = concatenate([_uncertainty(posterior, logits, temperature, draws), held])
    everything = np.concatenate([truth, other_truth])
    usual = usual_scores(both, groups)
    outside = above(usual, both)
    decisions = None
    if target is not None:
        decisions = fit_decisions(
            both,
            everything,
            groups=groups,
            aim=Target(target),
            value=math.nan if value is None else value,
            confidence=confidence,
            seconds=clips.seconds_per_clip,
            outside=outside,
        )
    posterior.calibration = Calibration(
        temperature=temperature,
        threshold=threshold,
        coverage=coverage,
        draws=draws if posterior.stochastic else 0,
        clips=(len(first), len(second)),
        data=tuple(store.path.name for store in clips.stores),
        decisions=decisions,
        usual=usual,
        confusion=fit_confusion(both, everything, groups=groups, outside=outside),
    )
    logger.info(
        f"{posterior.folder or 'posterior'}: temperature {temperature:.3f}, fitted to {len(first)} clips; label sets "
        f"of coverage {coverage:g} contain every label of probability {threshold:.3f} or more, fitted to {len(second)} "
        "clips"
    )
    _warn_if_undetermined(
        temperature, alone, _uncertainty(posterior, logits, 1.0, draws).probability, truth, posterior.task
    )
    _warn_of_large_sets(label_sets(held.probability, threshold), coverage)
    if decisions is not None:
        log_decisions(decisions, posterior.labels)
    return posterior.calibration


def _uncertainty(posterior: Posterior, logits: NDArray[np.floating], temperature: float, draws: int) -> Uncertainty:
    """The predictions of logits ``(T, N, K)`` at a temperature and the posterior's power."""
    accumulator = UncertaintyAccumulator(posterior.task, mirrored=posterior.mirrored, power=posterior.exponent(draws))
    for draw in logits:
        accumulator.update(posterior.model.likelihood.probability(torch.from_numpy(draw) / temperature))
    return accumulator.result()


def _warn_if_undetermined(
    temperature: float, alone: float, probability: NDArray[np.float64], target: NDArray[np.bool_], task: Task
) -> None:
    """Warn of a temperature that the clips do not determine, or that says that they contradict the posterior.

    Args:
        temperature: The temperature.
        alone: What it would be without its prior.
        probability: The clips' probabilities ``(N, K)`` before it.
        target: Their targets ``(N, K)``.
        task: What the labels mean.
    """
    if task == Task.ONE_OF_K:
        right = bool((probability.argmax(axis=1) == target.argmax(axis=1)).all())
    else:
        right = bool(((probability > 0.5) == target).all())
    moved = max(temperature / alone, alone / temperature)
    if right or moved >= _MOVED:
        # The likelihood of clips that every draw classifies correctly rises for ever as the temperature falls.
        which = "are all classified correctly, so they do" if right else "do"
        less = f", and they alone would make it {_in_bounds(alone)}" if moved >= _MOVED else ""
        logger.warning(
            f"the {len(target)} clips that the temperature was fitted to {which} not determine it: a weak prior (log "
            f"temperature 0 ± {PRIOR_SD:g}) keeps it at {temperature:.3g}{less}; calibrate on more clips, or on harder "
            "ones"
        )
    if alone >= BOUNDS[1] / _NEAR:
        logger.warning(
            f"the {len(target)} clips that the temperature was fitted to contradict the posterior: without its prior "
            f"it would be at its upper bound, {BOUNDS[1]:g}, where all labels are equally probable; check the clips' "
            "labels"
        )


def _in_bounds(temperature: float) -> str:
    least, most = BOUNDS
    if temperature <= least * _NEAR:
        return f"{least:g} or less"
    return f"{most:g} or more" if temperature >= most / _NEAR else f"{temperature:.3g}"


def _warn_of_large_sets(sets: NDArray[np.bool_], coverage: float) -> None:
    """Warn of label sets ``(N, K)`` that hold nearly all K labels."""
    size, labels = float(sets.sum(axis=1).mean()), sets.shape[1]
    if size > 1 and size > 0.9 * labels:
        logger.warning(
            f"label sets hold {size:.1f} of the {labels} labels on average, so they say little; ask for a coverage "
            f"below {coverage:g}, or calibrate on more clips"
        )
