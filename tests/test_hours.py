"""The hours have the events that they say they have; rules are chosen by them; the tables hold what was found."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bayes_panns.metrics import Span
from bayes_panns.predictions import Event

ROOT = Path(__file__).resolve().parent.parent
LABELS = ("bark", "horn")


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture
def clips():
    """Material without files: a second of noise in silence for each event, and two seconds of faint background."""
    from benchmarks.hours.material import BACKGROUND, EVENTS, RATE, Material

    random = np.random.default_rng(0)
    events, background, read = {}, {}, {}
    for label in EVENTS:
        events[label] = {f"{label}-{i}": [Path(f"{label}-{i}.wav")] for i in range(3)}
        for files in events[label].values():
            sound = np.zeros(2 * RATE)
            sound[RATE // 2 : RATE * 3 // 2] = random.normal(0, 3000, RATE)
            read[files[0]] = sound.astype(np.int16)
    for name in BACKGROUND:
        background[name] = {name: [Path(f"{name}.wav")]}
        read[Path(f"{name}.wav")] = random.normal(0, 300, 2 * RATE).astype(np.int16)
    return Material(events, background, read)


def test_an_hour_follows_from_its_number_and_its_events_are_where_it_says(clips):
    from benchmarks.hours.material import RATE
    from benchmarks.hours.mixing import APART, SNR, mix

    sound, truth = mix(clips, "test", 1, 400.0)
    again, _ = mix(clips, "test", 1, 400.0)
    np.testing.assert_array_equal(sound, again)
    assert len(sound) == 400 * RATE
    assert not np.array_equal(sound, mix(clips, "test", 2, 400.0)[0])
    assert truth
    levels = []
    for event in truth:
        # What is silent before and after the sound is no part of the event.
        assert event.offset - event.onset == pytest.approx(1.0, abs=0.05)
        assert SNR[0] <= event.snr <= SNR[1]
        inside = sound[round(event.onset * RATE) : round(event.offset * RATE)]
        before = sound[max(0, round((event.onset - 0.3) * RATE)) : round(event.onset * RATE)]
        if not len(before):
            continue
        levels.append((event.snr, 10 * np.log10(np.mean(inside**2) / np.mean(before**2))))
    loud = [risen for snr, risen in levels if snr > 10]
    assert np.median(loud) > 8
    for label in {event.label for event in truth}:
        times = [(event.onset, event.offset) for event in truth if event.label == label]
        assert all(later[0] > earlier[1] + APART for earlier, later in pairwise(times))


def test_the_parts_share_no_recording(real_data):
    from benchmarks.hours.material import PARTS, material

    of_part = {part: material(real_data, part) for part in PARTS}
    sources = {
        part: {source for kinds in (each.events, each.background) for of in kinds.values() for source in of}
        for part, each in of_part.items()
    }
    assert not sources["fit"] & sources["development"]
    assert not sources["fit"] & sources["test"]
    assert not sources["development"] & sources["test"]
    assert all(of for each in of_part.values() for of in [*each.events.values(), *each.background.values()])


def made_hours(prefix, count):
    """Searched hours: true events are found with a high probability, and false ones with a low one."""
    from benchmarks.hours.finding import GAPS, THRESHOLDS, Found, Searched

    random = np.random.default_rng(len(prefix))
    hours = []
    for number in range(count):
        name = f"{prefix}-{number}"
        truth = [Span(name, label, 60.0 * i, 60.0 * i + 3) for i in range(12) for label in LABELS]
        candidates = []
        for event in truth:
            if random.uniform() < 0.8:
                p = float(random.uniform(0.55, 1))
                candidates.append((p, event.label, event.onset + random.uniform(-0.5, 0.5), event.offset))
        candidates += [(float(random.uniform(0.1, 0.6)), "bark", x, x + 3.0) for x in 60.0 * np.arange(12) + 30]
        found = {
            (threshold, gap): [
                Found(Event(name, label, onset, offset, p**0.9, p**2, p**0.5), p)
                for p, label, onset, offset in candidates
                if p >= threshold
            ]
            for threshold in THRESHOLDS
            for gap in GAPS
        }
        hours.append(Searched(name, 720.0, truth, found))
    return hours


def test_rules_are_chosen_that_leave_the_false_ones_out(monkeypatch):
    from benchmarks.hours import choose, compare_heads, examine, reported, study, tables, tuning

    monkeypatch.setattr(tuning, "THRESHOLDS", (0.1, 0.5, 0.6))
    monkeypatch.setattr(tuning, "GAPS", (0.0,))
    monkeypatch.setattr(tuning, "LEVELS", (0.0, 0.5, 0.6))
    monkeypatch.setattr(study, "LEVELS", (0.0, 0.5, 0.6))
    monkeypatch.setattr(study, "THRESHOLDS", (0.1, 0.5, 0.6))
    development, test = made_hours("development", 3), made_hours("test", 4)
    chosen = choose("threshold", development, LABELS)
    assert chosen.threshold[0] >= 0.5
    assert all(
        event.probability >= 0.5 for event in reported("threshold", test[0], LABELS, chosen) if event.label == "bark"
    )
    record = examine(development, test, LABELS, resamples=20)
    assert record["scores"]["draws"]["event F1"][0] > 0.8
    assert record["scores"]["draws - threshold"]["event F1"][1] <= record["scores"]["draws - threshold"]["event F1"][2]
    assert record["calibration"]["candidates"] > 60
    counts = record["counts"]
    assert counts["recordings differ"]["held"] > 0.8
    assert len(counts["recordings differ"]["hours"]) == 4
    head = {
        "labels": LABELS,
        "material": {"development": 4, "test": 6},
        "events": {"test": 40.0, "least": 40, "most": 40},
        "snr": (-3.0, 18.0),
        "window": 2.0,
        "hop": 1.0,
        "collar": 1.0,
        "note": "",
        "heads": compare_heads({"annotated": development}, LABELS),
        "heads_on": 4,
        "head": "annotated",
    }
    text = tables({**head, **record})
    assert "| draws - threshold |" in text
    assert text.count("## ") == 4
