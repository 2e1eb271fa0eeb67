"""Predictions for sound files, cut into windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.audio.files import read
from bayes_panns.core import progress
from bayes_panns.core.errors import AudioError
from bayes_panns.metrics.conformal import label_sets
from bayes_panns.posterior import Predictor, require_sound
from bayes_panns.predictions.clip_sets import CLIPS, SAMPLES, predict_waveforms
from bayes_panns.predictions.combine import concatenate
from bayes_panns.predictions.uncertainty import Draws, Uncertainty
from bayes_panns.predictions.windows import Window, cut, in_samples

_VIEWED = 32
"""Windows of one file that are predicted where they are, without a copy: as many as a pass takes at most."""


@dataclass(frozen=True)
class Tags:
    """Predictions for the windows of some files.

    Attributes:
        labels: K label names.
        windows: N windows.
        uncertainty: The predictions for the N windows.
        skipped: The files that could not be read, each with its error message.
        sets: ``(N, K)``, whether a label is in the window's label set, for a calibrated posterior; see ``calibrate``.
        coverage: The share of true labels that the sets should contain, for a calibrated posterior.
    """

    labels: tuple[str, ...]
    windows: tuple[Window, ...]
    uncertainty: Uncertainty
    skipped: tuple[tuple[str, str], ...]
    sets: NDArray[np.bool_] | None = None
    coverage: float | None = None


def tag(
    posterior: Predictor,
    files: str | Path | Sequence[str | Path],
    draws: Draws | None = None,
    *,
    window: float | None = None,
    hop: float | None = None,
) -> Tags:
    """Tag sound files.

    A file no longer than the window is one window. A longer one is cut into windows; the last is moved back so that it
    ends with the file. A rest of less than a hundredth of a window gets none. A window that is shorter than the
    posterior's clips is padded by the posterior, if it was fitted to padded clips, and otherwise keeps its length.

    Args:
        posterior: What tags: a posterior, or an ensemble of several.
        files: The files, or one.
        draws: Posterior draws; 0 is one pass at the posterior mean, ``"moments"`` one that propagates moments. By
            default as many as :meth:`~bayes_panns.posterior.Posterior.draws_for` says.
        window: Seconds; by default the length of the clips that the posterior was fitted to.
        hop: Seconds from one window's start to the next; by default the window.

    Raises:
        PosteriorError: Moments are asked for, and the posterior cannot propagate them.
        AudioError: No file can be read. A file that cannot be read is skipped as long as another can.
        PredictionError: The posterior takes embeddings; or the window or hop is not finite, or shorter than one sample.
    """
    require_sound(posterior)
    files = [files] if isinstance(files, str | Path) else files
    window = posterior.clip_seconds if window is None else window
    hop = window if hop is None else hop
    rate = posterior.sample_rate
    window_samples, hop_samples = in_samples(window, rate, "window"), in_samples(hop, rate, "hop")
    # What a short window may take in memory, if the posterior pads it.
    padded = round(posterior.clip_seconds * rate)
    draws = posterior.draws_for(draws)
    posterior.warn_of_other_draws(draws)
    windows: list[Window] = []
    waiting: list[Tensor] = []
    parts: list[Uncertainty] = []
    skipped: list[tuple[str, str]] = []
    for file in progress.track(files, "tagging", total=len(files), unit="file"):
        try:
            waveform = read(file, rate, exact=False)
        except AudioError as error:
            skipped.append((str(file), str(error)))
            continue
        starts, length = cut(len(waveform), window_samples, hop_samples)
        windows += [Window(str(file), start / rate, (start + length) / rate) for start in starts]
        for start in starts:
            waiting.append(waveform[start : start + length])
            if len(waiting) == CLIPS or sum(max(padded, len(each)) for each in waiting) >= SAMPLES:
                parts.append(_predict_any_length(posterior, waiting, draws))
                waiting = []
    if waiting:
        parts.append(_predict_any_length(posterior, waiting, draws))
    if not parts:
        if not skipped:
            raise AudioError("no files to tag: name at least one")
        first = skipped[0][1]
        raise AudioError(first if len(skipped) == 1 else f"no file of {len(skipped)} can be read; the first: {first}")
    uncertainty, calibration = concatenate(parts), posterior.calibration
    return Tags(
        labels=posterior.labels,
        windows=tuple(windows),
        uncertainty=uncertainty,
        skipped=tuple(skipped),
        sets=None if calibration is None else label_sets(uncertainty.probability, calibration.threshold),
        coverage=None if calibration is None else calibration.coverage,
    )


def _predict_any_length(posterior: Predictor, waveforms: list[Tensor], draws: Draws) -> Uncertainty:
    """The predictions for waveforms of any lengths, in their order; those of one length are stacked."""
    order = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
    groups = [
        stack
        for _, group in groupby(order, key=lambda index: len(waveforms[index]))
        for stack in _stacks([waveforms[index] for index in group])
    ]
    return predict_waveforms(posterior, groups, draws).take(np.argsort(order))


def _stacks(waveforms: list[Tensor]) -> list[Tensor]:
    """Waveforms of one length, stacked in order: at the front as a view, if those are many even windows of one file."""
    places = [(each.untyped_storage().data_ptr(), each.storage_offset()) for each in waveforms[:_VIEWED]]
    steps = {(after[0] == before[0], after[1] - before[1]) for before, after in pairwise(places)}
    if len(places) < _VIEWED or len(steps) > 1 or not all(same and step > 0 for same, step in steps):
        return [torch.stack(waveforms)]
    ((_, step),) = steps
    view = waveforms[0].as_strided((_VIEWED, len(waveforms[0])), (step, 1))
    return [view, *(_stacks(waveforms[_VIEWED:]) if waveforms[_VIEWED:] else [])]
