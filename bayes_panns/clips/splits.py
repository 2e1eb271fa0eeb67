"""Parts of a set of clips: splits over whole recordings, and samples. Pure functions of arrays.

A split holds out a share of the clips. All clips of a recording stay on one side: two cuts of one recording are so
alike that a score on one tells little after a fit to the other.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy import sparse

_SLACK = 0.5
"""How far the share may be missed, as a part of itself, for a label whose only recording stays on the fitted side."""

_ATTEMPTS, _WORK = 32, 100_000
"""The most random orders that are tried to meet the share, and the most recordings in all of them together."""

_ROUNDING = 1e-6
"""Clips; shares that differ by less are equally near."""


def stratified_split(recording: np.ndarray, target: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Hold out the nearest share of the clips over whole recordings, with each label in proportion.

    Iterative stratification (Sechidis et al., 2011) over recordings: label by label, rarest first, recordings are taken
    in random order while they bring the label's share, and the share of all clips seen so far, nearer to ``fraction``.
    What is then missing from the share is met by adding, removing or exchanging single recordings. Where a small set
    still misses it, other random orders are tried.

    No label loses all its recordings to the held-out side, if it has two or more. One with a single recording keeps it
    on the fitted side, unless the share would then be missed by more than half of itself.

    Args:
        recording: Which recording each clip is of: whole numbers from 0 to R-1 without a gap, R at least 2, shape
            ``(clips,)``.
        target: bool, shape ``(clips, K)``.
        fraction: The share of the clips to hold out, in (0, 1).
        seed: The same seed gives the same split.

    Returns:
        Which clips are held out: bool, shape ``(clips,)``, neither all nor none.
    """
    strict = _nearest(recording, target, fraction, seed, spare_single=False)
    missed, wanted = abs(strict.sum() - fraction * len(recording)), min(fraction, 1 - fraction) * len(recording)
    if strict.any() and missed <= _SLACK * wanted:
        return strict
    relaxed = _nearest(recording, target, fraction, seed, spare_single=True)
    nearer = abs(relaxed.sum() - fraction * len(recording)) < missed - _ROUNDING
    return relaxed if nearer or not strict.any() else strict


def prefix_split(recording: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Hold out the first recordings of one random order: the rule of runs that do not record which rule they used.

    Args:
        recording: As in :func:`stratified_split`.
        fraction: The share of the clips to hold out, in (0, 1).
        seed: The same seed gives the same split.

    Returns:
        Which clips are held out: bool, shape ``(clips,)``, neither all nor none.
    """
    size = np.bincount(recording)
    order = np.random.default_rng(seed).permutation(len(size))
    return np.isin(recording, order[: _nearest_prefix(size[order], fraction * len(recording))])


def sample(label: np.ndarray | None, target: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A random part of the clips. A smaller share's clips are among a larger one's, for the same seed.

    Args:
        label: The label of each clip, int, shape ``(clips,)``: then each label gets the same share, and at least one
            clip. None draws from all clips alike, and adds a clip of each label that would have none.
        target: bool, shape ``(clips, K)``.
        share: The share of the clips, in (0, 1].
        seed: The same seed gives the same clips.

    Returns:
        The clips' indices, ascending, int64.
    """
    order = np.random.default_rng(seed).permutation(len(target))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    group = np.zeros(len(target), dtype=np.int64) if label is None else label
    members = [order[group[order] == each] for each in np.unique(group)]
    chosen = [each[: max(1, round(share * len(each)))] for each in members]
    if label is None:
        clip, of_label = target.nonzero()
        first = np.full(target.shape[1], len(target))
        np.minimum.at(first, of_label, rank[clip])
        chosen.append(order[first[first < len(target)]])
    return np.unique(np.concatenate(chosen))


def recording_folds(recording: np.ndarray, label: np.ndarray | None, folds: int, seed: int) -> np.ndarray:
    """The fold of each clip in a cross-validation over whole recordings.

    Args:
        recording: As in :func:`stratified_split`.
        label: The label of each clip, int, shape ``(clips,)``: then each fold gets each label in proportion. Without
            it the folds are of equal size.
        folds: The most folds, 2 or more; there are never more than recordings, nor, of labels, more than the median
            label has.
        seed: The same seed gives the same folds.

    Returns:
        The folds, from 0, int64, shape ``(clips,)``; all 0 if there is only one recording.
    """
    # Slow to import, and wanted only here.
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    count = min(folds, len(np.unique(recording)))
    if label is not None:
        # A fold without a clip of most labels would say little; a few rare labels decide nothing.
        each = [len(np.unique(recording[label == one])) for one in np.unique(label)]
        count = min(count, max(2, int(np.median(each))))
    found = np.zeros(len(recording), dtype=np.int64)
    if count < 2:
        return found
    splitter: GroupKFold | StratifiedGroupKFold
    if label is None or np.bincount(label).max() < count:
        splitter = GroupKFold(count, shuffle=True, random_state=seed)
    else:
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # It warns of a label with fewer clips than folds.
        warnings.simplefilter("ignore", UserWarning)
        parts = list(splitter.split(recording, label, recording))
    for fold, (_, held) in enumerate(parts):
        found[held] = fold
    return found


@dataclass(frozen=True)
class _Recordings:
    """R recordings, in random order.

    Attributes:
        size: Clips of each, shape ``(R,)``.
        labels: Clips of each that have each label, sparse, shape ``(R, K)``.
    """

    size: np.ndarray
    labels: sparse.csr_matrix

    @classmethod
    def of(cls, recording: np.ndarray, target: np.ndarray) -> _Recordings:
        clip, label = target.nonzero()
        shape = (int(recording.max()) + 1, target.shape[1])
        # Slow to import, and only a split needs it.
        from scipy import sparse

        counts = sparse.csr_matrix((np.ones(len(clip), dtype=np.int64), (recording[clip], label)), shape=shape)
        counts.sum_duplicates()
        return cls(np.bincount(recording), counts)

    @cached_property
    def by_label(self) -> sparse.csc_matrix:
        return self.labels.tocsc()

    @cached_property
    def clips(self) -> np.ndarray:
        """Clips a label, ``(K,)``."""
        return np.asarray(self.labels.sum(axis=0)).ravel()

    @cached_property
    def holders(self) -> np.ndarray:
        """Recordings a label, ``(K,)``."""
        return np.diff(self.by_label.indptr)

    def of_recording(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The labels of a recording, and how many of its clips have each."""
        part = slice(self.labels.indptr[index], self.labels.indptr[index + 1])
        return self.labels.indices[part], self.labels.data[part]


def _nearest(
    recording: np.ndarray, target: np.ndarray, fraction: float, seed: int, *, spare_single: bool
) -> np.ndarray:
    """The split of several random orders that comes nearest to the share; none held out if no recording may be.

    ``spare_single`` lets a label lose its only recording.
    """
    generator = np.random.default_rng(seed)
    count, wanted = int(recording.max()) + 1, fraction * len(recording)
    nearest, missed = np.zeros(len(recording), dtype=bool), np.inf
    for _ in range(max(1, min(_ATTEMPTS, _WORK // count))):
        order = generator.permutation(count)
        rank = np.empty_like(order)
        rank[order] = np.arange(count)
        recordings = _Recordings.of(rank[recording], target)
        held = _search(recordings, fraction, spare=(recordings.holders == 1) & spare_single)
        if _missed(recordings, held, wanted) < missed - _ROUNDING:
            nearest, missed = held[rank[recording]], _missed(recordings, held, wanted)
        # No whole number of clips is nearer than half a clip, and often recordings allow less.
        if missed <= 0.5 or missed <= _least_missed(recordings.size, wanted) + _ROUNDING:
            break
    return nearest


def _search(recordings: _Recordings, fraction: float, spare: np.ndarray) -> np.ndarray:
    """Which recordings to hold out, bool ``(R,)``; none if no recording may be.

    Every label keeps a recording on the fitted side, but for those that are ``spare``, bool ``(K,)``.
    """
    wanted = fraction * recordings.size.sum()
    held = _iterative_stratification(recordings, fraction, spare)
    _approach(recordings, held, fraction, spare)
    prefix = _prefix(recordings, wanted, spare)
    return prefix if _missed(recordings, prefix, wanted) < _missed(recordings, held, wanted) else held


def _iterative_stratification(recordings: _Recordings, fraction: float, spare: np.ndarray) -> np.ndarray:
    size, count = recordings.size, len(recordings.size)
    held, decided = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    left = np.where(spare, count + 1, recordings.holders)  # recordings of a label on the fitted side
    held_of_label = np.zeros(len(left), dtype=np.int64)
    held_clips = held_count = seen = 0
    # Ties between equally rare labels are broken by the random order of the recordings.
    first = np.array([_first(recordings.by_label, label) for label in range(len(left))], dtype=np.int64)
    for label in [*np.lexsort((first, recordings.clips)), None]:
        if label is None:
            members = np.flatnonzero(~decided)
            clips = np.zeros(len(members), dtype=np.int64)
        else:
            part = slice(recordings.by_label.indptr[label], recordings.by_label.indptr[label + 1])
            members, clips = recordings.by_label.indices[part], recordings.by_label.data[part]
            undecided = ~decided[members]
            members, clips = members[undecided], clips[undecided]
        decided[members] = True
        seen += int(size[members].sum())
        excess = 0.0 if label is None else held_of_label[label] - fraction * recordings.clips[label]
        total = held_clips - fraction * seen
        for index, of_label in zip(members.tolist(), clips.tolist(), strict=True):
            clips_there = int(size[index])
            after = (excess + of_label) ** 2 + (total + clips_there) ** 2
            if after >= excess**2 + total**2:
                continue
            labels, numbers = recordings.of_recording(index)
            if held_count == count - 1 or (left[labels] < 2).any():
                continue
            held[index] = True
            held_count += 1
            left[labels] -= 1
            held_of_label[labels] += numbers
            held_clips += clips_there
            excess, total = excess + of_label, total + clips_there
    return held


def _approach(recordings: _Recordings, held: np.ndarray, fraction: float, spare: np.ndarray) -> None:
    """Add, remove or exchange single recordings in ``held`` as long as that brings the share nearer."""
    size, labels = recordings.size, recordings.labels
    wanted = fraction * size.sum()
    while True:
        lacking = wanted - size[held].sum()
        # How much more of its labels the held-out side wants, on average over the labels.
        held_of_label = held @ labels
        want = labels @ ((fraction * recordings.clips - held_of_label) / recordings.clips.clip(min=1))
        left = recordings.holders - held @ (labels > 0).astype(np.int64)
        may_go = ~held & ~(labels @ ((left < 2) & ~spare)).astype(bool)
        if held.sum() >= len(held) - 1:
            may_go[:] = False
        goes, stays = _best_of_each_size(size, may_go, want), _best_of_each_size(size, held, -want)
        moves: list[tuple[float, int | None, int | None]]
        moves = [(abs(lacking - each), one, None) for each, one in goes.items()]
        if held.sum() > 1:
            moves += [(abs(lacking + each), None, one) for each, one in stays.items()]
        moves += [
            (abs(lacking - out + back), one, other)
            for out, one in goes.items()
            for back, other in stays.items()
            if out != back
        ]
        # Of equally near ones the first: a single recording before an exchange.
        missed, one, other = min(moves, key=lambda move: move[0], default=(np.inf, None, None))
        if not moves or (held.any() and missed > abs(lacking) - _ROUNDING):
            return
        if one is not None:
            held[one] = True
        if other is not None:
            held[other] = False


def _best_of_each_size(size: np.ndarray, among: np.ndarray, want: np.ndarray) -> dict[int, int]:
    """Of each size that occurs ``among`` the recordings, the most wanted one, and of equals the first."""
    indices = np.flatnonzero(among)
    indices = indices[np.lexsort((indices, -want[indices], size[indices]))]
    sizes, first = np.unique(size[indices], return_index=True)
    return dict(zip(sizes.tolist(), indices[first].tolist(), strict=True))


def _prefix(recordings: _Recordings, wanted: float, spare: np.ndarray) -> np.ndarray:
    """The first recordings that come nearest to ``wanted`` clips, among prefixes that leave every label a recording."""
    held = np.zeros(len(recordings.size), dtype=bool)
    last = [_last(recordings.by_label, label) for label in np.flatnonzero(~spare & (recordings.holders > 0)).tolist()]
    most = min([len(held) - 1, *last])
    if most:
        held[: _nearest_prefix(recordings.size[: most + 1], wanted)] = True
    return held


def _least_missed(size: np.ndarray, wanted: float) -> float:
    """The least by which any choice of recordings misses the share, labels aside; 0 where that takes long to find."""
    total = int(size.sum())
    if total > _WORK or len(size) > _WORK // 10:
        return 0.0
    reached = 1  # bit n: some recordings have n clips together
    for each in size.tolist():
        reached |= reached << each
    sums = np.flatnonzero(np.frombuffer(bin(reached)[:1:-1].encode(), dtype=np.uint8) == ord("1"))
    # Neither none of the recordings nor all of them.
    return float(np.abs(sums[1:-1] - wanted).min())


def _nearest_prefix(size: np.ndarray, wanted: float) -> int:
    """How many of the first recordings, from 1 to all but the last, have nearest to ``wanted`` clips."""
    return 1 + int(np.abs(np.cumsum(size)[:-1] - wanted).argmin())


def _missed(recordings: _Recordings, held: np.ndarray, wanted: float) -> float:
    return float(abs(recordings.size[held].sum() - wanted)) if held.any() else np.inf


def _first(by_label: sparse.csc_matrix, label: int) -> int:
    part = by_label.indices[by_label.indptr[label] : by_label.indptr[label + 1]]
    return int(part.min()) if len(part) else -1


def _last(by_label: sparse.csc_matrix, label: int) -> int:
    part = by_label.indices[by_label.indptr[label] : by_label.indptr[label + 1]]
    return int(part.max())
