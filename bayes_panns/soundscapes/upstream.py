"""Classes to pretrain on."""

import numpy as np

from bayes_panns.soundscapes.batch import Batch
from bayes_panns.soundscapes.building_blocks import (
    click,
    drift,
    event_times,
    gate,
    impulse_noise,
    modes,
    noise,
    place,
    sections,
    syllable,
    timbre,
    tone,
    wave,
)
from bayes_panns.soundscapes.families import Families, register

FAMILIES: Families = {}


@register(FAMILIES)
def alarm(batch: Batch) -> np.ndarray:
    """Electronic beeps of one or two alternating pitches."""
    rate = batch.log_uniform(1.5, 8, 1)
    second = np.where(batch.maybe(0.4, 1) > 0, batch.uniform(0.7, 0.9, 1), 1)
    pitch = batch.pitch(900, 3200, 1) * np.where(wave(batch, rate / 2) < 0.5, 1, second)
    return tone(batch, pitch, timbre(batch, 4, rolloff=(0.8, 3))) * gate(batch, rate, batch.uniform(0.35, 0.75, 1))


@register(FAMILIES)
def bell(batch: Batch) -> np.ndarray:
    """Strikes of an inharmonic body that rings on."""
    ratio = np.array([1, 2.0, 2.4, 3.0, 4.5, 5.33], np.float32) * batch.uniform(0.97, 1.03, 1, 6)
    decay = batch.log_uniform(0.2, 1.2, 1, 1) / np.sqrt(ratio)
    ring = modes(batch, batch.pitch(250, 1200, 1, 1) * ratio, decay, seconds=1.5)
    return place(batch, ring, event_times(batch, 0.8, 3, irregular=0.2, burst=(1, 4)))


@register(FAMILIES)
def bird(batch: Batch) -> np.ndarray:
    """Songs of short, high, sweeping syllables."""
    onsets = event_times(batch, 3, 10, irregular=0.3, burst=(3, 10))
    progress, envelope = syllable(batch, batch.log_uniform(0.03, 0.15, 1, 1), seconds=0.15)
    events = onsets.shape[1]
    sweep = batch.uniform(-0.9, 0.9, 1, 1) * progress + batch.uniform(-0.5, 0.5, 1, 1) * np.sin(np.pi * progress)
    pitch = batch.pitch(2000, 5500, 1, 1) * 2 ** (sweep + batch.uniform(-0.15, 0.15, events, 1))
    return place(batch, tone(batch, pitch, timbre(batch, 2, rolloff=(1.5, 4))[:, None]) * envelope, onsets)


@register(FAMILIES)
def clock(batch: Batch) -> np.ndarray:
    """Regular ticks, every other one a little lower."""
    onsets = event_times(batch, 1.5, 5)
    events = onsets.shape[1]
    tock = np.where(np.arange(events)[:, None] % 2, batch.uniform(0.65, 1, 1, 1), 1)
    frequency = batch.pitch(1200, 4500, 1, 1) * tock * np.array([1, 1.7], np.float32)
    tick = modes(batch, frequency, batch.log_uniform(0.002, 0.012, 1, 2), seconds=0.06)
    return place(batch, tick + click(batch, 2000, 6000, batch.uniform(0.001, 0.004, 1, 1), 0.06, events), onsets, 0.8)


@register(FAMILIES)
def crickets(batch: Batch) -> np.ndarray:
    """A high, nearly pure tone in fast pulses, grouped into chirps."""
    pulses = gate(batch, batch.uniform(18, 50, 1), batch.uniform(0.4, 0.7, 1))
    chirps = gate(batch, batch.log_uniform(0.8, 4, 1), batch.uniform(0.35, 1.2, 1))
    pitch = batch.pitch(2800, 6000, 1) * drift(batch, 0.99, 1.01, 4)
    return tone(batch, pitch, timbre(batch, 2, rolloff=(3, 5))) * pulses * chirps


@register(FAMILIES)
def dog(batch: Batch) -> np.ndarray:
    """Barks: short, rough, voiced, rising then falling."""
    onsets = event_times(batch, 1.2, 4, irregular=0.3, burst=(1, 5))
    progress, envelope = syllable(batch, batch.uniform(0.1, 0.3, 1, 1), seconds=0.3)
    events = onsets.shape[1]
    arch = 1 + batch.uniform(0.1, 0.6, 1, 1) * np.sin(np.pi * np.sqrt(progress))
    pitch = batch.log_uniform(220, 800, 1, 1) * batch.uniform(0.92, 1.08, events, 1) * arch
    voice = tone(batch, pitch, timbre(batch, 10, rolloff=(0.3, 1.2))[:, None])
    rough = noise(batch, 400, batch.pitch(1500, 3500, 1, 1), seconds=0.3, events=events)
    return place(batch, (voice + batch.uniform(0.2, 0.7, 1, 1) * rough) * envelope * (1.2 - progress), onsets)


@register(FAMILIES)
def drops(batch: Batch) -> np.ndarray:
    """Water drops: faint knocks whose pitch leaps up as the bubble closes."""
    onsets = event_times(batch, 1, 7, irregular=0.8)
    time, events = batch.time(0.12), onsets.shape[1]
    pitch = batch.pitch(400, 1800, events, 1) * (1 + batch.uniform(3, 14, events, 1) * time)
    bubble = tone(batch, pitch, np.ones((1, 1, 1), np.float32)) * np.exp(-time / batch.uniform(0.01, 0.035, events, 1))
    return place(batch, bubble, onsets, softest=0.3)


@register(FAMILIES)
def engine(batch: Batch) -> np.ndarray:
    """A motor under changing load: a low, rough harmonic tone and exhaust noise that pulses with it."""
    pitch = batch.log_uniform(28, 110, 1) * drift(batch, 0.8, 1.25, 1.5)
    motor = tone(batch, pitch, timbre(batch, 16, rolloff=(0.0, 0.9)))
    exhaust = noise(batch, 80, batch.log_uniform(400, 2500, 1)) * (
        0.4 + np.abs(tone(batch, pitch / 2, np.ones((1, 1))))
    )
    return motor + batch.uniform(0.3, 1.2, 1) * exhaust


@register(FAMILIES)
def fire(batch: Batch) -> np.ndarray:
    """Crackling over a soft low roar."""
    crackle = impulse_noise(batch, batch.log_uniform(8, 80, 1), batch.log_uniform(500, 1500, 1), 6000)
    roar = noise(batch, 50, batch.log_uniform(200, 900, 1)) * drift(batch, 0.4, 1, 5)
    return crackle + batch.uniform(0.1, 0.7, 1) * roar


@register(FAMILIES)
def footsteps(batch: Batch) -> np.ndarray:
    """Steps: a dull thud, then the scrape of the sole."""
    onsets = event_times(batch, 1.3, 3, irregular=0.1)
    events = onsets.shape[1]
    thud = click(batch, 50, batch.log_uniform(120, 400, 1, 1), batch.uniform(0.02, 0.06, 1, 1), 0.3, events)
    _, envelope = syllable(batch, batch.uniform(0.06, 0.25, events, 1), seconds=0.3)
    low = batch.log_uniform(600, 2000, 1, 1)
    scrape = noise(batch, low, 3 * low, seconds=0.3, events=events) * envelope
    return place(batch, thud + batch.uniform(0.1, 0.6, events, 1) * scrape, onsets)


@register(FAMILIES)
def hum(batch: Batch) -> np.ndarray:
    """A machine that hums steadily."""
    sound = tone(
        batch, batch.log_uniform(45, 180, 1) * np.ones(batch.samples, np.float32), timbre(batch, 12, rolloff=(0.3, 1.8))
    )
    return (sound + batch.uniform(0.02, 0.2, 1) * noise(batch, 200, 3000)) * sections(batch, 0.5)


@register(FAMILIES)
def knock(batch: Batch) -> np.ndarray:
    """Knuckles on wood: a few quick, damped, low strikes."""
    onsets = event_times(batch, 3, 8, irregular=0.2, burst=(2, 6))
    ratio = np.cumsum(batch.uniform(0.5, 1.1, 1, 3), axis=-1)
    body = modes(batch, batch.log_uniform(120, 450, 1, 1) * ratio, batch.log_uniform(0.012, 0.06, 1, 3), seconds=0.25)
    contact = click(batch, 300, 2500, batch.uniform(0.002, 0.01, 1, 1), 0.25, onsets.shape[1])
    return place(batch, body + batch.uniform(0.1, 0.5, 1, 1) * contact, onsets)


@register(FAMILIES)
def rain(batch: Batch) -> np.ndarray:
    """Steady high noise with many small impacts."""
    low = batch.log_uniform(300, 1500, 1)
    shower = noise(batch, low, batch.pitch(4000, 12000, 1)) * drift(batch, 0.7, 1, 3)
    return shower + batch.uniform(0.1, 0.9, 1) * impulse_noise(batch, batch.log_uniform(60, 500, 1), low, 5000)


@register(FAMILIES)
def siren(batch: Batch) -> np.ndarray:
    """A wailing, yelping or two-tone siren."""
    phase = wave(batch, batch.log_uniform(0.3, 4, 1))
    wail = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
    shape = batch.random(1)
    course = np.where(shape < 0.5, wail, np.where(shape < 0.75, phase, (phase < 0.5).astype(np.float32)))
    pitch = batch.log_uniform(400, 900, 1) * batch.uniform(1.3, 2.4, 1) ** course
    return tone(batch, pitch, timbre(batch, 6, rolloff=(0.8, 3)))


@register(FAMILIES)
def whistle(batch: Batch) -> np.ndarray:
    """Somebody whistling: a nearly pure tone that glides, with breath."""
    vibrato = batch.uniform(0, 0.03, 1) * np.sin(2 * np.pi * wave(batch, batch.uniform(4, 8, 1)))
    pitch = batch.log_uniform(700, 2000, 1) * 2 ** (drift(batch, -0.5, 0.5, 3) + vibrato)
    breath = batch.uniform(0.02, 0.2, 1) * noise(batch, 800, 5000)
    return (tone(batch, pitch, timbre(batch, 2, rolloff=(2.5, 5))) + breath) * sections(batch, 0.3)


@register(FAMILIES)
def wind(batch: Batch) -> np.ndarray:
    """Gusts: low noise, brighter where it is louder."""
    gust = drift(batch, 0.1, 1, 2)
    low = batch.log_uniform(40, 150, 1)
    high = batch.log_uniform(250, 900, 1)
    return noise(batch, low, high) * gust + noise(batch, high, 3 * high) * batch.uniform(0.1, 0.8, 1) * gust * gust
