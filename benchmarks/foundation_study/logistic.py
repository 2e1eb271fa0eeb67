"""The baseline: logistic regression whose penalty is chosen inside the training clips; what is built on it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from bayes_panns.clips import ClipSet, Task
from bayes_panns.metrics import fit_power

GRID = tuple(float(c) for c in 10 ** np.arange(-3, 2.1, 0.5))
"""The values of C to choose from, for embeddings of spread 1."""

FOLDS, SMOOTHING = 5, 0.3
"""The inner folds and the smoothing of the power: those of the default."""

MEMBERS = 5
_STEPS = 100_000
_LEAST = 1e-300

Predict = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Embeddings ``(N, E)`` to the probabilities of each draw, ``(T, N, K)``."""


@dataclass(frozen=True)
class Chosen:
    """A penalty that the inner folds have chosen, and their predictions at it.

    Attributes:
        penalty: C.
        nll: The NLL of the inner folds at each C of :data:`GRID`, in nats a clip.
        held: The predictions of the inner folds for the clips whose label the other folds have, ``(n, K)``.
        target: Their labels, ``(n, K)``.
        x: The embeddings of all training clips, centred and divided by their spread, ``(N, E)``.
        label: Their labels, ``(N,)``.
        recordings: Their recordings, ``(N,)``.
        labels: K.
        scaled: What makes such embeddings.
    """

    penalty: float
    nll: tuple[float, ...]
    held: NDArray[np.float64]
    target: NDArray[np.bool_]
    x: NDArray[np.float64]
    label: NDArray[np.int_]
    recordings: NDArray[np.int_]
    labels: int
    scaled: Callable[[NDArray[np.float32]], NDArray[np.float64]]

    def fit(self, weight: NDArray[np.int_] | None = None) -> LogisticRegression:
        """The regression of all training clips, or with so many copies of each."""
        some = slice(None) if weight is None else weight > 0
        copies = None if weight is None else weight[some]
        return _regression(self.penalty).fit(self.x[some], self.label[some], copies)

    def of(self, *models: LogisticRegression) -> Predict:
        """What predicts as the mean of regressions."""
        return lambda embedding: np.stack(
            [_probability(model, self.scaled(embedding), self.labels) for model in models]
        )

    def power(self) -> float:
        """The power of the inner folds' predictions."""
        return float(fit_power(self.held, self.target, Task.ONE_OF_K, smoothing=SMOOTHING))

    def resampled(self, seed: int) -> NDArray[np.int_]:
        """How often each clip is in a bootstrap sample of recordings; each label keeps its number of recordings."""
        random, count = np.random.default_rng(seed), np.zeros(len(self.label), dtype=int)
        for label in np.unique(self.label):
            mine = np.unique(self.recordings[self.label == label])
            taken = np.bincount(random.integers(len(mine), size=len(mine)), minlength=len(mine))
            clips = self.label == label
            count[clips] = taken[np.searchsorted(mine, self.recordings[clips])]
        return count


def choose(clips: ClipSet, seed: int) -> Chosen:
    """Choose C by cross-validation over the recordings of clips of one label each, with the default's inner folds."""
    embedding = clips.embedding(np.arange(len(clips))).astype(float)
    centre = embedding.mean(axis=0)
    spread = np.sqrt(np.square(embedding - centre).mean())

    def scaled(values: NDArray[np.float32]) -> NDArray[np.float64]:
        return (values - centre) / spread

    x, target = scaled(embedding), clips.target()
    label, folds = target.argmax(axis=1), clips.recording_folds(FOLDS, seed)
    held = np.full((len(GRID), *target.shape), np.nan)
    for fold in np.unique(folds):
        inside = folds != fold
        outside = ~inside & np.isin(label, label[inside])
        model = _regression(GRID[0])
        for index, penalty in enumerate(GRID):
            model.set_params(C=penalty).fit(x[inside], label[inside])
            held[index, outside] = _probability(model, x[outside], target.shape[1])
    scored = ~np.isnan(held[0]).any(axis=1)
    right = held[:, np.flatnonzero(scored), label[scored]]
    nll = -np.log(np.maximum(right, _LEAST)).mean(axis=1)
    best = int(nll.argmin())
    return Chosen(
        GRID[best],
        tuple(nll.tolist()),
        held[best, scored],
        target[scored],
        x,
        label,
        clips.recordings,
        target.shape[1],
        scaled,
    )


def laplace(chosen: Chosen) -> Predict:
    """laplace-torch at the regression: Kronecker factors, the prior by the marginal likelihood, probit predictions.

    Raises:
        ImportError: laplace-torch is not installed.
    """
    from laplace import Laplace

    regression = chosen.fit()
    layer = torch.nn.Linear(chosen.x.shape[1], chosen.labels)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(regression.coef_))
        layer.bias.copy_(torch.from_numpy(regression.intercept_))
    data = torch.utils.data.TensorDataset(torch.from_numpy(chosen.x).float(), torch.from_numpy(chosen.label))
    # Of a network that is one layer, "all" is the last layer.
    posterior = Laplace(layer, "classification", subset_of_weights="all", hessian_structure="kron")
    posterior.fit(torch.utils.data.DataLoader(data, batch_size=256))
    posterior.optimize_prior_precision(method="marglik", pred_type="glm")

    def predict(embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        x = torch.from_numpy(chosen.scaled(embedding)).float()
        p = torch.cat([posterior(rows, pred_type="glm", link_approx="probit").detach() for rows in x.split(256)])
        return p.double().numpy()[None]

    return predict


def _regression(penalty: float) -> LogisticRegression:
    return LogisticRegression(C=penalty, max_iter=_STEPS, warm_start=True)


def _probability(model: LogisticRegression, x: NDArray[np.float64], labels: int) -> NDArray[np.float64]:
    """The probabilities of all labels: 0 for those that the model has not seen."""
    found = np.zeros((len(x), labels))
    found[:, model.classes_] = model.predict_proba(x)
    return found
