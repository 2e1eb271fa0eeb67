import math

import pytest
import torch
from torch.nn import functional as F

from bayes_panns.audio.front_end import FRONT_ENDS, FrontEnd, KaldiLogMel, LogMel
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


@pytest.mark.parametrize("front_end", [LogMel(32000), LogMel(8000), KaldiLogMel(), KaldiLogMel(mels=40)])
def test_blocks_of_frames_and_bands_of_mels_are_the_whole_product(front_end):
    waveform = 0.1 * torch.randn(2, 170_000)  # more frames than a block has, and a rest
    frames = F.pad(waveform, (len(front_end.mel.window) // 2,) * 2, mode="reflect")
    frames = frames.unfold(-1, len(front_end.mel.window), front_end.settings.hop).double()
    power = torch.fft.rfft(frames * front_end.mel.window).abs().square() @ front_end.mel.filters.double()
    torch.testing.assert_close(front_end.mel(waveform).double(), power, rtol=1e-4, atol=1e-9)


def test_nothing_of_it_is_saved():
    assert not LogMel().state_dict()
    assert not KaldiLogMel().state_dict()


def test_embeddings_of_panns_backbones_on_disk_keep_their_names():
    text = "FrontEnd(sample_rate=32000, window=1024, hop=320, fmin=50, fmax=14000)"
    assert LogMel(32000).signature == text
    ends = [LogMel(32000), LogMel(8000), KaldiLogMel(), KaldiLogMel(hop=160), KaldiLogMel(mels=40)]
    assert len({end.signature for end in ends}) == len(ends)


def test_efficientats_equals_the_published_front_end(formula, mn04_golden):
    logmel = KaldiLogMel()(torch.from_numpy(formula.waveform(2, 64000)))
    torch.testing.assert_close(logmel.transpose(1, 2), torch.from_numpy(mn04_golden["logmel"]), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("hop", "mels"), [(320, 128), (160, 128), (800, 128), (320, 40), (320, 256)])
def test_efficientats_shape_is_that_of_its_spectrograms(hop, mels):
    front_end = KaldiLogMel(hop=hop, mels=mels)
    for samples in (1, 1023, 1024, 1025, 1 + 4 * hop, 2 + 4 * hop, 32000):
        logmel = front_end(0.1 * torch.randn(2, samples))
        assert logmel.shape == (2, *front_end.shape(samples))
        assert logmel.isfinite().all()
    assert front_end.shape(32001) == (1 + 32000 // hop, mels)


def test_efficientats_mels_are_kaldis():
    """A tone lights the mel it lies in: 1127 ln(1 + f / 700), from 0 to 15,000 Hz."""
    time = torch.arange(32000) / 32000
    frequencies = torch.tensor([500.0, 3000.0, 12000.0])
    mels = KaldiLogMel()(torch.sin(2 * math.pi * frequencies[:, None] * time)).mean(dim=1).argmax(dim=1)
    scale = lambda f: 1127 * math.log(1 + f / 700)  # noqa: E731
    for mel, frequency in zip(mels.tolist(), frequencies.tolist(), strict=True):
        assert mel == pytest.approx(129 * scale(frequency) / scale(15000) - 1, abs=1.5)


def test_efficientats_is_what_its_formula_says():
    """One frame in the middle by a direct Fourier sum, with triangles that are linear in mel."""
    waveform = torch.randn(1, 4000, dtype=torch.float64)
    emphasised = waveform[0, 1:] - 0.97 * waveform[0, :-1]
    time, frequency = torch.arange(1024, dtype=torch.float64), torch.arange(513, dtype=torch.float64)
    window = torch.zeros(1024, dtype=torch.float64)
    window[112:912] = 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(800) / 799)
    frame = emphasised[5 * 320 - 512 : 5 * 320 + 512] * window
    angle = 2 * math.pi * frequency[:, None] * time / 1024
    power = (frame * angle.cos()).sum(dim=1) ** 2 + (frame * angle.sin()).sum(dim=1) ** 2
    mel = 1127 * (1 + frequency * 32000 / 1024 / 700).log()
    step = 1127 * math.log(1 + 15000 / 700) / 129
    triangles = (1 - (mel / step - torch.arange(1, 129)[:, None]).abs()).clamp(min=0)
    expected = ((triangles @ power + 1e-5).log() + 4.5) / 5
    torch.testing.assert_close(KaldiLogMel()(waveform.float())[0, 5].double(), expected, rtol=0, atol=1e-3)


def test_both_front_ends_tell_decibels():
    """Twice the amplitude is 6 dB, up to what the 1e-5 adds; EfficientAT's silence is ln(1e-5), -50 dB."""
    waveform = torch.randn(1, 32000)
    for front_end in (LogMel(), KaldiLogMel()):
        difference = front_end.decibels(front_end(2 * waveform)) - front_end.decibels(front_end(waveform))
        torch.testing.assert_close(difference, torch.full_like(difference, 20 * math.log10(2)), atol=0.1, rtol=0)
    silence = KaldiLogMel().decibels(KaldiLogMel()(torch.zeros(1, 5)))
    torch.testing.assert_close(silence, torch.full_like(silence, -50.0), atol=1e-3, rtol=0)


def test_efficientats_is_for_32_khz():
    with pytest.raises(RecipeError, match="sample_rate 16000: EfficientAT defines its front end for 32000 Hz"):
        KaldiLogMel(16000)


def test_a_front_end_must_define_its_parts():
    for call in (FrontEnd().frames, FrontEnd().forward, FrontEnd().decibels):
        with pytest.raises(NotImplementedError):
            call(1)
