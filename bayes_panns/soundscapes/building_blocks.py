"""Building blocks of sounds: noise, tones, struck bodies, rhythms and envelopes.

Arrays are float32. What fills a clip has shape ``(clips, samples)``; grains, short sounds that are placed at their
onsets, have shape ``(clips, events, samples)``. Parameters broadcast against these shapes, so they end in an axis of 1.
"""

import math

import numpy as np
from scipy import fft

from bayes_panns.soundscapes.batch import Batch


def band(frequency: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Gain of a band-pass at ``frequency``, edges at ``low`` and ``high`` Hz falling by 12 dB an octave."""
    above, below = frequency / high, low / np.maximum(frequency, 1.0)
    above *= above
    below *= below
    return 1 / ((1 + above) * (1 + below))


def noise(
    batch: Batch,
    low: np.ndarray | float,
    high: np.ndarray | float,
    *,
    seconds: float | None = None,
    events: int | None = None,
    tilt: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Gaussian noise of RMS 1 between ``low`` and ``high`` Hz; its power falls as ``frequency ** -tilt``."""
    length = batch.time(seconds).size
    size = fft.next_fast_len(max(length, 64), real=True)
    frequency = fft.rfftfreq(size, 1 / batch.sample_rate).astype(np.float32)
    gain = band(frequency, low, high) * np.exp(-0.5 * tilt * np.log(np.maximum(frequency, 20.0)))
    gain /= np.sqrt(np.mean(gain * gain, axis=-1, keepdims=True))
    # Uniform coefficients do: each sample sums so many of them that it is Gaussian. Scaled to unit variance.
    shape = (frequency.size, 2) if events is None else (events, frequency.size, 2)
    spectrum = batch.uniform(-math.sqrt(1.5), math.sqrt(1.5), *shape).view(np.complex64)[..., 0]
    return fft.irfft(spectrum * gain, size)[..., :length] * math.sqrt(size)


def impulse_noise(batch: Batch, rate: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Single impulses of heavy-tailed strength, ``rate`` a second, heard between ``low`` and ``high`` Hz."""
    chance = batch.random(batch.samples) * (batch.sample_rate / rate)
    # Where an impulse falls, its chance is itself uniform in (0, 1): it serves as strength and sign.
    impulses = np.where(chance < 1, (chance - 0.5) / (1.02 - np.abs(2 * chance - 1)), 0)
    size = fft.next_fast_len(batch.samples, real=True)
    frequency = fft.rfftfreq(size, 1 / batch.sample_rate).astype(np.float32)
    sound = fft.irfft(fft.rfft(impulses, size) * band(frequency, low, high), size)[:, : batch.samples]
    return sound / (np.sqrt(np.mean(sound * sound, axis=1, keepdims=True)) + 1e-6)


def tone(batch: Batch, pitch: np.ndarray, partials: np.ndarray) -> np.ndarray:
    """Harmonic tone that follows ``pitch`` (Hz, last axis time), with gains ``partials`` (last axis the harmonics)."""
    pitch = np.minimum(pitch, batch.ceiling)
    cycles = np.cumsum(pitch, axis=-1, dtype=np.float64)
    cycles /= batch.sample_rate
    cycles -= np.floor(cycles)
    angle = (2 * np.pi * cycles).astype(np.float32)
    phasor = np.empty(angle.shape, np.complex64)
    np.cos(angle, out=phasor.real)
    np.sin(angle, out=phasor.imag)
    highest = pitch.max(axis=-1, keepdims=True)
    sound = np.zeros_like(phasor)
    # Horner's rule in powers of the phasor: one product a harmonic rather than one sine.
    for harmonic in range(partials.shape[-1], 0, -1):
        sound += partials[..., harmonic - 1, None] * (harmonic * highest <= batch.ceiling)
        sound *= phasor
    return sound.imag


def timbre(batch: Batch, harmonics: int, *, rolloff: tuple[float, float]) -> np.ndarray:
    """Random gains of harmonics, ``(clips, harmonics)``, falling as a random power of their number from 1."""
    number = np.arange(1, harmonics + 1, dtype=np.float32)
    return number ** -batch.uniform(*rolloff, 1) * batch.uniform(0.3, 1.0, harmonics) ** (number > 1)


def modes(batch: Batch, frequency: np.ndarray, decay: np.ndarray, seconds: float) -> np.ndarray:
    """Ringing of a struck body: a sum over the last axis of sines at ``frequency`` Hz, fading in ``decay`` seconds."""
    time = batch.time(seconds)
    sound = np.zeros((*frequency.shape[:-1], time.size), np.float32)
    for mode in range(frequency.shape[-1]):
        cycles = frequency[..., mode, None] * time
        cycles -= np.floor(cycles)
        audible = (frequency[..., mode, None] <= batch.ceiling) / (1 + mode)
        sound += audible * np.sin(2 * np.pi * cycles) * np.exp(-time / decay[..., mode, None])
    return sound


def click(
    batch: Batch, low: np.ndarray | float, high: np.ndarray | float, decay: np.ndarray, seconds: float, events: int
) -> np.ndarray:
    """Grains of noise between ``low`` and ``high`` Hz that fade in ``decay`` seconds."""
    return noise(batch, low, high, seconds=seconds, events=events) * np.exp(-batch.time(seconds) / decay)


def syllable(batch: Batch, duration: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Progress from 0 to 1 over ``duration`` seconds, and an envelope that rises and falls over it."""
    progress = np.minimum(batch.time(seconds) / duration, 1)
    return progress, 1 - np.square(np.square(2 * progress - 1))


def event_times(
    batch: Batch,
    slowest: float,
    fastest: float,
    *,
    irregular: float = 0.0,
    burst: tuple[int, int] | None = None,
) -> np.ndarray:
    """When events start, in seconds, ``(clips, events)``; infinity where there are no more.

    Each clip has a rate between ``slowest`` and ``fastest`` Hz. ``irregular`` runs from 0, a metronome, to 1, a Poisson
    process. A ``burst`` (least, most) ends after a random number of events. The first event always starts in the first
    half of the clip.
    """
    events = math.ceil(fastest * batch.seconds) + 1
    least, most = burst or (events, events)
    events = min(events, most)
    period = 1 / batch.log_uniform(slowest, fastest, 1)
    first = batch.random(1) * np.minimum(0.5 * batch.seconds, period if burst is None else np.inf)
    gaps = (1 - irregular) - irregular * np.log(1 - batch.random(events))
    gaps[:, 0] = 0
    onsets = first + period * np.cumsum(gaps, axis=1)
    return np.where(np.arange(events) < batch.integers(least, most + 1, 1), onsets, np.inf)


def place(batch: Batch, grains: np.ndarray, onsets: np.ndarray, softest: float = 0.5) -> np.ndarray:
    """Sum grains at their onsets, with a random strength between ``softest`` and 1.

    Grains are ``(clips, events, samples)``, or have 1 event where all events of a clip sound the same.
    """
    strength = batch.uniform(softest, 1.0, onsets.shape[1])
    sound = np.zeros((batch.clips, batch.samples), np.float32)
    grains = np.broadcast_to(grains, (*onsets.shape, grains.shape[-1]))
    for clip, event in zip(*np.nonzero(onsets < batch.seconds), strict=True):
        start = int(onsets[clip, event] * batch.sample_rate)
        span = sound[clip, start : start + grains.shape[-1]]
        span += strength[clip, event] * grains[clip, event, : span.size]
    return sound


def drift(batch: Batch, low: float, high: float, rate: float) -> np.ndarray:
    """A smooth random curve between ``low`` and ``high`` that turns about ``rate`` times a second."""
    points = math.ceil(batch.seconds * rate) + 2
    position = batch.time() * rate
    distance = np.minimum(np.abs(position - np.arange(points, dtype=np.float32)[:, None]), 1)
    return batch.uniform(low, high, points) @ (0.5 + 0.5 * np.cos(np.pi * distance))


def wave(batch: Batch, rate: np.ndarray) -> np.ndarray:
    """The phase, from 0 to 1, of something that repeats ``rate`` times a second, from a random start."""
    phase = batch.time() * rate + batch.random(1)
    return phase - np.floor(phase)


def gate(batch: Batch, rate: np.ndarray, duty: np.ndarray) -> np.ndarray:
    """On for the share ``duty`` of each period, then off, ``rate`` times a second, with ramps of 5 ms or less."""
    rate = np.maximum(rate, 1 / batch.seconds)  # a short clip must not fall between two periods
    phase = wave(batch, rate)
    ramp = np.minimum(0.005 * rate, 0.3 * duty)
    return np.clip(np.minimum(phase, duty - phase) / ramp, 0, 1)


def steps(batch: Batch, rate: np.ndarray, fastest: float, levels: np.ndarray) -> np.ndarray:
    """One of a clip's ``levels``, ``(clips, levels)``, drawn anew ``rate`` times a second, at most ``fastest``."""
    draws = batch.integers(0, levels.shape[1], math.ceil(batch.seconds * fastest) + 1)
    return np.take_along_axis(np.take_along_axis(levels, draws, 1), (batch.time() * rate).astype(int), 1)


def sections(batch: Batch, shortest: float) -> np.ndarray:
    """An envelope that sounds for a random share, at least ``shortest``, of the clip, with ramps of 50 ms."""
    length = batch.uniform(shortest, 1.3, 1) * batch.seconds
    start = batch.random(1) * np.maximum(batch.seconds - length, 0)
    time = batch.time() - start
    return np.clip(np.minimum(time, length - time) / 0.05, 0, 1)
