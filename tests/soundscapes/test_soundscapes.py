import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchaudio.transforms import MelSpectrogram

from bayes_panns.soundscapes import DOWNSTREAM, NOVEL, UPSTREAM, Soundscapes, render, soundscapes

CLASSES = UPSTREAM + DOWNSTREAM + NOVEL


def test_the_three_sets_of_classes_are_disjoint_and_large_enough():
    assert len(set(CLASSES)) == len(CLASSES)
    assert len(UPSTREAM) >= 16
    assert len(DOWNSTREAM) >= 8
    assert len(NOVEL) >= 4


def test_shapes_types_and_range():
    scenes = soundscapes(DOWNSTREAM, 20, seconds=0.5, sample_rate=16000)
    assert scenes.waveform.shape == (20, 8000)
    assert scenes.waveform.dtype == np.float32
    assert scenes.target.shape == (20, len(DOWNSTREAM))
    assert scenes.target.dtype == bool
    assert scenes.labels == DOWNSTREAM
    assert scenes.sample_rate == 16000
    peak = np.abs(scenes.waveform).max(axis=1)
    assert (peak <= 1).all()
    assert (peak >= 0.09).all()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("sample_rate", [8000, 22050, 48000])
def test_every_class_sounds_and_varies_at_any_rate(name, sample_rate):
    clips = render(name, 6, seconds=1.0, sample_rate=sample_rate, seed=4)
    assert clips.shape == (6, sample_rate)
    assert clips.dtype == np.float32
    assert np.isfinite(clips).all()
    np.testing.assert_allclose(np.abs(clips).max(axis=1), 0.9, rtol=1e-5)
    assert (np.sqrt(np.mean(clips**2, axis=1)) > 0.005).all()
    likeness = np.corrcoef(np.abs(np.fft.rfft(clips)))[np.triu_indices(6, 1)]
    assert likeness.max() < 0.999


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_sounds_in_the_shortest_clips(name):
    clips = render(name, 200, seconds=0.25, sample_rate=8000)
    assert (np.sqrt(np.mean(clips**2, axis=1)) > 0.005).all()
    np.testing.assert_allclose(np.abs(clips).max(axis=1), 0.9, rtol=1e-3)


@pytest.mark.parametrize("name", ["siren", "crickets", "bird", "modem", "organ", "bell"])
def test_tones_leave_the_top_of_the_spectrum_empty(name):
    power = np.abs(np.fft.rfft(render(name, 16, seconds=1.0, sample_rate=8000) * np.hanning(8000))) ** 2
    top = power[:, 3900:].sum(axis=1) / power.sum(axis=1)
    assert top.max() < 0.01


def test_a_low_rate_does_not_change_the_pitch_of_what_it_can_carry():
    # The same draws at two rates: the strongest component of a low hum must lie at the same place.
    strongest = [
        np.abs(np.fft.rfft(render("heartbeat", 8, seconds=1.0, sample_rate=rate)))[:, :300].argmax(axis=1)
        for rate in (8000, 32000)
    ]
    np.testing.assert_allclose(*strongest, atol=4)


def test_same_seed_same_bits_and_other_seed_other_clips():
    def make(seed: int) -> Soundscapes:
        return soundscapes(UPSTREAM, 24, seconds=0.5, seed=seed)

    first, again, other = make(7), make(7), make(8)
    np.testing.assert_array_equal(first.waveform, again.waveform)
    np.testing.assert_array_equal(first.target, again.target)
    assert not np.array_equal(first.target, other.target)
    likeness = [abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(first.waveform, other.waveform, strict=True)]
    assert max(likeness) < 0.9
    np.testing.assert_array_equal(render("dog", 3, seed=1), render("dog", 3, seed=1))
    assert not np.array_equal(render("dog", 3, seed=1), render("dog", 3, seed=2))


@pytest.mark.parametrize("events", [(1, 1), (1, 3)])
def test_a_clip_does_not_change_when_more_are_made(events):
    few = soundscapes(UPSTREAM, 21, seconds=0.5, events=events, seed=3)
    many = soundscapes(UPSTREAM, 64, seconds=0.5, events=events, seed=3)
    np.testing.assert_array_equal(few.target, many.target[:21])
    np.testing.assert_allclose(few.waveform, many.waveform[:21], atol=1e-4)


def test_blocks_of_clips_differ_and_fit_together():
    # Clips this long are rendered a few at a time.
    waveform = render("clock", 5, seconds=30.0, sample_rate=48000)
    assert (np.abs(waveform).max(axis=1) > 0.8).all()
    assert not any(np.array_equal(waveform[0], clip) for clip in waveform[1:])


@pytest.mark.parametrize("clips", [5, 16, 50])
def test_one_of_k_is_balanced(clips):
    target = soundscapes(UPSTREAM, clips, seconds=0.25, sample_rate=8000, events=(1, 1)).target
    assert (target.sum(axis=1) == 1).all()
    assert np.ptp(target.sum(axis=0)) <= 1


@settings(max_examples=15)
@given(data=st.data(), clips=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_the_number_of_classes_in_a_clip_stays_in_its_range(data, clips, seed):
    classes = data.draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=6, unique=True))
    least = data.draw(st.integers(1, len(classes)))
    most = data.draw(st.integers(least, len(classes)))
    scenes = soundscapes(classes, clips, seconds=0.25, sample_rate=8000, events=(least, most), seed=seed)
    count = scenes.target.sum(axis=1)
    assert ((least <= count) & (count <= most)).all()
    assert np.isfinite(scenes.waveform).all()
    assert np.abs(scenes.waveform).max() <= 1


def test_every_count_of_classes_in_the_range_occurs():
    target = soundscapes(UPSTREAM, 90, seconds=0.25, sample_rate=8000, events=(1, 3)).target
    assert np.bincount(target.sum(axis=1), minlength=4)[1:].min() > 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["rain", "unicorn"]}, "unknown class 'unicorn'; the classes are alarm, .*wind"),
        ({"classes": []}, "no classes given; the classes are alarm"),
        ({"classes": ["rain", "wind", "rain"]}, "more than once"),
        ({"clips": 0}, "clips must be at least 1"),
        ({"seconds": 0.1}, "seconds must be finite and at least 0.25"),
        ({"seconds": float("nan")}, "seconds must be finite"),
        ({"seconds": float("inf")}, "seconds must be finite"),
        ({"sample_rate": 4000}, "sample_rate must lie between 8000 and 48000"),
        ({"seed": -1}, "seed must not be negative"),
        ({"events": (0, 1)}, "events must rise from at least 1 to at most 3"),
        ({"events": (2, 1)}, "events must rise"),
        ({"events": (1, 4)}, "at most 3, the number of classes"),
    ],
)
def test_nonsense_is_refused(change, message):
    arguments = {"classes": ["rain", "wind", "fire"], "clips": 2} | change
    with pytest.raises(ValueError, match=message):
        soundscapes(arguments.pop("classes"), arguments.pop("clips"), **arguments)


def test_render_refuses_an_unknown_class():
    with pytest.raises(ValueError, match=r"unknown class 'rian'; the classes are .*rain"):
        render("rian", 1)


def features(scenes: Soundscapes) -> np.ndarray:
    mel = MelSpectrogram(scenes.sample_rate, n_fft=1024, hop_length=320, n_mels=40)
    log_mel = 10 * torch.log10(mel(torch.from_numpy(scenes.waveform)) + 1e-8)
    return torch.cat([log_mel.mean(dim=2), log_mel.std(dim=2)], dim=1).numpy()


@pytest.mark.parametrize(("classes", "least"), [(UPSTREAM, 0.6), (DOWNSTREAM, 0.75)])
def test_a_plain_classifier_tells_classes_apart(classes, least):
    train, test = (soundscapes(classes, 20 * len(classes), events=(1, 1), seed=seed) for seed in (1, 2))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    classifier.fit(features(train), train.target.argmax(axis=1))
    accuracy = classifier.score(features(test), test.target.argmax(axis=1))
    assert least < accuracy < 1


LEVELS = {
    **{"alarm": 0.35079, "bell": 0.13573, "bird": 0.18239, "clock": 0.00465, "crickets": 0.15101, "dog": 0.09709},
    **{"drops": 0.04197, "engine": 0.19013, "fire": 0.00747, "footsteps": 0.05877, "hum": 0.21913, "knock": 0.04767},
    **{"rain": 0.06384, "siren": 0.55348, "whistle": 0.14077, "wind": 0.14621, "cat": 0.25324, "frog": 0.06488},
    **{"glass": 0.07015, "heartbeat": 0.06443, "helicopter": 0.08944, "keyboard": 0.0207, "saw": 0.0738},
    **{"thunder": 0.13902, "applause": 0.01381, "drums": 0.06089, "laser": 0.2566, "modem": 0.40218, "organ": 0.27252},
}
"""The mean magnitude of each class's first two clips: stores and examples rely on sounds that stay as they are."""


@pytest.mark.parametrize("name", CLASSES)
def test_sounds_stay_as_they_are(name):
    clips = render(name, 2, seconds=0.5, sample_rate=8000, seed=0)
    assert np.abs(clips).mean() == pytest.approx(LEVELS[name], abs=2e-5)


def test_scenes_stay_as_they_are():
    scenes = soundscapes(CLASSES, 4, seconds=0.5, sample_rate=8000, events=(2, 4), seed=3)
    assert [np.flatnonzero(each).tolist() for each in scenes.target] == [
        [1, 12, 16],
        [4, 12, 26, 28],
        [0, 4, 13],
        [1, 18, 23],
    ]
    np.testing.assert_allclose(np.abs(scenes.waveform).mean(axis=1), [0.0252, 0.08586, 0.07658, 0.03089], atol=2e-5)
