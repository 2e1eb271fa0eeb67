import math
import resource

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from bayes_panns.audio.files import find, read, resample
from bayes_panns.core.errors import AudioError

RATE = 16000


def tone(seconds=1.0, rate=RATE, hertz=440.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_reads_each_format_as_the_same_sound(tmp_path, suffix):
    path = tmp_path / f"tone{suffix}"
    soundfile.write(path, tone(), RATE)
    waveform = read(path, RATE)
    assert waveform.dtype == torch.float32
    assert len(waveform) == pytest.approx(RATE, rel=0.1)
    spectrum = torch.fft.rfft(waveform[:RATE]).abs()
    assert spectrum.argmax() / (min(len(waveform), RATE) / RATE) == pytest.approx(440, abs=2)
    assert waveform[1000:-1000].abs().max() == pytest.approx(0.5, rel=0.05)


def test_mixes_channels_by_their_mean(tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(), -tone() / 2], axis=1), RATE, subtype="FLOAT")
    torch.testing.assert_close(read(path, RATE), torch.from_numpy(tone() / 4).float())


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_pitch_level_and_length(tmp_path, rate):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(rate=rate), rate)
    waveform = read(path, 32000)
    assert abs(len(waveform) - 32000) <= 1
    inner = slice(1000, -1000)
    expected = torch.from_numpy(tone(rate=32000)).float()[inner]
    assert (waveform[: len(expected) + 2000][inner] - expected).abs().max() < 5e-3


def test_samples_beyond_full_scale_are_kept(tmp_path):
    path = tmp_path / "loud.wav"
    soundfile.write(path, tone(amplitude=1.5), RATE, subtype="FLOAT")
    assert read(path, RATE).max() == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_bytes(b"no sound at all" * 100), "cannot be read as sound"),
        (lambda path: soundfile.write(path, np.empty(0), RATE), "holds no samples"),
        (lambda path: soundfile.write(path, np.array([0.0, np.nan]), RATE, subtype="FLOAT"), "not finite"),
        (lambda path: path.write_bytes(b"<!doctype html><html>404</html>" * 50), "format not recognised"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(tmp_path, make, message):
    path = tmp_path / "bad.wav"
    make(path)
    with pytest.raises(AudioError, match=message) as error:
        read(path, RATE)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_find_lists_sounds_only_sorted_and_not_hidden(tmp_path):
    for name in ("b/x.WAV", "a.ogg", "notes.txt", ".hidden/y.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find(tmp_path)] == ["a.ogg", "b/x.WAV"]


def test_find_says_what_is_missing(tmp_path):
    with pytest.raises(AudioError, match="holds no sound file"):
        find(tmp_path)
    with pytest.raises(AudioError, match="no such folder"):
        find(tmp_path / "nowhere")


def test_reads_real_recordings(real_data):
    paths = [*find(real_data / "fsdd")[:3], *find(real_data / "esc10" / "audio")[:3], *find(real_data / "audioset")]
    for path in paths:
        waveform = read(path, 32000)
        info = soundfile.info(path)
        assert len(waveform) == pytest.approx(info.duration * 32000, abs=2)
        assert waveform.std() > 1e-4


ORDINARY = [
    (44100, 32000),
    (22050, 32000),
    (48000, 16000),
    (11025, 32000),
    (8000, 32000),
    (96000, 32000),
    (44100, 8000),
]
AWKWARD = [(22254, 32000), (11127, 32000), (44099, 16000), (47952, 32000), (48000, 44101)]


@pytest.mark.parametrize(("source", "target"), ORDINARY)
def test_ordinary_rates_are_resampled_by_torchaudio_to_the_bit(source, target):
    waveform = torch.randn(source // 10)
    expected = torchaudio.transforms.Resample(source, target)(waveform)
    assert torch.equal(resample(waveform, source, target), expected)


@pytest.mark.parametrize(("source", "target"), [*ORDINARY, (16000, 32000), (24000, 32000), (7, 5)])
def test_the_quick_resampler_is_torchaudios_but_for_rounding(source, target):
    whole = torch.randn(200_000)
    for samples in (1, 13, 441, 9999, 200_000):  # more than one block, and ends anywhere in a period
        waveform = whole[:samples]
        expected = torchaudio.transforms.Resample(source, target)(waveform)
        torch.testing.assert_close(resample(waveform, source, target, exact=False), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize(("source", "target"), AWKWARD)
def test_awkward_rates_are_resampled_without_a_large_kernel(source, target, monkeypatch):
    monkeypatch.setattr(torchaudio.transforms, "Resample", lambda *_: pytest.fail("a kernel was made"))
    waveform = torch.from_numpy(tone(rate=source)).float()
    resampled = resample(waveform, source, target)
    assert resampled.dtype == torch.float32
    assert len(resampled) == target
    expected = torch.from_numpy(tone(rate=target)).float()
    assert (resampled - expected)[1000:-1000].abs().max() < 1e-4


@pytest.mark.parametrize("samples", [1, 2, 7, 1001])
@pytest.mark.parametrize(("source", "target"), [(22254, 32000), (44099, 16000), (44100, 32000), (48000, 16000)])
def test_a_resampled_length_is_rounded_up(source, target, samples):
    assert len(resample(torch.ones(samples), source, target)) == math.ceil(samples * target / source)


@pytest.mark.parametrize(("source", "target"), [(44100, 32000), (22050, 32000), (48000, 16000), (8000, 32000)])
def test_the_two_resamplers_agree_below_the_transition_band(source, target, monkeypatch):
    frequency = np.fft.rfftfreq(2 * source, 1 / source)
    spectrum = np.random.default_rng(0).normal(size=(2, len(frequency))).T.copy().view(complex)[:, 0]
    spectrum[(frequency < 20) | (frequency > 0.7 * min(source, target) / 2)] = 0
    noise = np.fft.irfft(spectrum, 2 * source)
    waveform = torch.from_numpy(noise / np.abs(noise).max()).float()
    first = resample(waveform, source, target)
    monkeypatch.setattr("bayes_panns.audio.resampling._LARGEST_KERNEL", 0)
    second = resample(waveform, source, target)
    assert first.shape == second.shape
    assert (first - second)[1000:-1000].abs().max() < 5e-3


def test_an_awkward_rate_takes_little_memory(tmp_path):
    """torchaudio's kernel alone takes 0.7 GB for 22,254 Hz, and 6 GB while it is made."""
    path = tmp_path / "old-mac.wav"
    soundfile.write(path, tone(2, 22254), 22254)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(read(path, 32000)) == 64000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
