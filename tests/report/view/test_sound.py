import io
import itertools

import numpy as np
import pytest
import soundfile

from bayes_panns.core.errors import AudioError
from bayes_panns.report.view import sound
from bayes_panns.report.view.sound import RATE, Wave
from tests.report.view.made import tones


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "a.flac"
    soundfile.write(path, tones(3, RATE), RATE)
    return path


def whole(wave):
    return b"".join(wave.read(0, wave.size))


def test_it_is_a_wav_file_of_the_sound(recording):
    wave = Wave(recording, 3)
    content = whole(wave)
    assert len(content) == wave.size
    read, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert rate == RATE
    assert np.abs(read - tones(3, RATE)).max() < 1e-4


def test_any_stretch_of_its_bytes_is_the_same(recording):
    wave = Wave(recording, 3)
    content = whole(wave)
    edges = [0, 1, 43, 44, 45, 1000, 64_001, 64_002, wave.size - 1, wave.size]
    for first, last in itertools.combinations(edges, 2):
        found = b"".join(wave.read(first, last))
        assert found == content[first:last], (first, last)


def test_a_long_recording_is_several_files(recording, monkeypatch):
    monkeypatch.setattr(sound, "PART_SECONDS", 2)
    first, second = Wave(recording, 3), Wave(recording, 3, part=1)
    assert (first.size, second.size) == (44 + 2 * 2 * RATE, 44 + 2 * RATE)
    parts = np.concatenate([soundfile.read(io.BytesIO(whole(each)), dtype="float32")[0] for each in (first, second)])
    assert np.abs(parts - tones(3, RATE)).max() < 1e-4
    for part in (2, -1):
        with pytest.raises(IndexError):
            Wave(recording, 3, part=part)


def test_silence_follows_where_less_sound_is_there_than_was_said(recording):
    wave = Wave(recording, 4)
    read, _ = soundfile.read(io.BytesIO(whole(wave)), dtype="float32")
    assert len(read) == 4 * RATE
    assert np.abs(read[3 * RATE :]).max() == 0


def test_what_cannot_be_decoded_is_found_out_before_a_byte_is_sent(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"a\.wav"):
        Wave(path, 3).read(0, 100)
