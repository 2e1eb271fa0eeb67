"""Windows cover a file; none is empty, and none reaches beyond it."""

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bayes_panns.core.errors import BayesPannsError, PredictionError
from bayes_panns.predictions.windows import cut, in_samples


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
