"""The numbers of a recording's windows, as a record keeps them: see :mod:`bayes_panns.predictions.records`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_panns.predictions.tagging import FileTags
from bayes_panns.predictions.uncertainty import PARTS, StandardError, Uncertainty

BAND = 0.9
"""The share of the draws from ``low`` to ``high``."""

_NORMAL_BAND = 1.6448536269514722
"""Standard deviations on each side of a Normal's mean between which 90 % of it is."""


@dataclass(frozen=True)
class RecordWindows:
    """The numbers of N windows of a recording with K labels; the table of that module says what they are.

    Attributes:
        start, end: ``(N,)``, seconds.
        probability, aleatoric, epistemic, low, high: ``(N, K)``.
        entropy, mutual_information: ``(N,)``, nats.
        outside, left: ``(N,)``, whether.
        in_set: ``(N, K)``, whether; None if the posterior was not calibrated.
        called: ``(N, K)``, whether; None if no decisions were asked for.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    probability: NDArray[np.float32]
    aleatoric: NDArray[np.float32]
    epistemic: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    entropy: NDArray[np.float32]
    mutual_information: NDArray[np.float32]
    outside: NDArray[np.bool_]
    left: NDArray[np.bool_]
    in_set: NDArray[np.bool_] | None = None
    called: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.start)

    def uncertainty(self, task: str) -> Uncertainty:
        """The predictions for the windows, in the float32 of the file; without standard errors.

        Args:
            task: What the labels mean.
        """
        p, entropy = self.probability, self.entropy
        unknown = {name: np.full_like(p, np.nan) for name in ("probability", "aleatoric", "epistemic", "total")}
        of_clips = ("entropy", "expected_entropy", "mutual_information", *(f"clip_{name}" for name in PARTS))
        arrays: dict[str, Any] = {
            "probability": p,
            "aleatoric": self.aleatoric,
            "epistemic": self.epistemic,
            "total": p * (1 - p),
            "entropy": entropy,
            "expected_entropy": entropy - self.mutual_information,
            "mutual_information": self.mutual_information,
        }
        errors: dict[str, Any] = {**unknown, **{name: np.full_like(entropy, np.nan) for name in of_clips}}
        return Uncertainty(**arrays, standard_error=StandardError(**errors), draws=0, task=task)


def central_band(found: Uncertainty) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The central 90 % of the draws of each probability.

    Without the draws themselves it is that of a Normal of the same mean and epistemic variance, cut off at 0 and 1.

    Args:
        found: Predictions for N clips; with ``samples`` where there are several draws.

    Returns:
        The 5 % and the 95 % quantile, each ``(N, K)``.
    """
    if found.samples is None:
        deviation = _NORMAL_BAND * np.sqrt(found.epistemic)
        low, high = found.probability - deviation, found.probability + deviation
        return low.clip(0, 1).astype(np.float32), high.clip(0, 1).astype(np.float32)
    # NumPy sorts short rows of float32 in a seventh of the time that its quantile takes.
    ordered = np.sort(np.ascontiguousarray(found.samples.transpose(0, 2, 1)), axis=-1)
    return _quantile(ordered, (1 - BAND) / 2), _quantile(ordered, (1 + BAND) / 2)


def _quantile(ordered: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """A quantile of the last axis, which is in order, between neighbours as by ``np.quantile``."""
    place = share * (ordered.shape[-1] - 1)
    below = int(place)
    first, second = ordered[..., below], ordered[..., min(below + 1, ordered.shape[-1] - 1)]
    found: NDArray[np.float32] = first + (second - first) * np.float32(place - below)
    return found


def windows_of(
    tags: FileTags,
    *,
    called: NDArray[np.bool_] | None = None,
    left: NDArray[np.bool_] | None = None,
    outside: NDArray[np.bool_] | None = None,
) -> RecordWindows:
    """What a record keeps of the predictions for N windows.

    Args:
        tags: The predictions; with the draws' samples, for their band.
        called: ``(N, K)``, the decisions, if there are any.
        left: ``(N,)``, the windows left to a person; by default none.
        outside: ``(N,)``, the windows out of distribution; by default none.
    """
    found, none = tags.uncertainty, np.zeros(len(tags.windows), dtype=bool)
    low, high = central_band(found)
    return RecordWindows(
        start=np.array([window.start for window in tags.windows]),
        end=np.array([window.end for window in tags.windows]),
        probability=found.probability.astype(np.float32),
        aleatoric=found.aleatoric.astype(np.float32),
        epistemic=found.epistemic.astype(np.float32),
        low=low,
        high=high,
        entropy=found.entropy.astype(np.float32),
        mutual_information=found.mutual_information.astype(np.float32),
        outside=none if outside is None else outside,
        left=none if left is None else left,
        in_set=tags.sets,
        called=called,
    )
