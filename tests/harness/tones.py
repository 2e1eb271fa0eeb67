"""A store that a network learns within a few steps."""

from pathlib import Path

import numpy as np

from bayes_panns.clips import Task, write


def tones_and_noise(path: Path, clips: int, seconds: float, rate: int) -> Path:
    """Write clips of three labels in turn, tones of two pitches and noise: ``low``, ``high`` and ``noise``."""
    time = np.arange(round(seconds * rate)) / rate
    generator = np.random.default_rng(0)
    label = np.arange(clips) % 3
    pitch = np.where(label == 0, 400, 2000)[:, None] * generator.uniform(0.9, 1.1, (clips, 1))
    noise = generator.normal(size=(clips, len(time)))
    waveform = np.where(label[:, None] == 2, noise, np.sin(2 * np.pi * pitch * time))
    write(path, 0.3 * waveform, np.eye(3, dtype=bool)[label], ("low", "high", "noise"), Task.ONE_OF_K, rate)
    return path
