"""Thresholds that meet a target with a confidence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from bayes_panns.metrics.deciding import (
    alarm_threshold,
    independent,
    likeness,
    needed,
    risk_threshold,
    tail,
    upper_bound,
)


@given(st.integers(0, 30), st.integers(1, 60), st.floats(0.01, 0.99))
def test_the_tail_is_the_binomial_one(errors, trials, rate):
    expected = binom.cdf(errors, trials, rate)
    assert float(tail(min(errors, trials), trials, rate)) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 20), st.integers(21, 80))
def test_at_the_upper_bound_so_few_errors_are_as_improbable_as_said(errors, trials):
    assert binom.cdf(errors, trials, upper_bound(errors, trials, 0.9)) == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(("risk", "confidence"), [(0.05, 0.9), (0.1, 0.9), (0.2, 0.99)])
def test_so_many_clips_without_an_error_are_just_enough(risk, confidence):
    count = needed(risk, confidence)
    for clips, enough in ((count, True), (count - 1, False)):
        found = risk_threshold(np.linspace(1, 0.5, clips), np.zeros(clips, dtype=bool), risk, confidence=confidence)
        assert (found is not None) == enough


def test_clips_of_one_recording_are_worth_one_if_they_fall_together():
    groups = np.repeat(np.arange(10), 7)
    assert independent(groups)[-1] == pytest.approx(10)
    assert independent(groups, 0.0)[-1] == 70
    assert independent(np.arange(70))[-1] == 70
    # Errors that are the same in each recording are as alike as can be, and those of a shuffle are not.
    wrong = np.repeat(np.arange(10) < 3, 7)
    assert likeness(wrong, groups) == pytest.approx(1)
    # Of many recordings with errors it is told that these are not alike; of a few it is not.
    spread = np.tile(np.arange(7) < 3, 200)
    assert likeness(spread, np.repeat(np.arange(200), 7)) < 0.1
    assert likeness(spread[: 7 * 3], np.repeat(np.arange(3), 7)) > 0.5
    assert likeness(wrong, np.arange(70)) == 1


@pytest.mark.parametrize("size", [1, 5])
def test_thresholds_keep_their_target_as_often_as_they_say(size):
    """Simulated; the share of thresholds that miss is at most 10 % with a tolerance of three standard errors."""
    random, missed, made = np.random.default_rng(0), 0, 0
    for _ in range(150):
        # The errors grow as the score falls, and are the same within a recording.
        error = 0.5 * np.sort(random.random(120)) ** 2
        wrong = np.repeat(random.random(120) < error, size)
        score = 1 - np.repeat(error, size)
        found = risk_threshold(score, wrong, 0.1, groups=np.repeat(np.arange(120), size))
        if found is not None:
            made += 1
            missed += error[1 - error >= found.value].mean() > 0.1
    assert made > 100
    assert missed / 150 < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 150)


def test_it_is_the_lowest_threshold_that_passes_and_equal_scores_fall_together():
    # 60 right, then 10 wrong: with the first errors the precision is still met.
    score, wrong = np.linspace(1, 0, 70), np.arange(70) >= 60
    found = risk_threshold(score, wrong, 0.1)
    assert found.called == 60 + found.wrong
    assert found.wrong >= 1
    assert upper_bound(found.wrong, found.called, 0.9) <= 0.1 < upper_bound(found.wrong + 1, found.called + 1, 0.9)
    assert risk_threshold(np.round(score, 0), wrong, 0.05) is None
    assert risk_threshold(np.ones(0), np.ones(0, dtype=bool), 0.1) is None


def test_a_single_early_error_does_not_end_it_where_there_are_many_clips():
    score, wrong = np.linspace(1, 0, 600), np.arange(600) == 3
    found = risk_threshold(score, wrong, 0.05)
    assert found.called == 600


def test_false_alarms_are_bounded_among_all_clips():
    score = np.linspace(1, 0, 400)
    alarm = np.arange(400) % 40 == 39
    found = alarm_threshold(score, alarm, 0.02)
    assert upper_bound(found.wrong, 400, 0.9) == pytest.approx(found.bound)
    assert found.bound <= 0.02 < upper_bound(found.wrong + 1, 400, 0.9)
    assert alarm_threshold(score[:50], alarm[:50], 0.02) is None
    assert alarm_threshold(np.full(400, -np.inf), alarm, 0.02) is None
