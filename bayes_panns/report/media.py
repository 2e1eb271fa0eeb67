"""Spectrograms and sounds for pages, as files in memory and as data URIs."""

import base64
import io
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from matplotlib.image import imsave
from numpy.typing import NDArray

from bayes_panns.audio.front_end import FrontEnd

DYNAMIC_RANGE = 70
"""dB from the loudest to the darkest value of a spectrogram."""


class Media(NamedTuple):
    """A picture or a sound.

    Attributes:
        mime: Its media type, such as ``image/webp``.
        content: The bytes of its file.
    """

    mime: str
    content: bytes

    @property
    def uri(self) -> str:
        """A data URI, which a page can hold itself."""
        return f"data:{self.mime};base64,{base64.b64encode(self.content).decode('ascii')}"


def decibels(front_end: FrontEnd, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """The log-mel spectrogram that a network sees, in dB, shape ``(mels, frames)``, low frequencies first.

    Args:
        front_end: The network's, such as ``posterior.front_end``.
        waveform: Samples at the front end's rate, shape ``(samples,)``.
    """
    device = next(iter(front_end.buffers())).device
    with torch.no_grad():
        features = front_end(torch.from_numpy(waveform)[None].to(device))
        found: NDArray[np.float32] = front_end.decibels(features)[0].T.cpu().numpy()
    return found


def spectrogram(front_end: FrontEnd, waveform: NDArray[np.float32], *, top: float | None = None) -> Media:
    """A picture of a sound's log-mel spectrogram, low frequencies at the bottom; a pixel a frame and mel.

    Args:
        front_end: The network's, such as ``posterior.front_end``.
        waveform: Samples at the front end's rate, shape ``(samples,)``.
        top: The level of the brightest colour in dB; by default the loudest value. The darkest is
            :data:`DYNAMIC_RANGE` below.
    """
    mels = decibels(front_end, waveform)
    return picture(mels, float(mels.max()) if top is None else top)


def picture(mels: NDArray[np.float32], top: float) -> Media:
    """The picture of a spectrogram in dB, shape ``(mels, frames)``; ``top`` as for :func:`spectrogram`."""
    buffer = io.BytesIO()
    imsave(buffer, mels, format="webp", cmap="magma", origin="lower", vmin=top - DYNAMIC_RANGE, vmax=top)
    return Media("image/webp", buffer.getvalue())


def sound(waveform: NDArray[np.float32], rate: int) -> Media:
    """A sound as MP3; as FLAC where the installed libsndfile cannot write MP3.

    Args:
        waveform: Shape ``(samples,)``.
        rate: In Hz.
    """
    form, mime = ("MP3", "audio/mpeg") if "MP3" in soundfile.available_formats() else ("FLAC", "audio/flac")
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=form)
    return Media(mime, buffer.getvalue())
