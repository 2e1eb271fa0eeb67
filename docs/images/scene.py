"""A minute of sound with known content, for the picture on the first page.

Clips of a store over noise, then strange sounds:

    python docs/images/scene.py stores/esc10.h5 stores/fsdd.h5 minute.wav

The clips are of fold 5, which the posterior has not heard; the strange sounds come last.
"""

import sys
from collections.abc import Iterator

import numpy as np
import soundfile

from bayes_panns.clips import ClipSet

SECONDS, FADE = 60.0, 0.05
HEARD = ("dog", "rain", "crying_baby", "clock_tick", "chainsaw", "rooster", "sea_waves")
BACKGROUND = 0.004


def faded(sound: np.ndarray, rate: int) -> np.ndarray:
    """A sound that begins and ends softly, at a root mean square of 0.1."""
    ramp = np.minimum(1, np.minimum(np.arange(len(sound)), np.arange(len(sound))[::-1]) / (FADE * rate))
    return sound * ramp * 0.1 / max(1e-6, float(np.sqrt(np.mean(sound**2))))


def pieces(heard: str, strange: str) -> Iterator[np.ndarray]:
    """The clips in their order: one of each kind, then three that are none of them."""
    clips, others = ClipSet(heard, folds=[5]), ClipSet(strange)
    target = clips.target()
    for label in HEARD:
        row = int(np.flatnonzero(target[:, clips.labels.index(label)])[0])
        yield clips.waveform([row])[0]
    yield np.concatenate([others.waveform([row])[0][: clips.sample_rate] for row in (0, 7, 14, 21, 28)])


def main(heard: str, strange: str, out: str) -> None:
    """Write the minute."""
    rate = ClipSet(heard).sample_rate
    noise = np.random.default_rng(0).normal(size=round(SECONDS * rate)).astype(np.float32)
    minute = BACKGROUND * noise
    for index, piece in enumerate(pieces(heard, strange)):
        start = round((2 + 7.3 * index) * rate)
        piece = faded(piece, rate)[: len(minute) - start]
        minute[start : start + len(piece)] += piece
    soundfile.write(out, np.clip(minute, -1, 1), rate)


if __name__ == "__main__":
    main(*sys.argv[1:4])
