"""Labelled clips: HDF5 stores in PANNs' layout, the catalogs they are packed from, and samplers of batches."""

from bayes_panns.audio.length import fit_length
from bayes_panns.clips.catalogs import (
    CATALOGS,
    Catalog,
    Clip,
    audioset,
    dcase2013,
    esc50,
    folder,
    fsd50k,
    read_labels,
    timed,
    urbansound8k,
    with_folds,
    with_labels,
)
from bayes_panns.clips.catalogs.embeddings import EmbeddingTable, embeddings
from bayes_panns.clips.clipset import ClipSet
from bayes_panns.clips.embedding_writer import write_embeddings
from bayes_panns.clips.pack import PackReport, pack
from bayes_panns.clips.pack_embeddings import pack_embeddings
from bayes_panns.clips.repack import repack
from bayes_panns.clips.samplers import Sampler
from bayes_panns.clips.store import Store
from bayes_panns.clips.writer import StoreWriter, write
from bayes_panns.core.choices import Task

__all__ = [
    "CATALOGS",
    "Catalog",
    "Clip",
    "ClipSet",
    "EmbeddingTable",
    "PackReport",
    "Sampler",
    "Store",
    "StoreWriter",
    "Task",
    "audioset",
    "dcase2013",
    "embeddings",
    "esc50",
    "fit_length",
    "folder",
    "fsd50k",
    "pack",
    "pack_embeddings",
    "read_labels",
    "repack",
    "timed",
    "urbansound8k",
    "with_folds",
    "with_labels",
    "write",
    "write_embeddings",
]
