"""Sound files in memory, for the tests to damage."""

import io

import numpy as np
import soundfile

RATE = 16000


def sound(seconds=1.0, rate=RATE, seed=0):
    """A decaying tone with some noise, below full scale."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(time))
    return 0.3 * np.sin(2 * np.pi * 440 * time) * np.exp(-3 * (time % 0.5)) + 0.02 * noise


def encoded(samples, form, subtype=None, rate=RATE, **options):
    """The bytes of a file; written in parts, since libsndfile's Vorbis encoder overflows the stack otherwise."""
    file = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(file, "w", rate, channels, subtype, format=form, **options) as writer:
        for start in range(0, len(samples), 4096):
            writer.write(samples[start : start + 4096])
    return bytearray(file.getvalue())


def mp3(samples, rate=RATE, *, counted=True):
    """An mp3 of variable bit rate, with the frame that counts the others or without it."""
    content = encoded(samples, "MP3", "MPEG_LAYER_III", rate, bitrate_mode="VARIABLE", compression_level=0.3)
    if counted:
        return content
    # The frames of one file begin alike but for the bit rate: the first such place behind the count.
    place = content.find(content[:2], max(content.find(b"Xing"), content.find(b"Info")))
    return content[place:]
