"""Leaks: scored clips that a posterior, or one that it started from, was fitted to; found by the clips' digests."""

import logging
from collections.abc import Iterator
from typing import cast

from bayes_panns.clips import ClipSet
from bayes_panns.core.choices import Features
from bayes_panns.posterior import Ensemble, FittedClips, Posterior, Predictor

logger = logging.getLogger(__name__)


def record_fitted_clips(posterior: Posterior, clips: ClipSet, upstream: Posterior | None) -> None:
    """Record in a posterior which clips it, and what it started from, was fitted to.

    Args:
        posterior: The posterior that was fitted.
        clips: The clips that it was fitted to, without those held out.
        upstream: The posterior that it started from; None if it started from scratch.

    Raises:
        StoreError: A store is damaged.
    """
    posterior.fitted_clips = FittedClips.of(_digests(clips), None if upstream is None else upstream.fitted_clips)


def count_leaks(posterior: Predictor, clips: ClipSet) -> dict[str, int] | None:
    """How many of some clips a posterior was fitted to.

    Args:
        posterior: The posterior, or an ensemble: then a clip counts if any member was fitted to it.
        clips: The clips to score.

    Returns:
        ``own``: how many of them it was fitted to; ``upstream``: how many of them the posteriors that it started from
        were fitted to. None where no clips are recorded, as for imported posteriors.

    Raises:
        StoreError: A store is damaged.
    """
    members = posterior.members if isinstance(posterior, Ensemble) else (cast(Posterior, posterior),)
    records = [member.fitted_clips for member in members]
    together = FittedClips(
        frozenset[bytes]().union(*(each.own for each in records)),
        frozenset[bytes]().union(*(each.upstream for each in records)),
    )
    if together == FittedClips():
        return None
    own, upstream = together.count(_digests(clips))
    return {"own": own, "upstream": upstream}


def warn_of_known_clips(upstream: Posterior, clips: ClipSet) -> None:
    """Warn of clips whose cross-validation says too much, because the backbone was fitted to them.

    A fit on embeddings fits no backbone.
    """
    if upstream.provenance.get("features") == Features.EMBEDDINGS:
        return
    leaks = count_leaks(upstream, clips)
    known = 0 if leaks is None else leaks["own"]
    if known:
        logger.warning(
            f"{known} of the {len(clips)} clips are among those that the upstream posterior was fitted to, so the "
            "inner folds are not new to its backbone, and the power may be too large; use the recipe rotated-widths"
        )


def warn_of_clips_twice(upstream: Posterior, clips: ClipSet) -> None:
    """Warn of clips that would count twice, because the posterior that is the prior was fitted to them."""
    leaks = count_leaks(upstream, clips)
    known = 0 if leaks is None else leaks["own"]
    if known:
        logger.warning(
            f"{known} of the {len(clips)} clips are among those that the upstream posterior was fitted to, and count "
            "twice; name a store of new clips only, or fit all clips again with the recipe rotated-head"
        )


def _digests(clips: ClipSet) -> Iterator[bytes]:
    return (digest for store, _, rows in clips.by_store() for digest in store.digests(rows))
