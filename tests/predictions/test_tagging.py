"""Predictions for clip sets and for sound files."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from bayes_panns.audio.recording import Recording
from bayes_panns.bayes import Settings, Strategy
from bayes_panns.clips import ClipSet, Task, folder, pack, write
from bayes_panns.core.choices import SoundNote
from bayes_panns.core.errors import AudioError, PredictionError, SettingError
from bayes_panns.posterior import Calibration, Ensemble, Posterior
from bayes_panns.predictions import FileTags, Skipped, clip_sets, decompose, predict, recordings, tag, tag_each

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
    path.parent.mkdir(parents=True, exist_ok=True)
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
    monkeypatch.setattr(recordings, "CLIPS", 4)
    seconds = [1.0, 0.4, 2.5, 0.4, 0.7, 1.0]
    paths = [sound(tmp_path / f"{index}.wav", length) for index, length in enumerate(seconds)]
    together = tag(posterior, paths, draws=2)
    alone = [tag(posterior, [path], draws=2) for path in paths]
    assert together.windows == tuple(window for tags in alone for window in tags.windows)
    expected = np.concatenate([tags.uncertainty.probability for tags in alone])
    np.testing.assert_allclose(together.uncertainty.probability, expected, rtol=1e-4)


def test_one_file_needs_no_list(posterior, tmp_path):
    path = sound(tmp_path / "a.wav", 1.0)
    for given in (path, str(path), [path]):
        assert [window.file for window in tag(posterior, given, 0).windows] == [str(path)]


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


def test_a_window_may_be_far_shorter_than_the_networks_shortest_input(posterior, tmp_path):
    tags = tag(posterior, [sound(tmp_path / "x.wav", 0.02)], draws=0, window=0.005)
    assert len(tags.windows) == 4
    assert np.isfinite(tags.uncertainty.probability).all()


def test_no_file_vanishes_where_it_is_hardly_longer_than_a_window(posterior, tmp_path):
    """A short hop used to leave such a file without any window, and the others' predictions with its name."""
    paths = [sound(tmp_path / "a.wav", 1.005), sound(tmp_path / "b.wav", 1.0)]
    tags = tag(posterior, paths, draws=0, hop=0.001)
    assert [window.file for window in tags.windows] == [str(path) for path in paths]


@pytest.mark.parametrize(("name", "value"), [("window", 0.0), ("window", float("inf")), ("hop", float("nan"))])
def test_windows_must_have_a_length(posterior, tmp_path, name, value):
    with pytest.raises(PredictionError, match=name):
        tag(posterior, [sound(tmp_path / "x.wav", 1)], **{name: value})
    with pytest.raises(PredictionError, match="window inf"):
        tag(
            SimpleNamespace(takes="waveforms", clip_seconds=float("inf"), sample_rate=RATE),
            [sound(tmp_path / "x.wav", 1)],
        )


def test_nothing_to_tag(posterior):
    with pytest.raises(AudioError, match="no files"):
        tag(posterior, [])


def test_label_sets_are_those_of_the_calibration(posterior, tmp_path):
    path = sound(tmp_path / "x.wav", 2.0)
    assert tag(posterior, [path], draws=0).sets is None
    made = Calibration(temperature=2.0, threshold=0.34, coverage=0.8, draws=0, clips=(9, 9), data=("s.h5",))
    tags = tag(dataclasses.replace(posterior, calibration=made), [path], draws=0)
    np.testing.assert_array_equal(tags.sets, tags.uncertainty.probability >= 0.34)
    assert 0 < tags.sets.sum() < tags.sets.size
    assert tags.coverage == 0.8


def test_draws_are_those_that_were_made(posterior, tmp_path):
    """Members of an ensemble share the draws out in whole pairs, and one with point weights passes once."""
    point = Posterior.build(
        net="resnet14-narrow",
        labels=("a", "b", "c"),
        task=Task.ONE_OF_K,
        sample_rate=RATE,
        clip_seconds=1.0,
        strategy=Strategy(default=Settings(posterior="point")),
    )
    path = sound(tmp_path / "x.wav", 1.0)

    def made(predictor, draws):
        return tag(predictor, [path], draws).uncertainty.draws, predictor.draws_made(draws)

    assert made(posterior, 5) == (5, 5)
    assert made(posterior, 0) == (1, 0)
    assert made(point, 5) == (1, 0)
    assert made(posterior, "moments") == ("moments", "moments")
    both = Ensemble([posterior, point])
    assert made(both, 5) == (5, 5)
    assert made(both, 6) == (5, 5)
    assert made(both, 0) == (2, 0)
    assert made(Ensemble([posterior, posterior]), 3) == (4, 4)
    assert made(Ensemble([point, point]), 7) == (2, 0)


def test_files_come_one_by_one_and_a_long_one_in_parts(posterior, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "CLIPS", 4)
    monkeypatch.setattr("bayes_panns.predictions.windows.MOST", 2)
    (tmp_path / "bad.wav").write_bytes(b"nothing")
    files = [sound(tmp_path / "long.wav", 9.5), tmp_path / "bad.wav", sound(tmp_path / "short.wav", 0.5)]
    each = list(tag_each(posterior, files, 0))
    assert [(Path(one.file).name, getattr(one, "complete", None)) for one in each] == [
        ("long.wav", False),
        ("long.wav", False),
        ("long.wav", True),
        ("bad.wav", None),
        ("short.wav", True),
    ]
    together = tag(posterior, files, 0)
    assert together.windows == tuple(window for one in each if isinstance(one, FileTags) for window in one.windows)
    assert together.skipped == tuple(one for one in each if isinstance(one, Skipped))
    assert [len(one.windows) for one in each if isinstance(one, FileTags)] == [4, 4, 2, 1]
    monkeypatch.undo()
    np.testing.assert_allclose(
        tag(posterior, files, 0).uncertainty.probability, together.uncertainty.probability, rtol=1e-4
    )


def test_nothing_is_read_ahead_of_who_takes_the_tags(posterior, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "CLIPS", 1)
    tagged = tag_each(posterior, [sound(tmp_path / "a.wav", 1), tmp_path / "later.wav"], 0)
    assert next(tagged).file == str(tmp_path / "a.wav")
    sound(tmp_path / "later.wav", 1)
    assert next(tagged).file == str(tmp_path / "later.wav")


class Failing:
    """A recording that fails after some blocks."""

    def __init__(self, blocks, error):
        self.blocks, self.error, self.notes = blocks, error, ()

    def __call__(self, path, rate, **how):
        return self if "odd" in str(path) else Recording(path, rate, **how)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __iter__(self):
        yield from (0.1 * torch.randn(RATE // 2) for _ in range(self.blocks))
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "no"),
        AudioError("odd.wav: is damaged"),
    ],
)
@pytest.mark.parametrize("blocks", [0, 1, 5])
def test_whatever_goes_wrong_with_one_file_costs_no_other(posterior, tmp_path, monkeypatch, error, blocks):
    monkeypatch.setattr(recordings, "Recording", Failing(blocks, error))
    tags = tag(posterior, [tmp_path / "odd.wav", sound(tmp_path / "x.wav", 1)], draws=0)
    ends = [window.end for window in tags.windows if "odd" in window.file]
    assert ends == {0: [], 1: [0.5], 5: [1, 2, 2.5]}[blocks]
    assert tags.windows[-1].file == str(tmp_path / "x.wav")
    if blocks:
        ((file, note),) = tags.notes
        assert (file, note.kind) == (str(tmp_path / "odd.wav"), SoundNote.TRUNCATED)
        assert note.text.startswith(f"reading stopped after {blocks / 2:.1f} s (")
    else:
        assert [skipped.file for skipped in tags.skipped] == [str(tmp_path / "odd.wav")]
        assert "odd.wav: " in tags.skipped[0].reason


def test_where_memory_is_too_small_for_a_batch_its_files_are_predicted_one_by_one(posterior, tmp_path, monkeypatch):
    real = clip_sets.predict_waveforms

    def small(predictor, groups, draws, **kept):
        if sum(map(len, groups)) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(predictor, groups, draws, **kept)

    monkeypatch.setattr(clip_sets, "predict_waveforms", small)
    files = [sound(tmp_path / f"{name}.wav", seconds) for name, seconds in (("a", 2), ("b", 3), ("c", 1))]
    tags = tag(posterior, files, draws=0)
    assert [Path(window.file).name for window in tags.windows] == ["a.wav", "a.wav", "c.wav"]
    assert [skipped.file for skipped in tags.skipped] == [str(files[1])]
    with pytest.raises(AudioError, match=r"b\.wav: there is too little memory"):
        tag(posterior, [files[1]], draws=0)


def test_another_error_of_the_network_is_no_files_fault(posterior, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(clip_sets, "predict_waveforms", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        tag(posterior, [sound(tmp_path / "x.wav", 1)], draws=0)


def test_a_short_file_is_tagged_as_packed_and_evaluated(tmp_path):
    """A posterior that was fitted to padded clips pads a file as stores do."""
    torch.manual_seed(0)
    made = Posterior.build(
        net="resnet14-narrow",
        labels=("a", "b", "c"),
        task=Task.ONE_OF_K,
        sample_rate=RATE,
        clip_seconds=1.0,
    )
    path = sound(tmp_path / "s" / "a" / "x.wav", 0.3)
    pack(folder(tmp_path / "s"), tmp_path / "s.h5", sample_rate=RATE, seconds=1.0)
    packed = predict(made, ClipSet(tmp_path / "s.h5"), 3)
    np.testing.assert_allclose(tag(made, path, 3).uncertainty.probability, packed.probability, atol=1e-4)


def test_a_channel_of_choice(posterior, tmp_path):
    left, right = (0.1 * np.random.default_rng(seed).normal(size=RATE) for seed in (1, 2))
    for name, channels in (("both", np.stack([left, right], 1)), ("left", left), ("right", right)):
        soundfile.write(tmp_path / f"{name}.wav", channels, RATE, subtype="FLOAT")
    alone = {name: tag(posterior, tmp_path / f"{name}.wav", 0).uncertainty.probability for name in ("left", "right")}
    for channel, name in (("left", "left"), ("right", "right"), ("2", "right")):
        found = tag(posterior, tmp_path / "both.wav", 0, channel=channel).uncertainty.probability
        np.testing.assert_allclose(found, alone[name], rtol=1e-5)
    with pytest.raises(SettingError, match="channel 'middle'"):
        tag(posterior, tmp_path / "both.wav", 0, channel="middle")
