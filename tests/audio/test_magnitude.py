import math

import h5py
import numpy as np
import pytest
import soundfile

from bayes_panns.audio.magnitude import LARGEST, usable
from bayes_panns.audio.recording import Recording
from bayes_panns.clips import Store, Task, write_embeddings
from bayes_panns.core.errors import AudioError, StoreError


@pytest.mark.parametrize("value", [2 * LARGEST, -1e30, math.nan, math.inf])
def test_numbers_beyond_any_scale_are_refused_wherever_they_come_from(tmp_path, value):
    assert usable(np.array([LARGEST, value, 0])).tolist() == [True, False, True]
    wave = np.zeros((2, 4000), dtype=np.float32)
    wave[1, 7] = value
    soundfile.write(tmp_path / "a.wav", wave[1], 8000, subtype="FLOAT")
    with Recording(tmp_path / "a.wav", 8000) as recording, pytest.raises(AudioError, match="the first is sample 7 "):
        list(recording)
    # As PANNs packs sound.
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["audio_name"], file["waveform"], file["target"] = [b"a.wav", b"b.wav"], wave, np.eye(2, dtype=bool)
        file.attrs["sample_rate"] = 8000
    with pytest.raises(StoreError, match=r"clip 'b.wav' holds samples "):
        Store(tmp_path / "a.h5").waveform([0, 1])
    with pytest.raises(StoreError, match="row 1, counted from 0"):
        write_embeddings(tmp_path / "b.h5", wave[:, :9], np.eye(2, dtype=bool), ("a", "b"), Task.ONE_OF_K)


def test_float_files_at_the_scale_of_32_bits_are_sound(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(800, 2.0**31), 8000, subtype="FLOAT")
    with Recording(tmp_path / "a.wav", 8000) as recording:
        assert sum(map(len, recording)) == 800
