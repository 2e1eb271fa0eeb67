"""How many windows or events of each kind there are, corrected for the classifier's own confusion, with an interval.

Counting what a classifier calls counts its mistakes too: with 1000 windows, 10 of them wrens, and a false alarm in 2 %
of the others, 20 wrens are called that are none. Held-out clips say how often each kind is called what; from that and
from the calls follows how many of each kind there are (Rogan and Gladen, 1978; for several kinds, Bayesian
quantification). The posterior of the true counts is drawn.

It holds for recordings in which each kind is called as it was among the held-out clips, in whatever shares the kinds
come (label shift). In noise, or at another microphone, the confusion is another, and no interval knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.draw_count import draw_count

LEVEL = 0.9
"""The share of the posterior that an interval holds."""

_DRAWS, _CLIMBS, _STEPS = 1000, 20, 15
"""How many draws, and for each how many steps to the most probable shares, and of the sampler from there."""

_MOST, _BLOCKS = 1 << 21, 16
"""The most cells that are drawn together, and how often: very many labels have fewer draws."""

_TINY = 1e-300

_KIND, _ROW, _ERROR = 0.5, 4.0, 0.2
"""The Dirichlet prior of the kinds' shares, for each kind; the weight of the prior of a row of the confusion, in clips;
and what of it is put on errors besides. They were chosen by simulation: a row of few clips without an error says less
than that there are none. See ``docs/deciding.md``."""


@dataclass(frozen=True)
class Counts:
    """How many there are of each of K kinds.

    Attributes:
        called: ``(K,)``, how many were called so.
        value: ``(K,)``, the posterior median of how many there are.
        low: ``(K,)``, the lower end of the interval.
        high: ``(K,)``, its upper end.
    """

    called: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def confusion(called: NDArray[np.bool_], target: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How often each kind of a one-of-K target was called what, ``(K, K)``: a row a true label.

    Example:
        >>> eye = np.eye(2, dtype=bool)
        >>> confusion(eye[[0, 0, 1]], eye[[0, 1, 1]])
        array([[1, 0],
               [1, 1]])
    """
    return target.T.astype(np.int64) @ called.astype(np.int64)


def rates(called: NDArray[np.bool_], target: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each label of a multi-label target, how often it was called and not, ``(K, 2, 2)``.

    The first row is of the clips with the label, the second of those without; the first column of those called.
    """
    return np.stack(
        [
            np.stack([(there & which).sum(axis=0) for which in (called, ~called)], axis=-1)
            for there in (target, ~target)
        ],
        axis=1,
    ).astype(np.int64)


def count_kinds(
    called: NDArray[np.integer],
    table: NDArray[np.number],
    *,
    together: float = 1.0,
    level: float = LEVEL,
    seed: int = 0,
) -> Counts:
    """How many of N windows are of each of K kinds, where each window is of exactly one.

    Example:
        >>> found = count_kinds(np.array([70, 30]), np.array([[90, 10], [0, 100]]))
        >>> bool(found.low[0] < 78 < found.high[0])
        True

    Args:
        called: ``(K,)``, how many windows were called each label; N in all.
        table: ``(K, K)``, how many held-out clips of each kind (rows) were called what (columns), from
            :func:`confusion`; in independent clips, so they need not be whole.
        together: How many windows are right or wrong together, such as those of one event, or that overlap.
        level: The share of the posterior that an interval holds.
        seed: Of the draws.
    """
    drawn = _drawn(np.asarray(called)[None], np.asarray(table, dtype=np.float64)[None], together, seed)[:, 0]
    return _counts(np.asarray(called, dtype=np.float64), drawn, level)


def count_labels(
    called: NDArray[np.integer],
    windows: int,
    table: NDArray[np.number],
    *,
    together: float = 1.0,
    level: float = LEVEL,
    seed: int = 0,
) -> Counts:
    """How many of N windows have each of K labels, where a window has any number of them.

    Args:
        called: ``(K,)``, how many windows were called each label.
        windows: N.
        table: ``(K, 2, 2)``, from :func:`rates`; in independent clips, so they need not be whole.
        together: As in :func:`count_kinds`.
        level: As in :func:`count_kinds`.
        seed: As in :func:`count_kinds`.
    """
    found = np.stack([called, windows - np.asarray(called)], axis=-1)
    drawn = _drawn(found, np.asarray(table, dtype=np.float64), together, seed)[:, :, 0]
    return _counts(np.asarray(called, dtype=np.float64), drawn, level)


def count_events(
    found: NDArray[np.integer],
    hits: NDArray[np.number],
    misses: NDArray[np.number],
    alarms: NDArray[np.number],
    *,
    share: float,
    level: float = LEVEL,
    draws: int = 4000,
    seed: int = 0,
) -> Counts:
    """How many events there are of each of K kinds, of which some are missed, and among which some found are none.

    The recall has a Beta posterior from the annotated recordings; false events come at a rate with a Gamma posterior;
    the false ones among those found are as probable as both rates say; the missed ones follow a negative binomial. The
    posterior is drawn independently, by sampling.

    Args:
        found: ``(K,)``, how many events were found.
        hits: ``(K,)``, of the annotated events of the held-out recordings, how many were found.
        misses: ``(K,)``, and how many were not.
        alarms: ``(K,)``, how many events were found there that are none.
        share: How long the recordings are, in lengths of the held-out ones: the hours of both, divided.
        level: As in :func:`count_kinds`.
        draws: How many draws.
        seed: As in :func:`count_kinds`.

    Raises:
        SettingError: ``draws`` is no whole number from 1 up.
    """
    draws = draw_count(draws, least=1)
    random = np.random.default_rng(seed)
    events = np.asarray(found, dtype=np.int64)
    hits, misses, alarms = (np.asarray(each, dtype=np.float64) for each in (hits, misses, alarms))
    pooled = (hits.sum() + 0.5) / (hits.sum() + misses.sum() + 1)
    shape = (draws, len(events))
    recall = random.beta(hits + _ROW * pooled + _ERROR / 2, misses + _ROW * (1 - pooled) + _ERROR / 2, size=shape)
    rate = random.gamma(alarms + 0.5, size=shape) * share
    # A found event is false with probability rate / (rate + recall x density); all densities are as likely.
    false = _truncated_poisson(rate, events, random)
    true = events - false
    missed = random.negative_binomial(true + _KIND, np.clip(recall, 1e-6, 1 - 1e-12))
    return _counts(events.astype(np.float64), (true + missed).astype(np.float64), level)


def _truncated_poisson(
    rate: NDArray[np.float64], most: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    """Poisson numbers given that they are at most ``most``, by the inverse of their distribution."""
    from scipy.stats import poisson

    top = poisson.cdf(most, rate)
    return np.minimum(poisson.ppf(random.random(rate.shape) * top, rate), most).astype(np.int64)


def _counts(called: NDArray[np.float64], drawn: NDArray[np.float64], level: float) -> Counts:
    shares = [(1 - level) / 2, 0.5, (1 + level) / 2]
    low, middle, high = np.quantile(drawn, shares, axis=0, method="inverted_cdf")
    return Counts(called, middle, low, high)


def _drawn(called: NDArray[np.integer], table: NDArray[np.float64], together: float, seed: int) -> NDArray[np.float64]:
    """Draws of the true counts of B problems of C kinds and D calls: ``(draws, B, C)``.

    Each draw has a confusion of its own, from the held-out clips alone: many windows would otherwise outvote few clips
    on what the confusion is. Given it, the kinds' shares start at the most probable ones (Saerens et al., 2002) and are
    then drawn, with how many windows of each kind were called what, by Gibbs sampling.

    Args:
        called: ``(B, D)``.
        table: ``(B, C, D)``.
        together: How many windows count as one.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    problems, kinds, _ = table.shape
    prior = table + _prior(table)
    block = int(np.clip(_MOST // table.size, 1, _DRAWS))
    drawn = []
    for _ in range(max(1, min(_DRAWS, _MOST * _BLOCKS // table.size) // block)):
        rows = random.standard_gamma(np.broadcast_to(prior, (block, *table.shape)))
        rows /= np.maximum(rows.sum(axis=-1, keepdims=True), _TINY)
        # Of units that are not whole, as often the number above as brings their mean right.
        counts = np.floor(called / together + random.random((block, *called.shape)) * (together > 1)).astype(np.int64)
        share = np.full((block, problems, kinds), 1 / kinds)
        for _ in range(_CLIMBS):
            totals = np.einsum("sbd,sbdc->sbc", counts, _kind_of_call(share, rows))
            share = (totals + _KIND) / (totals + _KIND).sum(axis=-1, keepdims=True)
        for _ in range(_STEPS):
            totals = random.multinomial(counts, _kind_of_call(share, rows)).sum(axis=-2)
            share = random.standard_gamma(totals + _KIND)
            share /= np.maximum(share.sum(axis=-1, keepdims=True), _TINY)
        drawn.append(totals * together)
    return np.concatenate(drawn).astype(np.float64)


def _kind_of_call(share: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(kind | call), ``(S, B, D, C)``, from the kinds' shares ``(S, B, C)`` and their confusion ``(S, B, C, D)``."""
    joint = np.swapaxes(share[..., None] * rows, -1, -2) + _TINY
    return joint / joint.sum(axis=-1, keepdims=True)


def _prior(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Dirichlet prior of each row of the confusion, in clips, ``(B, C, D)``.

    Of a square table, right as often as all clips are, and otherwise any other label. Of K tables of two rows, each
    row as it is over all labels.
    """
    problems, kinds, calls = table.shape
    if problems > 1:
        total = table.sum(axis=0, keepdims=True) + 0.5
        return np.broadcast_to(_ROW * total / total.sum(axis=-1, keepdims=True) + _ERROR / 2, table.shape)
    right = (np.trace(table[0]) + 0.5) / (table.sum() + 1)
    wrong = (_ROW * (1 - right) + _ERROR) / max(1, calls - 1)
    return np.broadcast_to(np.where(np.eye(kinds, calls, dtype=bool), _ROW * right, wrong), table.shape)
