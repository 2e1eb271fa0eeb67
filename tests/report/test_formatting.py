import math

from hypothesis import given
from hypothesis import strategies as st

from bayes_panns.metrics import Interval
from bayes_panns.report.formatting import count_of, exact, number, percent, span


@given(st.floats(), st.sampled_from([0, 6]))
def test_an_exact_number_reads_back_as_the_same_float(value, decimals):
    shown = exact(value, decimals=decimals)
    assert float(shown) == value or (math.isnan(value) and shown == "nan")


@given(st.integers(0, 10**9), st.sampled_from([8000, 16000, 32000]))
def test_a_time_keeps_its_digits_and_has_no_exponent(sample, rate):
    shown = exact(sample / rate, decimals=6)
    assert float(shown) == sample / rate
    assert "e" not in shown
    assert len(shown.partition(".")[2]) >= 6


def test_numbers_as_people_read_them():
    shown = [number(value) for value in (0.12345, -1, 1234.56, 1e6, float("nan"), float("inf"), float("-inf"))]
    assert shown == ["0.123", "−1.000", "1,234.6", "1,000,000", "undefined", "∞", "−∞"]
    assert [exact(value) for value in (10000.25, 5.0, 1e-7, 1e22)] == ["10000.25", "5", "1e-07", "1e+22"]
    assert percent(0.126) == "13\u00a0%"
    assert span(Interval(0.5, 0.25, 0.75)) == "0.250 to 0.750"
    assert span(Interval(0.5, float("nan"), float("nan"))) == ""
    assert [count_of(number, "clip") for number in (0, 1, 1200)] == ["0 clips", "1 clip", "1,200 clips"]
