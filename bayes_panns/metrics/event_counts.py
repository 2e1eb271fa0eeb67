"""How many events there are, from how many were found, where recordings differ in how well events are found in them.

:func:`~bayes_panns.metrics.counts.count_events` takes a label to be found with one recall and one rate of false events
everywhere. Recordings differ: in another night another dog barks, at another distance. Here the recall and the rate of
a new recording are drawn from how they varied between the annotated ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, gammaln

from bayes_panns.core.draw_count import draw_count
from bayes_panns.metrics.counts import LEVEL, Counts

DRAWS = 4000

_NONE = 0.25
"""What stands for the events of which none was found, beside those that were."""

_SPREADS = np.geomspace(0.5, 500, 61)
"""Concentrations that are tried: 0.5 is recordings that have nothing in common, 500 hardly any difference."""


@dataclass(frozen=True)
class Finding:
    """How well events of K labels are found, and how that differs between recordings.

    Attributes:
        recall: ``(K,)``, the share of the events that is found, on average.
        alarms: ``(K,)``, false events an hour, on average.
        known: ``(K,)``, of how many independent events the recall is known.
        hours: ``(K,)``, of how many independent hours the alarms are known.
        concentration: phi: the recall of a recording is Beta(recall phi, (1 - recall) phi).
        shape: s: the rate of a recording is Gamma(s, alarms / s).
    """

    recall: NDArray[np.float64]
    alarms: NDArray[np.float64]
    known: NDArray[np.float64]
    hours: NDArray[np.float64]
    concentration: float
    shape: float

    @classmethod
    def of(
        cls, hits: NDArray[np.integer], misses: NDArray[np.integer], alarms: NDArray[np.integer], hours: NDArray
    ) -> Finding:
        """Fit it to annotated recordings: the concentrations by maximum likelihood, all labels together.

        Args:
            hits: ``(R, K)``, annotated events that were found, in each of R recordings.
            misses: ``(R, K)``, and those that were not.
            alarms: ``(R, K)``, found events that are none.
            hours: ``(R,)``, how long each recording is.
        """
        there, called = hits.sum(axis=0), hits.sum()
        pooled = (called + 0.5) / (called + misses.sum() + 1)
        recall = (there + pooled) / (there + misses.sum(axis=0) + 1)
        rate = (alarms.sum(axis=0) + 0.5) / (hours.sum() + 0.5)
        concentration = float(_SPREADS[np.argmax([_beta_binomial(hits, misses, recall, phi) for phi in _SPREADS])])
        shape = float(_SPREADS[np.argmax([_gamma_poisson(alarms, hours, rate, s) for s in _SPREADS])])
        # Events of a recording are alike: n of them are worth n (phi + 1) / (phi + n) independent ones.
        events = (hits + misses).astype(np.float64)
        known = (events * (concentration + 1) / (concentration + np.maximum(events, 1))).sum(axis=0)
        # So are its alarms: their mean in an hour has the variance rate / hours + rate^2 / s.
        variance = rate[None] / hours[:, None] + rate[None] ** 2 / shape
        return cls(recall, rate, known, rate * (1 / variance).sum(axis=0), concentration, shape)

    def count(
        self, found: NDArray[np.integer], hours: float, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
    ) -> tuple[Counts, Counts]:
        """How many events there are in a new recording of the same kind.

        Args:
            found: ``(K,)``, how many were found.
            hours: How long it is.
            level: The share of the draws that an interval holds.
            draws: How many draws.
            seed: Of the draws.

        Returns:
            The counts of each label, and of all together ``(1,)``.

        Raises:
            SettingError: ``draws`` is no whole number from 1 up.
        """
        draws = draw_count(draws, least=1)
        random = np.random.default_rng(seed)
        called = np.asarray(found).astype(np.int64)
        size = (draws, len(called))
        mean = random.beta(self.recall * (self.known + 1), (1 - self.recall) * (self.known + 1), size=size)
        mean = np.clip(mean, 1e-4, 1 - 1e-4)
        recall = random.beta(mean * self.concentration, (1 - mean) * self.concentration)
        rate = random.gamma(self.alarms * self.hours + 0.5, size=size) / (self.hours + 0.5 / self.alarms)
        rate = random.gamma(self.shape, rate / self.shape)
        false = _likely(random.poisson(rate * hours), called, random)
        true = called - false
        missed = random.negative_binomial(true + _NONE, np.clip(recall, 0.02, 1 - 1e-9))
        drawn = (true + missed).astype(np.float64)
        together = _counts(called.sum(keepdims=True), drawn.sum(axis=1, keepdims=True), level)
        return _counts(called, drawn, level), together


def _likely(false: NDArray[np.int64], called: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of false events given how many events were called, ``(draws, K)``, from draws without that knowledge.

    The number of true ones is as likely to be of any size, on a logarithmic scale: each draw weighs as much as one over
    what it leaves for them. Where no draw fits, all are false.
    """
    chosen = np.broadcast_to(called, false.shape).copy()
    for k, count in enumerate(called):
        fitting = false[false[:, k] <= count, k]
        if len(fitting):
            weight = 1 / (count - fitting + 0.5)
            chosen[:, k] = random.choice(fitting, len(false), p=weight / weight.sum())
    return chosen


def _counts(found: NDArray[np.int64], drawn: NDArray[np.float64], level: float) -> Counts:
    low, middle, high = np.quantile(drawn, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0, method="inverted_cdf")
    return Counts(found.astype(np.float64), middle, low, high)


def _beta_binomial(hits: NDArray, misses: NDArray, recall: NDArray[np.float64], phi: float) -> float:
    """The logarithm of the probability of the hits, up to what does not depend on the concentration."""
    a, b = recall * phi, (1 - recall) * phi
    return float((betaln(a + hits, b + misses) - betaln(a, b)).sum())


def _gamma_poisson(alarms: NDArray, hours: NDArray, rate: NDArray[np.float64], shape: float) -> float:
    mean = hours[:, None] * rate
    likelihood = gammaln(alarms + shape) - gammaln(shape) + shape * np.log(shape / (shape + mean))
    return float((likelihood + alarms * np.log(mean / (shape + mean))).sum())
