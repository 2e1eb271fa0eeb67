"""What the number of clips of each label says about a fit to them."""

from collections.abc import Sequence

import numpy as np

from bayes_panns.core.choices import Task

IMBALANCE = 100
"""How many times the clips of one label another may have without a word."""

_NAMED = 3
"""Labels that are named; all are counted."""


def label_remarks(
    labels: Sequence[str], counts: np.ndarray, clips: int, task: Task, *, missing: bool = True
) -> list[str]:
    """What a user should know of the labels of clips before a model is fitted to them.

    Labels without a clip, a label that all clips have, and labels of which one has over a hundred times the clips of
    another.

    Example:
        >>> label_remarks(["dog", "owl"], np.array([9, 0]), 9, Task.ONE_OF_K)
        ["1 of 2 labels ('owl') has no clip, so nothing can be learned of it"]

    Args:
        labels: K label names.
        counts: Clips of each label, shape ``(K,)``.
        clips: How many clips there are.
        task: What the labels mean.
        missing: Whether labels without a clip are a fault. In a store to test with they are not.

    Returns:
        Sentences without a full stop, each in one line; none if all is well.
    """
    remarks = []
    none = np.flatnonzero(counts == 0)
    some = np.flatnonzero(counts > 0)
    if missing and len(labels) and not len(some):
        remarks.append(f"none of the {clips} clips has a label, so there is nothing to tell them by")
    elif missing and len(none):
        has, it = ("has", "it") if len(none) == 1 else ("have", "them")
        remarks.append(
            f"{len(none)} of {len(labels)} labels ({named(labels, none)}) {has} no clip, so nothing can be "
            f"learned of {it}"
        )
    every = np.flatnonzero(counts == clips) if clips else some[:0]
    if task is Task.ONE_OF_K and len(labels) == 1:
        remarks.append(
            f"every clip has the label {labels[0]!r}, and there is no other: a model fitted to them gives that "
            "label to every sound; add clips of other labels, or clips without a label"
        )
    if task is Task.MULTI_LABEL and len(every):
        has, it = ("has", "it") if len(every) == 1 else ("have", "them")
        remarks.append(
            f"all {clips} clips have {named(labels, every)}: what a sound without {it} is like cannot be learned; add "
            f"clips without {it}"
        )
    if len(some) > 1:
        most, least = some[counts[some].argmax()], some[counts[some].argmin()]
        if counts[most] > IMBALANCE * counts[least]:
            remarks.append(
                f"{labels[most]!r} has {counts[most]} clips and {labels[least]!r} {counts[least]}, "
                f"{counts[most] / counts[least]:.0f} times fewer: scores that weigh clips alike, such as accuracy, say "
                "little about the rare labels"
            )
    return remarks


def named(labels: Sequence[str], which: np.ndarray) -> str:
    """The names of some labels, the first three of many."""
    names = ", ".join(repr(labels[index]) for index in which[:_NAMED].tolist())
    return names + (", ..." if len(which) > _NAMED else "")
