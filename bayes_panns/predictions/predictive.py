"""Predictions of a posterior with their uncertainty, for stores of clips and for sound files."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.audio.files import read
from bayes_panns.clips import ClipSet
from bayes_panns.core import progress
from bayes_panns.core.errors import AudioError
from bayes_panns.metrics.conformal import label_sets
from bayes_panns.posterior import Posterior, Predictor
from bayes_panns.predictions.propagated import from_moments
from bayes_panns.predictions.uncertainty import Moments, Uncertainty, concatenate

_CHUNK, _SAMPLES = 256, 1 << 26
"""The most clips that are predicted together, and the most samples in all: what is in memory at a time."""

_COVARIANCES = 1 << 22
"""The most covariances between labels of the clips predicted together; some 40 numbers are held for each."""

_SLACK = 0.01
"""The share of a window that a file's end must exceed to get a window: lossy files decode to a little more than 5 s."""


Draws = int | Literal["moments"]
"""How many posterior draws: 0 is one pass at the posterior mean; ``"moments"`` is one pass that propagates moments."""


def predict(posterior: Predictor, clips: ClipSet, draws: Draws = 20, *, covariance: bool = False) -> Uncertainty:
    """The posterior's predictions for every clip of a set, in memory that does not grow with it.

    Args:
        posterior: What predicts, or an ensemble of several.
        clips: What is predicted, at the posterior's sample rate.
        draws: Posterior draws a clip; 0 is one pass at the posterior mean, ``"moments"`` one that propagates moments.
        covariance: Whether to keep the covariance between labels too: N x K x K numbers.
    """
    most = _COVARIANCES // len(posterior.labels) ** 2 if covariance else _CHUNK
    return concatenate(
        [_uncertainty(posterior, waveforms, draws, covariance=covariance) for waveforms in _chunks(clips, most)]
    )


def predict_logits(posterior: Posterior, clips: ClipSet, draws: int = 20) -> NDArray[np.float32]:
    """The logits of every draw for every clip of a set, before any temperature: what calibration is fitted on.

    Args:
        posterior: What predicts.
        clips: What is predicted, at the posterior's sample rate.
        draws: Posterior draws a clip; 0 is one pass at the posterior mean.

    Returns:
        ``(T, N, K)``, with T = 1 for a pass at the mean.
    """
    parts = [torch.stack(list(posterior.logits(waveforms, draws))) for waveforms in _chunks(clips, _CHUNK)]
    return torch.cat(parts, dim=1).numpy()


def _chunks(clips: ClipSet, most: int) -> Iterator[Tensor]:
    """The waveforms of a set, that many clips at a time or fewer."""
    chunk = max(1, min(most, _CHUNK, _SAMPLES // clips.samples))
    with progress.task("predicting", total=len(clips), unit="clip") as bar:
        for start in range(0, len(clips), chunk):
            index = np.arange(start, min(start + chunk, len(clips)))
            yield torch.from_numpy(clips.waveform(index))
            bar.advance(len(index))


@dataclass(frozen=True)
class Window:
    """A stretch of a file, in seconds."""

    file: str
    start: float
    end: float


@dataclass(frozen=True)
class Tags:
    """Predictions for the windows of some files.

    Attributes:
        labels: K label names.
        windows: N windows.
        uncertainty: The predictions, for N windows.
        sets: ``(N, K)``, whether a label is in the window's set, for a calibrated posterior; see ``calibrate``.
        coverage: The share of true labels that the sets are to hold.
        skipped: Files that could not be read, each with the error's line.
    """

    labels: tuple[str, ...]
    windows: tuple[Window, ...]
    uncertainty: Uncertainty
    skipped: tuple[tuple[str, str], ...]
    sets: NDArray[np.bool_] | None = None
    coverage: float | None = None


def tag(
    posterior: Predictor,
    files: Sequence[str | Path],
    draws: Draws = 20,
    *,
    window: float | None = None,
    hop: float | None = None,
) -> Tags:
    """Tag sound files.

    A file no longer than the window is taken at its own length. A longer one is cut into windows, of which
    the last is moved back so that it ends with the file; an end of less than a hundredth of a window gets none.

    Args:
        posterior: What tags.
        files: The files.
        draws: Posterior draws; 0 is one pass at the posterior mean, ``"moments"`` one that propagates moments.
        window: Seconds; by default the length of the clips that the posterior was fitted to.
        hop: Seconds from one window's start to the next; by default the window.

    Raises:
        PosteriorError: The posterior has no moments, and they are asked for.
        AudioError: No file can be read; one that cannot be is skipped as long as others can.
        ValueError: A window or hop is not positive.
    """
    window = posterior.clip_seconds if window is None else window
    hop = window if hop is None else hop
    if not (window > 0 and hop > 0):
        raise ValueError(f"window {window} s and hop {hop} s must be positive")
    rate = posterior.sample_rate
    windows: list[Window] = []
    waiting: list[Tensor] = []
    parts: list[Uncertainty] = []
    skipped: list[tuple[str, str]] = []
    for file in progress.track(files, "tagging", total=len(files), unit="file"):
        try:
            waveform = read(file, rate)
        except AudioError as error:
            skipped.append((str(file), str(error)))
            continue
        starts, length = _cut(len(waveform), round(window * rate), max(1, round(hop * rate)))
        windows += [Window(str(file), start / rate, (start + length) / rate) for start in starts]
        for start in starts:
            waiting.append(waveform[start : start + length])
            if len(waiting) == _CHUNK or sum(map(len, waiting)) >= _SAMPLES:
                parts.append(_of_any_length(posterior, waiting, draws))
                waiting = []
    if waiting:
        parts.append(_of_any_length(posterior, waiting, draws))
    if not parts:
        raise AudioError(skipped[0][1] if len(skipped) == 1 else f"no file could be read; the first: {skipped[0][1]}")
    uncertainty, calibration = concatenate(parts), posterior.calibration
    tags = Tags(posterior.labels, tuple(windows), uncertainty, tuple(skipped))
    if calibration is None:
        return tags
    return replace(tags, sets=label_sets(uncertainty.probability, calibration.threshold), coverage=calibration.coverage)


def _of_any_length(posterior: Predictor, waveforms: list[Tensor], draws: Draws) -> Uncertainty:
    """The predictions for waveforms of any lengths, in their order; those of one length go through the net together."""
    order = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
    groups = [
        torch.stack([waveforms[index] for index in group])
        for _, group in groupby(order, key=lambda index: len(waveforms[index]))
    ]
    return _uncertainty(posterior, groups, draws).take(np.argsort(order))


def _uncertainty(
    posterior: Predictor, waveforms: Tensor | list[Tensor], draws: Draws, *, covariance: bool = False
) -> Uncertainty:
    if draws == "moments":
        loc, deviations = posterior.moments(waveforms)
        return from_moments(loc, deviations, posterior.probability, posterior.task, covariance=covariance)
    moments = Moments(posterior.task, mirrored=posterior.mirrored, covariance=covariance)
    for probability in posterior.draws(waveforms, draws):
        moments.update(probability)
    return moments.result()


def _cut(samples: int, window: int, hop: int) -> tuple[list[int], int]:
    """Where the windows of a file start, and how long they are, in samples."""
    if samples <= window:
        return [0], samples
    count = math.ceil((samples - window - _SLACK * window) / hop) + 1
    return [min(index * hop, samples - window) for index in range(count)], window
