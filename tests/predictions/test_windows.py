"""Windows cover a file; none is empty, and none reaches beyond it."""

import itertools
import math
import weakref

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bayes_panns.core.errors import BayesPannsError, PredictionError
from bayes_panns.predictions import windows
from bayes_panns.predictions.windows import cut, cut_stream, in_samples


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 10_000))
@example(samples=1001, window=1000, hop=1)
@example(samples=1010, window=1000, hop=3)
@example(samples=1011, window=1000, hop=2000)
def test_windows_cover_the_file(samples, window, hop):
    starts, length = cut(samples, window, hop)
    assert starts
    assert length == min(samples, window)
    assert starts[0] == 0
    assert all(start + length <= samples for start in starts)
    steps = [after - before for before, after in itertools.pairwise(starts)]
    assert all(0 < step <= hop for step in steps)
    assert all(step == hop for step in steps[:-1])
    # A rest of up to a hundredth of a window gets no window of its own; the last of several ends with the file.
    assert samples - (starts[-1] + length) <= window / 100
    if samples > window and (samples - window) % hop > window / 100:
        assert starts[-1] + length == samples


def test_windows_by_hand():
    assert cut(1000, 1000, 10) == ([0], 1000)
    assert cut(1005, 1000, 10) == ([0], 1000)
    assert cut(1011, 1000, 10) == ([0, 10], 1000)
    assert cut(1021, 1000, 10) == ([0, 10, 20], 1000)
    assert cut(2500, 1000, 1000) == ([0, 1000, 1500], 1000)
    assert cut(2500, 1000, 5000) == ([0, 1500], 1000)
    assert cut(1, 1000, 10) == ([0], 1)


@pytest.mark.parametrize("seconds", [math.inf, -math.inf, math.nan, 0.0, -1.0, 1e-5, 1e308])
@pytest.mark.parametrize("name", ["window", "hop"])
def test_a_length_that_is_none_is_refused_by_name(seconds, name):
    with pytest.raises(PredictionError, match=f"^{name} .* at least one sample") as error:
        in_samples(seconds, 16_000, name)
    assert isinstance(error.value, BayesPannsError)
    assert "\n" not in str(error.value)


def test_lengths_are_rounded_to_samples():
    assert in_samples(1 / 16_000, 16_000, "hop") == 1
    assert in_samples(0.1, 44_100, "hop") == 4410
    assert in_samples(2.00001, 8000, "window") == 16_000


@settings(max_examples=60)
@given(
    st.integers(0, 600),
    st.integers(1, 250),
    st.integers(2, 300),
    st.lists(st.integers(5, 150), min_size=1, max_size=5),
    st.sampled_from([1, 500, 1 << 24]),
    st.sampled_from([1, 3, 32]),
)
@example(samples=1010, window=1000, hop=3, blocks=[77], held=1 << 24, most=32)
@example(samples=1000, window=1000, hop=3, blocks=[1000], held=1 << 24, most=1)
@example(samples=3000, window=10, hop=1400, blocks=[100], held=1, most=32)
def test_a_stream_is_cut_as_the_whole_file(samples, window, hop, blocks, held, most):
    whole, pieces, at = torch.arange(samples, dtype=torch.float32), [], 0
    for size in itertools.cycle(blocks):
        if at >= samples:
            break
        pieces.append(whole[at : at + size])
        at += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_HELD", held)
        patch.setattr(windows, "MOST", most)
        runs = list(cut_stream(pieces, window, hop))
    starts, length = cut(samples, window, hop) if samples else ([], 0)
    assert [start for run in runs for start in run.starts] == starts
    for run in runs:
        assert len(run.starts) <= most
        for start, waveform in zip(run.starts, run.waveforms, strict=True):
            assert torch.equal(waveform, whole[start : start + length])


def test_a_stream_is_cut_while_it_comes_and_what_has_passed_is_let_go():
    alive = weakref.WeakSet()

    def blocks():
        for _ in range(5000):
            block = torch.zeros(100)
            alive.add(block)
            yield block
            del block
            # 32 windows, and the last window's worth of samples.
            assert len(alive) < 40

    runs = cut_stream(blocks(), 100, 100)
    next(runs)
    assert alive
    assert sum(len(run.starts) for run in runs) == 5000 - 32
