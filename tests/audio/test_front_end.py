import math

import pytest
import torch

from bayes_panns.audio.front_end import FRONT_ENDS, LogMel
from bayes_panns.core.errors import RecipeError


def test_equals_the_published_front_end(reference):
    formula, golden = reference
    logmel = LogMel()(torch.from_numpy(formula.waveform(2, 64000)))
    assert (logmel - torch.from_numpy(golden["logmel"])).abs().max() < 0.01


@pytest.mark.parametrize("rate", FRONT_ENDS)
def test_every_front_end_makes_a_hundred_frames_a_second_of_64_mels(rate):
    front_end = LogMel(rate)
    logmel = front_end(torch.randn(2, rate))
    assert logmel.shape == (2, 101, 64)
    assert front_end.frames(rate) == 101
    assert front_end.shape(rate) == (101, 64)
    for samples in (1, rate // 50, rate // 3 + 7):
        assert tuple(front_end(torch.zeros(1, samples)).shape[1:]) == front_end.shape(samples)
    assert logmel.isfinite().all()


@pytest.mark.parametrize("rate", FRONT_ENDS)
def test_a_tone_lights_the_mel_it_lies_in(rate):
    time = torch.arange(rate) / rate
    mels = LogMel(rate)(torch.sin(2 * math.pi * torch.tensor([[500.0], [3000.0]]) * time)).mean(dim=1).argmax(dim=1)
    hertz = FRONT_ENDS[rate]
    assert 0 < mels[0] < mels[1] < 64
    # Slaney's mel is linear below 1 kHz (3 / 200 a Hz) and logarithmic above.
    scale = lambda f: 3 * f / 200 if f < 1000 else 15 + 27 * math.log(f / 1000) / math.log(6.4)  # noqa: E731
    low, high = scale(hertz.fmin), scale(hertz.fmax)
    for mel, frequency in zip(mels.tolist(), (500, 3000), strict=True):
        assert mel == pytest.approx(65 * (scale(frequency) - low) / (high - low) - 1, abs=1.5)


def test_silence_is_the_floor_and_short_clips_are_padded():
    logmel = LogMel()(torch.zeros(1, 5))
    assert logmel.shape[1] == LogMel().frames(5)
    assert (logmel == -100).all()


def test_doubling_the_amplitude_adds_six_decibels():
    waveform = torch.randn(1, 32000)
    difference = LogMel()(2 * waveform) - LogMel()(waveform)
    torch.testing.assert_close(difference, torch.full_like(difference, 20 * math.log10(2)), atol=1e-3, rtol=0)


def test_an_unknown_rate_names_the_known_ones():
    with pytest.raises(RecipeError, match="8000, 16000, 32000"):
        LogMel(44100)


def test_nothing_of_it_is_saved():
    assert not LogMel().state_dict()
