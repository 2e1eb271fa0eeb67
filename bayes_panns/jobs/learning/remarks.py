"""What a user should know of clips and labels before they are learned."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_panns.audio.walking import folded
from bayes_panns.clips import Catalog
from bayes_panns.clips.label_counts import label_remarks, named
from bayes_panns.clips.lengths import LENGTHS, Cut
from bayes_panns.clips.recordings import Recognised
from bayes_panns.core.choices import Task
from bayes_panns.core.text import printable

_FEW = 5
"""A label with fewer recordings is warned of: each fold of the cross-validation wants one."""

_UNEQUAL = 5
"""A label with so many times the clips of another is said to be unequal."""


@dataclass(frozen=True)
class LabelCount:
    """How many clips and recordings a label has."""

    label: str
    clips: int
    recordings: int


def label_remarks_of(labels: Sequence[str], counts: Sequence[LabelCount], clips: int, task: Task) -> list[str]:
    """What a user should know of the labels."""
    number = np.array([each.clips for each in counts])
    of_recordings = np.array([each.recordings for each in counts])
    remarks = label_remarks(labels, number, clips, task)
    alone = np.flatnonzero((of_recordings == 1) & (number > 0))
    if len(alone):
        remarks.append(
            f"{_labels(len(alone))} ({named(labels, alone)}) {'has' if len(alone) == 1 else 'have'} one recording: "
            "a fit that is scored on it has not heard the label, so it counts as wrong; add recordings"
        )
    few = np.flatnonzero((of_recordings > 1) & (of_recordings < _FEW))
    if len(few):
        remarks.append(
            f"{_labels(len(few))} ({named(labels, few)}) {'has' if len(few) == 1 else 'have'} fewer than {_FEW} "
            "recordings: what is said of single labels is little more than a guess"
        )
    some = number[number > 0]
    if task is Task.ONE_OF_K and len(some) > 1 and some.max() >= _UNEQUAL * some.min():
        remarks.append(
            f"the classes are unequal ({some.min()} to {some.max()} clips): look at the accuracy of each class, not at "
            "that of all clips alone"
        )
    alike = Counter(folded(label.strip()) for label in labels)
    for name, times in alike.items():
        if times > 1:
            same = [repr(label) for label in labels if folded(label.strip()) == name]
            remarks.append(f"the labels {' and '.join(same)} may be one label, written in two ways")
    return remarks


def file_remarks(
    catalog: Catalog, found: Recognised, cut: Cut, lengths: NDArray[np.float64], skipped: Sequence[tuple[str, str]]
) -> list[str]:
    """What a user should know of the files."""
    remarks = []
    if skipped:
        name, reason = skipped[0]
        remarks.append(f"files that cannot be read and are left out: {len(skipped)}; {printable(name)}: {reason}")
    clips = found.catalog.clips
    torn = [group for group in found.twice if len({clips[index].labels for index in group}) > 1]
    if torn:
        names = " and ".join(printable(clips[index].name) for index in torn[0][:2])
        remarks.append(
            f"files that are there twice, with different labels: {len(torn)}, such as {names}; one label is wrong"
        )
    elif found.twice:
        names = " and ".join(printable(clips[index].name) for index in found.twice[0][:2])
        remarks.append(f"files that are there twice: {len(found.twice)}, such as {names}; they count as one recording")
    if found.doubtful:
        remarks.append(
            "names that differ in a number at their end are taken for recordings of their own; if they are parts of "
            "longer ones, the scores say too much: then put them into sub-folders, or say --recordings names"
        )
    if cut.sparse:
        remarks.append(
            f"recordings of which less than half is taken, because they are so long: {cut.sparse}; their label is "
            "taken to be true of every part, so better say where it is heard, in labels with times"
        )
    if cut.shortened:
        remarks.append(f"recordings that are a little longer than a clip and lose their end: {cut.shortened}")
    short = int((lengths < catalog.seconds / 2).sum())
    if short > len(lengths) / 4:
        smaller = "; try a smaller --seconds" if catalog.seconds > LENGTHS[0] else ""
        remarks.append(
            f"{short} of {len(lengths)} recordings are shorter than half a clip, which silence fills up{smaller}"
        )
    return remarks


def _labels(count: int) -> str:
    return f"{count} label{'s'[: count != 1]}"
