"""Sounds to predictions, with the band of the draws and the events."""

import logging
from dataclasses import replace

import numpy as np

from bayes_panns.core.errors import SettingError
from bayes_panns.core.text import printable
from bayes_panns.jobs.predict import rules_for
from bayes_panns.notebook.predictions import Predictions
from bayes_panns.notebook.sounds import Sounds, origin
from bayes_panns.posterior import Predictor
from bayes_panns.predictions import (
    Draws,
    Event,
    EventFinder,
    EventRules,
    FileTags,
    Skipped,
    concatenate,
    none_read,
    tag_each,
)
from bayes_panns.predictions.record_windows import central_band

logger = logging.getLogger(__name__)

KEPT = 1 << 28
"""The bytes of draws that are kept where nobody says whether to."""


def predict(
    posterior: Predictor,
    sounds: Sounds,
    draws: Draws | None = None,
    *,
    rate: int | None = None,
    window: float | None = None,
    hop: float | None = None,
    channel: str = "mix",
    samples: bool | None = None,
    events: EventRules | None = None,
) -> Predictions:
    """Tag sounds, and keep all tags in memory.

    They are those of :func:`~bayes_panns.predictions.tag`, which says how a sound is cut into windows, with the band of
    the draws and the events.

    Args:
        posterior: What tags: a posterior, or an ensemble of several.
        sounds: A file, a folder, or several of them; or the samples of a sound, ``(samples,)``, as an array or a
            tensor, a list of several, or a mapping from names to them. Whole numbers are brought to full scale.
        draws: Posterior draws; 0 is one pass at the posterior mean, ``"moments"`` one that propagates moments.
        rate: The sample rate of sounds in memory, in Hz.
        window: Seconds; by default the length of the clips that the posterior was fitted to.
        hop: Seconds from one window's start to the next; by default the window.
        channel: Of files: ``mix``, ``left``, ``right`` or the number of a channel from 1.
        samples: Whether to keep every draw's probabilities; by default as long as they take at most 256 MB.
        events: What makes an event; by default a probability of at least 0.5, or of the threshold that ``calibrate``
            stored with the posterior.

    Raises:
        SettingError: Nothing is given, a sound in memory has no rate or more than one axis, or ``draws`` is neither a
            whole number from 0 up nor ``"moments"``.
        PosteriorError: Moments are asked for, and the posterior cannot propagate them.
        AudioError: No sound can be read. One that cannot be read is skipped as long as another can.
        PredictionError: The posterior takes embeddings; or the window or hop is not finite, or shorter than one sample.
    """
    source = origin(sounds, rate, channel)
    made = posterior.draws_for(draws)
    if samples and made == "moments":
        raise SettingError("moments have no samples; predict with a number of draws")
    collected = _Collected(
        None if made == "moments" else EventFinder(posterior.labels, rules_for(posterior, events)), samples
    )
    with source.on_disk(source.files) as paths:
        names = {str(path): str(name) for path, name in zip(paths, source.files, strict=True) if path != name}
        drawn = made != "moments"
        for each in tag_each(posterior, paths, made, window=window, hop=hop, channel=channel, samples=drawn):
            collected.add(_named(each, names))
    if not collected.parts:
        raise none_read(collected.skipped, "tag")
    parts = collected.parts
    sets = [part.sets for part in parts if part.sets is not None]
    return Predictions(
        labels=posterior.labels,
        windows=tuple(window for part in parts for window in part.windows),
        uncertainty=concatenate([part.uncertainty for part in parts]),
        skipped=tuple(collected.skipped),
        sets=np.concatenate(sets) if sets else None,
        coverage=None if posterior.calibration is None else posterior.calibration.coverage,
        notes=tuple((part.file, note) for part in parts for note in part.notes),
        low=np.concatenate(collected.low),
        high=np.concatenate(collected.high),
        found=None if collected.finder is None else tuple(collected.sorted_events()),
        calibration=posterior.calibration,
        sample_rate=posterior.sample_rate,
        origin=source,
    )


class _Collected:
    """What has come of a prediction.

    Args:
        finder: Finds the events, if there are draws.
        samples: Whether to keep every draw's probabilities; None for as long as they are small.
    """

    def __init__(self, finder: EventFinder | None, samples: bool | None) -> None:
        self.finder, self._samples = finder, samples
        self.parts, self.skipped, self.found = list[FileTags](), list[Skipped](), list[Event]()
        self.low, self.high = list[np.ndarray](), list[np.ndarray]()
        self._bytes = 0

    def add(self, part: FileTags | Skipped) -> None:
        """Take the next windows, or that a sound is skipped."""
        if isinstance(part, Skipped):
            self.skipped.append(part)
            return
        low, high = central_band(part.uncertainty)
        self.low.append(low)
        self.high.append(high)
        if self.finder is not None:
            self.found += self.finder.add(part)
        drawn = part.uncertainty.samples
        self._bytes += 0 if drawn is None else drawn.nbytes
        if self._samples is None and self._bytes > KEPT:
            logger.info(
                f"the draws take more than {KEPT >> 20} MB and are not kept; predict with samples=True to keep them"
            )
            self._samples = False
            self.parts = [_without_samples(each) for each in self.parts]
        self.parts.append(part if self._samples is not False else _without_samples(part))

    def sorted_events(self) -> list[Event]:
        """The events in the order of the files, and of their onsets."""
        place = {part.file: number for number, part in reversed(list(enumerate(self.parts)))}
        return sorted(self.found, key=lambda event: (place[event.file], event.onset, event.offset, event.label))


def _without_samples(part: FileTags) -> FileTags:
    return replace(part, uncertainty=replace(part.uncertainty, samples=None))


def _named(part: FileTags | Skipped, names: dict[str, str]) -> FileTags | Skipped:
    """The same with the name that a sound in memory was given, rather than that of its temporary file."""
    name = names.get(part.file)
    if name is None:
        return part
    if isinstance(part, Skipped):
        return Skipped(name, part.reason.replace(printable(part.file), printable(name)))
    return replace(part, file=name, windows=tuple(replace(window, file=name) for window in part.windows))
