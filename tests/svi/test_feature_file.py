"""Log-mels on disk: found again after a kill, and only if they are whole and of the same clips."""

import numpy as np
import pytest
import torch

from bayes_panns.audio.front_end import LogMel
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core.errors import StoreError
from bayes_panns.svi import Features
from bayes_panns.svi.feature_file import FeatureFile

RATE, CLIPS = 8000, 150
"""More than two chunks of clips."""


class Counting(LogMel):
    """Counts the clips that it is asked for."""

    seen = 0

    def forward(self, waveform):
        self.seen += len(waveform)
        return super().forward(waveform)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    path, label = tmp_path_factory.mktemp("features") / "clips.h5", np.arange(CLIPS) % 2
    waveform = np.random.default_rng(0).normal(scale=0.1, size=(CLIPS, 1000))
    write(path, waveform, np.eye(2, dtype=bool)[label], ("a", "b"), Task.ONE_OF_K, RATE)
    return ClipSet(path)


@pytest.fixture
def front_end():
    return Counting(RATE)


def features(clips, front_end, path=None, keep="disk"):
    file = None if path is None else FeatureFile(path, front_end, clips.samples)
    return Features(clips, front_end, Task.ONE_OF_K, keep=keep, file=file)


def values(kept):
    return kept.batch(torch.randperm(CLIPS, generator=torch.Generator().manual_seed(0)))[0]


def test_they_are_the_same_bits_as_in_memory_and_computed_once(clips, front_end, tmp_path):
    wanted = values(features(clips, front_end, keep="memory"))
    assert torch.equal(values(features(clips, front_end, tmp_path / "f")), wanted)
    front_end.seen = 0
    assert torch.equal(values(features(clips, front_end, tmp_path / "f")), wanted)
    assert front_end.seen == 0


@pytest.mark.parametrize("damage", ["cut", "flipped", "line"])
def test_what_a_killed_fit_or_a_bad_disk_left_is_used_as_far_as_it_is_whole(clips, front_end, tmp_path, damage):
    path = tmp_path / "f"
    wanted = values(features(clips, front_end, path))
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: int(0.7 * len(content))]
    else:
        content[5 if damage == "line" else int(0.7 * len(content))] ^= 1
    path.write_bytes(content)
    front_end.seen = 0
    assert torch.equal(values(features(clips, front_end, path)), wanted)
    assert front_end.seen == {"cut": 150 - 64, "flipped": 150 - 64, "line": 150}[damage]


def test_two_sets_share_the_file_and_other_clips_are_not_taken(clips, front_end, tmp_path):
    held, rest = (clips.select(indices=np.arange(*ends)) for ends in ((0, 50), (50, CLIPS)))

    def both(*sets):
        file = FeatureFile(tmp_path / "f", front_end, clips.samples)
        return [Features(each, front_end, Task.ONE_OF_K, keep="disk", file=file) for each in sets]

    wanted = [each.batch(torch.arange(50))[0] for each in both(rest, held)]
    front_end.seen = 0
    again = [each.batch(torch.arange(50))[0] for each in both(rest, held)]
    assert front_end.seen == 0
    assert all(torch.equal(*pair) for pair in zip(wanted, again, strict=True))
    other = both(held, rest)
    assert front_end.seen == CLIPS
    assert torch.equal(other[0].batch(torch.arange(50))[0], wanted[1])


def test_another_front_end_finds_nothing(clips, front_end, tmp_path):
    features(clips, front_end, tmp_path / "f")
    other = Counting(16000)
    features(clips, other, tmp_path / "f")
    assert other.seen == CLIPS


def test_a_file_that_is_cut_short_during_a_fit_is_an_error(clips, front_end, tmp_path):
    kept = features(clips, front_end, tmp_path / "f")
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(StoreError, match="was cut short while it was in use; resume the fit"):
        values(kept)


def test_a_disk_without_room_is_told_before_anything_is_computed(clips, front_end, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="the disk is full") as caught:
        features(clips, front_end, tmp_path / "f")
    assert caught.value.filename == str(tmp_path / "f")
    assert front_end.seen == 0
