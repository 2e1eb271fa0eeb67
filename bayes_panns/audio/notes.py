"""What a user should know of a sound file that could be read, from the samples themselves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import SoundNote

FULL_SCALE = 0.999
"""From here on a sample counts as at full scale."""

BEYOND = 1.5
"""A peak beyond which float samples are not clipped, since they go on where others would end."""

MUCH_CLIPPED = 0.01
"""The share of samples at full scale from which on a file is clipped. Music that is mastered loud stays below it."""

FAR_BEYOND = 10.0
"""A peak from which on float samples are not at the scale of -1 to 1. Lossy and float files may well peak at 2."""

FAINTEST = 2.0**-15
"""A peak up to which there is no sound: one step of 16 bits."""

CANCELLED = 0.02
"""The share of the power of unrelated channels at or below which the mean of the channels shows that they cancel.

N unrelated channels leave 1 / N of their mean power, and equal ones all of it: for two channels it is 1 %, -20 dB.
"""


@dataclass(frozen=True)
class Note:
    """Something that a user should know of a file that could be read.

    Attributes:
        kind: What kind of thing.
        text: What it is, with its numbers; one line, without the file's name.
    """

    kind: SoundNote
    text: str


class Listener:
    """Watches the samples of a file pass, for what is wrong with them."""

    def __init__(self) -> None:
        self._samples, self._full, self._peak = 0, 0, 0.0
        self._power, self._mixed, self._unrelated = 0.0, 0.0, 0.0

    def hear(self, block: NDArray[np.float32], mono: NDArray[np.float32], *, mixed: bool) -> None:
        """Hear a block.

        Args:
            block: All channels, or the one that was chosen, shape ``(samples, any)``.
            mono: What they become, shape ``(samples,)``.
            mixed: Whether it is their mean.
        """
        self._samples += block.size
        peak = float(max(block.max(), -block.min()))
        self._peak = max(self._peak, peak)
        if peak >= FULL_SCALE:
            self._full += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        if mixed and block.shape[1] > 1:
            flat = block.reshape(-1)
            # Floats that are no sound may be so large that their squares are not finite.
            with np.errstate(over="ignore"):
                power = float(np.dot(flat, flat)) / block.shape[1]
                self._mixed += float(np.dot(mono, mono))
            self._power += power
            self._unrelated += power / block.shape[1]

    def notes(self) -> list[Note]:
        """What was heard."""
        found: list[Note] = []
        if not self._samples:
            return found
        if self._peak <= FAINTEST:
            found.append(Note(SoundNote.SILENT, f"is silent: its peak is {self._peak:.2g} of full scale"))
        elif self._peak >= FAR_BEYOND:
            text = f"has a peak of {self._peak:,.0f} times full scale: its samples are not at the scale of -1 to 1"
            found.append(Note(SoundNote.SCALE, text))
        elif self._peak <= BEYOND and (share := self._full / self._samples) >= MUCH_CLIPPED:
            found.append(Note(SoundNote.CLIPPED, f"is clipped: {share:.1%} of its samples are at full scale"))
        if self._unrelated > 0 and self._peak > FAINTEST and self._mixed <= CANCELLED * self._unrelated:
            text = (
                f"has channels that cancel each other: their mean has {self._mixed / self._power:.2%} of their power; "
                "take one of them, such as --channel left"
            )
            found.append(Note(SoundNote.CANCELLED, text))
        return found
