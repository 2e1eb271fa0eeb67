"""Long sound files cut into windows."""

import math
from dataclasses import dataclass

from bayes_panns.core.errors import PredictionError

_SLACK = 0.01
"""The share of a window by which a file must exceed it to get another: lossy files decode to a little more than 5 s."""


@dataclass(frozen=True)
class Window:
    """A stretch of a file, in seconds."""

    file: str
    start: float
    end: float


def in_samples(seconds: float, sample_rate: int, name: str) -> int:
    """A window's length or hop in samples.

    Example:
        >>> in_samples(0.5, 32000, "hop")
        16000

    Args:
        seconds: The length.
        sample_rate: In Hz.
        name: What it is, ``"window"`` or ``"hop"``, for the error.

    Raises:
        PredictionError: It is not finite, or shorter than one sample.
    """
    samples = seconds * sample_rate
    if not math.isfinite(samples) or round(samples) < 1:
        raise PredictionError(
            f"{name} {seconds:g} s: must be finite and at least one sample long ({1 / sample_rate:.3g} s); "
            f"choose another {name}"
        )
    return round(samples)


def cut(samples: int, window: int, hop: int) -> tuple[list[int], int]:
    """Where the windows of a file start, and how long they are, in samples.

    A file no longer than a window is one window. A longer one gets a window each hop; the last is moved back so that
    it ends with the file. A rest of less than a hundredth of a window gets none.

    Example:
        >>> cut(samples=25, window=10, hop=10)
        ([0, 10, 15], 10)
        >>> cut(samples=3, window=10, hop=10)
        ([0], 3)

    Args:
        samples: The file's length, at least 1.
        window: A window's length, at least 1.
        hop: From one window's start to the next, at least 1.
    """
    if samples <= window:
        return [0], samples
    rest = samples - window - _SLACK * window
    count = max(0, math.ceil(rest / hop)) + 1
    return [min(index * hop, samples - window) for index in range(count)], window
