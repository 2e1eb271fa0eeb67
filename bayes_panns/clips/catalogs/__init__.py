"""Catalogs: a folder of recordings, in a data set's own layout, to labelled clips."""

from bayes_panns.clips.catalogs.all_of_them import (
    CATALOGS,
    SPLITS,
    Catalog,
    Clip,
    audioset,
    dcase2013,
    esc50,
    folder,
    read_labels,
    urbansound8k,
)

__all__ = [
    "CATALOGS",
    "SPLITS",
    "Catalog",
    "Clip",
    "audioset",
    "dcase2013",
    "esc50",
    "folder",
    "read_labels",
    "urbansound8k",
]
