"""Scores of events: closed forms, and the same numbers as sed_eval and psds_eval."""

import math
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.metrics import (
    Span,
    Units,
    by_events,
    by_intersection,
    by_overlap,
    by_segments,
    error_rate,
    f1,
    matched_any,
    precision,
    psds,
    recall,
)

LABELS = ("bark", "horn", "siren")
SECONDS = {"a.wav": 60.0, "b.wav": 45.5, "c.wav": 20.0}


def case(seed):
    """Annotated events, and events found with errors of every kind: moved, split, missed, invented, mistaken."""
    random = np.random.default_rng(seed)
    truth, found = [], []
    for file, length in SECONDS.items():
        for label in LABELS:
            time = random.uniform(0, 4)
            while time < length - 6:
                end = time + random.uniform(0.3, 5)
                truth.append(Span(file, label, time, end))
                if random.uniform() < 0.75:
                    a, b = time + random.normal(0, 0.3), end + random.normal(0, 0.5)
                    named = label if random.uniform() < 0.85 else "siren"
                    pieces = [(a, b)] if b - a < 3 else [(a, a + 1), (a + 1.2, b)]
                    found += [Span(file, named, max(0, x), min(length, y)) for x, y in pieces if y - x > 0.05]
                time = end + random.uniform(0.2, 8)
        found += [Span(file, "bark", x, x + 0.7) for x in random.uniform(0, length - 1, 2)]
    return truth, without_overlap(found)


def without_overlap(events):
    kept = []
    for event in sorted(events, key=lambda each: each.onset):
        if all(
            (event.file, event.label) != (each.file, each.label) or event.onset > each.offset + 0.01 for each in kept
        ):
            kept.append(event)
    return kept


def totals(counts):
    return [values.tolist() for values in counts.of(np.arange(len(counts.hits)))]


def test_scores_by_hand():
    truth = [Span("a.wav", "bark", 1.0, 3.0), Span("a.wav", "bark", 10.0, 12.0), Span("a.wav", "horn", 5.0, 6.0)]
    found = [Span("a.wav", "bark", 1.1, 3.5), Span("a.wav", "siren", 5.0, 6.0)]
    units = Units({"a.wav": 20.0})
    segments = by_segments(truth, found, LABELS, units)
    assert totals(segments) == [[2, 0, 0], [1, 0, 1], [2, 1, 0]]
    # The siren stands for the horn; the bark's last segment is inserted, and two are deleted.
    assert error_rate(segments) == pytest.approx((1 + 1 + 2) / 5)
    events = by_events(truth, found, LABELS, units)
    assert totals(events) == [[1, 0, 0], [0, 0, 1], [1, 1, 0]]
    assert totals(by_events(truth, found, LABELS, units, collar=0.05, offset_share=None))[0] == [0, 0, 0]
    hits, alarms, misses = events.of(np.array([0]))
    np.testing.assert_allclose(f1(hits, alarms, misses), [2 / 3, 0, 0])
    np.testing.assert_allclose(precision(hits, alarms), [1, np.nan, 0])
    np.testing.assert_allclose(recall(hits, misses), [0.5, 0, np.nan])
    assert matched_any(truth, found).tolist() == [True, False]
    crossing = by_intersection(truth, found, LABELS, units)
    assert crossing.hits.tolist() == [[1, 0, 0]]
    assert crossing.alarms.tolist() == [[0, 0, 1]]
    assert crossing.crossed[0, 2].tolist() == [0, 1, 0]


def test_one_found_event_matches_one_annotated_event():
    truth = [Span("a.wav", "bark", 1.0, 2.0), Span("a.wav", "bark", 1.3, 2.3)]
    units = Units({"a.wav": 5.0})
    # Taking the first that fits would leave the second without.
    found = [Span("a.wav", "bark", 1.15, 2.15), Span("a.wav", "bark", 0.9, 1.9)]
    assert totals(by_events(truth, found, ["bark"], units)) == [[2], [0], [0]]
    assert totals(by_events(truth, found[:1], ["bark"], units)) == [[1], [0], [1]]


def test_any_overlap_is_enough_to_count():
    truth = [Span("a.wav", "bark", 1.0, 9.0), Span("a.wav", "bark", 11.0, 12.0)]
    found = [Span("a.wav", "bark", 0.0, 2.0), Span("a.wav", "bark", 3.0, 11.5), Span("a.wav", "bark", 12.0, 13.0)]
    assert totals(by_overlap(truth, found, ["bark"], Units({"a.wav": 20.0}))) == [[2], [1], [0]]


def test_an_event_that_is_found_in_pieces_is_found():
    truth = [Span("a.wav", "bark", 0.0, 10.0)]
    pieces = [Span("a.wav", "bark", 0.0, 4.0), Span("a.wav", "bark", 5.0, 8.0)]
    found = by_intersection(truth, pieces, ["bark"], Units({"a.wav": 20.0}))
    assert (found.hits.item(), found.alarms.item()) == (1, 0)
    # Tolerated, but too little of it: neither found nor an alarm.
    found = by_intersection(truth, pieces[:1], ["bark"], Units({"a.wav": 20.0}))
    assert (found.hits.item(), found.alarms.item(), found.counts().misses.item()) == (0, 0, 1)


@pytest.mark.parametrize("part", [None, 7.0, 30.0])
def test_parts_of_recordings_add_up_to_the_whole(part):
    truth, found = case(1)
    whole, parts = Units(SECONDS), Units(SECONDS, part)
    np.testing.assert_allclose(parts.lengths().sum(), sum(SECONDS.values()))
    assert parts.count == len(parts.lengths())
    for compare in (by_segments, by_events):
        assert totals(compare(truth, found, LABELS, parts)) == totals(compare(truth, found, LABELS, whole))
    assert psds([by_intersection(truth, found, LABELS, parts)]).value == pytest.approx(
        psds([by_intersection(truth, found, LABELS, whole)]).value
    )
    assert parts.of("b.wav", 45.5) < parts.of("c.wav", 0.0)


def test_what_is_not_known_is_an_error():
    with pytest.raises(KeyError, match=r"d\.wav"):
        by_events([Span("d.wav", "bark", 0, 1)], [], LABELS, Units(SECONDS))
    with pytest.raises(ValueError, match="segments"):
        error_rate(by_events([], [], LABELS, Units(SECONDS)))
    with pytest.raises(ValueError, match="no operating points"):
        psds([])
    assert math.isnan(error_rate(by_segments([], [], LABELS, Units(SECONDS))))


def test_the_score_of_a_perfect_and_of_a_blind_detector():
    truth, _ = case(2)
    units = Units(SECONDS)
    perfect = psds([by_intersection(truth, truth, LABELS, units)])
    assert perfect.value == 1.0
    assert psds([by_intersection(truth, [], LABELS, units)]).value == 0.0
    # No alarm, and half of each label's events: half the area, less the spread of the labels.
    half = [event for label in LABELS for event in [e for e in truth if e.label == label][::2]]
    shares = [sum(e.label == label for e in half) / sum(e.label == label for e in truth) for label in LABELS]
    found = psds([by_intersection(truth, half, LABELS, units)])
    assert found.value == pytest.approx(np.mean(shares) - np.std(shares))


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_a_threshold_more_never_lowers_the_score_without_spread(seed):
    truth, found = case(seed)
    units = Units(SECONDS)
    points = [by_intersection(truth, found[:count], LABELS, units) for count in (len(found), len(found) // 2)]
    assert psds(points, spread_weight=0).value >= psds(points[:1], spread_weight=0).value - 1e-12


GOLDEN = {
    0: {
        "segment": 0.6568265682656826,
        "event": 0.08791208791208792,
        "onset": 0.5274725274725275,
        "error": 0.49693251533742333,
        "psds": 0.15254895916393077,
        "crossed": 0.2476994708041916,
    },
    3: {
        "segment": 0.7416413373860183,
        "event": 0.14953271028037382,
        "onset": 0.5607476635514018,
        "error": 0.3867403314917127,
        "psds": 0.2228073653068421,
        "crossed": 0.4389526117703897,
    },
}


@pytest.mark.parametrize("seed", sorted(GOLDEN))
def test_golden_values_of_sed_eval_and_psds_eval(seed):
    mine = ours(seed)
    for name, value in GOLDEN[seed].items():
        assert mine[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.skipif(find_spec("sed_eval") is None, reason="sed_eval is not installed")
@pytest.mark.parametrize("seed", [0, 3])
def test_the_scores_are_those_of_sed_eval(seed):
    theirs, mine = of_sed_eval(seed), ours(seed)
    for name, value in theirs.items():
        assert mine[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.skipif(find_spec("psds_eval") is None, reason="psds_eval is not installed")
@pytest.mark.parametrize("seed", [0, 3])
def test_the_score_is_that_of_psds_eval(seed):
    theirs, mine = of_psds_eval(seed), ours(seed)
    for name, value in theirs.items():
        assert mine[name] == pytest.approx(value, rel=1e-9), name


def operating_points(found):
    """Fewer and fewer of the found events."""
    random = np.random.default_rng(0)
    score = random.uniform(size=len(found))
    return [[event for event, value in zip(found, score, strict=True) if value >= least] for least in (0, 0.3, 0.6)]


def ours(seed):
    truth, found = case(seed)
    units = Units(SECONDS)

    def micro(counts):
        hits, alarms, misses = (sum(values) for values in totals(counts))
        return f1(np.array(hits), np.array(alarms), np.array(misses)).item()

    points = [by_intersection(truth, each, LABELS, units) for each in operating_points(found)]
    segments = by_segments(truth, found, LABELS, units)
    return {
        "segment": micro(segments),
        "error": error_rate(segments),
        "event": micro(by_events(truth, found, LABELS, units)),
        "onset": micro(by_events(truth, found, LABELS, units, collar=0.5, offset_share=None)),
        "psds": to_the_last_alarm(points, cross_weight=0.0, spread_weight=1.0),
        "crossed": to_the_last_alarm(points, cross_weight=0.5, spread_weight=0.0),
    }


def to_the_last_alarm(points, **weights):
    """psds_eval fails with NumPy 2 where the area ends between two operating points."""
    return psds(points, most=psds(points, **weights).alarms[-1], **weights).value


def of_sed_eval(seed):
    with warnings.catch_warnings():
        # It imports pkg_resources, and calls NumPy in old ways.
        warnings.simplefilter("ignore")
        import sed_eval

        truth, found = case(seed)
        made = sed_eval.sound_event
        metrics = {
            "segment": made.SegmentBasedMetrics(list(LABELS), time_resolution=1.0),
            "event": made.EventBasedMetrics(list(LABELS), t_collar=0.2, percentage_of_length=0.5),
            "onset": made.EventBasedMetrics(list(LABELS), evaluate_offset=False, t_collar=0.5),
        }
        for file, length in SECONDS.items():
            lists = [
                [
                    {"file": e.file, "event_label": e.label, "onset": e.onset, "offset": e.offset}
                    for e in events
                    if e.file == file
                ]
                for events in (truth, found)
            ]
            metrics["segment"].evaluate(*lists, evaluated_length_seconds=length)
            for name in ("event", "onset"):
                metrics[name].evaluate(*lists)
        scores = {name: each.overall_f_measure()["f_measure"] for name, each in metrics.items()}
        return {**scores, "error": metrics["segment"].overall_error_rate()["error_rate"]}


def of_psds_eval(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas as pd
        from psds_eval import PSDSEval

        def table(events):
            return pd.DataFrame(
                [(e.file, e.onset, e.offset, e.label) for e in events],
                columns=["filename", "onset", "offset", "event_label"],
            )

        truth, found = case(seed)
        lengths = pd.DataFrame(list(SECONDS.items()), columns=["filename", "duration"])

        class Patched(PSDSEval):
            """With the step curve's fillna(method="ffill"), which pandas 3 has not, written out."""

            @staticmethod
            def step_curve(x, xp, yp):
                best = pd.Series(yp).groupby(xp).max().cummax()
                return best.reindex(x).ffill().fillna(0).to_numpy()

        made = Patched(0.5, 0.5, 0.3, ground_truth=table(truth), metadata=lengths)
        for each in operating_points(found):
            made.add_operating_point(table(each))
        return {
            "psds": made.psds(0.0, 1.0).value,
            "crossed": made.psds(0.5, 0.0).value,
        }
