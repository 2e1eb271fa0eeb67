"""Backgrounds that scenes are mixed over."""

import numpy as np

from bayes_panns.soundscapes.batch import Batch
from bayes_panns.soundscapes.building_blocks import drift, noise, timbre, tone
from bayes_panns.soundscapes.families import Families, register

FAMILIES: Families = {}


@register(FAMILIES)
def coloured(batch: Batch) -> np.ndarray:
    """Steady noise, from white to red."""
    return noise(batch, 30, batch.pitch(3000, 20000, 1), tilt=batch.uniform(0, 2, 1))


@register(FAMILIES)
def babble(batch: Batch) -> np.ndarray:
    """A distant crowd: noise in the bands of speech, each loud and soft at the pace of syllables."""
    low = noise(batch, 150, 700, tilt=0.5) * drift(batch, 0.05, 1, 5)
    return low + batch.uniform(0.2, 0.7, 1) * noise(batch, 700, 3200, tilt=0.5) * drift(batch, 0.05, 1, 6)


@register(FAMILIES)
def room(batch: Batch) -> np.ndarray:
    """Low noise of a ventilated room with a trace of mains hum."""
    pitch = np.where(batch.maybe(0.5, 1) > 0, 50, 60) * np.ones(batch.samples, np.float32)
    mains = tone(batch, pitch, timbre(batch, 6, rolloff=(0.5, 2)))
    return noise(batch, 30, 1500, tilt=batch.uniform(1, 2, 1)) + batch.uniform(0, 0.6, 1) * mains
