"""How many there are of each kind."""

import numpy as np
import pytest

from bayes_panns.metrics.counts import confusion, count_events, count_kinds, count_labels, rates


def test_a_classifier_that_never_errs_is_counted_as_it_is():
    called = np.array([70, 0, 30])
    found = count_kinds(called, np.eye(3) * 1e6)
    np.testing.assert_array_equal(found.value, called)
    np.testing.assert_array_equal(found.low, called)
    np.testing.assert_array_equal(found.high, called)


def test_counts_are_those_of_rogan_and_gladen_where_the_confusion_is_known():
    table = np.array([[[9e5, 1e5], [2e4, 98e4]]])
    found = count_labels(np.array([1000]), 20000, table)
    assert found.value[0] == pytest.approx((1000 / 20000 - 0.02) / (0.9 - 0.02) * 20000, abs=15)
    assert found.low[0] < found.value[0] < found.high[0]
    kinds = count_kinds(np.array([40000, 60000]), np.array([[8e5, 2e5], [1e5, 9e5]]))
    assert kinds.value[0] == pytest.approx((0.4 - 0.1) / (0.8 - 0.1) * 100000, abs=400)
    assert kinds.value.sum() == pytest.approx(100000, abs=2)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Simulated label shift, with few held-out clips: 90 % with a tolerance of three standard errors, or more."""
    random, held = np.random.default_rng(0), []
    for seed in range(25):
        rows = np.full((4, 4), 0.04) + 0.84 * np.eye(4)
        table = np.stack([random.multinomial(12, row) for row in rows])
        truth = random.multinomial(300, random.dirichlet(np.full(4, 0.5)))
        called = sum(random.multinomial(count, row) for count, row in zip(truth, rows, strict=True))
        found = count_kinds(called, table, seed=seed)
        held += list((found.low <= truth) & (truth <= found.high))
    assert np.mean(held) > 0.9 - 3 * np.sqrt(0.9 * 0.1 / len(held))


def test_windows_that_fall_together_make_intervals_wider():
    table, called = np.array([[30, 10], [5, 35]]), np.array([120, 80])
    alone, together = count_kinds(called, table), count_kinds(called, table, together=8.0)
    assert together.value.sum() == pytest.approx(200, abs=10)
    assert (together.high - together.low > alone.high - alone.low).all()


def test_tables_are_counted_from_calls():
    eye = np.eye(3, dtype=bool)
    np.testing.assert_array_equal(confusion(eye[[0, 0, 1]], eye[[0, 1, 1]]), [[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    called, target = np.array([[1, 0], [0, 0], [1, 1]], dtype=bool), np.array([[1, 1], [1, 0], [0, 1]], dtype=bool)
    np.testing.assert_array_equal(rates(called, target), [[[1, 1], [1, 0]], [[1, 1], [0, 1]]])


def test_events_are_corrected_for_those_missed_and_for_those_that_are_none():
    found = count_events(np.array([1000]), np.array([8e5]), np.array([2e5]), np.array([100]), share=2.0)
    # 200 of those found are false; the others are four fifths.
    assert found.value[0] == pytest.approx(1000, abs=25)
    assert found.low[0] < 1000 < found.high[0]
    none = count_events(np.array([0]), np.array([40]), np.array([2]), np.array([1]), share=1.0)
    assert none.low[0] == none.value[0] == 0


def test_events_hold_the_truth_as_often_as_they_say():
    random, held = np.random.default_rng(1), []
    for seed in range(60):
        recall, rate, truth = random.uniform(0.5, 0.95), random.uniform(0, 3), random.integers(0, 30)
        hits = random.binomial(20, recall)
        found = random.binomial(truth, recall) + random.poisson(rate)
        counts = count_events(
            np.array([found]),
            np.array([hits]),
            np.array([20 - hits]),
            np.array([random.poisson(rate)]),
            share=1.0,
            seed=seed,
            draws=500,
        )
        held.append(counts.low[0] <= truth <= counts.high[0])
    assert np.mean(held) > 0.9 - 3 * np.sqrt(0.9 * 0.1 / 60)
