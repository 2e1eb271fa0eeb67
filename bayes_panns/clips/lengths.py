"""The length of the clips that recordings are cut into, chosen from how long these are."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayes_panns.audio.recording import duration
from bayes_panns.clips.catalogs import Catalog
from bayes_panns.clips.catalogs.catalog import span_name
from bayes_panns.core import progress
from bayes_panns.core.errors import OF_ONE_FILE

LENGTHS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""Seconds to choose from. The published networks were fitted to clips of 10 s, and say little of less than 1 s."""

OF_LONG = 5.0
"""Seconds; what recordings are cut into of which most are longer than the longest clips."""

THREADS = 4
"""They read the lengths of recordings."""

PARTS = 12
"""The most clips that one recording is cut into, so that it does not outweigh the others."""

_WHOLE = 0.9
"""The share of recordings that a clip is to hold whole."""

_SLACK = 0.05
"""Seconds by which a recording may be longer than the clip that holds it whole."""

_SEVERAL = 1.5
"""A recording of so many clip lengths becomes several clips."""


@dataclass(frozen=True)
class Cut:
    """A catalog whose long recordings are cut into clips.

    Attributes:
        catalog: The catalog.
        recordings: How many recordings became several clips.
        clips: How many clips these are.
        shortened: How many recordings lose their end.
        sparse: Recordings of which less than half is taken.
    """

    catalog: Catalog
    recordings: int
    clips: int
    shortened: int
    sparse: int


def lengths_of(catalog: Catalog) -> NDArray[np.float64]:
    """How long the sound of each clip is, in seconds, float64 ``(clips,)``; NaN where that cannot be read."""

    def seconds(index: int) -> float:
        clip = catalog.clips[index]
        if clip.seconds is not None:
            return clip.seconds
        try:
            return duration(clip.path) - clip.start
        except (*OF_ONE_FILE, Exception):  # One bad file never costs the others.
            return math.nan

    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(seconds, range(len(catalog.clips)))
        return np.array(list(progress.track(found, "measuring", total=len(catalog.clips), unit="clip")))


def choose_seconds(lengths: NDArray[np.floating]) -> tuple[float, str]:
    """The length of clips for recordings, and why.

    The shortest of :data:`LENGTHS` that holds nine of ten recordings whole. Where most are longer than the longest, it
    is :data:`OF_LONG`: what is then learned can also be found in a long recording to within that time.

    Example:
        >>> choose_seconds(np.array([3.6, 4.9, 5.0, 5.0]))
        (5.0, 'holds 100 % of the recordings whole, which are 3.6 to 5 s long')

    Args:
        lengths: In seconds, at least one of them a number.
    """
    known = lengths[np.isfinite(lengths)]
    span = f"{known.min():.3g} to {known.max():.3g} s long"
    if float(np.median(known)) > LENGTHS[-1]:
        return OF_LONG, f"most recordings are longer than {LENGTHS[-1]:g} s; they are {span}"
    wanted = float(np.quantile(known, _WHOLE, method="inverted_cdf"))
    seconds = next((each for each in LENGTHS if each + _SLACK >= wanted), LENGTHS[-1])
    whole = float((known <= seconds + _SLACK).mean())
    return seconds, f"holds {math.floor(100 * whole)} % of the recordings whole, which are {span}"


def cut_long(catalog: Catalog, lengths: Sequence[float] | NDArray[np.floating], seconds: float) -> Cut:
    """The catalog with clips of ``seconds`` from all over recordings that are much longer.

    A recording of one and a half clip lengths or more becomes as many clips as it holds, at most :data:`PARTS`, evenly
    spread over it. All of them have its labels and its recording. One that is a little longer loses its end.

    Args:
        catalog: The clips; those with a length of their own stay as they are.
        lengths: How long each is, in seconds.
        seconds: Length of a clip.
    """
    clips, recordings, parts, shortened, sparse = [], 0, 0, 0, 0
    for clip, length in zip(catalog.clips, np.asarray(lengths, dtype=float).tolist(), strict=True):
        if clip.seconds is not None or not length >= _SEVERAL * seconds:
            shortened += clip.seconds is None and length > seconds + _SLACK
            clips.append(clip)
            continue
        count = min(PARTS, math.floor(length / seconds + 1e-6))
        for start in np.linspace(clip.start, clip.start + length - seconds, max(2, count)).round(3).tolist():
            name = span_name(clip.name, start, start + seconds)
            clips.append(replace(clip, name=name, source=clip.source or clip.name, start=start, seconds=seconds))
        recordings, parts = recordings + 1, parts + max(2, count)
        sparse += length > 2 * max(2, count) * seconds
    return Cut(replace(catalog, seconds=seconds, clips=tuple(clips)), recordings, parts, shortened, sparse)
