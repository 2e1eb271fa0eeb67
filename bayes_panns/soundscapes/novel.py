"""Classes that are neither upstream nor downstream, to test what a model does with the unknown."""

import numpy as np

from bayes_panns.soundscapes.batch import Batch
from bayes_panns.soundscapes.building_blocks import (
    click,
    drift,
    event_times,
    impulse_noise,
    noise,
    place,
    sections,
    steps,
    syllable,
    timbre,
    tone,
)
from bayes_panns.soundscapes.families import Families, register

FAMILIES: Families = {}


@register(FAMILIES)
def applause(batch: Batch) -> np.ndarray:
    """Many hands clapping."""
    low = batch.log_uniform(600, 1100, 1)
    claps = impulse_noise(batch, batch.log_uniform(25, 200, 1), low, 2.2 * low)
    return claps * drift(batch, 0.5, 1, 2) + batch.uniform(0.1, 0.4, 1) * noise(batch, low, 2.5 * low)


@register(FAMILIES)
def drums(batch: Batch) -> np.ndarray:
    """A drum kit: bass drum, snare and hi-hat in random order on a steady beat."""
    onsets = event_times(batch, 3, 8)
    time, events = batch.time(0.25), onsets.shape[1]
    bass = tone(batch, batch.uniform(45, 70, 1, 1) * (1 + 3 * np.exp(-time / 0.03)), np.ones((1, 1, 1))) * np.exp(
        -time / 0.08
    )
    snare = 0.6 * click(batch, 300, 5000, batch.uniform(0.03, 0.08, 1, 1), 0.25, events)
    hat = 0.4 * click(batch, batch.pitch(4000, 7000, 1, 1), 15000, batch.uniform(0.01, 0.05, 1, 1), 0.25, events)
    choice = batch.random(events, 1)
    return place(batch, np.where(choice < 0.35, 1.5 * bass, np.where(choice < 0.65, snare, hat)), onsets)


@register(FAMILIES)
def laser(batch: Batch) -> np.ndarray:
    """Zaps of a toy gun: bright tones that fall by octaves."""
    onsets = event_times(batch, 1.5, 6, irregular=0.2)
    progress, envelope = syllable(batch, batch.uniform(0.1, 0.3, 1, 1), seconds=0.3)
    pitch = batch.pitch(1800, 3500, 1, 1) * 2 ** (-batch.uniform(2, 4.5, 1, 1) * np.sqrt(progress))
    return place(batch, tone(batch, pitch, timbre(batch, 5, rolloff=(0.5, 1.5))[:, None]) * envelope, onsets)


@register(FAMILIES)
def modem(batch: Batch) -> np.ndarray:
    """Data sent as tones: fast random jumps between four pitches."""
    levels = batch.pitch(900, 1400, 1) * (1 + batch.uniform(0.15, 0.4, 1) * np.arange(4, dtype=np.float32))
    pitch = steps(batch, batch.log_uniform(15, 90, 1), 90, levels)
    return tone(batch, pitch, timbre(batch, 2, rolloff=(1, 3))) * sections(batch, 0.5)


@register(FAMILIES)
def organ(batch: Batch) -> np.ndarray:
    """Chords of sustained notes that change together."""
    root = batch.log_uniform(130, 330, 1) * 2 ** (np.array([0, 2, 4, 5, 7, 9], np.float32) / 12)
    root = steps(batch, batch.uniform(1, 3.5, 1), 3.5, root)
    third = np.where(batch.maybe(0.5, 1) > 0, 2 ** (4 / 12), 2 ** (3 / 12)).astype(np.float32)
    stops = timbre(batch, 8, rolloff=(0.3, 1.2))
    return sum((tone(batch, root * ratio, stops) for ratio in (third, 1.5)), start=tone(batch, root, stops))
