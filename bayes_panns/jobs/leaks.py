"""Leaks: scored clips that a posterior, or one that it started from, was fitted to; found by the clips' digests."""

from collections.abc import Iterable
from typing import Any

from bayes_panns.clips import ClipSet
from bayes_panns.posterior import Ensemble, Posterior, Predictor

_BYTES = 16
"""The leading bytes of a clip's SHA-256 that are kept."""


def record_fitted_clips(posterior: Posterior, clips: ClipSet, upstream: Posterior | None) -> None:
    """Record in a posterior the digests of the clips that it, and what it started from, was fitted to.

    Args:
        posterior: The posterior that was fitted.
        clips: The clips that it was fitted to, without those held out.
        upstream: What it started from.

    Raises:
        StoreError: A store is damaged.
    """
    if not hasattr(posterior, "fitted_clips"):
        return
    # The interface of posteriors that keep digests: two sets of bytes, `own` and `upstream`.
    kept: Any = posterior.fitted_clips
    kept.own, kept.upstream = frozenset(_digests(clips)), frozenset()
    if upstream is not None:
        before: Any = getattr(upstream, "fitted_clips", None)
        kept.upstream = before.own | before.upstream


def count_leaks(posterior: Predictor, clips: ClipSet) -> dict[str, int] | None:
    """How many of some clips a posterior was fitted to.

    Args:
        posterior: The posterior, or an ensemble: then a clip counts if any member was fitted to it.
        clips: The clips to score.

    Returns:
        ``own``: how many it was fitted to itself; ``upstream``: how many of the others a posterior that it started
        from was fitted to. None where the posterior did not record its clips.

    Raises:
        StoreError: A store is damaged.
    """
    members = posterior.members if isinstance(posterior, Ensemble) else (posterior,)
    own, upstream = (
        frozenset[bytes]().union(*(getattr(getattr(each, "fitted_clips", None), side, ()) for each in members))
        for side in ("own", "upstream")
    )
    if not own and not upstream:
        return None
    scored = list(_digests(clips))
    return {
        "own": sum(digest in own for digest in scored),
        "upstream": sum(digest in upstream and digest not in own for digest in scored),
    }


def _digests(clips: ClipSet) -> Iterable[bytes]:
    return (digest[:_BYTES] for store, _, rows in clips.by_store() for digest in store.digests(rows))
