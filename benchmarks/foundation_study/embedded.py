"""The stores of embeddings that the study works on, made once."""

import logging
from pathlib import Path

import numpy as np

from bayes_panns.clips import ClipSet, write_embeddings
from bayes_panns.core.choices import Holds, Task
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.jobs.embed import model_name
from bayes_panns.nets import pooled
from bayes_panns.posterior import Posterior, load
from bayes_panns.predictions import embed_clips
from bayes_panns.recipes import read_strategy

logger = logging.getLogger(__name__)


def embedded(store: str, like: str, source: str | None, folder: Path) -> str:
    """The store of the embeddings of a store's clips by the backbone of a posterior: its pooled features.

    Args:
        store: A store of sound; one of embeddings is taken as it is.
        like: The store whose length of clips the network is for.
        source: The posterior.
        folder: Where the store of embeddings is kept. One that is there is taken.

    Raises:
        BayesPannsError: The store holds sound, and no posterior is named; or they do not fit.
    """
    clips = ClipSet(store)
    if clips.holds == Holds.EMBEDDINGS:
        return store
    if source is None:
        raise BayesPannsError(f"{store}: holds sound; name the network that embeds it with --from")
    made = folder / Path(store).name
    if not made.is_file():
        posterior = backbone(source, ClipSet(like))
        logger.info(f"embedding {len(clips)} clips of {clips.stores[0].path.name}")
        write_embeddings(
            made,
            embed_clips(posterior, clips).embedding,
            clips.target(),
            clips.labels,
            clips.task,
            model=model_name(posterior),
            names=clips.names,
            fold=clips.folds,
            source=None if clips.sources is None else np.asarray(clips.sources).tolist(),
        )
    return str(made)


def backbone(source: str, clips: ClipSet) -> Posterior:
    """The posterior that embeds clips like these; see :func:`backbone_of`."""
    return backbone_of(source, clips.sample_rate, clips.seconds_per_clip)


def backbone_of(source: str, sample_rate: int, seconds: float) -> Posterior:
    """The posterior that ``embedding = "pooled"`` starts from: the last layer is new, and nothing reads it here.

    Args:
        source: The posterior with the backbone.
        sample_rate: Of what it is to embed, in Hz.
        seconds: How long the clips or windows are.
    """
    upstream = load(source)
    posterior = Posterior.build(
        net=pooled(upstream.net),
        labels=("sound",),
        task=Task.MULTI_LABEL,
        sample_rate=sample_rate,
        clip_seconds=seconds,
        strategy=read_strategy("det"),
        upstream=upstream,
        clips=1,
    )
    posterior.start_from(upstream)
    return posterior
