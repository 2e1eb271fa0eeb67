"""Scoring posteriors on labelled clips."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_panns.clips import ClipSet
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs.inputs import contents
from bayes_panns.jobs.leaks import count_leaks
from bayes_panns.posterior import Ensemble, Predictor, require_inputs
from bayes_panns.posterior.disk import read_header
from bayes_panns.predictions import Draws, predict

logger = logging.getLogger(__name__)


def evaluate_posterior(
    posterior: Predictor,
    stores: str | Path | Sequence[str | Path],
    *,
    folds: Sequence[int] | None = None,
    ood: str | Path | Sequence[str | Path] = (),
    draws: Draws | None = None,
    covariance: bool = False,
) -> Evaluation:
    """Score a posterior on labelled clips and, if given, on out-of-distribution clips.

    Args:
        posterior: The posterior to score, or an ensemble.
        stores: Clip stores, or one. Their labels are among the posterior's, in any order; a label of the posterior's
            that they lack has no positive clip.
        folds: The folds to score; by default all.
        ood: Stores of clips that show none of the labels, or one.
        draws: Posterior draws per clip; 0 is one pass at the posterior mean, ``"moments"`` one pass that propagates
            moments. By default as many as :meth:`~bayes_panns.posterior.Posterior.draws_for` says.
        covariance: Whether to keep the epistemic covariance between labels, ``(N, K, K)``.

    Raises:
        StoreError: A store's labels, task or contents do not fit the posterior.
        SettingError: ``draws`` is neither a whole number from 0 up nor ``"moments"``.
    """
    return evaluate_clips(
        posterior,
        ClipSet(stores, folds=folds),
        ClipSet(ood) if ood else None,
        draws=draws,
        covariance=covariance,
    )


def evaluate_clips(
    posterior: Predictor,
    clips: ClipSet,
    ood: ClipSet | None = None,
    *,
    draws: Draws | None = None,
    covariance: bool = False,
) -> Evaluation:
    """Score a posterior on a set of clips, such as a run's own validation clips: see :func:`evaluate_posterior`.

    The network computes with the posterior's own precision, which ``provenance["precision"]`` of the evaluation says.
    ``provenance["leaks"]`` of the evaluation counts the clips that the posterior was fitted to, if it has recorded
    them: see :func:`~bayes_panns.jobs.leaks.count_leaks`. A warning is logged if there are any.

    Args:
        posterior: The posterior to score, or an ensemble.
        clips: The N labelled clips.
        ood: The out-of-distribution clips.
        draws: Posterior draws per clip.
        covariance: Whether to keep the epistemic covariance between labels.

    Raises:
        StoreError: The clips' labels, task or contents do not fit the posterior.
        SettingError: As :func:`evaluate_posterior`.
    """
    target = target_for(posterior, clips)
    for each in (clips, ood):
        if each is not None:
            require_inputs(posterior, each)
    leaks = count_leaks(posterior, clips)
    draws = posterior.draws_for(draws)
    posterior.warn_of_other_draws(draws)
    uncertainty = predict(posterior, clips, draws, covariance=covariance)
    outside = None if ood is None else predict(posterior, ood, draws, covariance=covariance)
    provenance = _source(posterior) | {
        "precision": str(posterior.precision),
        "stores": [str(store.path) for store in clips.stores],
        "folds": "all" if clips.folds is None else sorted({int(fold) for fold in clips.folds}),
        "ood": [] if ood is None else [str(store.path) for store in ood.stores],
        "contents": contents(clips) + contents(ood),
    }
    power = posterior.exponent(draws)
    if power is not None:
        provenance["power"] = power.tolist()
    if leaks is not None:
        provenance["leaks"] = leaks
        _warn_of(leaks, len(clips))
    return Evaluation.of(
        uncertainty,
        target,
        outside,
        names=clips.names,
        labels=posterior.labels,
        sources=clips.sources,
        ood_names=[] if ood is None else ood.names,
        draws=posterior.draws_made(draws),
        calibration=posterior.calibration,
        provenance=provenance,
    )


def target_for(posterior: Predictor, clips: ClipSet) -> NDArray[np.bool_]:
    """The targets of clips, bool ``(N, K)``, in the order of a posterior's K labels.

    Labels are matched by name. A label of the posterior's that the clips' stores lack is absent from every clip. Stores
    without label names, such as PANNs' packs, are taken to have the posterior's labels in its order.

    Args:
        posterior: The posterior.
        clips: The N clips.

    Raises:
        StoreError: The clips have no labels or one that the posterior does not know, or their task is multi-label and
            the posterior's one-of-K.
    """
    path = clips.stores[0].path
    if not clips.labels:
        raise StoreError(f"{path}: its clips have no labels to score; pack them with labels")
    # One label per clip is a case of any number of labels, but not the other way round.
    if clips.task == Task.MULTI_LABEL and posterior.task == Task.ONE_OF_K:
        raise StoreError(f"{path}: its task is {clips.task}, but the posterior's is {posterior.task}")
    if not any(store.named for store in clips.stores):
        if len(clips.labels) != len(posterior.labels):
            raise StoreError(
                f"{path}: has {len(clips.labels)} labels without names, but the posterior has {len(posterior.labels)}; "
                "pack it again with the posterior's labels"
            )
        return clips.target()
    unknown = [label for label in clips.labels if label not in set(posterior.labels)]
    if unknown:
        raise StoreError(
            f"{path}: the posterior does not know {_listed(unknown)}; it knows {_listed(posterior.labels)}; leave the "
            "others out when packing"
        )
    missing = [label for label in posterior.labels if label not in set(clips.labels)]
    if missing:
        logger.warning(
            f"{path}: lacks {len(missing)} of the posterior's {len(posterior.labels)} labels ({_listed(missing)}); "
            "they are scored as absent from every clip"
        )
    known, found = clips.target(), np.zeros((len(clips), len(posterior.labels)), dtype=bool)
    found[:, [posterior.labels.index(label) for label in clips.labels]] = known
    return found


def _source(posterior: Predictor) -> dict[str, Any]:
    """Which posterior an evaluation is of: its folder and the digest of its tensors, or its members' folders."""
    if isinstance(posterior, Ensemble):
        return {"posterior": None, "members": [str(each.folder) for each in posterior.members]}
    if posterior.folder is None:
        return {"posterior": None}
    return {"posterior": str(posterior.folder), "sha256": read_header(posterior.folder)["sha256"]}


def _warn_of(leaks: dict[str, int], clips: int) -> None:
    for side, who in (("own", "the posterior"), ("upstream", "a posterior that it started from")):
        if leaks[side]:
            logger.warning(
                f"{leaks[side]} of the {clips} scored clips are among those that {who} was fitted to; the scores "
                "say little about new clips"
            )


def _listed(labels: Sequence[str], most: int = 3) -> str:
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")
