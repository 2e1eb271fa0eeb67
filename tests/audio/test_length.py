import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bayes_panns.audio.length import fit_length
from bayes_panns.clips import fit_length as in_clips


@given(
    waveform=hnp.arrays(np.float32, st.integers(0, 9), elements=st.floats(-1, 1, width=32)),
    samples=st.integers(1, 12),
    batch=st.sampled_from([(), (1,), (2, 3)]),
)
def test_the_end_is_cut_or_padded_with_zeros(waveform, samples, batch):
    kept = min(len(waveform), samples)
    waveform = np.broadcast_to(waveform, (*batch, len(waveform)))
    for given_waveform in (waveform, torch.tensor(waveform)):
        fitted = fit_length(given_waveform, samples)
        assert type(fitted) is type(given_waveform)
        assert fitted.dtype == given_waveform.dtype
        assert tuple(fitted.shape) == (*batch, samples)
        assert (np.asarray(fitted)[..., :kept] == waveform[..., :kept]).all()
        assert not np.asarray(fitted)[..., kept:].any()


def test_a_length_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 samples"):
        fit_length(np.ones(3), 0)


def test_clips_offer_the_same_function():
    assert in_clips is fit_length
