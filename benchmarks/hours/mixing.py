"""Hours of sound with known events: clips at random times over real background."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.hours.material import EVENTS, PARTS, RATE, Material

SECONDS = 3600.0
"""Of an hour."""

A_LABEL = (2.0, 40.0)
"""Events a label and hour: each hour draws its own mean between these, even in the logarithm, and then a number."""

SOURCES = (2, 6)
"""Recordings that an hour's events of a label are taken from: it is the same dog that barks."""

SNR = (-3.0, 18.0)
"""Of an event to the background under it, in dB of mean power."""

APART = 1.0
"""Seconds at least between two events of a label; those of other labels may overlap."""

STRETCH = (60.0, 300.0)
"""Seconds of background from one recording."""

LEVEL = (-36.0, -26.0)
"""Of a stretch of background, in dB below full scale."""

_FADE, _JOIN = 0.01, 0.25
_TRIES = 20


@dataclass(frozen=True)
class Truth:
    """An event of an hour: when it is heard, in seconds, how loud above the background in dB, and what it is from."""

    label: str
    onset: float
    offset: float
    snr: float
    source: str


def mix(material: Material, part: str, number: int, seconds: float = SECONDS) -> tuple[NDArray, list[Truth]]:
    """Make an hour; it follows from the part and its number.

    Args:
        material: The clips of the part.
        part: Its name.
        number: Of the hour.
        seconds: How long it is.

    Returns:
        The sound, float32 at ``RATE``, and its events in the order of their onsets.
    """
    random = np.random.default_rng([16, list(PARTS).index(part), number])
    sound = _background(material, seconds, random)
    under = sound.copy()
    truth = list[Truth]()
    for label in EVENTS:
        truth += _placed(material, label, sound, under, random)
    peak = np.abs(sound).max()
    return sound / max(1.0, peak), sorted(truth, key=lambda event: event.onset)


def _background(material: Material, seconds: float, random: np.random.Generator) -> NDArray[np.float32]:
    join = round(_JOIN * RATE)
    sound = np.zeros(round(seconds * RATE) + join, dtype=np.float32)
    place = 0
    while place < len(sound) - join:
        name = random.choice(list(material.background))
        sources = material.background[name]
        clips = [material.waveform(path) for path in sources[random.choice(list(sources))]]
        clips = [clip for clip in clips if len(clip) > 2 * join]
        if not clips:
            continue
        power = np.mean([np.mean(clip**2) for clip in clips])
        gain = 10 ** (random.uniform(*LEVEL) / 20) / np.sqrt(max(power, 1e-12))
        until = min(len(sound) - join, place + round(random.uniform(*STRETCH) * RATE))
        while place < until:
            for index in random.permutation(len(clips)):
                clip = gain * clips[index]
                # Each begins while the one before it fades.
                ramp = np.linspace(0, 1, join, dtype=np.float32)
                clip = np.concatenate([clip[:join] * ramp, clip[join:-join], clip[-join:] * ramp[::-1]])
                piece = clip[: len(sound) - place]
                sound[place : place + len(piece)] += piece
                place += len(clip) - join
                if place >= until:
                    break
    return sound[: round(seconds * RATE)]


def _placed(material: Material, label: str, sound: NDArray, under: NDArray, random: np.random.Generator) -> list[Truth]:
    """Add the events of a label to the sound."""
    seconds = len(sound) / RATE
    mean = float(np.exp(random.uniform(*np.log(A_LABEL)))) * seconds / SECONDS
    sources = material.events[label]
    many = min(len(sources), int(random.integers(SOURCES[0], SOURCES[1] + 1)))
    chosen = random.choice(list(sources), many, replace=False)
    found = list[Truth]()
    for _ in range(random.poisson(mean)):
        source = str(random.choice(chosen))
        event = material.event(sources[source][random.integers(len(sources[source]))])
        length: float = len(event) / RATE
        for _ in range(_TRIES):
            onset = float(random.uniform(0, seconds - length))
            if all(onset > each.offset + APART or onset + length + APART < each.onset for each in found):
                break
        else:
            continue
        first = round(onset * RATE)
        fade = min(round(_FADE * RATE), len(event) // 2)
        event = event.copy()
        event[:fade] *= np.linspace(0, 1, fade, dtype=np.float32)
        event[len(event) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
        snr = random.uniform(*SNR)
        below = float(np.mean(under[first : first + len(event)].astype(np.float64) ** 2))
        power = float(np.mean(event.astype(np.float64) ** 2))
        gain = np.sqrt(max(below, 1e-10) / max(power, 1e-12)) * 10 ** (snr / 20)
        sound[first : first + len(event)] += (gain * event)[: len(sound) - first]
        found.append(Truth(label, first / RATE, first / RATE + length, snr, source))
    return found
