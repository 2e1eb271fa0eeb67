"""Synthetic soundscapes: clips and mixtures of the classes of sounds, over backgrounds.

They stand in for recordings where there are none: in a demonstration, a test, a first look at a recipe. A *class* of
sounds is a parametrised family, so that no two clips of it are alike, and some classes are close on purpose (rain, wind
and fire; siren and whistle; engine and hum), so that some clips are truly ambiguous.

Example:
    >>> scenes = soundscapes(UPSTREAM, 100, seconds=1.0)
    >>> scenes.waveform.shape, scenes.target.shape
    ((100, 16000), (100, 16))
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bayes_panns.soundscapes import backgrounds, downstream, novel, upstream
from bayes_panns.soundscapes.batch import Batch

SHORTEST = 0.25
"""The shortest clip, in seconds: events need room to sound."""

UPSTREAM: tuple[str, ...] = tuple(upstream.FAMILIES)
"""Classes to pretrain on."""

DOWNSTREAM: tuple[str, ...] = tuple(downstream.FAMILIES)
"""Classes to transfer to; none of them is upstream."""

NOVEL: tuple[str, ...] = tuple(novel.FAMILIES)
"""Classes that are neither upstream nor downstream, to test what a model does with the unknown."""

_CLASSES = upstream.FAMILIES | downstream.FAMILIES | novel.FAMILIES

_BLOCK = 2**22
"""Samples rendered at a time; keeps the memory at a few hundred MB for any number of clips."""


@dataclass(frozen=True)
class Soundscapes:
    """Labelled clips.

    Attributes:
        waveform: float32 in [-1, 1], shape ``(clips, samples)``.
        target: Which classes a clip holds: bool, shape ``(clips, K)``.
        labels: The K classes, in the order of the target's columns.
        sample_rate: In Hz.
    """

    waveform: np.ndarray
    target: np.ndarray
    labels: tuple[str, ...]
    sample_rate: int


def _check(classes: Sequence[str], clips: int, seconds: float, sample_rate: int, seed: int) -> None:
    """Raise ``ValueError`` for what cannot be rendered."""
    unknown = [name for name in classes if name not in _CLASSES]
    if unknown or not classes:
        problem = f"unknown class {', '.join(map(repr, unknown))}" if unknown else "no classes given"
        raise ValueError(f"{problem}; the classes are {', '.join(sorted(_CLASSES))}")
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes are given more than once: {', '.join(classes)}")
    if clips < 1:
        raise ValueError(f"clips must be at least 1, not {clips}")
    if not SHORTEST <= seconds < math.inf:
        raise ValueError(f"seconds must be finite and at least {SHORTEST}, not {seconds}")
    if not 8000 <= sample_rate <= 48000:
        raise ValueError(f"sample_rate must lie between 8000 and 48000 Hz, not {sample_rate}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, but is {seed}")


def _blocks(clips: int, samples: int) -> Iterator[slice]:
    """Cut ``clips`` into blocks of a size that depends on their length only."""
    size = max(1, _BLOCK // samples)
    for start in range(0, clips, size):
        yield slice(start, min(start + size, clips))


def _level(sound: np.ndarray, sample_rate: int) -> np.ndarray:
    """Scale each clip so that its loudest quarter of a second has an RMS of 1, so that short sounds are not drowned."""
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
    """The seed of the draws for ``name`` in a block of clips."""
    return seed, zlib.crc32(name.encode()), block


def _synthesize(name: str, seed: int, block: int, clips: int, samples: int, sample_rate: int) -> np.ndarray:
    """Levelled clips of the class or background ``name``, shape ``(clips, samples)``."""
    family = _CLASSES[name] if name in _CLASSES else backgrounds.FAMILIES[name]
    return _level(family(Batch(_stream(seed, name, block), clips, samples, sample_rate)), sample_rate)


def _assign(batch: Batch, classes: int, events: tuple[int, int]) -> np.ndarray:
    """Which classes sound in which clip: bool, ``(clips, classes)``. Each leads equally often; others join it."""
    shuffled = batch.random(classes).argsort(axis=1)
    clip = np.arange(batch.clips)
    order = batch.random(classes)
    order[clip, shuffled[clip // classes, clip % classes]] = -1
    return order.argsort(axis=1).argsort(axis=1) < batch.integers(events[0], events[1] + 1, 1)


def _mix(names: Sequence[str], gains: np.ndarray, seed: int, block: int, samples: int, sample_rate: int) -> np.ndarray:
    """Sum the sounds of ``names`` with ``gains``, shape ``(clips, names)``; sounds of gain 0 are not rendered."""
    mixture = np.zeros((len(gains), samples), np.float32)
    for column, name in enumerate(names):
        (rows,) = np.nonzero(gains[:, column])
        if rows.size:
            sound = _synthesize(name, seed, block, rows.size, samples, sample_rate)
            mixture[rows] += gains[rows, column, None] * sound
    return _level(mixture, sample_rate)


def soundscapes(
    classes: Sequence[str],
    clips: int,
    *,
    seconds: float = 2.0,
    sample_rate: int = 16000,
    events: tuple[int, int] = (1, 3),
    seed: int = 0,
) -> Soundscapes:
    """Mix clips of several classes of sound over a background.

    Within a clip the classes differ in loudness by up to 8 dB; the background lies 0 to 20 dB below them. The same
    arguments give the same clips, and a clip does not change when more are made (but for rounding).

    Args:
        classes: What may sound: any of ``UPSTREAM``, ``DOWNSTREAM`` and ``NOVEL``; the target's columns.
        clips: How many clips.
        seconds: Length of a clip, at least 0.25.
        sample_rate: In Hz, 8000 to 48000.
        events: The least and the most classes in a clip. ``(1, 1)`` makes one-of-K data, whose counts of clips
            per class differ by at most one.
        seed: Not negative. Each seed gives other clips.

    Returns:
        The clips and their labels.

    Raises:
        ValueError: A class is unknown or given twice, or a size makes no sense.
    """
    _check(classes, clips, seconds, sample_rate, seed)
    least, most = events
    if not 1 <= least <= most <= len(classes):
        raise ValueError(
            f"events must rise from at least 1 to at most {len(classes)}, the number of classes, not {events}"
        )
    samples = round(seconds * sample_rate)
    target = _assign(Batch(_stream(seed, "target"), clips, samples, sample_rate), len(classes), events)
    setting = _assign(Batch(_stream(seed, "setting"), clips, samples, sample_rate), len(backgrounds.FAMILIES), (1, 1))
    waveform = np.empty((clips, samples), np.float32)
    for block, rows in enumerate(_blocks(clips, samples)):
        batch = Batch(_stream(seed, "mix", block), rows.stop - rows.start, samples, sample_rate)
        gains = target[rows] * _decibels(batch.uniform(-8, 0, len(classes)))
        mixture = _mix(classes, gains, seed, block, samples, sample_rate)
        background = _mix(
            tuple(backgrounds.FAMILIES), setting[rows].astype(np.float32), seed, block, samples, sample_rate
        )
        mixture += _decibels(batch.uniform(-20, 0, 1)) * background
        waveform[rows] = _peak(mixture, batch.log_uniform(0.1, 0.95, 1))
    return Soundscapes(waveform, target, tuple(classes), sample_rate)


def render(name: str, clips: int, *, seconds: float = 2.0, sample_rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Sounds of one class, without a background, to listen to.

    Args:
        name: Any of ``UPSTREAM``, ``DOWNSTREAM`` and ``NOVEL``.
        clips: How many clips.
        seconds: Length of a clip, at least 0.25.
        sample_rate: In Hz, 8000 to 48000.
        seed: Not negative. Each seed gives other clips.

    Returns:
        float32 samples that peak at 0.9, shape ``(clips, samples)``.

    Raises:
        ValueError: The class is unknown, or a size makes no sense.
    """
    _check([name], clips, seconds, sample_rate, seed)
    samples = round(seconds * sample_rate)
    waveform = np.empty((clips, samples), np.float32)
    for block, rows in enumerate(_blocks(clips, samples)):
        waveform[rows] = _peak(_synthesize(name, seed, block, rows.stop - rows.start, samples, sample_rate), 0.9)
    return waveform
