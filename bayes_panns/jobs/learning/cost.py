"""What learning takes: time, disk and memory, measured on a few clips or guessed."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from bayes_panns.audio.recording import Recording
from bayes_panns.clips import Catalog
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.posterior import load

_TRIED = 5
"""Files that are decoded to see how long that takes."""

_MEMORY = 800_000_000
"""Bytes that Python, torch, the network and a batch of clips take."""


@dataclass(frozen=True)
class Foundation:
    """The network whose features are classified.

    Attributes:
        about: What it is, where it is from, and its licence, in a few words.
        posterior: Where its posterior is; None if it has to be fetched first.
        sample_rate: In Hz.
    """

    about: str
    posterior: Path | None
    sample_rate: int


@dataclass(frozen=True)
class Cost:
    """What it will take, roughly: seconds of this machine, and bytes."""

    packing: float
    embeddings: float
    fits: float
    check: float
    disk: int
    memory: int

    @property
    def seconds(self) -> float:
        """All of it, in seconds."""
        return self.packing + self.embeddings + self.fits + self.check


def cost_of(catalog: Catalog, foundation: Foundation, folds: int) -> Cost:
    """What it takes to learn from a catalog's clips with so many folds; a few clips are decoded and embedded."""
    clips, rate = len(catalog.clips), foundation.sample_rate
    step = max(1, clips // _TRIED)
    started, tried = time.perf_counter(), 0
    for clip in catalog.clips[::step][:_TRIED]:
        try:
            with Recording(clip.path, rate, start=clip.start, seconds=catalog.seconds) as recording:
                for _ in recording:
                    pass
        except (BayesPannsError, OSError, RuntimeError):
            continue
        tried += 1
    packing = (time.perf_counter() - started) / max(1, tried) * clips
    embeddings = embedding_seconds(foundation, catalog.seconds) * clips
    disk = clips * round(catalog.seconds * rate) * 2
    fits = fit_seconds(clips, len(catalog.labels), folds)
    return Cost(packing, embeddings, fits, check_seconds(clips), disk, memory(clips))


def memory(clips: int) -> int:
    """Bytes of memory that learning from so many clips takes, about."""
    return _MEMORY + 30_000 * clips


def embedding_seconds(foundation: Foundation, seconds: float) -> float:
    """What the embedding of a clip takes on this machine: measured, or a guess for a network that is not there yet."""
    if foundation.posterior is None:
        return 0.02 * seconds
    posterior = load(foundation.posterior)
    posterior.model.eval()
    clips = torch.zeros(4, max(1, round(seconds * foundation.sample_rate)))
    took = math.inf
    with torch.no_grad():
        for _ in range(2):
            started = time.perf_counter()
            posterior.model.embed(clips)
            took = min(took, time.perf_counter() - started)
    return took / len(clips)


def fit_seconds(clips: int, labels: int, folds: int) -> float:
    """Seconds that the fits of all folds and the last take, by what they took on one core: a guess."""
    each = 1 + 0.009 * min(clips, 4000) * (0.75 + labels / 40)
    return (folds + 1) * each


def check_seconds(clips: int) -> float:
    """Seconds that the baseline and the report take, by what they took on two cores: a guess."""
    return 7 + 0.03 * min(clips, 4000)
