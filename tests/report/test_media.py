"""Pictures and sounds for pages."""

import base64
import io

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from bayes_panns.audio.front_end import LogMel
from bayes_panns.report.media import DYNAMIC_RANGE, decibels, sound, spectrogram

RATE = 8000


@pytest.fixture(scope="module")
def tone():
    """A quiet second, then a loud one, of a low tone."""
    time = np.arange(2 * RATE) / RATE
    return (np.sin(2 * np.pi * 300 * time) * np.where(time < 1, 0.001, 0.5)).astype(np.float32)


def test_a_picture_has_low_frequencies_at_the_bottom_and_time_to_the_right(tone):
    front_end = LogMel(RATE)
    mels = decibels(front_end, tone)
    assert mels.shape == front_end.shape(len(tone))[::-1]
    assert mels[:, -20:].mean(axis=1).argmax() < len(mels) / 3
    picture = imread(io.BytesIO(spectrogram(front_end, tone).content), format="webp")
    assert picture.shape[:2] == mels.shape
    brightness = picture[..., :3].astype(float).sum(axis=2)
    height, width = brightness.shape
    assert brightness[height // 2 :].mean() > brightness[: height // 2].mean()
    assert brightness[:, width // 2 :].mean() > brightness[:, : width // 2].mean()


def test_pieces_of_one_recording_share_a_level(tone):
    front_end = LogMel(RATE)
    top = float(decibels(front_end, tone).max())
    pictures = [
        imread(io.BytesIO(spectrogram(front_end, tone[:RATE], top=level).content), format="webp")[..., :3].astype(float)
        for level in (None, top, top + DYNAMIC_RANGE)
    ]
    own, shared, dark = (picture.mean() for picture in pictures)
    assert own > shared > dark


def test_a_sound_keeps_its_rate_and_length(tone):
    made = sound(tone, RATE)
    kind, data = made.uri.removeprefix("data:").split(";base64,")
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert (kind, rate) == (made.mime, RATE)
    assert abs(len(heard) - len(tone)) < 0.2 * RATE
    assert np.abs(heard[RATE:]).max() == pytest.approx(0.5, abs=0.1)
