"""Active learning: which unlabelled clips are worth a label, and which batch of them is.

With p_t the label probabilities of a clip under draw t of the weights, p their mean and H the entropy:

=============  ============================================================================================
strategy       chooses
=============  ============================================================================================
random         any clips
entropy        the largest H(p)
bald           the largest H(p) - mean_t H(p_t) (Houlsby et al., 2011, arXiv:1112.5745)
batch-bald     greedily, the clip with the largest I(label; weights | labels of those chosen before)
               (Kirsch et al., 2019, arXiv:1906.08158)
typical        from each cluster of embeddings without a label the clip with the nearest neighbours
               (TypiClust, Hacohen et al., 2022, arXiv:2202.02794)
mix            the clip nearest to the centre of each cluster, with clips weighted by H(p)
               (CLUE, Prabhu et al., 2021, arXiv:2010.08666)
=============  ============================================================================================

For multi-label the entropy of a clip is the sum of its labels' entropies, as everywhere here: that its labels
come together is left out. Those of a batch are taken together, by the draws.

Clips of one recording are alike. Every strategy takes one clip of each recording before it takes a second of any,
where the clips that have a label count too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import AcquireStrategy, Task
from bayes_panns.metrics.checks import check_task

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIGURATIONS = 512
"""Label configurations of a batch that are held: all there are, or else a sample of so many."""

_NUMBERS = 1 << 22
"""How many probabilities are held at a time."""

_NEIGHBOURS = 20
"""The neighbours within a cluster that say how typical a clip is; half of the cluster, if it has fewer than twice."""

_SMALLEST = 5
"""Clusters with fewer clips come last: they are outliers."""

_MOST_CLUSTERS = 500
"""The most clusters that are made."""


NEEDS_SAMPLES = frozenset({AcquireStrategy.BATCH_BALD})
"""The strategies that choose a batch by the draws of all candidates."""

NEEDS_EMBEDDINGS = frozenset({AcquireStrategy.TYPICAL, AcquireStrategy.MIX})
"""The strategies that look at how clips lie to each other."""

NEEDS_SCORES = frozenset(AcquireStrategy) - {AcquireStrategy.RANDOM, AcquireStrategy.TYPICAL}
"""The strategies that need the model's predictions."""


@dataclass(frozen=True)
class Candidates:
    """N clips without a label.

    Args:
        score: What :func:`score_clips` says of each, ``(N,)``; anything where the strategy needs none.
        recordings: Which recording each is of, ``(N,)``.
        task: ``"one-of-k"`` or ``"multi-label"``.
        samples: Each draw's probabilities, ``(N, T, K)``, for batch-bald.
        embeddings: ``(N, E)``, for typical and mix.
        known: The embeddings of clips that have a label already, ``(M, E)``; none by default.
        known_recordings: Which recording each clip with a label is of, any number of them.

    Raises:
        ValueError: The shapes or the task do not fit.
    """

    score: NDArray[np.floating]
    recordings: NDArray
    task: str
    samples: NDArray[np.floating] | None = None
    embeddings: NDArray[np.floating] | None = None
    known: NDArray[np.floating] | None = None
    known_recordings: NDArray | None = None
    _number: NDArray[np.intp] = field(init=False, repr=False)
    _taken: NDArray[np.intp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_task(self.task)
        clips = len(self.score)
        shapes = {"score": self.score.shape[1:] == (), "recordings": self.recordings.shape == (clips,)}
        if self.samples is not None:
            shapes["samples"] = self.samples.ndim == 3 and len(self.samples) == clips
        if self.embeddings is not None:
            shapes["embeddings"] = self.embeddings.ndim == 2 and len(self.embeddings) == clips
            shapes["known"] = self.known is None or self.known.shape[1:] == self.embeddings.shape[1:]
        if wrong := [name for name, fits in shapes.items() if not fits]:
            raise ValueError(f"{wrong[0]} {getattr(self, wrong[0]).shape} does not fit {clips} candidates")
        before = self.recordings[:0] if self.known_recordings is None else self.known_recordings
        number = np.unique(np.concatenate([self.recordings, before]), return_inverse=True)[1].reshape(-1)
        object.__setattr__(self, "_number", number[:clips])
        object.__setattr__(self, "_taken", np.bincount(number[clips:], minlength=len(number)))

    def __len__(self) -> int:
        return len(self.score)

    def open(self, chosen: Sequence[int]) -> NDArray[np.bool_]:
        """Which clips may be chosen next, ``(N,)``: of the recordings of which the fewest clips are known or chosen."""
        left, index = np.ones(len(self), dtype=bool), np.array(chosen, dtype=np.intp)
        left[index] = False
        counts = (self._taken + np.bincount(self._number[index], minlength=len(self._taken)))[self._number]
        return left & (counts == counts[left].min()) if left.any() else left

    def first_of_each(self, ordered: NDArray[np.intp]) -> NDArray[np.intp]:
        """The first clip of each recording, in the order given."""
        return ordered[np.sort(np.unique(self._number[ordered], return_index=True)[1])]


@dataclass(frozen=True)
class Batch:
    """The clips to label next.

    Attributes:
        index: B of the candidates, in the order in which they were chosen.
        score: What each was chosen by, ``(B,)``; the more the better.
    """

    index: NDArray[np.intp]
    score: NDArray[np.float64]


def choose_batch(candidates: Candidates, strategy: str, count: int, *, seed: int = 0) -> Batch:
    """Choose the clips to label next; all of them, where there are no more than ``count``.

    Example:
        >>> samples = np.array([[[0.5, 0.5], [0.5, 0.5]], [[0.9, 0.1], [0.1, 0.9]], [[0.9, 0.1], [0.9, 0.1]]])
        >>> score = score_clips(samples, "one-of-k", "bald")
        >>> choose_batch(Candidates(score, np.arange(3), "one-of-k"), "bald", 1).index
        array([1])

    Args:
        candidates: N clips, with what the strategy needs.
        strategy: A word of :class:`~bayes_panns.core.choices.AcquireStrategy`.
        count: How many to choose.
        seed: Of what is random.

    Raises:
        ValueError: ``strategy`` is unknown, or the candidates lack what it needs.
    """
    chosen = AcquireStrategy(strategy)
    count = min(count, len(candidates))
    if not count:
        return Batch(np.empty(0, dtype=np.intp), np.empty(0))
    if chosen is AcquireStrategy.BATCH_BALD:
        return _batch_bald(candidates, count, seed)
    if chosen is AcquireStrategy.TYPICAL:
        return _typical(candidates, count, seed)
    if chosen is AcquireStrategy.MIX:
        return _mix(candidates, count, seed)
    score = np.asarray(candidates.score, dtype=np.float64)
    if chosen is AcquireStrategy.RANDOM:
        score = np.random.default_rng(seed).random(len(candidates))
    return _best(candidates, score, count)


def score_clips(samples: NDArray[np.floating], task: str, strategy: str) -> NDArray[np.float64]:
    """What the predictions of each clip alone say of a label's worth, ``(N,)``.

    For batch-bald it is bald's score, for mix the entropy, which is the weight of a clip.

    Args:
        samples: Each draw's probabilities, ``(N, T, K)``.
        task: ``"one-of-k"`` or ``"multi-label"``.
        strategy: A word of :class:`~bayes_panns.core.choices.AcquireStrategy`.

    Raises:
        ValueError: The strategy needs no predictions.
    """
    chosen = AcquireStrategy(strategy)
    if chosen not in NEEDS_SCORES:
        raise ValueError(f"{strategy} needs no predictions")
    mean = samples.mean(axis=1, dtype=np.float64)
    if chosen in (AcquireStrategy.ENTROPY, AcquireStrategy.MIX):
        return _entropy(mean, task)
    # Rounding may make it negative.
    return np.maximum(_entropy(mean, task) - _expected_entropy(samples, task), 0)


def _entropy(p: NDArray[np.floating], task: str) -> NDArray[np.float64]:
    """The entropy of probabilities ``(..., K)`` in nats, ``(...)``; summed over the labels for multi-label."""

    def terms(q: NDArray[np.floating]) -> NDArray[np.floating]:
        return -q * np.log(np.maximum(q, np.finfo(np.float32).tiny))

    each = terms(p) + terms(1 - p) if task == Task.MULTI_LABEL else terms(p)
    return np.asarray(each.sum(axis=-1), dtype=np.float64)


def _expected_entropy(samples: NDArray[np.floating], task: str) -> NDArray[np.float64]:
    """mean_t H(p_t), ``(N,)``."""
    size = max(1, _NUMBERS // samples[0].size) if len(samples) else 1
    parts = [_entropy(samples[at : at + size], task).mean(axis=1) for at in range(0, len(samples), size)]
    return np.concatenate(parts) if parts else np.empty(0)


def _best(candidates: Candidates, score: NDArray[np.float64], count: int) -> Batch:
    """The clips of the best scores, recording after recording."""
    index = list[int]()
    while len(index) < count:
        allowed = np.flatnonzero(candidates.open(index))
        ordered = candidates.first_of_each(allowed[np.argsort(-score[allowed], kind="stable")])
        index += ordered[: count - len(index)].tolist()
    return Batch(np.array(index, dtype=np.intp), score[index])


def _batch_bald(candidates: Candidates, count: int, seed: int) -> Batch:
    """Greedy choice by the mutual information given the labels of the batch so far.

    With labels y of the batch and their probability P(y) = mean_t prod_i p_t(y_i), the next clip is that of the largest
    sum_y P(y) H(p | y) - mean_t H(p_t), where p given y weighs draw t by prod_i p_t(y_i). This is the difference of two
    joint mutual informations of Kirsch et al., equation 8.
    """
    samples, task = _needed(candidates, "samples"), candidates.task
    expected = _expected_entropy(samples, task)
    # A label never says more once others are known, so an earlier gain bounds a later one.
    bound = _entropy(samples.mean(axis=1, dtype=np.float64), task) - expected
    labels = _Labels(samples.shape[1], task, np.random.default_rng(seed))
    index, score = list[int](), list[float]()
    while len(index) < count:
        allowed = np.flatnonzero(candidates.open(index))
        ordered = allowed[np.argsort(-bound[allowed], kind="stable")]
        size = max(1, _NUMBERS // (len(labels) * samples.shape[2]))
        best, at = -np.inf, 0
        while at < len(ordered) and bound[ordered[at]] > best:
            some = ordered[at : at + size]
            bound[some] = labels.entropy(samples[some]) - expected[some]
            best, at = max(best, float(bound[some].max())), at + size
        winner = int(ordered[:at][np.argmax(bound[ordered[:at]])])
        index.append(winner)
        score.append(max(0.0, float(bound[winner])))
        labels.add(samples[winner])
    return Batch(np.array(index, dtype=np.intp), np.array(score))


class _Labels:
    """The labels that a batch may have: all configurations, or a sample of them.

    Attributes:
        weight: The probability of each draw, given each configuration, ``(M, T)``.
        probability: That of each configuration, ``(M,)``; equal for a sample.
    """

    def __init__(self, draws: int, task: str, random: np.random.Generator) -> None:
        self.weight = np.full((1, draws), 1 / draws, dtype=np.float32)
        self.probability = np.ones(1)
        self._task, self._random, self._sampled = task, random, False

    def __len__(self) -> int:
        return len(self.weight)

    def entropy(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        """The mean over configurations of the entropy of clips ``(n, T, K)`` given each: ``(n,)``."""
        clips, draws, labels = samples.shape
        given = self.weight @ samples.transpose(1, 0, 2).reshape(draws, clips * labels)
        entropies = _entropy(given.reshape(len(self), clips, labels).clip(0, 1), self._task)
        found: NDArray[np.float64] = self.probability @ entropies
        return found

    def add(self, samples: NDArray[np.float32]) -> None:
        """Go on with the labels of one more clip, ``(T, K)``."""
        labels = samples.shape[1]
        few = len(self) * labels <= CONFIGURATIONS
        if self._task == Task.ONE_OF_K and few and not self._sampled:
            given = self.weight @ samples
            joint = (self.weight[:, None] * samples.T).reshape(-1, len(samples))
            probability = (self.probability[:, None] * given).reshape(-1)
            kept = probability > 0
            self.weight, self.probability = joint[kept], probability[kept]
            self.probability /= self.probability.sum()
        else:
            # The labels of a random draw have just their joint probability.
            rows = self._random.choice(len(self), CONFIGURATIONS, p=self.probability / self.probability.sum())
            if self._sampled:
                rows = np.arange(len(self))
            draw = (self.weight[rows].cumsum(axis=1) > self._random.random((len(rows), 1))).argmax(axis=1)
            p = samples[draw]
            if self._task == Task.ONE_OF_K:
                label = (p.cumsum(axis=1) > self._random.random((len(rows), 1)) * p.sum(axis=1, keepdims=True)).argmax(
                    1
                )
                likelihood = np.log(np.maximum(samples.T[label], np.finfo(np.float32).tiny))
            else:
                has = self._random.random(p.shape) < p
                log_p, log_q = (np.log(np.maximum(q, np.finfo(np.float32).tiny)) for q in (samples, 1 - samples))
                likelihood = has @ log_p.T + ~has @ log_q.T
            self.weight = self.weight[rows] * np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
            self.probability, self._sampled = np.full(len(rows), 1 / len(rows)), True
        total = self.weight.sum(axis=1, keepdims=True)
        self.weight = np.where(
            total > 0, self.weight / np.maximum(total, np.finfo(np.float32).tiny), 1 / samples.shape[0]
        )


def _typical(candidates: Candidates, count: int, seed: int) -> Batch:
    """TypiClust: clusters of all clips, as many as labels there will be; the largest without a label come first."""
    embeddings = _needed(candidates, "embeddings")
    known = embeddings[:0] if candidates.known is None else candidates.known
    points = _directions(np.concatenate([embeddings, known]))
    clips = len(candidates)
    cluster = _clusters(points, min(len(known) + count, _MOST_CLUSTERS), seed)[0]
    size = np.bincount(cluster[:clips], minlength=cluster.max() + 1)
    labelled = np.bincount(cluster[clips:], minlength=len(size))
    index, score = list[int](), list[float]()
    density = np.full(clips, np.nan)
    while len(index) < count:
        allowed = candidates.open(index)
        left = np.bincount(cluster[:clips][allowed], minlength=len(size))
        # Fewest labels first, then whether it is more than outliers, then the largest.
        best = min(np.flatnonzero(left), key=lambda each: (labelled[each], size[each] < _SMALLEST, -size[each]))
        members = np.flatnonzero(cluster[:clips] == best)
        if np.isnan(density[members[0]]):
            density[members] = _typicality(points[members])
        members = members[allowed[members]]
        winner = int(members[np.argmax(density[members])])
        index.append(winner)
        score.append(float(density[winner]))
        labelled[best] += 1
    return Batch(np.array(index, dtype=np.intp), np.array(score))


def _mix(candidates: Candidates, count: int, seed: int) -> Batch:
    """CLUE: k-means of the clips, weighted by their entropy; the clip nearest to each centre."""
    points = _directions(_needed(candidates, "embeddings"))
    # Clips of no entropy at all have a place too.
    weight = np.maximum(candidates.score, 1e-6)
    cluster, centres = _clusters(points, count, seed, weight)
    mass = np.bincount(cluster, weight, minlength=len(centres))
    index, score = list[int](), list[float]()
    order = np.argsort(-mass, kind="stable")
    while len(index) < count:
        centre = order[len(index) % len(order)]
        allowed = np.flatnonzero(candidates.open(index))
        distance = np.linalg.norm(points[allowed] - centres[centre], axis=1)
        index.append(int(allowed[np.argmin(distance)]))
        score.append(float(mass[centre]))
    return Batch(np.array(index, dtype=np.intp), np.array(score))


def _needed(candidates: Candidates, what: str) -> NDArray[np.float32]:
    found = getattr(candidates, what)
    if found is None:
        raise ValueError(f"this strategy needs the {what} of the candidates")
    return np.asarray(found, dtype=np.float32)


def _directions(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Embeddings of length 1, as in TypiClust."""
    values = embeddings.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _clusters(
    points: NDArray[np.float32], count: int, seed: int, weight: NDArray[np.floating] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The cluster of each point, from 0, and the centres, by k-means."""
    # It takes longer to import than all of these metrics.
    from sklearn.cluster import KMeans

    distinct = len(np.unique(points, axis=0))
    found = KMeans(min(count, distinct), n_init=1, random_state=seed).fit(points, sample_weight=weight)
    return found.labels_, found.cluster_centers_


def _typicality(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """One over the mean distance to the nearest neighbours among points ``(n, E)``: ``(n,)``."""
    neighbours = max(1, min(_NEIGHBOURS, len(points) // 2))
    found = np.empty(len(points))
    size = max(1, _NUMBERS // len(points))
    squares = (points**2).sum(axis=1)
    for at in range(0, len(points), size):
        some = points[at : at + size]
        distance = np.sqrt(np.maximum(squares[at : at + size, None] + squares - 2 * some @ points.T, 0))
        # The first is the point itself.
        nearest = np.sort(distance, axis=1)[:, 1 : neighbours + 1]
        found[at : at + size] = 1 / (nearest.mean(axis=1) + 1e-6) if nearest.size else 1.0
    return found
