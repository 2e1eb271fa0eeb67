"""The hours as the embeddings of their windows: made, embedded and deleted one by one."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from bayes_panns.core.files import whole_file
from bayes_panns.posterior import Posterior
from bayes_panns.predictions import embed_files
from benchmarks.hours.material import RATE, Material
from benchmarks.hours.mixing import Truth, mix

logger = logging.getLogger(__name__)

WINDOW, HOP = 2.0, 1.0
"""Seconds."""


@dataclass(frozen=True)
class Hour:
    """An hour: the embeddings of its windows ``(N, E)``, from when to when these are ``(N, 2)``, and its events."""

    name: str
    embedding: NDArray[np.float32]
    windows: NDArray[np.float64]
    truth: list[Truth]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return float(self.windows[-1, 1])


def embedded_hour(
    posterior: Posterior, material: Material, part: str, number: int, folder: Path, seconds: float
) -> Hour:
    """An hour, embedded as the command ``embed`` does; one that was kept in the folder is read.

    Args:
        posterior: What embeds.
        material: The clips of the part.
        part: Its name.
        number: Of the hour.
        folder: Where the embeddings are kept. The sound is there only while it is embedded.
        seconds: How long the hour is.
    """
    name = f"{part}-{number:02d}"
    kept = folder / f"{name}.npz"
    if not kept.is_file():
        logger.info(f"{name}: mixing and embedding")
        sound, truth = mix(material, part, number, seconds)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.wav"
        try:
            soundfile.write(file, sound, RATE, subtype="PCM_16")
            found = embed_files(posterior, [file], window=WINDOW, hop=HOP)
        finally:
            file.unlink(missing_ok=True)
        windows = np.array([(window.start, window.end) for window in found.windows])
        text = json.dumps([asdict(event) for event in truth])
        with whole_file(kept) as unfinished, unfinished.open("wb") as out:
            np.savez(out, embedding=found.embedding, windows=windows, truth=np.array(text))
    with np.load(kept) as read:
        truth = [Truth(**event) for event in json.loads(str(read["truth"]))]
        return Hour(name, read["embedding"], read["windows"], truth)
