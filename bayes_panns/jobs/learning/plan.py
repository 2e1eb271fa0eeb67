"""What ``learn`` will do with somebody's clips, decided before anything is computed.

How much is held out is a question of how much there is. Every fit that is scored is fitted to four fifths of the
recordings, in a cross-validation, so that all clips are scored and the interval is as narrow as they allow. What is
left to decide is what the posterior that is kept is fitted to:

* with fewer than :data:`MANY` recordings, to all clips. A fifth of 40 recordings is 8: too few for label sets of a
  coverage of 0.9, and their accuracy would be known to within a fifth. The label sets rest on the predictions of the
  cross-validation, each by a fit that has not heard the recording (cross-conformal prediction: Vovk, 2015,
  arXiv:1208.0806; Barber et al., 2021, arXiv:1905.02928).
* with more, to all but a fifth. That costs next to nothing of the accuracy, and label sets of the posterior itself,
  from clips that it has not heard, have the guarantee of split conformal prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from bayes_panns.audio.recording import Recording
from bayes_panns.audio.walking import walk
from bayes_panns.clips import Catalog, ClipSet, Store, folder, with_folds
from bayes_panns.clips.lengths import LENGTHS, Cut, choose_seconds, cut_long, lengths_of
from bayes_panns.clips.recordings import Recognised, with_recordings
from bayes_panns.core.choices import ClassShares, Holds, RecordingsBy, Target, Task
from bayes_panns.core.digests import digest_of
from bayes_panns.core.errors import AudioError, StoreError
from bayes_panns.core.files import require_folder
from bayes_panns.core.text import printable
from bayes_panns.jobs.inputs import contents
from bayes_panns.jobs.learning.cost import (
    Cost,
    Foundation,
    check_seconds,
    cost_of,
    embedding_seconds,
    fit_seconds,
    memory,
)
from bayes_panns.jobs.learning.messages import only
from bayes_panns.jobs.learning.remarks import LabelCount, file_remarks, label_remarks_of

RECIPE = "rotated-head"
"""The run recipe of every fit."""

FOLDS = 5
"""Folds of the cross-validation, where the recordings allow so many and the clips have none of their own."""

MANY, HELD_OUT = 1000, 0.2
"""From so many recordings on, this share of the clips is held out of the fit that is kept."""


@dataclass(frozen=True)
class Plan:
    """What ``learn`` will do.

    Attributes:
        source: The folder, table or store of clips.
        folder: Where the posterior and all else goes.
        task: What the labels mean.
        labels: The labels, with their counts.
        clips: How many clips there are.
        recordings: How many recordings they are of.
        by: How the recordings were recognised, in words.
        seconds: Length of a clip; 0 for embeddings.
        length: Why, in words.
        foundation: The network; None for embeddings of another model.
        contents: What there is of a clip, in words.
        folds: Folds of the cross-validation.
        own_folds: Whether the clips had these folds.
        held_out: The share of clips that the posterior that is kept is not fitted to.
        classes: How frequent the classes are taken to be.
        target: What decisions are to meet, if any are to be made.
        value: How much of it.
        remarks: What a user should know or mend, a sentence each.
        skipped: Files that cannot be read, each with the reason.
        cost: What it will take.
        seed: Of folds and fits.
        catalog: What to pack; None for a store.
        store: The store; None for a catalog.
        store_folds: The folds of a store that has none.
        digest: Of all that decides the result.
    """

    source: Path
    folder: Path
    task: Task
    labels: tuple[LabelCount, ...]
    clips: int
    recordings: int
    by: str
    seconds: float
    length: str
    foundation: Foundation | None
    contents: str
    folds: int
    own_folds: bool
    held_out: float
    classes: ClassShares
    remarks: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    cost: Cost
    seed: int
    digest: str
    catalog: Catalog | None = field(default=None, repr=False)
    store: Path | None = None
    store_folds: NDArray[np.int64] | None = field(default=None, repr=False)
    target: Target | None = None
    value: float | None = None


def make_plan(
    source: str | Path,
    folder: str | Path,
    foundation: Foundation,
    *,
    seconds: float | None = None,
    recordings: RecordingsBy | str = RecordingsBy.AUTO,
    classes: ClassShares | str = ClassShares.AS_LABELLED,
    seed: int = 0,
) -> Plan:
    """Look at clips, and decide what to do with them; nothing is written.

    Args:
        source: A folder with a sub-folder a class; a CSV of files and labels; labels with times, beside their
            recordings or in a table; or a clip store.
        folder: Where the results will go.
        foundation: The network to start from.
        seconds: Length of the clips; by default chosen from how long the recordings are.
        recordings: How clips of one recording are recognised.
        classes: How frequent the classes are taken to be, where each clip has one label.
        seed: Of folds and fits.

    Raises:
        StoreError: There are no clips, no labels, or too few of them to learn and to check anything.
        OutputError: The folder cannot be written.
    """
    source, place, classes = Path(source), Path(folder), ClassShares(classes)
    require_folder(place)
    if source.is_file() and h5py.is_hdf5(source):
        return _of_store(Store(source), place, foundation, seconds, classes, seed)
    catalog, length, skipped, cut, lengths = _cut_catalog(source, seconds, recordings)
    recognised = cut[0]
    _require_labels(source, catalog)
    own = all(clip.fold is not None for clip in catalog.clips) and len({clip.fold for clip in catalog.clips}) > 1
    if not own:
        catalog = replace(catalog, clips=tuple(replace(clip, fold=None) for clip in catalog.clips))
    numbers: dict[str, int] = {}
    recording = np.array([numbers.setdefault(clip.source or f"\0{clip.name}", len(numbers)) for clip in catalog.clips])
    target = np.zeros((len(catalog.clips), len(catalog.labels)), dtype=bool)
    for row, clip in enumerate(catalog.clips):
        target[row, list(clip.labels)] = True
    counts = _counts(catalog.labels, target, recording)
    _require_enough(source, catalog.task, counts, len(catalog.clips), len(numbers))
    if not own:
        with only("WARNING", "clips"):
            catalog = with_folds(catalog, FOLDS, seed, fewer=True)
    folds = len({clip.fold for clip in catalog.clips})
    remarks = [
        *label_remarks_of(catalog.labels, counts, len(catalog.clips), catalog.task),
        *file_remarks(catalog, recognised, cut[1], lengths, skipped),
    ]
    return Plan(
        source=source,
        folder=place,
        task=catalog.task,
        labels=counts,
        clips=len(catalog.clips),
        recordings=len(numbers),
        by=_by(recognised),
        seconds=catalog.seconds,
        length=length,
        foundation=foundation,
        contents=f"clips of {catalog.seconds:g} s, {foundation.sample_rate} Hz",
        folds=folds,
        own_folds=own,
        held_out=HELD_OUT if len(numbers) >= MANY else 0.0,
        classes=_shares(source, catalog.task, classes),
        remarks=tuple(remarks),
        skipped=skipped,
        cost=cost_of(catalog, foundation, folds),
        seed=seed,
        digest=digest_of(_decides(catalog, foundation) | {"seed": seed, "classes": classes}),
        catalog=catalog,
    )


def _of_store(
    store: Store, place: Path, foundation: Foundation, seconds: float | None, classes: ClassShares, seed: int
) -> Plan:
    """The plan for a store, whose clips stay as they are."""
    clips = ClipSet(store)
    if seconds is not None and clips.holds == Holds.WAVEFORMS and seconds != clips.seconds_per_clip:
        raise StoreError(f"{store.path}: its clips are {clips.seconds_per_clip:g} s long; leave the length out")
    sound = clips.holds == Holds.WAVEFORMS
    if sound and clips.sample_rate != foundation.sample_rate:
        raise StoreError(
            f"{store.path}: its clips are of {clips.sample_rate} Hz, and the network takes {foundation.sample_rate}; "
            f"pack it again with --sample-rate {foundation.sample_rate}"
        )
    if not clips.labels:
        raise StoreError(f"{store.path}: its clips have no labels to learn; pack them with labels")
    recording, target = clips.recordings, clips.target()
    counts = _counts(clips.labels, target, recording)
    number = int(recording.max()) + 1
    _require_enough(store.path, clips.task, counts, len(clips), number)
    known = clips.folds
    own = known is not None and len(np.unique(known)) > 1
    folds = known if known is not None and own else clips.recording_folds(FOLDS, seed)
    made = len(np.unique(folds))
    each = embedding_seconds(foundation, clips.seconds_per_clip) if sound else 0.0
    size = 0 if own else store.path.stat().st_size
    return Plan(
        source=store.path,
        folder=place,
        task=clips.task,
        labels=counts,
        clips=len(clips),
        recordings=number,
        by="as the store says"
        if clips.sources is not None
        else "the store names none, so every clip is one of its own",
        seconds=clips.seconds_per_clip,
        length="the store's",
        foundation=foundation if sound else None,
        contents=clips.contents,
        folds=made,
        own_folds=own,
        held_out=HELD_OUT if number >= MANY else 0.0,
        classes=_shares(store.path, clips.task, classes),
        remarks=tuple(label_remarks_of(clips.labels, counts, len(clips), clips.task)),
        skipped=(),
        cost=Cost(
            packing=0.0,
            embeddings=each * len(clips),
            fits=fit_seconds(len(clips), len(clips.labels), made),
            check=check_seconds(len(clips)),
            disk=size,
            memory=memory(len(clips)),
        ),
        seed=seed,
        digest=digest_of({"store": contents(clips), "names": clips.names, "seed": seed, "classes": classes}),
        store=store.path,
        store_folds=None if own else np.asarray(folds, dtype=np.int64) + 1,
    )


def _cut_catalog(
    source: Path, seconds: float | None, by: RecordingsBy | str
) -> tuple[Catalog, str, tuple[tuple[str, str], ...], tuple[Recognised, Cut], NDArray[np.float64]]:
    """The catalog, cut; why its clips are so long; the files that cannot be read; and what was found on the way."""
    longest = LENGTHS[-1] if seconds is None else seconds
    catalog = folder(source, seconds=longest)
    if seconds is None and any(clip.seconds is not None for clip in catalog.clips):
        # With the sound around them all would be of one length.
        catalog = _stretches(source, longest) or catalog
    lengths = lengths_of(catalog)
    there = np.isfinite(lengths) & (lengths > 0)
    skipped = tuple(_unreadable(clip.name, clip.path) for clip, ok in zip(catalog.clips, there, strict=True) if not ok)
    if not there.any():
        raise StoreError(f"{source}: none of its {len(skipped)} files can be read; the first, {': '.join(skipped[0])}")
    chosen, length = (seconds, "as asked for") if seconds is not None else choose_seconds(lengths[there])
    if "labels" in catalog.options:
        catalog = folder(source, seconds=chosen)
        lengths = np.array([clip.seconds or chosen for clip in catalog.clips])
    else:
        catalog = replace(catalog, clips=tuple(clip for clip, ok in zip(catalog.clips, there, strict=True) if ok))
        lengths = lengths[there]
    recognised = with_recordings(catalog, by)
    cut = cut_long(recognised.catalog, lengths, chosen)
    return cut.catalog, length, skipped, (recognised, cut), lengths


def _stretches(source: Path, longest: float) -> Catalog | None:
    """The labelled stretches themselves; None where some are points in time, which have no length."""
    try:
        return folder(source, seconds=longest, context=False)
    except StoreError:
        return None


def _unreadable(name: str, path: Path) -> tuple[str, str]:
    try:
        with Recording(path, 32000, seconds=0.1) as recording:
            next(iter(recording))
    except AudioError as error:
        return name, str(error).removeprefix(f"{printable(str(path))}: ")
    except Exception as error:  # Whatever a decoder raises.
        return name, printable(str(error) or type(error).__name__)
    return name, "holds no sound"


def _require_labels(source: Path, catalog: Catalog) -> None:
    """Check that there is something to tell apart.

    Raises:
        StoreError: There are no labels, or one that all clips have.
    """
    only = catalog.labels
    if catalog.task is Task.UNLABELLED:
        only = tuple({path.relative_to(source).parts[0] for path in walk(source).files if path.parent != source})
        if len(only) != 1:
            raise StoreError(
                f"{source}: its recordings have no labels; put them into one sub-folder a class, or name a CSV with "
                "the columns file and labels, or a table of labels with times"
            )
    if len(only) == 1 and catalog.task is not Task.MULTI_LABEL:
        how = "; pack timed --exhaustive makes such clips, if all is labelled" if "labels" in catalog.options else ""
        raise StoreError(
            f"{source}: has the one class {printable(only[0])!r}, and a sound can be told only from others; add a "
            f"class such as background, with about as many clips of the same places in which it is not heard{how}"
        )


def _require_enough(source: Path, task: Task, counts: Sequence[LabelCount], clips: int, recordings: int) -> None:
    """Check that something can be both learned and scored.

    Raises:
        StoreError: All clips are of one recording, or fewer than two labels (for multi-label, one) have two recordings.
    """
    if recordings < 2:
        raise StoreError(
            f"{source}: its {clips} clips are all of one recording, so none can be scored by a fit that has not heard "
            "it; add other recordings, or take every file for one of its own with --recordings files"
        )
    enough = [each for each in counts if each.recordings >= 2]
    least = 2 if task is Task.ONE_OF_K else 1
    if len(enough) < least:
        has = ", ".join(f"{printable(each.label)} {each.recordings}" for each in counts[:5])
        raise StoreError(
            f"{source}: {least} of its classes must have two recordings or more, one to learn from and one to check; "
            f"recordings a class: {has}; add recordings"
        )


def _counts(labels: Sequence[str], target: NDArray[np.bool_], recording: NDArray[np.integer]) -> tuple[LabelCount, ...]:
    return tuple(
        LabelCount(label, int(has.sum()), len(np.unique(recording[has])))
        for label, has in zip(labels, target.T, strict=True)
    )


def _by(found: Recognised) -> str:
    """How recordings were recognised, in words."""
    words = {
        RecordingsBy.SOURCES: "as the labels' source says",
        RecordingsBy.FOLDERS: "by sub-folders",
        RecordingsBy.NAMES: "by the beginning of the names",
        RecordingsBy.FILES: "every file is one of its own",
    }[found.by]
    if found.example is None or found.by is RecordingsBy.FILES:
        return words
    name, clips = found.example
    return f"{words}, such as {printable(name)} with {clips} clips"


def _shares(source: Path, task: Task, classes: ClassShares) -> ClassShares:
    """How frequent the classes are taken to be.

    Raises:
        StoreError: Equal shares are asked for, and a clip may have several labels.
    """
    if classes is ClassShares.EQUAL and task is not Task.ONE_OF_K:
        raise StoreError(
            f"{source}: its clips have any number of labels, so there are no shares of classes; leave them"
        )
    return classes


def _decides(catalog: Catalog, foundation: Foundation) -> dict[str, object]:
    """What decides the result, but for the network."""

    def about(path: Path) -> list[int]:
        try:
            status = path.stat()
        except OSError:
            return []
        return [status.st_size, status.st_mtime_ns]

    clips = [
        [clip.name, list(clip.labels), clip.fold, clip.source, clip.start, clip.seconds, *about(clip.path)]
        for clip in catalog.clips
    ]
    table = {"labels": catalog.labels, "task": catalog.task, "seconds": catalog.seconds, "clips": clips}
    return table | {"sample_rate": foundation.sample_rate}
