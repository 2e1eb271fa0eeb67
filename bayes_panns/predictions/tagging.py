"""Predictions for sound files, cut into windows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bayes_panns.audio.recording import Note
from bayes_panns.metrics.conformal import label_sets
from bayes_panns.posterior import Predictor, require_sound
from bayes_panns.predictions.clip_sets import Predicting
from bayes_panns.predictions.combine import concatenate
from bayes_panns.predictions.recordings import Cutting, Piece, Skipped, computed, none_read
from bayes_panns.predictions.uncertainty import Draws, Uncertainty
from bayes_panns.predictions.windows import Window


@dataclass(frozen=True)
class FileTags:
    """Predictions for windows of one file that follow each other: all of them, or some of a long one.

    Attributes:
        file: Its name; ``standard input`` for ``-``.
        windows: N windows.
        uncertainty: The predictions for the N windows.
        sets: ``(N, K)``, whether a label is in the window's label set, for a calibrated posterior; see ``calibrate``.
        complete: Whether the file ends here; otherwise more of it follows.
        notes: What a user should know of the file, such as that it is truncated; where it is complete.
    """

    file: str
    windows: tuple[Window, ...]
    uncertainty: Uncertainty
    sets: NDArray[np.bool_] | None = None
    complete: bool = True
    notes: tuple[Note, ...] = ()


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
        notes: What a user should know of files, each with the file's name.
    """

    labels: tuple[str, ...]
    windows: tuple[Window, ...]
    uncertainty: Uncertainty
    skipped: tuple[Skipped, ...]
    sets: NDArray[np.bool_] | None = None
    coverage: float | None = None
    notes: tuple[tuple[str, Note], ...] = ()


def tag(
    posterior: Predictor,
    files: str | Path | Sequence[str | Path],
    draws: Draws | None = None,
    *,
    window: float | None = None,
    hop: float | None = None,
    channel: str = "mix",
    samples: bool = False,
) -> Tags:
    """Tag sound files, and keep all tags in memory; :func:`tag_each` gives them file by file.

    A file no longer than the window is one window. A longer one is cut into windows; the last is moved back so that it
    ends with the file. A rest of less than a hundredth of a window gets none. A window that is shorter than the
    posterior's clips is padded by the posterior, if it was fitted to padded clips, and otherwise keeps its length.

    Args:
        posterior: What tags: a posterior, or an ensemble of several.
        files: The files, or one; ``-`` is standard input.
        draws: Posterior draws; 0 is one pass at the posterior mean, ``"moments"`` one that propagates moments. By
            default as many as :meth:`~bayes_panns.posterior.Posterior.draws_for` says.
        window: Seconds; by default the length of the clips that the posterior was fitted to.
        hop: Seconds from one window's start to the next; by default the window.
        channel: ``mix``, ``left``, ``right`` or the number of a channel from 1.
        samples: Whether to keep every draw's probabilities too; there are none of moments.

    Raises:
        PosteriorError: Moments are asked for, and the posterior cannot propagate them.
        AudioError: No file can be read. A file that cannot be read is skipped as long as another can.
        PredictionError: The posterior takes embeddings; or the window or hop is not finite, or shorter than one sample.
        SettingError: ``draws`` is neither a whole number from 0 up nor ``"moments"``.
    """
    parts, skipped = list[FileTags](), list[Skipped]()
    for each in tag_each(posterior, files, draws, window=window, hop=hop, channel=channel, samples=samples):
        if isinstance(each, Skipped):
            skipped.append(each)
        else:
            parts.append(each)
    if not parts:
        raise none_read(skipped, "tag")
    sets = [part.sets for part in parts if part.sets is not None]
    return Tags(
        labels=posterior.labels,
        windows=tuple(window for part in parts for window in part.windows),
        uncertainty=concatenate([part.uncertainty for part in parts]),
        skipped=tuple(skipped),
        sets=np.concatenate(sets) if sets else None,
        coverage=None if posterior.calibration is None else posterior.calibration.coverage,
        notes=tuple((part.file, note) for part in parts for note in part.notes),
    )


def tag_each(
    posterior: Predictor,
    files: str | Path | Sequence[str | Path],
    draws: Draws | None = None,
    *,
    window: float | None = None,
    hop: float | None = None,
    channel: str = "mix",
    samples: bool = False,
) -> Iterator[FileTags | Skipped]:
    """Tag sound files one after the other, in memory that grows neither with their lengths nor with their number.

    Short files are predicted many at a time, and come out together; a long one comes out in parts. The arguments and
    numbers are those of :func:`tag`.

    Yields:
        For each file in order its tags, in one part or several of which the last is ``complete``; or that it was
        skipped, and why. A file may be skipped after a part of it, if memory runs out.

    Raises:
        PosteriorError: Moments are asked for, and the posterior cannot propagate them; at the first file.
        PredictionError: The posterior takes embeddings; or the window or hop is not finite, or shorter than one sample.
        SettingError: ``draws`` is neither a whole number from 0 up nor ``"moments"``.
    """
    tagger = Tagger(posterior, draws, window=window, hop=hop, channel=channel, samples=samples)
    return tagger.each([files] if isinstance(files, str | Path) else files, doing="tagging")


class Tagger:
    """Tags sound files as :func:`tag_each` does, as often as wanted; its arguments are the same.

    Attributes:
        posterior: What tags.
        draws: The draws that are made.
        cutting: The windows, in samples.

    Raises:
        PredictionError: The posterior takes embeddings; or the window or hop is not finite, or shorter than one sample.
        SettingError: ``draws`` is neither a whole number from 0 up nor ``"moments"``.
    """

    def __init__(
        self,
        posterior: Predictor,
        draws: Draws | None = None,
        *,
        window: float | None = None,
        hop: float | None = None,
        channel: str = "mix",
        samples: bool = False,
    ) -> None:
        require_sound(posterior)
        self.posterior = posterior
        self.cutting = Cutting.of(
            posterior.clip_seconds, posterior.sample_rate, window, hop, channel=channel, exact=False
        )
        self.draws: Draws = posterior.draws_for(draws)
        self._samples = samples
        posterior.warn_of_other_draws(self.draws)

    def each(self, files: Sequence[str | Path], *, doing: str | None = None) -> Iterator[FileTags | Skipped]:
        """The tags of files, as from :func:`tag_each`.

        Args:
            files: The files.
            doing: What is done, for the progress; None to report none.
        """
        pieces = computed(
            files,
            self.cutting,
            Predicting(self.posterior, self.draws, samples=self._samples),
            Uncertainty.take,
            doing=doing,
        )
        return (each if isinstance(each, Skipped) else _tags(self.posterior, each) for each in pieces)


def _tags(posterior: Predictor, piece: Piece[Uncertainty]) -> FileTags:
    calibration, found = posterior.calibration, piece.result
    sets = None if calibration is None else label_sets(found.probability, calibration.threshold)
    return FileTags(piece.file, piece.windows, found, sets, piece.complete, piece.notes)
