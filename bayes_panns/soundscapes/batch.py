"""A batch of clips to synthesize: its size and its random draws."""

import math
from collections.abc import Sequence

import numpy as np


class Batch:
    """What a family needs to synthesize clips: their size and random draws.

    Each draw comes from a stream of its own and fills clip after clip, so that clip ``i`` comes out the same however
    many clips follow it. Arrays have the clips as first axis, and are float32, which is several times faster here.

    Args:
        seed: Non-negative numbers that name this batch.
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
        """Frequencies in Hz, log-uniform; a range too high for the sample rate is moved down as a whole."""
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
