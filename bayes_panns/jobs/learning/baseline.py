"""The simplest strong baseline of a last layer: logistic regression on the same features, in the same folds."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.bayes import Likelihood, logistic_regression
from bayes_panns.clips.splits import recording_folds
from bayes_panns.core import progress
from bayes_panns.devices import as_float64
from bayes_panns.metrics import nll

SCALES = (0.03, 0.1, 0.18, 0.32, 0.56, 1.0, 3.2)
"""The prior's standard deviations to choose from, in units of the embeddings' spread; C is the square."""

_INNER, _ENOUGH = 3, 1000
"""Inner folds that choose among them; from so many clips on, one of these is enough."""

_BIAS = 10.0
"""The prior's standard deviation of the bias: wide."""


def logistic_baseline(
    embedding: Tensor,
    target: Tensor,
    truth: NDArray[np.bool_],
    likelihood: Likelihood,
    folds: NDArray[np.integer],
    recordings: NDArray[np.integer],
    *,
    balanced: bool = False,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The probabilities ``(N, K)`` that logistic regressions give clips of folds that they were not fitted to.

    The penalty of each is chosen by an inner cross-validation over recordings.

    Args:
        embedding: ``(N, E)``.
        target: The labels, as the likelihood takes them.
        truth: The labels, ``(N, K)``.
        likelihood: The likelihood.
        folds: The fold of each clip, ``(N,)``.
        recordings: The recording of each clip, ``(N,)``.
        balanced: Whether they are for equally frequent labels, one a clip.
        seed: Of the inner folds.
    """
    found = np.zeros(truth.shape)

    def predicted(inside: NDArray[np.intp], outside: NDArray[np.intp], scale: float) -> NDArray[np.float64]:
        weight, bias = logistic_regression(
            embedding[inside][:, None],
            target[inside],
            truth.shape[1],
            likelihood,
            bias_prior_scale=_BIAS,
            prior_scale=scale,
        )
        return likelihood.probability(as_float64(embedding[outside] @ weight.T + bias)).cpu().numpy()

    numbers = np.unique(folds)
    with progress.task("logistic regression", total=len(numbers), unit="fold") as bar:
        for fold in numbers:
            inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            of = np.unique(recordings[inside], return_inverse=True)[1]
            label = None if target.is_floating_point() else target[inside].numpy()
            inner = recording_folds(of, label, _INNER, seed)
            tried = np.unique(inner) if len(inside) < _ENOUGH else np.unique(inner)[:1]
            losses = np.zeros(len(SCALES))
            for each in tried if len(np.unique(inner)) > 1 else ():
                fit, held = inside[inner != each], inside[inner == each]
                for index, scale in enumerate(SCALES):
                    losses[index] += len(held) * nll(predicted(fit, held, scale), truth[held], likelihood.task)
            scale = SCALES[int(np.nanargmin(losses))] if losses.any() else 1.0
            found[outside] = predicted(inside, outside, scale)
            if balanced:
                found[outside] /= np.maximum(truth[inside].sum(axis=0), 0.5)
                found[outside] /= found[outside].sum(axis=1, keepdims=True)
            bar.advance()
    return found
