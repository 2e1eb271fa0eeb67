"""The picture and the sound of a recording, for a notebook: of all of it, or of a part where it is long."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bayes_panns.audio.recording import Recording
from bayes_panns.core.errors import OF_ONE_FILE, reason
from bayes_panns.core.text import STDIN
from bayes_panns.report.media import sound
from bayes_panns.report.view.sound import RATE
from bayes_panns.report.view.tiles import Tiles

if TYPE_CHECKING:
    from bayes_panns.notebook.predictions import Predictions

PLAYED, DRAWN = 60.0, 7200.0
"""The most seconds of a sound that can be played, some 500 kB, and of which a picture is made: it takes 6 s an hour."""


@dataclass(frozen=True)
class Shown:
    """What is shown of a sound.

    Attributes:
        picture: Its spectrogram, a data URI; empty of a long sound.
        audio: A data URI; may be empty.
        note: What should be said of them.
    """

    picture: str = ""
    audio: str = ""
    note: str = ""


def shown(tags: "Predictions") -> Shown:
    """The picture and the sound behind the predictions for windows of one recording."""
    name, origin = tags.files[0], tags.origin
    start = tags.windows[0].start
    seconds = max(window.end for window in tags.windows) - start
    if name not in origin.memory and STDIN in map(str, origin.files):
        return Shown(note="; standard input cannot be read again")
    try:
        with origin.on_disk([name]) as paths:
            path, played = Path(paths[0]), min(seconds, PLAYED)
            with Recording(path, RATE, channel=origin.channel, start=start, seconds=played, exact=False) as recording:
                audio = sound(torch.cat(list(recording)).clamp(-1, 1).numpy(), RATE).uri
            note = "" if played == seconds else f"; the first {PLAYED:g} s can be played"
            if seconds > DRAWN:
                return Shown("", audio, note)
            return Shown(Tiles(origin.channel).stretch(path, start, seconds).uri, audio, note)
    except OF_ONE_FILE as error:
        return Shown(note=f"; no picture: {reason(error)}")
