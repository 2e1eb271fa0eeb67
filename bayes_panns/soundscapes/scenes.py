"""Synthetic soundscapes: families of everyday sounds, drawn at random and mixed over backgrounds.

They stand in for recordings where none are at hand: a demonstration, a test, a first look at a recipe. A *kind* of
sound is a parametrised family, so that no two clips of it are alike, and some kinds are close on purpose (rain, wind
and fire; siren and whistle; engine and hum), so that some clips are truly ambiguous.

Example:
    >>> scenes = soundscapes(UPSTREAM, 100, seconds=1.0)
    >>> scenes.waveform.shape, scenes.target.shape
    ((100, 16000), (100, 16))
"""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

SHORTEST = 0.25
"""The shortest clip, in seconds: events need room to sound."""

_BLOCK = 2**22  # samples rendered at a time; keeps a few hundred MB enough for any number of clips


class _Take:
    """What a family needs to record its clips: their size and random draws.

    Each draw comes from a stream of its own and fills clip after clip, so that clip ``i`` comes out the same however
    many clips follow it. Arrays have the clips as first axis, and are float32, which is several times faster here.

    Args:
        seed: Non-negative numbers that name this take.
        clips: How many clips.
        samples: Samples a clip.
        sample_rate: In Hz.
    """

    def __init__(self, seed: Sequence[int], clips: int, samples: int, sample_rate: int):
        self.clips, self.samples, self.sample_rate = clips, samples, sample_rate
        self.seconds = samples / sample_rate
        self.ceiling = 0.45 * sample_rate  # no partial goes higher: it would alias, or nearly
        self._seed = np.random.SeedSequence(seed)

    def random(self, *shape: int) -> np.ndarray:
        """Uniform in [0, 1), shape ``(clips, *shape)``."""
        return np.random.default_rng(self._seed.spawn(1)[0]).random((self.clips, *shape), dtype=np.float32)

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Uniform between ``low`` and ``high``, shape ``(clips, *shape)``."""
        return low + (high - low) * self.random(*shape)

    def log_uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Uniform in the logarithm between ``low`` and ``high``, shape ``(clips, *shape)``."""
        return low * (high / low) ** self.random(*shape)

    def pitch(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Frequencies in Hz, log-uniform; a range that the sample rate cannot carry moves down, ratio kept."""
        shift = min(1.0, 0.9 * self.ceiling / high)
        return self.log_uniform(low * shift, high * shift, *shape)

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """Uniform from ``low`` to ``high - 1``, shape ``(clips, *shape)``."""
        return low + ((high - low) * self.random(*shape)).astype(int)

    def maybe(self, probability: float, *shape: int) -> np.ndarray:
        """Yes (1) or no (0), shape ``(clips, *shape)``."""
        return (self.random(*shape) < probability).astype(np.float32)

    def time(self, seconds: float | None = None) -> np.ndarray:
        """Time in seconds of the samples of a clip, or of a grain of ``seconds``: shape ``(samples,)``."""
        samples = self.samples if seconds is None else math.ceil(seconds * self.sample_rate)
        return np.arange(samples, dtype=np.float32) / np.float32(self.sample_rate)


# ---------------------------------------------------------------------------------------------------------------------
# Building blocks. Shapes: (clips, samples) for what fills a clip, (clips, events, samples) for grains, short sounds
# placed at their onsets. Parameters broadcast against them, so they end in an axis of 1.


def _band(frequency: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Gain of a band-pass at ``frequency``, edges at ``low`` and ``high`` Hz falling by 12 dB an octave."""
    above, below = frequency / high, low / np.maximum(frequency, 1.0)
    above *= above
    below *= below
    return 1 / ((1 + above) * (1 + below))


def _noise(
    take: _Take,
    low: np.ndarray | float,
    high: np.ndarray | float,
    *,
    seconds: float | None = None,
    events: int | None = None,
    tilt: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Gaussian noise of RMS 1 between ``low`` and ``high`` Hz; its power falls as ``frequency ** -tilt``."""
    length = take.time(seconds).size
    size = fft.next_fast_len(max(length, 64), real=True)
    frequency = fft.rfftfreq(size, 1 / take.sample_rate).astype(np.float32)
    gain = _band(frequency, low, high) * np.exp(-0.5 * tilt * np.log(np.maximum(frequency, 20.0)))
    gain /= np.sqrt(np.mean(gain * gain, axis=-1, keepdims=True))
    # Uniform coefficients do: each sample sums so many of them that it is Gaussian. Scaled to unit variance.
    shape = (frequency.size, 2) if events is None else (events, frequency.size, 2)
    spectrum = take.uniform(-math.sqrt(1.5), math.sqrt(1.5), *shape).view(np.complex64)[..., 0]
    return fft.irfft(spectrum * gain, size)[..., :length] * math.sqrt(size)


def _crackle(take: _Take, rate: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Single impulses of heavy-tailed strength, ``rate`` a second, heard between ``low`` and ``high`` Hz."""
    chance = take.random(take.samples) * (take.sample_rate / rate)
    # Where an impulse falls, its chance is itself uniform in (0, 1): it serves as strength and sign.
    impulses = np.where(chance < 1, (chance - 0.5) / (1.02 - np.abs(2 * chance - 1)), 0)
    size = fft.next_fast_len(take.samples, real=True)
    frequency = fft.rfftfreq(size, 1 / take.sample_rate).astype(np.float32)
    sound = fft.irfft(fft.rfft(impulses, size) * _band(frequency, low, high), size)[:, : take.samples]
    return sound / (np.sqrt(np.mean(sound * sound, axis=1, keepdims=True)) + 1e-6)


def _tone(take: _Take, pitch: np.ndarray, partials: np.ndarray) -> np.ndarray:
    """Harmonic tone that follows ``pitch`` (Hz, last axis time), with gains ``partials`` (last axis the harmonics)."""
    pitch = np.minimum(pitch, take.ceiling)
    cycles = np.cumsum(pitch, axis=-1, dtype=np.float64)
    cycles /= take.sample_rate
    cycles -= np.floor(cycles)
    angle = (2 * np.pi * cycles).astype(np.float32)
    turn = np.empty(angle.shape, np.complex64)
    np.cos(angle, out=turn.real)
    np.sin(angle, out=turn.imag)
    highest = pitch.max(axis=-1, keepdims=True)
    sound = np.zeros_like(turn)
    # Horner's rule in powers of the turning phasor: one product a harmonic rather than one sine.
    for harmonic in range(partials.shape[-1], 0, -1):
        sound += partials[..., harmonic - 1, None] * (harmonic * highest <= take.ceiling)
        sound *= turn
    return sound.imag


def _timbre(take: _Take, harmonics: int, *, rolloff: tuple[float, float]) -> np.ndarray:
    """Random gains of harmonics, ``(clips, harmonics)``, falling as a random power of their number from 1."""
    number = np.arange(1, harmonics + 1, dtype=np.float32)
    return number ** -take.uniform(*rolloff, 1) * take.uniform(0.3, 1.0, harmonics) ** (number > 1)


def _modes(take: _Take, frequency: np.ndarray, decay: np.ndarray, seconds: float) -> np.ndarray:
    """Ringing of a struck body: a sum over the last axis of sines at ``frequency`` Hz, fading in ``decay`` seconds."""
    time = take.time(seconds)
    sound = np.zeros((*frequency.shape[:-1], time.size), np.float32)
    for mode in range(frequency.shape[-1]):
        cycles = frequency[..., mode, None] * time
        cycles -= np.floor(cycles)
        audible = (frequency[..., mode, None] <= take.ceiling) / (1 + mode)
        sound += audible * np.sin(2 * np.pi * cycles) * np.exp(-time / decay[..., mode, None])
    return sound


def _click(
    take: _Take, low: np.ndarray | float, high: np.ndarray | float, decay: np.ndarray, seconds: float, events: int
) -> np.ndarray:
    """Grains of noise between ``low`` and ``high`` Hz that fade in ``decay`` seconds."""
    return _noise(take, low, high, seconds=seconds, events=events) * np.exp(-take.time(seconds) / decay)


def _syllable(take: _Take, duration: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Progress from 0 to 1 over ``duration`` seconds, and an envelope that rises and falls over it."""
    progress = np.minimum(take.time(seconds) / duration, 1)
    return progress, 1 - np.square(np.square(2 * progress - 1))


def _onsets(
    take: _Take,
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
    events = math.ceil(fastest * take.seconds) + 1
    least, most = burst or (events, events)
    events = min(events, most)
    period = 1 / take.log_uniform(slowest, fastest, 1)
    first = take.random(1) * np.minimum(0.5 * take.seconds, period if burst is None else np.inf)
    gaps = (1 - irregular) - irregular * np.log(1 - take.random(events))
    gaps[:, 0] = 0
    onsets = first + period * np.cumsum(gaps, axis=1)
    return np.where(np.arange(events) < take.integers(least, most + 1, 1), onsets, np.inf)


def _place(take: _Take, grains: np.ndarray, onsets: np.ndarray, softest: float = 0.5) -> np.ndarray:
    """Sum grains at their onsets, with a random strength between ``softest`` and 1.

    Grains are ``(clips, events, samples)``, or have 1 event where all events of a clip sound alike.
    """
    strength = take.uniform(softest, 1.0, onsets.shape[1])
    sound = np.zeros((take.clips, take.samples), np.float32)
    grains = np.broadcast_to(grains, (*onsets.shape, grains.shape[-1]))
    for clip, event in zip(*np.nonzero(onsets < take.seconds), strict=True):
        start = int(onsets[clip, event] * take.sample_rate)
        room = sound[clip, start : start + grains.shape[-1]]
        room += strength[clip, event] * grains[clip, event, : room.size]
    return sound


def _drift(take: _Take, low: float, high: float, rate: float) -> np.ndarray:
    """A smooth random curve between ``low`` and ``high`` that turns about ``rate`` times a second."""
    points = math.ceil(take.seconds * rate) + 2
    position = take.time() * rate
    distance = np.minimum(np.abs(position - np.arange(points, dtype=np.float32)[:, None]), 1)
    return take.uniform(low, high, points) @ (0.5 + 0.5 * np.cos(np.pi * distance))


def _wave(take: _Take, rate: np.ndarray) -> np.ndarray:
    """The phase, from 0 to 1, of something that repeats ``rate`` times a second, from a random start."""
    phase = take.time() * rate + take.random(1)
    return phase - np.floor(phase)


def _gate(take: _Take, rate: np.ndarray, duty: np.ndarray) -> np.ndarray:
    """On for the share ``duty`` of each period, then off, ``rate`` times a second, with ramps of 5 ms or less."""
    rate = np.maximum(rate, 1 / take.seconds)  # a short clip must not fall between two periods
    phase = _wave(take, rate)
    ramp = np.minimum(0.005 * rate, 0.3 * duty)
    return np.clip(np.minimum(phase, duty - phase) / ramp, 0, 1)


def _steps(take: _Take, rate: np.ndarray, fastest: float, levels: np.ndarray) -> np.ndarray:
    """One of a clip's ``levels``, ``(clips, levels)``, drawn anew ``rate`` times a second, at most ``fastest``."""
    draws = take.integers(0, levels.shape[1], math.ceil(take.seconds * fastest) + 1)
    return np.take_along_axis(np.take_along_axis(levels, draws, 1), (take.time() * rate).astype(int), 1)


def _sections(take: _Take, shortest: float) -> np.ndarray:
    """An envelope that sounds for a random share, at least ``shortest``, of the clip, with ramps of 50 ms."""
    length = take.uniform(shortest, 1.3, 1) * take.seconds
    start = take.random(1) * np.maximum(take.seconds - length, 0)
    time = take.time() - start
    return np.clip(np.minimum(time, length - time) / 0.05, 0, 1)


# ---------------------------------------------------------------------------------------------------------------------
# The families.

_Family = Callable[[_Take], np.ndarray]
"""Records a take: sounds of any level, shape ``(clips, samples)``."""

_upstream: dict[str, _Family] = {}
_downstream: dict[str, _Family] = {}
_novel: dict[str, _Family] = {}
_backgrounds: dict[str, _Family] = {}


def _kind(group: dict[str, _Family]) -> Callable[[_Family], _Family]:
    """Register a family in ``group`` under its function's name."""

    def register(family: _Family) -> _Family:
        group[family.__name__] = family
        return family

    return register


@_kind(_upstream)
def alarm(take: _Take) -> np.ndarray:
    """Electronic beeps of one or two alternating pitches."""
    rate = take.log_uniform(1.5, 8, 1)
    second = np.where(take.maybe(0.4, 1) > 0, take.uniform(0.7, 0.9, 1), 1)
    pitch = take.pitch(900, 3200, 1) * np.where(_wave(take, rate / 2) < 0.5, 1, second)
    return _tone(take, pitch, _timbre(take, 4, rolloff=(0.8, 3))) * _gate(take, rate, take.uniform(0.35, 0.75, 1))


@_kind(_upstream)
def bell(take: _Take) -> np.ndarray:
    """Strikes of an inharmonic body that rings on."""
    ratio = np.array([1, 2.0, 2.4, 3.0, 4.5, 5.33], np.float32) * take.uniform(0.97, 1.03, 1, 6)
    decay = take.log_uniform(0.2, 1.2, 1, 1) / np.sqrt(ratio)
    ring = _modes(take, take.pitch(250, 1200, 1, 1) * ratio, decay, seconds=1.5)
    return _place(take, ring, _onsets(take, 0.8, 3, irregular=0.2, burst=(1, 4)))


@_kind(_upstream)
def bird(take: _Take) -> np.ndarray:
    """Songs of short, high, sweeping syllables."""
    onsets = _onsets(take, 3, 10, irregular=0.3, burst=(3, 10))
    progress, envelope = _syllable(take, take.log_uniform(0.03, 0.15, 1, 1), seconds=0.15)
    events = onsets.shape[1]
    sweep = take.uniform(-0.9, 0.9, 1, 1) * progress + take.uniform(-0.5, 0.5, 1, 1) * np.sin(np.pi * progress)
    pitch = take.pitch(2000, 5500, 1, 1) * 2 ** (sweep + take.uniform(-0.15, 0.15, events, 1))
    return _place(take, _tone(take, pitch, _timbre(take, 2, rolloff=(1.5, 4))[:, None]) * envelope, onsets)


@_kind(_upstream)
def clock(take: _Take) -> np.ndarray:
    """Regular ticks, every other one a little lower."""
    onsets = _onsets(take, 1.5, 5)
    events = onsets.shape[1]
    tock = np.where(np.arange(events)[:, None] % 2, take.uniform(0.65, 1, 1, 1), 1)
    frequency = take.pitch(1200, 4500, 1, 1) * tock * np.array([1, 1.7], np.float32)
    tick = _modes(take, frequency, take.log_uniform(0.002, 0.012, 1, 2), seconds=0.06)
    return _place(take, tick + _click(take, 2000, 6000, take.uniform(0.001, 0.004, 1, 1), 0.06, events), onsets, 0.8)


@_kind(_upstream)
def crickets(take: _Take) -> np.ndarray:
    """A high, nearly pure tone in fast pulses, grouped into chirps."""
    pulses = _gate(take, take.uniform(18, 50, 1), take.uniform(0.4, 0.7, 1))
    chirps = _gate(take, take.log_uniform(0.8, 4, 1), take.uniform(0.35, 1.2, 1))
    pitch = take.pitch(2800, 6000, 1) * _drift(take, 0.99, 1.01, 4)
    return _tone(take, pitch, _timbre(take, 2, rolloff=(3, 5))) * pulses * chirps


@_kind(_upstream)
def dog(take: _Take) -> np.ndarray:
    """Barks: short, rough, voiced, rising then falling."""
    onsets = _onsets(take, 1.2, 4, irregular=0.3, burst=(1, 5))
    progress, envelope = _syllable(take, take.uniform(0.1, 0.3, 1, 1), seconds=0.3)
    events = onsets.shape[1]
    arch = 1 + take.uniform(0.1, 0.6, 1, 1) * np.sin(np.pi * np.sqrt(progress))
    pitch = take.log_uniform(220, 800, 1, 1) * take.uniform(0.92, 1.08, events, 1) * arch
    voice = _tone(take, pitch, _timbre(take, 10, rolloff=(0.3, 1.2))[:, None])
    rough = _noise(take, 400, take.pitch(1500, 3500, 1, 1), seconds=0.3, events=events)
    return _place(take, (voice + take.uniform(0.2, 0.7, 1, 1) * rough) * envelope * (1.2 - progress), onsets)


@_kind(_upstream)
def drops(take: _Take) -> np.ndarray:
    """Water drops: faint knocks whose pitch leaps up as the bubble closes."""
    onsets = _onsets(take, 1, 7, irregular=0.8)
    time, events = take.time(0.12), onsets.shape[1]
    pitch = take.pitch(400, 1800, events, 1) * (1 + take.uniform(3, 14, events, 1) * time)
    bubble = _tone(take, pitch, np.ones((1, 1, 1), np.float32)) * np.exp(-time / take.uniform(0.01, 0.035, events, 1))
    return _place(take, bubble, onsets, softest=0.3)


@_kind(_upstream)
def engine(take: _Take) -> np.ndarray:
    """A motor under changing load: a low, rough harmonic tone and exhaust noise that pulses with it."""
    pitch = take.log_uniform(28, 110, 1) * _drift(take, 0.8, 1.25, 1.5)
    motor = _tone(take, pitch, _timbre(take, 16, rolloff=(0.0, 0.9)))
    exhaust = _noise(take, 80, take.log_uniform(400, 2500, 1)) * (0.4 + np.abs(_tone(take, pitch / 2, np.ones((1, 1)))))
    return motor + take.uniform(0.3, 1.2, 1) * exhaust


@_kind(_upstream)
def fire(take: _Take) -> np.ndarray:
    """Crackling over a soft low roar."""
    crackle = _crackle(take, take.log_uniform(8, 80, 1), take.log_uniform(500, 1500, 1), 6000)
    roar = _noise(take, 50, take.log_uniform(200, 900, 1)) * _drift(take, 0.4, 1, 5)
    return crackle + take.uniform(0.1, 0.7, 1) * roar


@_kind(_upstream)
def footsteps(take: _Take) -> np.ndarray:
    """Steps: a dull thud, then the scrape of the sole."""
    onsets = _onsets(take, 1.3, 3, irregular=0.1)
    events = onsets.shape[1]
    thud = _click(take, 50, take.log_uniform(120, 400, 1, 1), take.uniform(0.02, 0.06, 1, 1), 0.3, events)
    _, envelope = _syllable(take, take.uniform(0.06, 0.25, events, 1), seconds=0.3)
    low = take.log_uniform(600, 2000, 1, 1)
    scrape = _noise(take, low, 3 * low, seconds=0.3, events=events) * envelope
    return _place(take, thud + take.uniform(0.1, 0.6, events, 1) * scrape, onsets)


@_kind(_upstream)
def hum(take: _Take) -> np.ndarray:
    """A machine that hums steadily."""
    sound = _tone(
        take, take.log_uniform(45, 180, 1) * np.ones(take.samples, np.float32), _timbre(take, 12, rolloff=(0.3, 1.8))
    )
    return (sound + take.uniform(0.02, 0.2, 1) * _noise(take, 200, 3000)) * _sections(take, 0.5)


@_kind(_upstream)
def knock(take: _Take) -> np.ndarray:
    """Knuckles on wood: a few quick, damped, low strikes."""
    onsets = _onsets(take, 3, 8, irregular=0.2, burst=(2, 6))
    ratio = np.cumsum(take.uniform(0.5, 1.1, 1, 3), axis=-1)
    body = _modes(take, take.log_uniform(120, 450, 1, 1) * ratio, take.log_uniform(0.012, 0.06, 1, 3), seconds=0.25)
    contact = _click(take, 300, 2500, take.uniform(0.002, 0.01, 1, 1), 0.25, onsets.shape[1])
    return _place(take, body + take.uniform(0.1, 0.5, 1, 1) * contact, onsets)


@_kind(_upstream)
def rain(take: _Take) -> np.ndarray:
    """Steady high noise with many small impacts."""
    low = take.log_uniform(300, 1500, 1)
    shower = _noise(take, low, take.pitch(4000, 12000, 1)) * _drift(take, 0.7, 1, 3)
    return shower + take.uniform(0.1, 0.9, 1) * _crackle(take, take.log_uniform(60, 500, 1), low, 5000)


@_kind(_upstream)
def siren(take: _Take) -> np.ndarray:
    """A wailing, yelping or two-tone siren."""
    phase = _wave(take, take.log_uniform(0.3, 4, 1))
    wail = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
    shape = take.random(1)
    course = np.where(shape < 0.5, wail, np.where(shape < 0.75, phase, (phase < 0.5).astype(np.float32)))
    pitch = take.log_uniform(400, 900, 1) * take.uniform(1.3, 2.4, 1) ** course
    return _tone(take, pitch, _timbre(take, 6, rolloff=(0.8, 3)))


@_kind(_upstream)
def whistle(take: _Take) -> np.ndarray:
    """Somebody whistling: a nearly pure tone that glides, with breath."""
    vibrato = take.uniform(0, 0.03, 1) * np.sin(2 * np.pi * _wave(take, take.uniform(4, 8, 1)))
    pitch = take.log_uniform(700, 2000, 1) * 2 ** (_drift(take, -0.5, 0.5, 3) + vibrato)
    breath = take.uniform(0.02, 0.2, 1) * _noise(take, 800, 5000)
    return (_tone(take, pitch, _timbre(take, 2, rolloff=(2.5, 5))) + breath) * _sections(take, 0.3)


@_kind(_upstream)
def wind(take: _Take) -> np.ndarray:
    """Gusts: low noise, brighter where it is louder."""
    gust = _drift(take, 0.1, 1, 2)
    low = take.log_uniform(40, 150, 1)
    high = take.log_uniform(250, 900, 1)
    return _noise(take, low, high) * gust + _noise(take, high, 3 * high) * take.uniform(0.1, 0.8, 1) * gust * gust


@_kind(_downstream)
def cat(take: _Take) -> np.ndarray:
    """Meows: long voiced calls that open and close."""
    onsets = _onsets(take, 0.7, 1.6, irregular=0.2, burst=(1, 3))
    progress, envelope = _syllable(take, take.uniform(0.35, 0.9, 1, 1), seconds=0.9)
    events = onsets.shape[1]
    arch = 2 ** (take.uniform(0.1, 0.6, 1, 1) * np.sin(np.pi * progress) - take.uniform(0, 0.5, 1, 1) * progress)
    pitch = take.log_uniform(350, 800, 1, 1) * take.uniform(0.93, 1.07, events, 1) * arch
    closed = _timbre(take, 8, rolloff=(1.5, 3))[:, None]
    opened = _timbre(take, 8, rolloff=(-0.3, 0.6))[:, None]
    mouth = np.sin(np.pi * progress)
    return _place(take, (_tone(take, pitch, closed) + mouth * _tone(take, pitch, opened)) * envelope, onsets)


@_kind(_downstream)
def frog(take: _Take) -> np.ndarray:
    """Croaks: a low voice chopped by fast pulses."""
    onsets = _onsets(take, 0.9, 3, irregular=0.3)
    _, envelope = _syllable(take, take.uniform(0.15, 0.45, 1, 1), seconds=0.45)
    time, events = take.time(0.45), onsets.shape[1]
    pulses = np.square(np.sin(np.pi * take.uniform(18, 50, 1, 1) * time))
    pitch = take.log_uniform(130, 450, 1, 1) * take.uniform(0.9, 1.1, events, 1) * (1 + 0.4 * time)
    voice = _tone(take, pitch, _timbre(take, 8, rolloff=(0.0, 1.0))[:, None])
    return _place(take, voice * np.square(pulses) * envelope, onsets)


@_kind(_downstream)
def glass(take: _Take) -> np.ndarray:
    """Glass that breaks: a crash, then shards that ring as they fall."""
    onsets = _onsets(take, 12, 60, irregular=1.0, burst=(8, 20))
    events = onsets.shape[1]
    shards = _modes(take, take.pitch(2200, 7500, events, 2), take.log_uniform(0.01, 0.08, events, 2), seconds=0.25)
    crash = _click(take, take.pitch(1500, 3000, 1, 1), 8000, take.uniform(0.02, 0.08, 1, 1), 0.4, events=1)
    return _place(take, shards, onsets, softest=0.1) + take.uniform(0.5, 1.5, 1) * _place(take, crash, onsets[:, :1])


@_kind(_downstream)
def heartbeat(take: _Take) -> np.ndarray:
    """Lub-dub, lub-dub: pairs of deep thumps, the second one shorter."""
    onsets = _onsets(take, 0.9, 2.4)
    frequency = take.log_uniform(45, 110, 1, 1) * np.array([1, 1.6], np.float32)
    lub = _modes(take, frequency, take.uniform(0.03, 0.06, 1, 2), seconds=0.3)
    dub = _modes(take, 1.3 * frequency, take.uniform(0.015, 0.04, 1, 2), seconds=0.2)
    beat = _place(take, lub, onsets, 0.9) + take.uniform(0.5, 1, 1) * _place(
        take, dub, onsets + take.uniform(0.15, 0.25, 1)
    )
    return beat + take.uniform(0.005, 0.03, 1) * _noise(take, 50, 400)


@_kind(_downstream)
def helicopter(take: _Take) -> np.ndarray:
    """Rotor blades that chop low noise, and a whining turbine."""
    phase = _wave(take, take.uniform(9, 20, 1))
    chop = np.exp(-phase * take.uniform(2, 6, 1))
    rotor = _noise(take, 40, take.log_uniform(200, 700, 1)) * (chop + 0.1)
    wash = take.uniform(0.1, 0.4, 1) * _noise(take, 500, 3500) * (chop + 0.4)
    whine = _tone(take, take.pitch(800, 2500, 1) * _drift(take, 0.99, 1.01, 2), _timbre(take, 2, rolloff=(1, 2)))
    return rotor + wash + take.uniform(0.0, 0.15, 1) * whine


@_kind(_downstream)
def keyboard(take: _Take) -> np.ndarray:
    """Typing: irregular pairs of clicks, key down and key up."""
    onsets = _onsets(take, 4, 11, irregular=0.7)
    events = onsets.shape[1]
    press = _click(take, take.pitch(1000, 3000, 1, 1), 6500, take.uniform(0.002, 0.007, events, 1), 0.05, events)
    case = _modes(take, take.log_uniform(180, 600, 1, 1), take.uniform(0.006, 0.015, 1, 1), seconds=0.05)
    release = onsets + take.uniform(0.05, 0.1, events)
    return _place(take, press + case, onsets, 0.4) + _place(take, 0.5 * press, release, 0.2)


@_kind(_downstream)
def saw(take: _Take) -> np.ndarray:
    """Sawing wood: strokes of rasping noise, to and fro."""
    phase = _wave(take, take.uniform(1, 2.6, 1))
    stroke = np.abs(np.sin(2 * np.pi * phase)) * np.where(phase < 0.5, 1, take.uniform(0.3, 0.8, 1))
    teeth = np.square(np.sin(np.pi * _wave(take, take.uniform(60, 180, 1))))
    low = take.log_uniform(700, 2200, 1)
    return _noise(take, low, 3.5 * low) * (0.3 + teeth) * stroke


@_kind(_downstream)
def thunder(take: _Take) -> np.ndarray:
    """A crack, then a long deep rumble."""
    age = take.time() - take.uniform(0, 0.5, 1) * take.seconds
    started = np.clip(age / 0.02, 0, 1)
    age = np.maximum(age, 0)
    rumble = (
        _noise(take, 25, take.log_uniform(90, 250, 1))
        * _drift(take, 0.2, 1, 6)
        * np.exp(-age / take.uniform(0.5, 2, 1))
    )
    crack = _noise(take, 200, take.log_uniform(1000, 4000, 1)) * np.exp(-age / take.log_uniform(0.03, 0.3, 1))
    return started * (rumble + take.uniform(0, 1, 1) * crack)


@_kind(_novel)
def applause(take: _Take) -> np.ndarray:
    """Many hands clapping."""
    low = take.log_uniform(600, 1100, 1)
    claps = _crackle(take, take.log_uniform(25, 200, 1), low, 2.2 * low)
    return claps * _drift(take, 0.5, 1, 2) + take.uniform(0.1, 0.4, 1) * _noise(take, low, 2.5 * low)


@_kind(_novel)
def drums(take: _Take) -> np.ndarray:
    """A drum kit: bass drum, snare and hi-hat in random order on a steady beat."""
    onsets = _onsets(take, 3, 8)
    time, events = take.time(0.25), onsets.shape[1]
    bass = _tone(take, take.uniform(45, 70, 1, 1) * (1 + 3 * np.exp(-time / 0.03)), np.ones((1, 1, 1))) * np.exp(
        -time / 0.08
    )
    snare = 0.6 * _click(take, 300, 5000, take.uniform(0.03, 0.08, 1, 1), 0.25, events)
    hat = 0.4 * _click(take, take.pitch(4000, 7000, 1, 1), 15000, take.uniform(0.01, 0.05, 1, 1), 0.25, events)
    choice = take.random(events, 1)
    return _place(take, np.where(choice < 0.35, 1.5 * bass, np.where(choice < 0.65, snare, hat)), onsets)


@_kind(_novel)
def laser(take: _Take) -> np.ndarray:
    """Zaps of a toy gun: bright tones that fall by octaves."""
    onsets = _onsets(take, 1.5, 6, irregular=0.2)
    progress, envelope = _syllable(take, take.uniform(0.1, 0.3, 1, 1), seconds=0.3)
    pitch = take.pitch(1800, 3500, 1, 1) * 2 ** (-take.uniform(2, 4.5, 1, 1) * np.sqrt(progress))
    return _place(take, _tone(take, pitch, _timbre(take, 5, rolloff=(0.5, 1.5))[:, None]) * envelope, onsets)


@_kind(_novel)
def modem(take: _Take) -> np.ndarray:
    """Data sent as tones: fast random jumps between four pitches."""
    levels = take.pitch(900, 1400, 1) * (1 + take.uniform(0.15, 0.4, 1) * np.arange(4, dtype=np.float32))
    pitch = _steps(take, take.log_uniform(15, 90, 1), 90, levels)
    return _tone(take, pitch, _timbre(take, 2, rolloff=(1, 3))) * _sections(take, 0.5)


@_kind(_novel)
def organ(take: _Take) -> np.ndarray:
    """Chords of sustained notes that change together."""
    root = take.log_uniform(130, 330, 1) * 2 ** (np.array([0, 2, 4, 5, 7, 9], np.float32) / 12)
    root = _steps(take, take.uniform(1, 3.5, 1), 3.5, root)
    third = np.where(take.maybe(0.5, 1) > 0, 2 ** (4 / 12), 2 ** (3 / 12)).astype(np.float32)
    stops = _timbre(take, 8, rolloff=(0.3, 1.2))
    return sum((_tone(take, root * ratio, stops) for ratio in (third, 1.5)), start=_tone(take, root, stops))


@_kind(_backgrounds)
def coloured(take: _Take) -> np.ndarray:
    """Steady noise, from white to red."""
    return _noise(take, 30, take.pitch(3000, 20000, 1), tilt=take.uniform(0, 2, 1))


@_kind(_backgrounds)
def babble(take: _Take) -> np.ndarray:
    """A distant crowd: noise in the bands of speech, each loud and soft at the pace of syllables."""
    low = _noise(take, 150, 700, tilt=0.5) * _drift(take, 0.05, 1, 5)
    return low + take.uniform(0.2, 0.7, 1) * _noise(take, 700, 3200, tilt=0.5) * _drift(take, 0.05, 1, 6)


@_kind(_backgrounds)
def room(take: _Take) -> np.ndarray:
    """Low noise of a ventilated room with a trace of mains hum."""
    pitch = np.where(take.maybe(0.5, 1) > 0, 50, 60) * np.ones(take.samples, np.float32)
    mains = _tone(take, pitch, _timbre(take, 6, rolloff=(0.5, 2)))
    return _noise(take, 30, 1500, tilt=take.uniform(1, 2, 1)) + take.uniform(0, 0.6, 1) * mains


UPSTREAM: tuple[str, ...] = tuple(_upstream)
"""Kinds to pretrain on."""

DOWNSTREAM: tuple[str, ...] = tuple(_downstream)
"""Kinds to transfer to; none of them is upstream."""

NOVEL: tuple[str, ...] = tuple(_novel)
"""Kinds that are neither upstream nor downstream, to test what a model does with the unknown."""

_KINDS = _upstream | _downstream | _novel


# ---------------------------------------------------------------------------------------------------------------------
# Clips and mixtures.


@dataclass(frozen=True)
class Soundscapes:
    """Labelled clips.

    Attributes:
        waveform: float32 in [-1, 1], shape ``(clips, samples)``.
        target: Which kinds a clip holds: bool, shape ``(clips, kinds)``.
        labels: The kinds, in the order of the target's columns.
        sample_rate: In Hz.
    """

    waveform: np.ndarray
    target: np.ndarray
    labels: tuple[str, ...]
    sample_rate: int


def _check(kinds: Sequence[str], clips: int, seconds: float, sample_rate: int, seed: int) -> None:
    """Raise ``ValueError`` for what cannot be rendered."""
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown or not kinds:
        problem = f"unknown kind {', '.join(map(repr, unknown))}" if unknown else "no kinds given"
        raise ValueError(f"{problem}; the kinds are {', '.join(sorted(_KINDS))}")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds are given more than once: {', '.join(kinds)}")
    if clips < 1:
        raise ValueError(f"clips must be at least 1, not {clips}")
    if not SHORTEST <= seconds < math.inf:
        raise ValueError(f"seconds must be finite and at least {SHORTEST}, not {seconds}")
    if not 8000 <= sample_rate <= 48000:
        raise ValueError(f"sample_rate must lie between 8000 and 48000 Hz, not {sample_rate}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, but is {seed}")


def _blocks(clips: int, samples: int) -> Iterator[slice]:
    """Cut ``clips`` into runs of a size that depends on their length only."""
    size = max(1, _BLOCK // samples)
    for start in range(0, clips, size):
        yield slice(start, min(start + size, clips))


def _level(sound: np.ndarray, sample_rate: int) -> np.ndarray:
    """Scale each clip so that its loudest quarter of a second has an RMS of 1: so short sounds are not drowned."""
    window = sample_rate // 4
    power = np.add.reduceat(np.square(sound), np.arange(0, sound.shape[1], window), axis=1).max(axis=1) / window
    return sound / np.sqrt(power + 1e-12)[:, None]


def _decibels(level: np.ndarray) -> np.ndarray:
    """The gain of a level in dB."""
    return 10 ** (level / 20)


def _peak(sound: np.ndarray, peak: np.ndarray | float) -> np.ndarray:
    """Scale each clip to a largest magnitude of ``peak``."""
    return sound * (peak / (np.abs(sound).max(axis=1, keepdims=True) + 1e-9))


def _stream(seed: int, name: str, block: int = 0) -> tuple[int, int, int]:
    """The seed of what is called ``name`` in a block of clips."""
    return seed, zlib.crc32(name.encode()), block


def _record(name: str, seed: int, block: int, clips: int, samples: int, sample_rate: int) -> np.ndarray:
    """Levelled clips of the kind or background ``name``, shape ``(clips, samples)``."""
    family = _KINDS[name] if name in _KINDS else _backgrounds[name]
    return _level(family(_Take(_stream(seed, name, block), clips, samples, sample_rate)), sample_rate)


def _deal(take: _Take, kinds: int, events: tuple[int, int]) -> np.ndarray:
    """Which kinds sound in which clip: bool, ``(clips, kinds)``. Every kind leads equally often, others join it."""
    decks = take.random(kinds).argsort(axis=1)
    clip = np.arange(take.clips)
    order = take.random(kinds)
    order[clip, decks[clip // kinds, clip % kinds]] = -1
    return order.argsort(axis=1).argsort(axis=1) < take.integers(events[0], events[1] + 1, 1)


def _mix(names: Sequence[str], gains: np.ndarray, seed: int, block: int, samples: int, sample_rate: int) -> np.ndarray:
    """Sum what ``names`` stand for with ``gains``, shape ``(clips, names)``; what has gain 0 is not rendered."""
    mixture = np.zeros((len(gains), samples), np.float32)
    for column, name in enumerate(names):
        (rows,) = np.nonzero(gains[:, column])
        if rows.size:
            sound = _record(name, seed, block, rows.size, samples, sample_rate)
            mixture[rows] += gains[rows, column, None] * sound
    return _level(mixture, sample_rate)


def soundscapes(
    kinds: Sequence[str],
    clips: int,
    *,
    seconds: float = 2.0,
    sample_rate: int = 16000,
    events: tuple[int, int] = (1, 3),
    seed: int = 0,
) -> Soundscapes:
    """Mix clips of several kinds of sound over a background.

    Within a clip the kinds differ in loudness by up to 8 dB; the background lies 0 to 20 dB below them. The same
    arguments give the same clips, and a clip does not change when more are made (but for rounding).

    Args:
        kinds: What may sound: any of ``UPSTREAM``, ``DOWNSTREAM`` and ``NOVEL``; the target's columns.
        clips: How many clips.
        seconds: Length of a clip, at least 0.25.
        sample_rate: In Hz, 8000 to 48000.
        events: The least and the most kinds in a clip. ``(1, 1)`` makes one-of-K data, whose counts of clips per kind
            differ by at most one.
        seed: Not negative. Each seed gives other clips.

    Returns:
        The clips and their labels.

    Raises:
        ValueError: A kind is unknown or given twice, or a size makes no sense.
    """
    _check(kinds, clips, seconds, sample_rate, seed)
    least, most = events
    if not 1 <= least <= most <= len(kinds):
        raise ValueError(f"events must rise from at least 1 to at most {len(kinds)}, the number of kinds; not {events}")
    samples = round(seconds * sample_rate)
    target = _deal(_Take(_stream(seed, "target"), clips, samples, sample_rate), len(kinds), events)
    setting = _deal(_Take(_stream(seed, "setting"), clips, samples, sample_rate), len(_backgrounds), (1, 1))
    waveform = np.empty((clips, samples), np.float32)
    for block, rows in enumerate(_blocks(clips, samples)):
        take = _Take(_stream(seed, "mix", block), rows.stop - rows.start, samples, sample_rate)
        gains = target[rows] * _decibels(take.uniform(-8, 0, len(kinds)))
        mixture = _mix(kinds, gains, seed, block, samples, sample_rate)
        background = _mix(tuple(_backgrounds), setting[rows].astype(np.float32), seed, block, samples, sample_rate)
        mixture += _decibels(take.uniform(-20, 0, 1)) * background
        waveform[rows] = _peak(mixture, take.log_uniform(0.1, 0.95, 1))
    return Soundscapes(waveform, target, tuple(kinds), sample_rate)


def render(kind: str, clips: int, *, seconds: float = 2.0, sample_rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Plain sounds of one kind, without a background, to listen to.

    Args:
        kind: Any of ``UPSTREAM``, ``DOWNSTREAM`` and ``NOVEL``.
        clips: How many clips.
        seconds: Length of a clip, at least 0.25.
        sample_rate: In Hz, 8000 to 48000.
        seed: Not negative. Each seed gives other clips.

    Returns:
        float32 samples that peak at 0.9, shape ``(clips, samples)``.

    Raises:
        ValueError: The kind is unknown, or a size makes no sense.
    """
    _check([kind], clips, seconds, sample_rate, seed)
    samples = round(seconds * sample_rate)
    waveform = np.empty((clips, samples), np.float32)
    for block, rows in enumerate(_blocks(clips, samples)):
        waveform[rows] = _peak(_record(kind, seed, block, rows.stop - rows.start, samples, sample_rate), 0.9)
    return waveform
