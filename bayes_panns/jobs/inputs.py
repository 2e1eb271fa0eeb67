"""What a fit is made of, by content, and what of it a resumed fit needs: the content of ``resume.json``."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from bayes_panns.clips import ClipSet, Store
from bayes_panns.core.choices import Holds
from bayes_panns.core.digests import DIGEST, digest_of
from bayes_panns.posterior.header import Header, read
from bayes_panns.recipes import Run, is_function, read_strategy

POSTERIOR = "posterior"
"""The folder of the posterior in that of a run."""

_READ_BYTES = 1 << 31
"""The most that is read of a store that keeps no digests of its clips; of a larger one, clips spread evenly over it."""


class Inputs(BaseModel):
    """What a fit is made of, by content: the same inputs may be at another place when the fit is resumed.

    Attributes:
        stores: A digest of each store: of its labels, and of its clips' names, targets, folds, sources and lengths.
        clips: A digest of each store's clips themselves, their sound or embeddings. Of a store without digests of its
            clips that is larger than 2 GB, of some of them. None in runs of older versions.
        upstream: The digest of the tensors of the posterior that it starts from.
        header: The digest of what else that posterior says of itself, but for its calibration and its metrics. None in
            runs of older versions.
        guide: A digest of the guide recipe; None for a guide in Python.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stores: tuple[str, ...]
    clips: tuple[str, ...] | None = None
    upstream: str | None = None
    header: str | None = None
    guide: str | None = None

    @classmethod
    def of(cls, recipe: Run, clips: ClipSet) -> Self:
        """The inputs of a run.

        Args:
            recipe: The run.
            clips: Its clips.

        Raises:
            BayesPannsError: A store, the upstream posterior or the guide recipe is missing or damaged.
        """
        header = None if recipe.upstream is None else read(posterior_at(recipe.upstream))
        guide = None
        if not is_function(recipe.guide):
            # Without defaults, so that a new key of a later version changes no digest.
            table = read_strategy(recipe.guide).model_dump(mode="json", exclude_defaults=True, exclude={"description"})
            guide = sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
        return cls(
            stores=tuple(_about(store) for store in clips.stores),
            clips=tuple(_content(store) for store in clips.stores),
            upstream=None if header is None else header.sha256,
            header=None if header is None else _start(header),
            guide=guide,
        )


class Continued(BaseModel):
    """A fit that was continued to more epochs.

    Attributes:
        epochs: ``fit.epochs`` before.
        step: The step from which on the schedule of the longer fit was followed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int
    step: int


class Resumable(BaseModel):
    """What ``resume.json`` holds.

    Attributes:
        format_version: Of the file; since 2 it has its own digest.
        inputs: What the fit was started with.
        continued: How often it was continued to more epochs, oldest first.
        frozen_points: Whether frozen weights without a width of their own are points. They were drawn in runs of older
            versions, which do not say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = 2
    inputs: Inputs
    continued: tuple[Continued, ...] = ()
    frozen_points: bool = False


def contents(clips: ClipSet | None) -> list[str]:
    """A digest of each store of a set, of what it says of its clips and of the clips themselves.

    Only of stores that keep digests of their clips: the others would have to be read.
    """
    stores = () if clips is None else clips.stores
    return [sha256(f"{_about(store)}{_content(store)}".encode()).hexdigest() for store in stores if store.verifiable]


def posterior_at(path: str | Path) -> Path:
    """The folder of the posterior that is at ``path``, or in the run at ``path``."""
    inside = Path(path) / POSTERIOR
    return inside if inside.is_dir() else Path(path)


def recipe_digest(table: Mapping[str, Any]) -> str:
    """The digest that ``run.toml`` has of its recipe, without the description and the places of the inputs."""
    data = {key: value for key, value in table.get("data", {}).items() if key not in ("stores", "labels")}
    rest = {
        key: value for key, value in table.items() if key not in ("data", "description", "guide", "upstream", DIGEST)
    }
    return digest_of({**rest, "data": data})


def _about(store: Store) -> str:
    """SHA-256 of a store's labels and of its clips' names, targets, folds, sources and lengths; not of their sound."""
    header = {
        "labels": store.labels,
        "task": str(store.task),
        "sample_rate": store.sample_rate,
        "samples": store.width,
        "names": store.names,
        "folds": None if store.folds is None else store.folds.tolist(),
        "sources": None if store.sources is None else store.sources.tolist(),
        "seconds": None if store.seconds is None else store.seconds.tolist(),
    }
    if store.holds == Holds.EMBEDDINGS:
        header["embeddings of"] = store.model
    digest = sha256(json.dumps(header).encode())
    digest.update(np.packbits(store.target()).tobytes())
    return digest.hexdigest()


def _content(store: Store) -> str:
    """SHA-256 of the digests of a store's clips."""
    most = len(store) if store.verifiable else max(1, _READ_BYTES // (4 * store.width))
    chosen = np.unique(np.linspace(0, len(store) - 1, min(len(store), most)).astype(np.int64))
    return sha256(b"".join(store.digests(chosen))).hexdigest()


def _start(header: Header) -> str:
    """The digest of what a fit takes from the header of its upstream posterior, or writes down of it."""
    table = header.model_dump(
        mode="json", exclude_defaults=True, exclude={"format_version", "digest", "calibration", "metrics"}
    )
    # A calibration writes it into the header of an older posterior.
    return digest_of({**table, "short_clips": str(header.shown_short_clips)})
