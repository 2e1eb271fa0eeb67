"""Counts of events hold the truth as often as they say, also where recordings differ."""

import numpy as np
import pytest

from bayes_panns.metrics import Finding, count_events


def recordings(random, count, concentration, shape):
    """Annotated recordings whose recall and rate of false events vary: hits, misses, alarms, ``(R, K)``."""
    recall, rate = np.array([0.8, 0.5, 0.65]), np.array([0.5, 2.0, 5.0])
    events = random.poisson(random.gamma(2, 8, size=(count, 3)))
    share = random.beta(recall * concentration, (1 - recall) * concentration, size=(count, 3))
    hits = random.binomial(events, share)
    return hits, events - hits, random.poisson(random.gamma(shape, rate / shape, size=(count, 3)))


@pytest.mark.parametrize(("concentration", "shape"), [(5.0, 1.0), (300.0, 100.0)])
def test_intervals_hold_the_truth_in_new_recordings(concentration, shape):
    random = np.random.default_rng(0)
    inside, alike, together = [], [], []
    for _ in range(10):
        hits, misses, alarms = recordings(random, 12, concentration, shape)
        finding = Finding.of(hits, misses, alarms, np.ones(12))
        for new, missed, false in zip(*recordings(random, 6, concentration, shape), strict=True):
            there, found = new + missed, new + false
            counts, total = finding.count(found, 1.0, draws=200)
            inside.append((counts.low <= there) & (there <= counts.high))
            together.append(total.low[0] <= there.sum() <= total.high[0])
            plain = count_events(found, hits.sum(0), misses.sum(0), alarms.sum(0), share=1 / 12, draws=200)
            alike.append((plain.low <= there) & (there <= plain.high))
    # Whole numbers make them hold it a little more often.
    assert 0.86 < np.mean(inside) < 0.98
    assert np.mean(together) == pytest.approx(0.9, abs=0.09)
    if concentration < 100:
        # One recall for all recordings is too sure.
        assert np.mean(alike) < np.mean(inside) - 0.05


def test_the_spread_between_recordings_is_found():
    random = np.random.default_rng(2)
    loose = Finding.of(*recordings(random, 100, 3.0, 0.7), np.ones(100))
    close = Finding.of(*recordings(random, 100, 400.0, 200.0), np.ones(100))
    assert loose.concentration == pytest.approx(3.0, rel=0.4)
    assert loose.shape == pytest.approx(0.7, rel=0.4)
    assert close.concentration > 50
    assert close.shape > 10
    np.testing.assert_allclose(close.recall, [0.8, 0.5, 0.65], atol=0.05)
    np.testing.assert_allclose(close.alarms, [0.5, 2.0, 5.0], rtol=0.25)
    # Alike recordings say more.
    assert (close.known > loose.known).all()
