"""Events from the predictions for windows."""

import math
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.core.errors import PredictionError, SettingError
from bayes_panns.predictions import (
    Event,
    EventFinder,
    EventRules,
    FileTags,
    UncertaintyAccumulator,
    Window,
    find_events,
)


def uncertainty(samples):
    """Predictions with these samples, ``(N, T, K)``."""
    accumulator = UncertaintyAccumulator("multi-label", samples=True)
    for drawn in np.moveaxis(np.asarray(samples, dtype=np.float32), 1, 0):
        accumulator.update(torch.from_numpy(drawn))
    return accumulator.result()


def tags(samples, *, window=1.0, hop=1.0, file="a.wav", complete=True, first=0):
    windows = tuple(Window(file, i * hop, i * hop + window) for i in range(first, first + len(samples)))
    return FileTags(file, windows, uncertainty(samples), complete=complete)


def certain(probabilities):
    """``(N,)`` as the samples of one label, with a single draw."""
    return np.array(probabilities)[:, None, None]


def spans(events):
    return [(event.onset, event.offset) for event in events]


def test_windows_that_follow_each_other_are_one_event():
    (event,) = find_events(["dog"], [tags(certain([0.1, 0.75, 0.75, 0.25]))])
    assert event == Event("a.wav", "dog", 1.0, 3.0, *[pytest.approx(0.75)] * 3)


def test_the_probability_is_the_mean_of_the_draws_soft_maxima_and_not_the_maximum_of_their_means():
    # The two draws hear it at different times: each is sure that it is there.
    drawn = np.array([[1.0, 0.0], [0.0, 1.0]])[:, :, None]
    (event,) = find_events(["dog"], [tags(drawn)])
    assert (event.onset, event.offset) == (0.0, 2.0)
    assert event.probability == pytest.approx(0.5 ** (1 / 32))
    # One draw hears it, the other never does.
    (event,) = find_events(["dog"], [tags(np.array([[1.0, 0.0], [1.0, 0.0]])[:, :, None])])
    assert event.probability == pytest.approx(0.5)
    assert (event.low, event.high) == pytest.approx((0.05, 0.95))


def test_a_gap_joins_and_least_drops():
    heard = certain([1, 0, 1, 0, 0, 1])
    assert spans(find_events(["a"], [tags(heard)])) == [(0, 1), (2, 3), (5, 6)]
    assert spans(find_events(["a"], [tags(heard)], EventRules(gap=1.0))) == [(0, 3), (5, 6)]
    assert spans(find_events(["a"], [tags(heard)], EventRules(gap=1.0, least=2.0))) == [(0, 3)]
    assert spans(find_events(["a"], [tags(heard)], EventRules(gap=2.0))) == [(0, 6)]


def test_an_event_of_a_low_probability_is_left_out():
    heard = certain([0.5, 0, 0.9])
    assert spans(find_events(["a"], [tags(heard)], EventRules(probability=0.6))) == [(2, 3)]
    found = find_events(["a", "b"], [tags(np.full((1, 1, 2), 0.75))], EventRules(probability=(0.8, 0.75)))
    assert [event.label for event in found] == ["b"]


def test_edges_of_overlapping_windows_lie_where_half_of_them_hear_it():
    # Windows of 2 s each 0.5 s; those that start from 3 s to 5 s hear something.
    heard = certain([1.0 if 3 <= i * 0.5 <= 5 else 0.0 for i in range(20)])
    assert spans(find_events(["a"], [tags(heard, window=2.0, hop=0.5)])) == [(3.5, 6.5)]
    # All windows that cover a time must hear it: what only the windows from 3 s to 5 s have in common.
    assert spans(find_events(["a"], [tags(heard, window=2.0, hop=0.5)], EventRules(threshold=1.0))) == [(4.5, 5.5)]


def test_time_between_windows_is_a_gap():
    heard = certain([1, 1, 1])
    assert spans(find_events(["a"], [tags(heard, window=1.0, hop=3.0)])) == [(0, 1), (3, 4), (6, 7)]
    assert spans(find_events(["a"], [tags(heard, window=1.0, hop=3.0)], EventRules(gap=2.0))) == [(0, 7)]


def test_labels_have_thresholds_of_their_own_and_the_background_makes_no_events():
    drawn = np.full((2, 1, 3), 0.6)
    found = find_events(["a", "b", "Background"], [tags(drawn)], EventRules(threshold=(0.5, 0.7, 0.1)))
    assert [event.label for event in found] == ["a"]
    found = find_events(["a", "b", "Background"], [tags(drawn)], EventRules(background=("b",)))
    assert [event.label for event in found] == ["Background", "a"]


def test_a_recording_that_is_not_completed_leaves_nothing_behind():
    finder = EventFinder(["a"])
    assert finder.add(tags(certain([1.0, 1.0]), complete=False)) == []
    found = finder.add(tags(certain([0.0, 1.0]), file="b.wav"))
    assert [(event.file, event.onset, event.offset) for event in found] == [("b.wav", 1.0, 2.0)]
    parts = [tags(certain([1.0, 0.0, 0.0]), complete=False), tags(certain([0.0, 1.0]), file="b.wav")]
    assert find_events(["a"], parts) == found


@st.composite
def recordings(draw):
    """Samples of a recording with 2 labels and 3 draws, cut into windows in some way, and where it is cut in parts."""
    count = draw(st.integers(1, 14))
    levels = st.sampled_from([0.0, 0.2, 0.45, 0.5, 0.8, 1.0])
    samples = np.array(draw(st.lists(levels, min_size=count * 6, max_size=count * 6))).reshape(count, 3, 2)
    window, hop = draw(st.sampled_from([1.0, 1.5, 4.0])), draw(st.sampled_from([0.5, 1.0, 2.0]))
    cuts = sorted(draw(st.sets(st.integers(1, count - 1), max_size=4))) if count > 1 else []
    rules = EventRules(
        threshold=draw(st.sampled_from([0.3, 0.5, (0.2, 0.7)])),
        gap=draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
        least=draw(st.sampled_from([0.0, 1.0, 2.5])),
        probability=draw(st.sampled_from([0.0, 0.6])),
    )
    return samples, window, hop, cuts, rules


@settings(max_examples=60)
@given(recordings())
def test_parts_of_a_recording_give_the_events_of_the_whole(case):
    samples, window, hop, cuts, rules = case
    whole = EventFinder(["a", "b"], rules).add(tags(samples, window=window, hop=hop))
    finder, found = EventFinder(["a", "b"], rules), []
    edges = [0, *cuts, len(samples)]
    for first, last in pairwise(edges):
        part = tags(samples[first:last], window=window, hop=hop, first=first, complete=last == len(samples))
        found += finder.add(part)
    assert found == whole


@settings(max_examples=60)
@given(recordings())
def test_events_are_those_of_a_grid_of_times(case):
    samples, window, hop, _, rules = case
    found = find_events(["a", "b"], [tags(samples, window=window, hop=hop)], rules)
    assert sorted(map(_plain, found)) == sorted(_by_grid(samples, window, hop, rules))


def _plain(event):
    return event.label, event.onset, event.offset, round(event.probability, 5)


def _by_grid(samples, window, hop, rules, step=0.5):
    """The same from the definition, on a grid that all edges lie on."""
    samples = samples.astype(np.float32)
    starts = hop * np.arange(len(samples))
    times = np.arange(0, starts[-1] + window, step)
    for k, (label, threshold) in enumerate(zip("ab", rules.thresholds("ab"), strict=True)):
        drawn = np.full((len(times), 3), np.nan)
        for i, time in enumerate(times):
            over = (starts <= time) & (time < starts + window)
            if over.any():
                drawn[i] = samples[over, :, k].mean(axis=0, dtype=np.float64)
        heard = [i for i in range(len(times)) if drawn[i].mean() >= threshold]
        groups = []
        for i in heard:
            if groups and times[i] - (times[groups[-1][-1]] + step) <= rules.gap:
                groups[-1].append(i)
            else:
                groups.append([i])
        for group in groups:
            onset, offset = times[group[0]], times[group[-1]] + step
            probability = ((drawn[group] ** 32).mean(axis=0) ** (1 / 32)).mean()
            assert probability >= threshold - 1e-9
            if offset - onset >= rules.least and probability >= rules.probability:
                yield label, onset, offset, round(probability, 5)


def test_memory_does_not_grow_with_a_recording():
    part = tags(np.full((50, 4, 3), 0.9), window=3.0, hop=1.0, complete=False)

    def peak(parts):
        finder = EventFinder(["a", "b", "c"])
        tracemalloc.start()
        for number in range(parts):
            windows = tuple(
                replace(window, start=window.start + 50 * number, end=window.end + 50 * number)
                for window in part.windows
            )
            finder.add(replace(part, windows=windows))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(30) < 1.5 * peak(3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"threshold": 0.0}, "a threshold of 0"),
        ({"threshold": (0.5, 1.5)}, "a threshold of 1.5"),
        ({"gap": -1.0}, "gap -1 s"),
        ({"least": float("nan")}, "least nan s"),
        ({"probability": 2.0}, "a least probability of 2"),
    ],
)
def test_rules_that_make_no_sense_are_refused(values, said):
    with pytest.raises(SettingError, match=said):
        EventRules(**values)


def test_what_does_not_fit_is_refused():
    with pytest.raises(SettingError, match="2 thresholds for 1 labels"):
        EventFinder(["a"], EventRules(threshold=(0.5, 0.5)))
    with pytest.raises(SettingError, match="2 least probabilities for 1 labels"):
        EventFinder(["a"], EventRules(probability=(0.5, 0.5)))
    without = tags(certain([0.5]))
    without = replace(without, uncertainty=replace(without.uncertainty, samples=None))
    with pytest.raises(PredictionError, match="samples=True"):
        EventFinder(["a"]).add(without)
    with pytest.raises(ValueError, match="predictions of 1 labels: expected 2"):
        EventFinder(["a", "b"]).add(tags(certain([0.5])))
    with pytest.raises(ValueError, match="expected an order"):
        EventFinder(["a"]).add(tags(certain([0.5, 0.5]), hop=-1.0))


def test_edges_that_only_rounding_tells_apart_have_no_time_between_them():
    windows = (Window("a.wav", 0.0, 1.0), Window("a.wav", 1.0, 2.0), Window("a.wav", 1.0, math.nextafter(2.0, 0)))
    found = FileTags("a.wav", windows, uncertainty(certain([0.1, 0.9, 0.0])))
    assert find_events(["dog"], [found]) == []
