"""Classes to transfer to; none of them is upstream."""

import numpy as np

from bayes_panns.soundscapes.batch import Batch
from bayes_panns.soundscapes.building_blocks import (
    click,
    drift,
    event_times,
    modes,
    noise,
    place,
    syllable,
    timbre,
    tone,
    wave,
)
from bayes_panns.soundscapes.families import Families, register

FAMILIES: Families = {}


@register(FAMILIES)
def cat(batch: Batch) -> np.ndarray:
    """Meows: long voiced calls that open and close."""
    onsets = event_times(batch, 0.7, 1.6, irregular=0.2, burst=(1, 3))
    progress, envelope = syllable(batch, batch.uniform(0.35, 0.9, 1, 1), seconds=0.9)
    events = onsets.shape[1]
    arch = 2 ** (batch.uniform(0.1, 0.6, 1, 1) * np.sin(np.pi * progress) - batch.uniform(0, 0.5, 1, 1) * progress)
    pitch = batch.log_uniform(350, 800, 1, 1) * batch.uniform(0.93, 1.07, events, 1) * arch
    closed = timbre(batch, 8, rolloff=(1.5, 3))[:, None]
    opened = timbre(batch, 8, rolloff=(-0.3, 0.6))[:, None]
    mouth = np.sin(np.pi * progress)
    return place(batch, (tone(batch, pitch, closed) + mouth * tone(batch, pitch, opened)) * envelope, onsets)


@register(FAMILIES)
def frog(batch: Batch) -> np.ndarray:
    """Croaks: a low voice chopped by fast pulses."""
    onsets = event_times(batch, 0.9, 3, irregular=0.3)
    _, envelope = syllable(batch, batch.uniform(0.15, 0.45, 1, 1), seconds=0.45)
    time, events = batch.time(0.45), onsets.shape[1]
    pulses = np.square(np.sin(np.pi * batch.uniform(18, 50, 1, 1) * time))
    pitch = batch.log_uniform(130, 450, 1, 1) * batch.uniform(0.9, 1.1, events, 1) * (1 + 0.4 * time)
    voice = tone(batch, pitch, timbre(batch, 8, rolloff=(0.0, 1.0))[:, None])
    return place(batch, voice * np.square(pulses) * envelope, onsets)


@register(FAMILIES)
def glass(batch: Batch) -> np.ndarray:
    """Glass that breaks: a crash, then shards that ring as they fall."""
    onsets = event_times(batch, 12, 60, irregular=1.0, burst=(8, 20))
    events = onsets.shape[1]
    shards = modes(batch, batch.pitch(2200, 7500, events, 2), batch.log_uniform(0.01, 0.08, events, 2), seconds=0.25)
    crash = click(batch, batch.pitch(1500, 3000, 1, 1), 8000, batch.uniform(0.02, 0.08, 1, 1), 0.4, events=1)
    return place(batch, shards, onsets, softest=0.1) + batch.uniform(0.5, 1.5, 1) * place(batch, crash, onsets[:, :1])


@register(FAMILIES)
def heartbeat(batch: Batch) -> np.ndarray:
    """Lub-dub, lub-dub: pairs of deep thumps, the second one shorter."""
    onsets = event_times(batch, 0.9, 2.4)
    frequency = batch.log_uniform(45, 110, 1, 1) * np.array([1, 1.6], np.float32)
    lub = modes(batch, frequency, batch.uniform(0.03, 0.06, 1, 2), seconds=0.3)
    dub = modes(batch, 1.3 * frequency, batch.uniform(0.015, 0.04, 1, 2), seconds=0.2)
    beat = place(batch, lub, onsets, 0.9) + batch.uniform(0.5, 1, 1) * place(
        batch, dub, onsets + batch.uniform(0.15, 0.25, 1)
    )
    return beat + batch.uniform(0.005, 0.03, 1) * noise(batch, 50, 400)


@register(FAMILIES)
def helicopter(batch: Batch) -> np.ndarray:
    """Rotor blades that chop low noise, and a whining turbine."""
    phase = wave(batch, batch.uniform(9, 20, 1))
    chop = np.exp(-phase * batch.uniform(2, 6, 1))
    rotor = noise(batch, 40, batch.log_uniform(200, 700, 1)) * (chop + 0.1)
    wash = batch.uniform(0.1, 0.4, 1) * noise(batch, 500, 3500) * (chop + 0.4)
    whine = tone(batch, batch.pitch(800, 2500, 1) * drift(batch, 0.99, 1.01, 2), timbre(batch, 2, rolloff=(1, 2)))
    return rotor + wash + batch.uniform(0.0, 0.15, 1) * whine


@register(FAMILIES)
def keyboard(batch: Batch) -> np.ndarray:
    """Typing: irregular pairs of clicks, key down and key up."""
    onsets = event_times(batch, 4, 11, irregular=0.7)
    events = onsets.shape[1]
    press = click(batch, batch.pitch(1000, 3000, 1, 1), 6500, batch.uniform(0.002, 0.007, events, 1), 0.05, events)
    case = modes(batch, batch.log_uniform(180, 600, 1, 1), batch.uniform(0.006, 0.015, 1, 1), seconds=0.05)
    release = onsets + batch.uniform(0.05, 0.1, events)
    return place(batch, press + case, onsets, 0.4) + place(batch, 0.5 * press, release, 0.2)


@register(FAMILIES)
def saw(batch: Batch) -> np.ndarray:
    """Sawing wood: strokes of rasping noise, to and fro."""
    phase = wave(batch, batch.uniform(1, 2.6, 1))
    stroke = np.abs(np.sin(2 * np.pi * phase)) * np.where(phase < 0.5, 1, batch.uniform(0.3, 0.8, 1))
    teeth = np.square(np.sin(np.pi * wave(batch, batch.uniform(60, 180, 1))))
    low = batch.log_uniform(700, 2200, 1)
    return noise(batch, low, 3.5 * low) * (0.3 + teeth) * stroke


@register(FAMILIES)
def thunder(batch: Batch) -> np.ndarray:
    """A crack, then a long deep rumble."""
    age = batch.time() - batch.uniform(0, 0.5, 1) * batch.seconds
    started = np.clip(age / 0.02, 0, 1)
    age = np.maximum(age, 0)
    rumble = (
        noise(batch, 25, batch.log_uniform(90, 250, 1))
        * drift(batch, 0.2, 1, 6)
        * np.exp(-age / batch.uniform(0.5, 2, 1))
    )
    crack = noise(batch, 200, batch.log_uniform(1000, 4000, 1)) * np.exp(-age / batch.log_uniform(0.03, 0.3, 1))
    return started * (rumble + batch.uniform(0, 1, 1) * crack)
