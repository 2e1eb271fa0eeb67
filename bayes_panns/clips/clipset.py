"""Clips of one or several stores as one set, and views, splits and samples of it."""

import copy
import logging
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from bayes_panns.clips import splits
from bayes_panns.clips.store import Store
from bayes_panns.clips.store_format import check_indices
from bayes_panns.core.choices import Holds, SplitRule, Task
from bayes_panns.core.errors import StoreError

logger = logging.getLogger(__name__)

_NOTED = 0.1
"""A share that is missed by more than this part of itself, and by more than a clip, is worth a warning."""


class ClipSet:
    """Clips of one or several stores as one set, and views of it.

    Args:
        stores: Stores, or paths of stores; all of sound with the same sample rate and clip length, or all of embeddings
            of the same model; and with the same labels and task.
        folds: Keep only the clips of these folds; None keeps all.
        labels: Label names for stores that hold none, as in :class:`Store`.

    Raises:
        StoreError: There is no store, one cannot be read or is given twice, two do not agree, or a fold does not exist.

    Example:
        >>> from bayes_panns.clips import write
        >>> target = np.eye(2, dtype=bool)[[0, 1] * 10]
        >>> write("pets.h5", np.zeros((20, 800)), target, ["cat", "dog"], "one-of-k", 16000)
        >>> held, fitted = ClipSet("pets.h5").split(0.2, seed=0)
        >>> held.target().sum(axis=0), len(fitted)
        (array([2, 2]), 16)
    """

    def __init__(
        self,
        stores: str | Path | Store | Sequence[str | Path | Store],
        *,
        folds: Collection[int] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        members = [stores] if isinstance(stores, str | Path | Store) else list(stores)
        if not members:
            raise StoreError("no clip store is given; name at least one")
        self.stores: tuple[Store, ...] = tuple(
            member
            if isinstance(member, Store) and labels is None
            else Store(member.path if isinstance(member, Store) else member, labels=labels)
            for member in members
        )
        self._check_agreement()
        self._offsets = np.cumsum([0, *map(len, self.stores)])
        self._clips = np.arange(self._offsets[-1])
        if folds is not None:
            self._clips = self.select(folds=folds)._clips

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def labels(self) -> tuple[str, ...]:
        """K label names."""
        return self.stores[0].labels

    @property
    def task(self) -> Task:
        """What the labels mean."""
        return self.stores[0].task

    @property
    def holds(self) -> Holds:
        """What there is of each clip: one of :class:`~bayes_panns.core.choices.Holds`."""
        return self.stores[0].holds

    @property
    def contents(self) -> str:
        """What the stores hold, in words."""
        return self.stores[0].contents

    @property
    def width(self) -> int:
        """How many numbers there are of each clip: its samples, or those of its embedding."""
        return self.stores[0].width

    @property
    def model(self) -> str:
        """The model that made the embeddings; empty where that is unknown, and for waveforms."""
        return self.stores[0].model

    @property
    def sample_rate(self) -> int:
        """In Hz; 0 for embeddings."""
        return self.stores[0].sample_rate

    @property
    def samples(self) -> int:
        """Length of each clip, in samples; 0 for embeddings."""
        return self.stores[0].samples

    @property
    def seconds_per_clip(self) -> float:
        """Length of each clip, in seconds; 0 for embeddings."""
        return self.stores[0].seconds_per_clip

    @property
    def names(self) -> list[str]:
        """One name a clip."""
        names = [name for store in self.stores for name in store.names]
        return [names[clip] for clip in self._clips]

    @property
    def folds(self) -> np.ndarray | None:
        """The clips' folds, int32, shape ``(clips,)``; None where a store has none."""
        folds = [store.folds for store in self.stores if store.folds is not None]
        return np.concatenate(folds)[self._clips] if len(folds) == len(self.stores) else None

    @property
    def sources(self) -> np.ndarray | None:
        """The recording each clip was cut from, str, shape ``(clips,)``, empty where unknown; None if no store says."""
        if all(store.sources is None for store in self.stores):
            return None
        return np.concatenate(
            [np.full(len(store), "") if store.sources is None else store.sources for store in self.stores]
        )[self._clips]

    def target(self) -> np.ndarray:
        """The labels of every clip, read into memory: bool, shape ``(clips, K)``.

        Raises:
            StoreError: A store is damaged.
        """
        return np.concatenate([store.target() for store in self.stores])[self._clips]

    def waveform(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Read clips, in any order and with repeats.

        Args:
            indices: Which clips of this set, shape ``(n,)``, each in ``[0, len(self))``.

        Returns:
            float32 waveforms, shape ``(n, samples)``.

        Raises:
            IndexError: An index is out of range.
            StoreError: The stores hold embeddings, or one is damaged.
        """
        return self._read(Store.waveform, indices)

    def embedding(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Read embeddings, in any order and with repeats: float32, shape ``(n, width)``.

        Raises:
            IndexError: An index is out of range.
            StoreError: The stores hold sound, or one is damaged.
        """
        return self._read(Store.embedding, indices)

    def inputs(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Read waveforms or embeddings, whichever there are: float32, shape ``(n, width)``.

        Raises:
            IndexError: An index is out of range.
            StoreError: A store is damaged.
        """
        return self._read(Store.inputs, indices)

    def _read(
        self, read: Callable[[Store, np.ndarray], np.ndarray], indices: Sequence[int] | np.ndarray | torch.Tensor
    ) -> np.ndarray:
        chosen = self.select(indices=np.asarray(indices))
        found = np.empty((len(chosen), self.width), dtype=np.float32)
        for store, positions, rows in chosen.by_store():
            found[positions] = read(store, rows)
        return found

    @property
    def places(self) -> np.ndarray:
        """Where each clip lies: its number among all clips of all stores, in the order of the files: ``(clips,)``."""
        return self._clips

    def by_store(self) -> Iterator[tuple[Store, np.ndarray, np.ndarray]]:
        """The clips, one store after the other.

        Yields:
            A store that holds some of them, their positions in this set, and their indices in the store, both int64 of
            shape ``(n,)``.
        """
        for _, found in self.numbered():
            yield found

    def numbered(self) -> Iterator[tuple[int, tuple[Store, np.ndarray, np.ndarray]]]:
        """As :meth:`by_store`, with the number of each store among :attr:`stores`."""
        owner = np.searchsorted(self._offsets, self._clips, side="right") - 1
        for number in np.unique(owner):
            positions = np.flatnonzero(owner == number)
            yield int(number), (self.stores[number], positions, self._clips[positions] - self._offsets[number])

    def select(
        self, folds: Collection[int] | None = None, indices: Sequence[int] | np.ndarray | None = None
    ) -> "ClipSet":
        """A view of some of the clips.

        Args:
            folds: Keep the clips of these folds.
            indices: Keep these clips of this set, in this order; one that is there twice is kept twice. With ``folds``,
                both must hold.

        Raises:
            IndexError: An index is out of range.
            StoreError: No clip of this set is in one of the folds, or a store has no folds.
        """
        view = copy.copy(self)
        if indices is not None:
            view._clips = self._clips[check_indices(indices, len(self))]
        if folds is not None:
            chosen = self._clips[np.isin(self._known_folds(), self._checked_folds(folds))]
            view._clips = view._clips[np.isin(view._clips, chosen)]
        return view

    def split(
        self, fraction: float, seed: int, *, rule: SplitRule | str = SplitRule.STRATIFIED
    ) -> tuple["ClipSet", "ClipSet"]:
        """Hold out a share of the clips, with all clips of one recording on one side.

        The share is the nearest to ``fraction`` that whole recordings allow, and the same for each label as far as they
        allow it; :func:`~bayes_panns.clips.splits.stratified_split` says how. A label with two or more recordings
        always keeps one on the second side. A clip of unknown source counts as a recording of its own. A share that is
        missed, and labels that are lost to the first side, are logged as warnings.

        Args:
            fraction: Share of the clips for the first set, in (0, 1).
            seed: The same seed gives the same split.
            rule: How: ``stratified``; or ``prefix``, to find the held-out clips of an old run again.

        Returns:
            The clips that are held out, and the others. Neither view is empty; each clip is in one of them.

        Raises:
            StoreError: ``fraction`` is out of range, or all clips are of one recording.
        """
        if not 0 < fraction < 1:
            raise StoreError(f"a split takes a fraction between 0 and 1, not {fraction}")
        recording = self.recordings
        count = len(np.unique(recording))
        if count < 2:
            raise StoreError(
                f"{self._paths()}: its {len(self)} clips are of {count} recording{'s'[: count != 1]}; a split needs "
                "two or more, because the clips of one stay together; add clips of other recordings"
            )
        target = self.target()
        if SplitRule(rule) is SplitRule.PREFIX:
            held = splits.prefix_split(recording, fraction, seed)
        else:
            held = splits.stratified_split(recording, target, fraction, seed)
            self._warn_of_split(held, target, fraction)
        return self.select(indices=np.flatnonzero(held)), self.select(indices=np.flatnonzero(~held))

    def sample(self, share: float, seed: int) -> "ClipSet":
        """A random part of the clips. A smaller share's clips are among a larger one's, for the same seed.

        Where each clip has exactly one label, each label gets the same share, and at least one clip. Otherwise clips
        are drawn without regard to their labels, and one is added of each label that would have none. Clips are drawn,
        not recordings. A share that these rules exceed is logged as a warning.

        Args:
            share: Share of the clips, in (0, 1].
            seed: The same seed gives the same clips.

        Raises:
            StoreError: ``share`` is out of range, or there are no clips.
        """
        if not 0 < share <= 1:
            raise StoreError(f"a sample takes a share above 0 and up to 1, not {share}")
        if not len(self):
            raise StoreError(f"{self._paths()}: no clip is selected, so none can be sampled; select some")
        target = self.target()
        one_of_k = self.task is Task.ONE_OF_K and target.shape[1] > 0
        chosen = splits.sample(target.argmax(axis=1) if one_of_k else None, target, share, seed)
        if len(chosen) - share * len(self) > max(1, _NOTED * share * len(self)):
            logger.warning(
                f"{self._paths()}: the sample is {len(chosen)} of {len(self)} clips ({len(chosen) / len(self):.3g} of "
                f"them), not {share:.3g}, so that each label has a clip"
            )
        return self.select(indices=chosen)

    def recording_folds(self, folds: int, seed: int, recordings: np.ndarray | None = None) -> np.ndarray:
        """The fold of each clip in a cross-validation over whole recordings; one-of-K clips are stratified by label.

        Args:
            folds: The most folds, 2 or more; there are never more than recordings, nor, for one-of-K clips, more than
                the median label has.
            seed: The same seed gives the same folds.
            recordings: Which recording each clip is of, by default :attr:`recordings`.

        Returns:
            Folds from 0, int64 ``(clips,)``; all 0 if all clips are of one recording.
        """
        target = self.target()
        label = target.argmax(axis=1) if self.task is Task.ONE_OF_K and target.shape[1] > 0 else None
        return splits.recording_folds(self.recordings if recordings is None else recordings, label, folds, seed)

    @property
    def recordings(self) -> np.ndarray:
        """Which recording each clip is of, numbered from 0 in order of appearance: int64 ``(clips,)``.

        Clips of unknown recordings are of one each.
        """
        sources = self.sources
        keys = [
            clip if sources is None or not sources[position] else str(sources[position])
            for position, clip in enumerate(self._clips.tolist())
        ]
        number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        return np.array([number[key] for key in keys], dtype=np.int64)

    def _warn_of_split(self, held: np.ndarray, target: np.ndarray, fraction: float) -> None:
        got, wanted = int(held.sum()), fraction * len(self)
        if abs(got - wanted) > max(1, _NOTED * min(wanted, len(self) - wanted)):
            logger.warning(
                f"{self._paths()}: {got} of {len(self)} clips ({got / len(self):.3g}) are held out, not the share "
                f"{fraction:.3g} that was asked for, because the clips of one recording stay together"
            )
        lost = np.flatnonzero(target[held].any(axis=0) & ~target[~held].any(axis=0))
        if len(lost):
            names = ", ".join(repr(self.labels[label]) for label in lost[:3]) + (", ..." if len(lost) > 3 else "")
            logger.warning(
                f"{self._paths()}: every clip with the label {names} is held out, so a fit to the others cannot learn "
                "it: it has one recording only; add recordings"
            )

    def _known_folds(self) -> np.ndarray:
        folds = self.folds
        if folds is None:
            path = next(store.path for store in self.stores if store.folds is None)
            raise StoreError(f"{path}: has no folds to choose from; leave the folds out")
        return folds

    def _checked_folds(self, folds: Collection[int]) -> list[int]:
        known = set(self._known_folds().tolist())
        there = ", ".join(map(str, sorted(known))) or "none"
        try:
            wanted = [operator.index(fold) for fold in folds]
        except TypeError as error:
            raise StoreError(
                f"{self._paths()}: folds are a list of whole numbers, not {folds!r}; there are {there}"
            ) from error
        unknown = sorted(set(wanted) - known)
        if unknown or not wanted:
            asked = f"no clip is in fold {', '.join(map(str, unknown))}" if unknown else "no fold is chosen"
            raise StoreError(f"{self._paths()}: {asked}; there are {there}")
        return wanted

    def _paths(self) -> str:
        return ", ".join(str(store.path) for store in self.stores)

    def _check_agreement(self) -> None:
        for store in self.stores:
            store.require_rate()
        reference, *others = self.stores
        seen = {reference.path.resolve()}
        for other in others:
            if other.path.resolve() in seen:
                raise StoreError(f"{other.path}: is given twice; name each store once")
            seen.add(other.path.resolve())
            for what in ("holds", "sample_rate", "samples", "width", "model", "task"):
                here, there = getattr(reference, what), getattr(other, what)
                if here != there:
                    raise StoreError(
                        f"{reference.path} and {other.path} differ in {what.replace('_', ' ')}: {here} and {there}; "
                        "pack both the same way"
                    )
            if len(reference.labels) != len(other.labels):
                raise StoreError(
                    f"{reference.path} and {other.path} differ in labels: {len(reference.labels)} and "
                    f"{len(other.labels)} of them; pack both the same way"
                )
            for index, (here, there) in enumerate(zip(reference.labels, other.labels, strict=True)):
                if here != there:
                    raise StoreError(
                        f"{reference.path} and {other.path} differ in labels: label {index} is {here!r} and {there!r}; "
                        "pack both the same way"
                    )
