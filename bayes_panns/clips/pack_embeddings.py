"""Embeddings that another model has made, to a store."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bayes_panns import __version__
from bayes_panns.clips.catalogs.embeddings import EmbeddingTable, rows_of
from bayes_panns.clips.embedding_writer import write_embeddings
from bayes_panns.clips.pack import PackReport, without
from bayes_panns.clips.pack_remarks import warn_of_labels


def pack_embeddings(table: EmbeddingTable, output: str | Path, *, exclude: Sequence[str] = ()) -> PackReport:
    """Write embeddings as a store, whole or not at all.

    Args:
        table: What :func:`~bayes_panns.clips.embeddings` has read.
        output: The store to write; a store that is there is replaced. Missing folders above it are made.
        exclude: Shell patterns of clips to leave out, as for :func:`~bayes_panns.clips.pack`.

    Raises:
        StoreError: A pattern matches nothing, no clip is left, or the store cannot be written.
        OutputError: ``output`` is a folder.
    """
    catalog = table.catalog
    chosen = without(catalog, exclude)
    target = np.zeros((len(chosen), len(catalog.labels)), dtype=bool)
    for row, clip in zip(target, chosen, strict=True):
        row[list(clip.labels)] = True
    folds = [clip.fold for clip in chosen if clip.fold is not None]
    excluded = len(catalog.clips) - len(chosen)
    write_embeddings(
        output,
        table.embedding[rows_of(catalog, chosen)] if excluded else table.embedding,
        target,
        catalog.labels,
        catalog.task,
        model=table.model,
        names=[clip.name for clip in chosen],
        fold=folds or None,
        source=[clip.source or "" for clip in chosen],
        provenance={
            "catalog": catalog.name,
            "source": catalog.root.resolve().name,
            "options": catalog.options,
            "exclude": list(exclude),
            "bayes_panns": __version__,
            "packed": len(chosen),
            "excluded": excluded,
        },
    )
    warn_of_labels(catalog, chosen, target.sum(axis=0), len(chosen), Path(output))
    return PackReport(len(chosen), (), excluded)
