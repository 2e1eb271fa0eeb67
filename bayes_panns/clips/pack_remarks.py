"""What a pack counts, and what it says of what it has packed."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bayes_panns.audio.notes import Note
from bayes_panns.clips.catalogs import Catalog, Clip
from bayes_panns.clips.label_counts import label_remarks, named
from bayes_panns.clips.pack_writer import Taken
from bayes_panns.core.text import printable

logger = logging.getLogger(__name__)

REASONS = 20
"""Skipped clips that a store's provenance names; it counts them all."""

EXAMPLES = 5
"""Clips of each kind of note that a store's provenance names."""


class Tally:
    """What became of clips.

    Attributes:
        clips: How many are packed.
        skipped: Names of those that could not be read, each with the reason.
        notes: What a user should know of those that could, each with the clip's name.
        beyond: How many had samples beyond full scale.
        labels: Packed clips of each label, int64 ``(K,)``.
    """

    def __init__(self, labels: int) -> None:
        self.clips, self.beyond = 0, 0
        self.skipped: list[tuple[str, str]] = []
        self.notes: list[tuple[str, Note]] = []
        self.labels = np.zeros(labels, dtype=np.int64)

    def count(self, clip: Clip, taken: Taken) -> None:
        """Count one clip."""
        if taken.skipped:
            self.skipped.append((clip.name, taken.skipped))
            return
        self.clips += 1
        self.beyond += taken.beyond
        self.notes += [(clip.name, note) for note in taken.notes]
        self.labels[list(clip.labels)] += 1

    def include(self, other: "Tally") -> None:
        """Count all that another one has counted."""
        self.clips, self.beyond = self.clips + other.clips, self.beyond + other.beyond
        self.skipped += other.skipped
        self.notes += other.notes
        self.labels += other.labels

    def provenance(self, excluded: int) -> dict[str, Any]:
        """The counts, as JSON values.

        Args:
            excluded: Clips left out on purpose.
        """
        return {
            "packed": self.clips,
            "excluded": excluded,
            "skipped": len(self.skipped),
            "skip_reasons": dict(self.skipped[:REASONS]),
            "clipped_to_full_scale": self.beyond,
            **_counted(self.notes),
        }


def _counted(notes: Sequence[tuple[str, Note]]) -> dict[str, Any]:
    """The notes for a store's provenance: how many clips there are of each kind, and a few with their texts."""
    if not notes:
        return {}
    examples: dict[str, dict[str, str]] = {}
    for name, note in notes:
        of_kind = examples.setdefault(str(note.kind), {})
        if len(of_kind) < EXAMPLES:
            of_kind[name] = note.text
    return {"notes": dict(Counter(str(note.kind) for _, note in notes)), "note_examples": examples}


def warn_of_notes(notes: Sequence[tuple[str, Note]], clips: int, output: Path) -> None:
    """Warn of what is wrong with clips, once for each kind.

    Args:
        notes: The notes, each with the clip's name.
        clips: Clips in the store.
        output: The store.
    """
    for kind, count in Counter(note.kind for _, note in notes).items():
        name, text = next((name, note.text) for name, note in notes if note.kind == kind)
        clip, also = printable(name), "" if count == 1 else "; `inspect` names more"
        logger.warning(f"{output}: {kind}: {count} of {clips} clips ({kind.summary}): {clip} {text}{also}")


def warn_of_labels(catalog: Catalog, chosen: Sequence[Clip], packed: np.ndarray, clips: int, output: Path) -> None:
    """Warn of labels that no clip of the store has because files were skipped, and as :func:`label_remarks` says.

    Args:
        catalog: What was packed.
        chosen: Its clips that were not excluded.
        packed: Clips of each label in the store, shape ``(K,)``.
        clips: Clips in the store.
        output: The store.
    """
    lost = np.array(sorted({label for clip in chosen for label in clip.labels if not packed[label]}), dtype=np.int64)
    if len(lost):
        logger.warning(
            f"{output}: {len(lost)} of {len(catalog.labels)} labels ({named(catalog.labels, lost)}) have no "
            "clip, because none of their files could be read; convert or add these files and pack again, or leave them "
            "out of the source"
        )
    for remark in label_remarks(catalog.labels, packed, clips, catalog.task, missing=False):
        logger.warning(f"{output}: {remark}")
