"""Labelled clips: HDF5 stores in PANNs' layout, and the catalogs they are packed from."""

from bayes_panns.clips.catalogs import CATALOGS, Catalog, Clip, esc50, folder, urbansound8k
from bayes_panns.clips.pack import PackReport, pack
from bayes_panns.clips.store import ClipSet, Store, StoreWriter, Task, write

__all__ = [
    "CATALOGS",
    "Catalog",
    "Clip",
    "ClipSet",
    "PackReport",
    "Store",
    "StoreWriter",
    "Task",
    "esc50",
    "folder",
    "pack",
    "urbansound8k",
    "write",
]
