"""Catalogs: a folder of recordings, in a data set's own layout, to labelled clips.

A catalog is a function from the folder of a data set to a :class:`Catalog`. Each data set has a file here. To add one,
write its function in a file of its own, with the shared parts of :mod:`.catalog` (files), :mod:`.tables` (CSV files)
and :mod:`.labels` (label tables), and name it in ``CATALOGS``; ``docs/data/`` has a page on each.
"""

from collections.abc import Callable

from bayes_panns.clips.catalogs.annotated import Annotations, read_annotations
from bayes_panns.clips.catalogs.audioset import audioset
from bayes_panns.clips.catalogs.catalog import Catalog, Clip
from bayes_panns.clips.catalogs.dcase2013 import dcase2013
from bayes_panns.clips.catalogs.esc50 import esc50
from bayes_panns.clips.catalogs.folder import folder, timed
from bayes_panns.clips.catalogs.fsd50k import fsd50k
from bayes_panns.clips.catalogs.labels import read_labels, with_folds, with_labels
from bayes_panns.clips.catalogs.urbansound8k import urbansound8k

CATALOGS: dict[str, Callable[..., Catalog]] = {
    "audioset": audioset,
    "esc50": esc50,
    "urbansound8k": urbansound8k,
    "dcase2013": dcase2013,
    "folder": folder,
    "timed": timed,
    "fsd50k": fsd50k,
}
"""Every catalog by its name."""

__all__ = [
    "CATALOGS",
    "Annotations",
    "Catalog",
    "Clip",
    "audioset",
    "dcase2013",
    "esc50",
    "folder",
    "fsd50k",
    "read_annotations",
    "read_labels",
    "timed",
    "urbansound8k",
    "with_folds",
    "with_labels",
]
