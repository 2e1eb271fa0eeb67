"""Predictions for every clip of a clip set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.clips import ClipSet
from bayes_panns.core import progress
from bayes_panns.posterior import Ensemble, Posterior, Predictor
from bayes_panns.predictions.accumulate import UncertaintyAccumulator
from bayes_panns.predictions.combine import concatenate, mixture
from bayes_panns.predictions.gaussian_logits import from_moments
from bayes_panns.predictions.uncertainty import Draws, Uncertainty
from bayes_panns.ranks import in_order

CLIPS, SAMPLES = 256, 1 << 26
"""The most clips that are predicted together, and the most samples in all: what is in memory at a time."""

_COVARIANCES = 1 << 22
"""The most covariances between labels of the clips predicted together; some 40 numbers are held for each."""


def predict(
    posterior: Predictor,
    clips: ClipSet,
    draws: Draws | None = None,
    *,
    covariance: bool = False,
    samples: bool = False,
) -> Uncertainty:
    """Predict every clip of a set, in memory that does not grow with the set.

    Args:
        posterior: What predicts: a posterior, or an ensemble of several.
        clips: N clips of what the posterior takes: sound at its sample rate, or embeddings of its model.
        draws: Posterior draws a clip; 0 is one pass at the posterior mean, ``"moments"`` one that propagates moments.
            By default as many as :meth:`~bayes_panns.posterior.Posterior.draws_for` says.
        covariance: Whether to keep the covariance between labels too: N x K x K numbers.
        samples: Whether to keep every draw's probabilities too: N x T x K numbers. There are none of moments.

    Raises:
        PosteriorError: Moments are asked for, and the posterior cannot propagate them.
        SettingError: ``draws`` is neither a whole number from 0 up nor ``"moments"``.
    """
    draws = posterior.draws_for(draws)
    most = _COVARIANCES // len(posterior.labels) ** 2 if covariance else CLIPS
    making = Predicting(posterior, draws, covariance=covariance, samples=samples)
    return concatenate(list(in_order(_batches(clips, most), making)))


def predict_logits(posterior: Posterior, clips: ClipSet, draws: int = 20) -> NDArray[np.float32]:
    """The logits of every draw for every clip of a set, before any temperature: what a calibration is fitted on.

    Args:
        posterior: What predicts.
        clips: N clips of what the posterior takes: sound at its sample rate, or embeddings of its model.
        draws: Posterior draws a clip; 0 is one pass at the posterior mean.

    Returns:
        ``(T, N, K)``, with T = 1 for a pass at the mean.

    Raises:
        SettingError: ``draws`` is no whole number from 0 up.
    """
    parts = list(in_order(_batches(clips, CLIPS), _Logits(posterior, draws)))
    return torch.cat(parts, dim=1).numpy()


@dataclass(frozen=True)
class _Logits:
    """The logits of waveforms; several processes may compute them."""

    posterior: Posterior
    draws: int

    def __call__(self, waveforms: Tensor) -> Tensor:
        return torch.stack(list(self.posterior.logits(waveforms, self.draws)))


@dataclass(frozen=True)
class Predicting:
    """Predicts waveforms, as :func:`predict_waveforms` does; several processes may do so, to which it is sent.

    Attributes:
        posterior, draws, covariance, samples: As in :func:`predict_waveforms`.
    """

    posterior: Predictor
    draws: Draws
    covariance: bool = False
    samples: bool = False

    def __call__(self, waveforms: Tensor | Sequence[Tensor]) -> Uncertainty:
        """The predictions for waveforms in memory."""
        return predict_waveforms(
            self.posterior, waveforms, self.draws, covariance=self.covariance, samples=self.samples
        )


def predict_waveforms(
    posterior: Predictor,
    waveforms: Tensor | Sequence[Tensor],
    draws: Draws,
    *,
    covariance: bool = False,
    samples: bool = False,
) -> Uncertainty:
    """Predict waveforms in memory.

    Args:
        posterior: What predicts.
        waveforms: ``(N, samples)``, or several such groups of different lengths. The posterior itself pads those that
            are shorter than its clips, if it was fitted so.
        draws: As in :func:`predict`.
        covariance: As in :func:`predict`.
        samples: As in :func:`predict`.
    """
    power = posterior.exponent(draws)
    if draws == "moments":
        loc, deviations = posterior.moments(waveforms)
        return from_moments(loc, deviations, posterior.probability, posterior.task, covariance=covariance, power=power)
    if isinstance(posterior, Ensemble) and posterior.powered and posterior.draws_made(draws):
        return _mixed(posterior, waveforms, draws, covariance, samples)
    accumulator = UncertaintyAccumulator(
        posterior.task, mirrored=posterior.mirrored, covariance=covariance, power=power, samples=samples
    )
    for probability in posterior.draws(waveforms, draws):
        accumulator.update(probability)
    result = accumulator.result()
    # An ensemble repeats the single pass of a member with point weights, to weigh it like the draws of the others.
    made = posterior.draws_made(draws)
    return replace(result, draws=made) if made else result


def _mixed(
    ensemble: Ensemble, waveforms: Tensor | Sequence[Tensor], draws: int, covariance: bool, samples: bool
) -> Uncertainty:
    """The mixture of the members' predictions, each at its own power; without standard errors."""
    parts = []
    for number, member in enumerate(ensemble.members):
        accumulator = UncertaintyAccumulator(
            member.task,
            mirrored=member.mirrored,
            covariance=covariance,
            power=member.exponent(draws),
            samples=samples,
        )
        for probability in member.draws(waveforms, ensemble.share(draws), seed=ensemble.member_seed(number)):
            accumulator.update(probability)
        parts.append(accumulator.result())
    return replace(mixture(parts), draws=ensemble.draws_made(draws))


def _batches(clips: ClipSet, most: int) -> Iterator[Tensor]:
    """The waveforms or embeddings of a set, at most so many clips at a time."""
    size = max(1, min(most, CLIPS, SAMPLES // clips.width))
    with progress.task("predicting", total=len(clips), unit="clip") as bar:
        for start in range(0, len(clips), size):
            index = np.arange(start, min(start + size, len(clips)))
            yield torch.from_numpy(clips.inputs(index))
            bar.advance(len(index))
