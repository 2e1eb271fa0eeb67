"""A store of another program or of an earlier version, written again as this package writes it."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bayes_panns import __version__
from bayes_panns.clips.embedding_writer import write_embeddings
from bayes_panns.clips.store import Store
from bayes_panns.clips.writer import StoreWriter
from bayes_panns.core import progress
from bayes_panns.core.choices import Holds
from bayes_panns.core.errors import StoreError

logger = logging.getLogger(__name__)

_CLIPS = 64
"""Clips that are read at once."""


def repack(
    source: str | Path,
    output: str | Path,
    *,
    sample_rate: int | None = None,
    labels: Sequence[str] | None = None,
    folds: NDArray[np.integer] | None = None,
) -> Store:
    """Write a store again: with what it does not say, and with digests.

    Clips, targets, folds and recordings stay as they are. Samples that are floats become int16, as in every store.

    Args:
        source: The store.
        output: The store to write; one that is there is replaced.
        sample_rate: The rate of its clips, in Hz, if the store does not say it. Nothing is resampled.
        labels: K label names, if it has none.
        folds: The clips' folds, ``(clips,)``; by default those that it has.

    Returns:
        The new store.

    Raises:
        StoreError: The store is missing or damaged, does not say its rate, or says another one; or ``labels`` do not
            fit; or the new one cannot be written.
        OutputError: ``output`` is a folder.

    Example:
        >>> from bayes_panns.clips import write
        >>> write("pets.h5", np.zeros((2, 800)), np.eye(2, dtype=bool), ["cat", "dog"], "one-of-k", 16000)
        >>> repack("pets.h5", "again.h5").labels
        ('cat', 'dog')
    """
    store = Store(source, labels=labels)
    if sample_rate is not None and sample_rate != (store.sample_rate or sample_rate):
        raise StoreError(f"{source}: its clips are of {store.sample_rate} Hz, not {sample_rate}; leave the rate out")
    if sample_rate is None:
        store.require_rate()
    target = store.target()
    folds = store.folds if folds is None else folds
    provenance = {**store.provenance, "repacked": store.path.name, "bayes_panns": __version__}
    if store.holds == Holds.EMBEDDINGS:
        if sample_rate is not None:
            raise StoreError(f"{source}: holds {store.contents}, which have no sample rate")
        write_embeddings(
            output,
            store.embedding(np.arange(len(store))),
            target,
            store.labels,
            store.task,
            model=store.model,
            names=store.names,
            fold=folds,
            source=None if store.sources is None else store.sources.tolist(),
            provenance=provenance,
        )
        return Store(output)
    beyond = 0
    with (
        StoreWriter(
            output,
            labels=store.labels,
            task=store.task,
            sample_rate=sample_rate or store.sample_rate,
            samples=store.samples,
            provenance=provenance,
        ) as writer,
        progress.task("packing", total=len(store), unit="clip") as bar,
    ):
        for start in range(0, len(store), _CLIPS):
            clips = np.arange(start, min(start + _CLIPS, len(store)))
            for clip, waveform in zip(clips, store.inputs(clips), strict=True):
                beyond += bool(np.abs(waveform).max() > 1)
                writer.add(
                    store.names[clip],
                    waveform,
                    target[clip],
                    fold=None if folds is None else int(folds[clip]),
                    source=None if store.sources is None else str(store.sources[clip]),
                    seconds=None if store.seconds is None else float(store.seconds[clip]),
                )
            bar.advance(len(clips))
    if beyond:
        logger.warning(f"{source}: {beyond} of {len(store)} clips have samples beyond 1, which were clipped")
    return Store(output)
