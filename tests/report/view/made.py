"""A made results folder: recordings with known sounds, and predictions that know nothing of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from bayes_panns.jobs.results import RECORDS, Entry, ResultsFolder
from bayes_panns.predictions.events import Event
from bayes_panns.predictions.record_windows import RecordWindows
from bayes_panns.predictions.records import RecordWriter

LABELS = ("Blackbird", "Dog", "Rain, on a roof", "Siren", "Speech", "Wind")
RATE = 8000
WINDOW = 2.5


@dataclass
class Made:
    """Where things are.

    Attributes:
        home: The folder of everything.
        results: The results folder, ``home/results``.
        files: The recordings' names, relative to ``home``.
    """

    home: Path
    results: Path
    files: list[str]


def tones(seconds, rate=RATE, seed=0):
    """Noise with a beep every five seconds; the sample at second s has the pitch 300 + 10 s."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 300 + 10 * np.floor(time)
    beep = (time % 5 < 1) * np.sin(2 * np.pi * np.cumsum(pitch) / rate)
    return (0.3 * beep + 0.01 * np.random.default_rng(seed).normal(size=len(time))).astype(np.float32)


def windows(count, labels=6, hop=WINDOW, seed=0):
    """Probabilities that come and go, with bands; each label is loud in stretches of its own."""
    generator = np.random.default_rng(seed)
    time = np.arange(count)[:, None]
    slow = np.sin(time / (9 + 3 * np.arange(labels)) + np.arange(labels) * 2) ** 12
    probability = np.clip(0.04 + 0.9 * slow + 0.03 * generator.normal(size=slow.shape), 0.001, 0.999)
    width = 0.6 * probability * (1 - probability) + 0.01
    start = np.arange(count) * hop
    f4 = np.float32
    return RecordWindows(
        start=start,
        end=start + WINDOW,
        probability=probability.astype(f4),
        aleatoric=(probability * (1 - probability) * 0.8).astype(f4),
        epistemic=(width**2 / 4).astype(f4),
        low=np.clip(probability - width, 0, 1).astype(f4),
        high=np.clip(probability + width, 0, 1).astype(f4),
        entropy=(2 * (probability * (1 - probability)).sum(axis=1)).astype(f4),
        mutual_information=width.sum(axis=1).astype(f4),
        outside=generator.random(count) < 0.04,
        left=(np.abs(probability - 0.5) < 0.12).any(axis=1),
        called=probability > 0.5,
    )


def events(found, file, labels=LABELS):
    """Runs of windows above one half."""
    made = []
    for index, label in enumerate(labels):
        above = np.flatnonzero(found.called[:, index])
        for run in np.split(above, np.flatnonzero(np.diff(above) > 1) + 1) if len(above) else []:
            best = run[found.probability[run, index].argmax()]
            numbers = (float(getattr(found, name)[best, index]) for name in ("probability", "low", "high"))
            made.append(Event(file, label, float(found.start[run[0]]), float(found.end[run[-1]]), *numbers))
    return sorted(made, key=lambda event: event.onset)


def add(results, file, seconds, *, labels=LABELS, hop=WINDOW, seed=0, recorded_at=None, size=0):
    """Add a recording's record to a results folder."""
    record = f"{RECORDS}/{Path(file).with_suffix('.h5')}"
    path = results / record
    path.parent.mkdir(parents=True, exist_ok=True)
    found = windows(int(np.ceil((seconds - WINDOW) / hop - 1e-9)) + 1, len(labels), hop, seed)
    heard = events(found, file, labels)
    source = results.parent / file
    with RecordWriter(path, labels=labels, file=file, source=source, recorded_at=recorded_at) as writer:
        writer.add(found, heard)
    size = source.stat().st_size if source.is_file() else size
    at = None if recorded_at is None else recorded_at.isoformat()
    ResultsFolder(results).append(
        Entry(
            file,
            path=str(source),
            record=record,
            seconds=seconds,
            windows=len(found),
            recorded_at=at,
            events=len(heard),
            size=size,
        )
    )


def begin(results, labels=LABELS, hop=WINDOW):
    """Begin a results folder."""
    results.mkdir(parents=True)
    ResultsFolder(results).begin({"labels": labels, "window": WINDOW, "hop": hop, "channel": "mix"})


def make(home):
    """A results folder of three recordings, one of which was skipped."""
    made = Made(home, home / "results", ["disk/one.wav", "disk/deep/two.wav", "disk/broken.wav"])
    begin(made.results)
    for place, (file, seconds) in enumerate(zip(made.files, (60, 41), strict=False)):
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(home / file, tones(seconds, seed=place), RATE)
        add(made.results, file, seconds, seed=place)
    ResultsFolder(made.results).append(Entry(made.files[2], skipped="disk/broken.wav: holds no samples"))
    return made
