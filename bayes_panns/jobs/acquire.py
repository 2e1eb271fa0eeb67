"""Which windows of unlabelled recordings to label next."""

import heapq
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator
from torch import Tensor

from bayes_panns.audio import files as sounds
from bayes_panns.audio.recording import Note
from bayes_panns.clips.catalogs.tables import Name, PublishedRow, Seconds, read_table
from bayes_panns.core.choices import AcquireStrategy
from bayes_panns.core.draw_count import draw_count
from bayes_panns.core.errors import PredictionError
from bayes_panns.core.text import cell
from bayes_panns.metrics.acquisition import (
    NEEDS_EMBEDDINGS,
    NEEDS_SAMPLES,
    NEEDS_SCORES,
    Candidates,
    choose_batch,
    score_clips,
)
from bayes_panns.posterior import Posterior, require_sound
from bayes_panns.predictions import Uncertainty
from bayes_panns.predictions.clip_sets import predict_waveforms
from bayes_panns.predictions.combine import concatenate
from bayes_panns.predictions.recordings import Cutting, Skipped, computed, none_read
from bayes_panns.predictions.windows import Window

logger = logging.getLogger(__name__)

DEFAULT_STRATEGY = AcquireStrategy.TYPICAL
"""The one that beat random clips in ``benchmarks/results/acquisition.md``."""

DRAWS = 100
"""How many draws say how far they disagree."""

_MOST, _BYTES = 10_000, 1 << 28
"""The most candidates that are kept, and the most memory for them."""

_COVERED = 0.5
"""A window counts as labelled if a labelled stretch covers so much of it, or so much of the stretch lies in it."""

_TOGETHER = 32
"""The chosen windows that are predicted together."""


@dataclass(frozen=True)
class Pick:
    """A window to label.

    Attributes:
        file: The file, relative to the folder, with ``/`` between folders.
        start: In seconds.
        end: In seconds.
        whole: Whether the window is all of the file.
        score: What it was chosen by; the more the better.
    """

    file: str
    start: float
    end: float
    whole: bool
    score: float


@dataclass(frozen=True)
class Acquired:
    """The windows to label next.

    Attributes:
        folder: The folder of the recordings.
        strategy: How they were chosen.
        picks: The windows, in the order in which they were chosen.
        uncertainty: What the posterior says of them.
        windows: How many windows there are in all.
        labelled: How many of these have a label already.
        skipped: The files that could not be read, each with its error message.
        notes: What a user should know of files, each with the file's name.
    """

    folder: Path
    strategy: AcquireStrategy
    picks: tuple[Pick, ...]
    uncertainty: Uncertainty
    windows: int
    labelled: int
    skipped: tuple[Skipped, ...]
    notes: tuple[tuple[str, Note], ...]


def acquire(
    posterior: Posterior,
    files: Sequence[Path],
    budget: int,
    *,
    folder: Path,
    strategy: AcquireStrategy = DEFAULT_STRATEGY,
    exclude: Sequence[Path] = (),
    window: float | None = None,
    channel: str = "mix",
    draws: int = DRAWS,
    seed: int = 0,
) -> Acquired:
    """Choose the windows to label next, in memory that grows with neither the files' lengths nor their number.

    Files are cut into windows as :func:`~bayes_panns.predictions.tag` cuts them. Of each window the score is kept, and
    what else the strategy looks at, for up to 10,000 candidates: those of the best scores, or a random sample where the
    strategy looks at all clips together.

    Args:
        posterior: What is to learn.
        files: Sound files in ``folder``.
        budget: How many windows to choose.
        folder: What the names in tables are relative to.
        strategy: How to choose.
        exclude: Tables of what is labelled already: CSV files with a column ``file``, and perhaps ``start`` and
            ``end``, such as ``labels.csv`` and ``chosen.csv``. Without times all of the file is meant.
        window: Seconds; by default the length of the clips that the posterior was fitted to.
        channel: ``mix``, ``left``, ``right`` or the number of a channel from 1.
        draws: Posterior draws.
        seed: Of what is random.

    Raises:
        PredictionError: The posterior takes embeddings; it has no draws that could disagree, and the strategy needs
            them; the window does not fit; or nothing is left to label.
        AudioError: No file can be read.
        StoreError: A table cannot be read.
        SettingError: ``draws`` is no whole number from 0 up.
    """
    require_sound(posterior)
    draws = draw_count(draws)
    if strategy in (AcquireStrategy.BALD, AcquireStrategy.BATCH_BALD) and not (posterior.stochastic and draws > 1):
        raise PredictionError(
            f"{strategy} needs draws that disagree, and there are none; choose entropy or random, or a posterior with "
            "Bayesian weights"
        )
    labelled = _Labelled.read(exclude, folder)
    cutting = Cutting.of(posterior.clip_seconds, posterior.sample_rate, window, None, channel=channel, exact=False)
    looked = _Look(posterior, strategy, draws)
    random = np.random.default_rng(seed)
    pool, known = _Pool(budget), _Pool(budget)
    skipped, notes = list[Skipped](), list[tuple[str, Note]]()
    windows, touched, longer = 0, list[str](), False
    for piece in computed(files, cutting, looked, _Found.take, doing="looking"):
        if isinstance(piece, Skipped):
            skipped.append(piece)
            continue
        name = _name(piece.file, folder)
        notes += [(piece.file, note) for note in piece.notes]
        whole = piece.complete and not longer and len(piece.windows) == 1
        longer = not piece.complete
        windows += len(piece.windows)
        for row, each in enumerate(piece.windows):
            candidate = _Candidate(name, each, whole, *piece.result.row(row))
            tie = float(random.random())
            if labelled.covers(name, each):
                touched.append(name)
                known.add(tie, candidate)
            else:
                by_score = strategy in NEEDS_SCORES and strategy is not AcquireStrategy.MIX
                pool.add(candidate.score if by_score else tie, candidate)
    if not windows:
        raise none_read(skipped, "look at")
    labelled.warn_of_unknown(folder)
    found = pool.candidates
    if not found:
        raise PredictionError(f"{folder}: all {windows} windows have a label already; add recordings")
    if len(found) < budget:
        logger.warning(f"{folder}: has {len(found)} windows without a label, fewer than the {budget} asked for")
    batch = choose_batch(_together(found, known.candidates, touched, posterior, strategy), strategy, budget, seed=seed)
    picks = tuple(
        Pick(each.file, each.window.start, each.window.end, each.whole, float(score))
        for each, score in zip((found[index] for index in batch.index), batch.score, strict=True)
    )
    uncertainty = _predicted(posterior, folder, picks, channel)
    return Acquired(folder, strategy, picks, uncertainty, windows, len(touched), tuple(skipped), tuple(notes))


def read_pick(folder: Path, pick: Pick, rate: int, channel: str = "mix") -> Tensor:
    """The samples of a window that was chosen, float32 ``(samples,)``.

    Args:
        folder: The folder of the recordings.
        pick: The window.
        rate: In Hz.
        channel: As for :func:`acquire`.

    Raises:
        AudioError: The file cannot be read any more.
    """
    path, seconds = folder / pick.file, pick.end - pick.start
    return sounds.read(path, rate, channel=channel, start=pick.start, seconds=seconds, exact=False)


def _predicted(posterior: Posterior, folder: Path, picks: Sequence[Pick], channel: str) -> Uncertainty:
    parts = []
    for at in range(0, len(picks), _TOGETHER):
        waveforms = [
            read_pick(folder, pick, posterior.sample_rate, channel)[None] for pick in picks[at : at + _TOGETHER]
        ]
        parts.append(predict_waveforms(posterior, waveforms, posterior.draws_for(None)))
    return concatenate(parts)


@dataclass(frozen=True)
class _Found:
    """What was computed of N windows.

    Attributes:
        score: ``(N,)``.
        embeddings: ``(N, E)``, if they are needed.
        samples: ``(N, T, K)``, if they are needed.
    """

    score: NDArray[np.float64]
    embeddings: NDArray[np.float32] | None
    samples: NDArray[np.float32] | None

    def take(self, index: NDArray[np.intp]) -> "_Found":
        arrays = (self.score, self.embeddings, self.samples)
        return _Found(*(None if each is None else each[index] for each in arrays))  # type: ignore[arg-type]

    def row(self, index: int) -> tuple[float, Any, Any]:
        """Copies, so that the others can be forgotten."""
        rest = (None if each is None else each[index].copy() for each in (self.embeddings, self.samples))
        return float(self.score[index]), *rest  # type: ignore[return-value]


@dataclass(frozen=True)
class _Look:
    """Computes of groups of windows what a strategy needs."""

    posterior: Posterior
    strategy: AcquireStrategy
    draws: int

    def __call__(self, groups: list[Tensor]) -> _Found:
        count = sum(map(len, groups))
        score, embeddings, samples = np.zeros(count), None, None
        if self.strategy in NEEDS_EMBEDDINGS:
            embeddings = self.posterior.embed(groups).numpy()
        if self.strategy in NEEDS_SCORES:
            # Before any power, which is of the mean of the draws.
            made = torch.stack(list(self.posterior.draws(groups, self.draws)), dim=1).float().numpy()
            score = score_clips(made, self.posterior.task, self.strategy)
            samples = made if self.strategy in NEEDS_SAMPLES else None
        return _Found(score, embeddings, samples)


@dataclass(frozen=True)
class _Candidate:
    file: str
    window: Window
    whole: bool
    score: float
    embedding: NDArray[np.float32] | None
    samples: NDArray[np.float32] | None

    @property
    def size(self) -> int:
        """Bytes."""
        return 200 + sum(each.nbytes for each in (self.embedding, self.samples) if each is not None)


class _Pool:
    """The candidates of the highest priority, as many as memory allows; four times those wanted at least."""

    def __init__(self, budget: int) -> None:
        self._least, self._number = 4 * budget, count()
        self._heap = list[tuple[float, int, _Candidate]]()

    def add(self, priority: float, candidate: _Candidate) -> None:
        most = max(self._least, min(_MOST, _BYTES // candidate.size))
        entry = (priority, -next(self._number), candidate)
        if len(self._heap) < most:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    @property
    def candidates(self) -> list[_Candidate]:
        """In the order in which they came."""
        return [candidate for _, _, candidate in sorted(self._heap, key=lambda entry: -entry[1])]


def _together(
    found: Sequence[_Candidate],
    known: Sequence[_Candidate],
    touched: Sequence[str],
    posterior: Posterior,
    strategy: AcquireStrategy,
) -> Candidates:
    embedded, drawn = strategy in NEEDS_EMBEDDINGS, strategy in NEEDS_SAMPLES
    return Candidates(
        np.array([each.score for each in found]),
        np.array([each.file for each in found]),
        str(posterior.task),
        samples=np.stack([each.samples for each in found]) if drawn else None,  # type: ignore[misc]
        embeddings=np.stack([each.embedding for each in found]) if embedded else None,  # type: ignore[misc]
        known=np.stack([each.embedding for each in known]) if embedded and known else None,  # type: ignore[misc]
        known_recordings=np.array(touched, dtype=str),
    )


def _optional(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


_Time = Annotated[Seconds | None, BeforeValidator(_optional)]


class _Row(PublishedRow):
    file: Name
    start: _Time = None
    end: _Time = None


class _Labelled:
    """The stretches that have a label already, by file."""

    def __init__(self) -> None:
        self._stretches: dict[str, list[tuple[float, float]]] = {}
        self._seen = set[str]()

    @classmethod
    def read(cls, tables: Iterable[Path], folder: Path) -> "_Labelled":
        found = cls()
        for table in tables:
            for _, row in read_table(table, _Row):
                name = _name(row.file.replace("\\", "/"), folder)
                found._stretches.setdefault(name, []).append((row.start or 0.0, row.end or math.inf))
        return found

    def covers(self, name: str, window: Window) -> bool:
        """Whether a window of a file is labelled."""
        # A table that a spreadsheet can open escapes odd names.
        key = name if name in self._stretches else cell(name)
        self._seen.add(key)
        for start, end in self._stretches.get(key, ()):
            both = min(end, window.end) - max(start, window.start)
            if both > 0 and both >= _COVERED * min(end - start, window.end - window.start):
                return True
        return False

    def warn_of_unknown(self, folder: Path) -> None:
        """Warn of files in the tables that are not in the folder."""
        unknown = [name for name in self._stretches if name not in self._seen]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            logger.warning(
                f"{folder}: holds no {unknown[0]}{more} that the tables of labelled clips name; names in them are "
                "relative to the folder"
            )


def _name(file: str, folder: Path) -> str:
    """The name of a file, relative to the folder."""
    path = Path(file)
    for base in (folder, folder.resolve()):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.as_posix()
