"""What the labels of clips are, and what they say about a fit."""

import logging
from pathlib import Path

from bayes_panns.clips import ClipSet, Store, read_labels
from bayes_panns.clips.label_counts import label_remarks
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError
from bayes_panns.jobs.inputs import posterior_at
from bayes_panns.posterior.disk import read_header

logger = logging.getLogger(__name__)


def label_set(source: str | Path) -> tuple[tuple[str, ...], Task | None]:
    """A set of labels and, where it is known, what they mean.

    Args:
        source: A file with a name in each line, a CSV with ``index`` and ``display_name``, a clip store (``.h5``), or
            the folder of a posterior or of its run.

    Raises:
        BayesPannsError: It is missing, damaged, or has no labels.
    """
    source = Path(source)
    if source.is_dir():
        header = read_header(posterior_at(source))
        return tuple(header["labels"]), Task(header["task"])
    if source.suffix.lower() in {".h5", ".hdf5"}:
        store = Store(source)
        if not store.labels:
            raise StoreError(f"{source}: has no labels; name a store that has, or a file of them")
        return store.labels, store.task
    return read_labels(source), None


def warn_of_labels(clips: ClipSet, task: Task) -> None:
    """Warn, before a fit, of labels that cannot be learned from its clips, and of rare ones.

    Args:
        clips: The clips that are fitted to.
        task: What the labels mean in the fit.
    """
    for remark in label_remarks(clips.labels, clips.target().sum(axis=0), len(clips), task):
        logger.warning(f"{clips.stores[0].path}, in the {len(clips)} clips that are fitted to: {remark}")
