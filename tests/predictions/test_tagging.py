import numpy as np
import pytest
import soundfile
import torch

from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core.errors import AudioError
from bayes_panns.posterior import Posterior
from bayes_panns.predictions import decompose, predict, tag, tagging

RATE = 8000


@pytest.fixture(scope="module")
def posterior():
    torch.manual_seed(0)
    made = Posterior.build(
        net="resnet14-narrow", labels=("a", "b", "c"), task=Task.ONE_OF_K, sample_rate=RATE, clip_seconds=1.0
    )
    made.model.eval()
    return made


def sound(path, seconds, rate=RATE):
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=round(seconds * rate)), rate)
    return path


def test_a_set_is_predicted_as_its_clips_are(posterior, tmp_path):
    waveform = 0.1 * np.random.default_rng(1).normal(size=(5, RATE))
    write(tmp_path / "s.h5", waveform, np.eye(5, 3, dtype=bool), ("a", "b", "c"), Task.MULTI_LABEL, RATE)
    clips = ClipSet(tmp_path / "s.h5")
    whole = predict(posterior, clips, draws=3)
    stored = torch.from_numpy(clips.waveform(range(5)))
    expected = decompose(torch.stack(list(posterior.draws(stored, 3))), "one-of-k")
    np.testing.assert_allclose(whole.probability, expected.probability, rtol=1e-5)
    np.testing.assert_allclose(whole.epistemic, expected.epistemic, rtol=1e-3, atol=1e-12)
    assert whole.draws == 3


@pytest.mark.parametrize(
    ("seconds", "window", "hop", "expected"),
    [
        (0.3, None, None, [(0, 0.3)]),
        (1.0, None, None, [(0, 1)]),
        (2.5, None, None, [(0, 1), (1, 2), (1.5, 2.5)]),
        (2.0, 1.0, 0.5, [(0, 1), (0.5, 1.5), (1, 2)]),
        (2.0, 5.0, None, [(0, 2)]),
        (1.005, None, None, [(0, 1)]),
        (2.005, None, None, [(0, 1), (1, 2)]),
        (2.02, None, None, [(0, 1), (1, 2), (1.02, 2.02)]),
        (0.001, None, None, [(0, 0.001)]),
    ],
)
def test_long_files_are_cut_into_windows_and_short_ones_taken_as_they_are(
    posterior, tmp_path, seconds, window, hop, expected
):
    tags = tag(posterior, [sound(tmp_path / "x.wav", seconds)], draws=0, window=window, hop=hop)
    np.testing.assert_allclose([(w.start, w.end) for w in tags.windows], expected)
    assert tags.uncertainty.probability.shape == (len(expected), 3)


def test_files_of_all_lengths_are_tagged_in_their_order_as_if_alone(posterior, tmp_path, monkeypatch):
    monkeypatch.setattr(tagging, "CLIPS", 4)
    seconds = [1.0, 0.4, 2.5, 0.4, 0.7, 1.0]
    paths = [sound(tmp_path / f"{index}.wav", length) for index, length in enumerate(seconds)]
    together = tag(posterior, paths, draws=2)
    alone = [tag(posterior, [path], draws=2) for path in paths]
    assert together.windows == tuple(window for tags in alone for window in tags.windows)
    expected = np.concatenate([tags.uncertainty.probability for tags in alone])
    np.testing.assert_allclose(together.uncertainty.probability, expected, rtol=1e-4)


def test_another_rate_is_resampled(posterior, tmp_path):
    tags = tag(posterior, [sound(tmp_path / "x.wav", 1.0, rate=44100)], draws=0)
    assert tags.windows[0].end == pytest.approx(1.0, abs=1e-3)


def test_a_bad_file_is_skipped_and_the_others_go_on(posterior, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"nothing")
    tags = tag(posterior, [tmp_path / "bad.wav", sound(tmp_path / "x.wav", 1)], draws=2)
    assert len(tags.windows) == 1
    assert "bad.wav" in tags.skipped[0][1]
    with pytest.raises(AudioError, match=r"bad\.wav"):
        tag(posterior, [tmp_path / "bad.wav"])
    with pytest.raises(AudioError, match="no file of 2 can be read"):
        tag(posterior, [tmp_path / "bad.wav", tmp_path / "worse.wav"])
