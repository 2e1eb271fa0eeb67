"""One game: few labels, then round after round of more, chosen by one strategy, with a new fit each time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bayes_panns.bayes.likelihoods import OneOfK
from bayes_panns.core.choices import AcquireStrategy, Task
from bayes_panns.metrics import accuracy, apply_power, nll
from bayes_panns.metrics.acquisition import NEEDS_SCORES, Candidates, choose_batch, score_clips
from bayes_panns.svi.last_layer import HeadPosterior, choose_head, find_axes, infer_head

UNIFORM = "uniform"
"""Random clips, whatever their recordings: what a user without ``acquire`` would do."""

STRATEGIES = (UNIFORM, *AcquireStrategy.words())

FIRST = 2
"""The labels of each class at the start."""

DRAWS = 100
_SCORED_DRAWS = 128
_INNER_FOLDS, _PRIOR_SCALES, _KL_WEIGHTS, _STEPS = 3, (0.1, 0.2, 0.4), (1.0,), 60
"""A smaller search than the recipe rotated-head makes, which would take six times as long."""


@dataclass(frozen=True)
class Data:
    """Embedded clips.

    Attributes:
        name: Of the data.
        embeddings: ``(N, E)``.
        label: ``(N,)``.
        recording: ``(N,)``.
        fold: ``(N,)``.
        labels: K.
        tail: How many times more often the most frequent class of a pool is than the rarest; None for all clips.
    """

    name: str
    embeddings: torch.Tensor
    label: NDArray[np.intp]
    recording: NDArray[np.intp]
    fold: NDArray[np.integer]
    labels: int
    tail: float | None = None

    def pool(self, fold: int, seed: int) -> NDArray[np.intp]:
        """The clips to choose from: all of the other folds; with a tail, fewer of a class the rarer it is made.

        Which classes are rare depends on the seed. Whole recordings are left out.
        """
        inside = np.flatnonzero(self.fold != fold)
        if self.tail is None:
            return inside
        random = np.random.default_rng([seed, 1])
        rank = random.permutation(self.labels)
        kept = list[int]()
        for kind in range(self.labels):
            clips = inside[self.label[inside] == kind]
            share = self.tail ** (-rank[kind] / (self.labels - 1))
            names = random.permutation(np.unique(self.recording[clips]))
            order = np.concatenate([clips[self.recording[clips] == name] for name in names])
            kept += order[: max(FIRST, round(share * len(clips)))].tolist()
        return np.sort(np.array(kept))


@dataclass(frozen=True)
class Learner:
    """A last layer, fitted to some clips.

    Attributes:
        posterior: Of one prior width and KL weight.
        power: Of its predictions.
    """

    posterior: HeadPosterior
    power: tuple[float, ...]

    @classmethod
    def fitted(cls, data: Data, clips: NDArray[np.intp], seed: int) -> "Learner":
        """The last layer after the labels of ``clips``; prior and KL weight are chosen by inner folds of recordings."""
        views, target = data.embeddings[clips][:, None], torch.from_numpy(data.label[clips])
        choice = choose_head(
            views,
            target,
            data.labels,
            OneOfK(),
            _inner_folds(data, clips, seed),
            data.recording[clips],
            prior_scales=_PRIOR_SCALES,
            kl_weights=_KL_WEIGHTS,
            smoothing=0.3,
            bias_prior_scale=10.0,
            steps=_STEPS,
            seed=seed,
        )
        scale, weight = 0.2, 1.0
        power: tuple[float, ...] = (1.0,)
        if choice is not None:
            scale, weight, power = choice.chosen.prior_scale, choice.chosen.kl_weight, choice.power
        axes, *start = find_axes(views, target, data.labels, OneOfK())
        found = infer_head(
            views, target, OneOfK(), axes, [scale], [weight], start=(start[0], start[1]), steps=_STEPS, seed=seed
        )
        return cls(found, power)

    def probability(self, embeddings: torch.Tensor) -> NDArray[np.float64]:
        """The predictions of clips, ``(N, K)``."""
        p = self.posterior.probability(embeddings, OneOfK(), _SCORED_DRAWS)[0].double().numpy()
        return apply_power(p, np.array(self.power), Task.ONE_OF_K)

    def samples(self, embeddings: torch.Tensor, seed: int) -> NDArray[np.float32]:
        """The probabilities of clips under draws of the weights, ``(N, T, K)``."""
        found, axes = self.posterior, self.posterior.axes
        generator = torch.Generator().manual_seed(seed)
        complete = axes.complete.float()
        labels, rank = found.loc.shape[1:]
        outside = (labels, complete.shape[1] - rank)
        loc = torch.cat([found.loc[0], torch.zeros(outside)], dim=1)
        scale = torch.cat([found.scale[0], found.prior_scale[0].expand(outside)], dim=1)
        x = ((embeddings - axes.centre.float()) / axes.spread) @ complete
        draws = []
        for _ in range(DRAWS):
            weight = loc + scale * torch.randn(loc.shape, generator=generator)
            bias = found.bias_loc[0] + found.bias_scale[0] * torch.randn(labels, generator=generator)
            draws.append(((x @ weight.T + bias) @ axes.left.float().T).softmax(dim=1))
        made: NDArray[np.float32] = torch.stack(draws, dim=1).numpy()
        return made


def play(data: Data, strategy: str, fold: int, seed: int, *, rounds: int, budget: int) -> dict[str, Any]:
    """Play a game.

    Args:
        data: The clips.
        strategy: One of :data:`STRATEGIES`.
        fold: The fold that is scored and never chosen from.
        seed: Decides the first labels, which all strategies share, and what is random.
        rounds: How often more labels are chosen.
        budget: How many each time.

    Returns:
        The number of labels after each round, and with them the scores of the held-out fold: ``accuracy``, ``recall``
        (the mean over classes) and ``nll``; with the share of ``recordings`` and ``rarest``, of the rarest class, among
        the labels at the end.
    """
    random = np.random.default_rng([seed, fold])
    out, pool = np.flatnonzero(data.fold == fold), data.pool(fold, seed)
    known = np.concatenate([_first(data, pool[data.label[pool] == kind], random) for kind in range(data.labels)])
    target = np.eye(data.labels, dtype=bool)[data.label[out]]
    lines: dict[str, Any] = {"labels": [], "accuracy": [], "recall": [], "nll": []}
    for number in range(rounds + 1):
        learner = Learner.fitted(data, known, seed)
        p = learner.probability(data.embeddings[out])
        right = p.argmax(axis=1) == data.label[out]
        lines["labels"].append(len(known))
        lines["accuracy"].append(accuracy(p, target))
        lines["recall"].append(float(np.mean([right[target[:, kind]].mean() for kind in np.unique(data.label[out])])))
        lines["nll"].append(nll(p, target, Task.ONE_OF_K))
        if number < rounds:
            left = np.setdiff1d(pool, known)
            known = np.concatenate([known, left[_chosen(data, strategy, left, known, learner, budget, random)]])
    counts = np.bincount(data.label[known], minlength=data.labels)
    lines["recordings"] = len(np.unique(data.recording[known]))
    lines["rarest"] = int(counts[np.bincount(data.label[pool], minlength=data.labels).argmin()])
    return lines


def _chosen(
    data: Data,
    strategy: str,
    left: NDArray[np.intp],
    known: NDArray[np.intp],
    learner: Learner,
    budget: int,
    random: np.random.Generator,
) -> NDArray[np.intp]:
    """Which of the clips that are left are labelled next."""
    seed = int(random.integers(1 << 31))
    if strategy == UNIFORM:
        return random.choice(len(left), budget, replace=False)
    needed = AcquireStrategy(strategy) in NEEDS_SCORES
    samples = learner.samples(data.embeddings[left], seed) if needed else None
    candidates = Candidates(
        np.zeros(len(left)) if samples is None else score_clips(samples, Task.ONE_OF_K, strategy),
        data.recording[left],
        Task.ONE_OF_K,
        samples=samples,
        embeddings=data.embeddings[left].numpy(),
        known=data.embeddings[known].numpy(),
        known_recordings=data.recording[known],
    )
    return choose_batch(candidates, strategy, budget, seed=seed).index


def _first(data: Data, clips: NDArray[np.intp], random: np.random.Generator) -> NDArray[np.intp]:
    """The first labels of a class: of different recordings where there are."""
    mixed = random.permutation(clips)
    _, first = np.unique(data.recording[mixed], return_index=True)
    rest = np.setdiff1d(np.arange(len(mixed)), first)
    return mixed[np.concatenate([np.sort(first), rest])[:FIRST]]


def _inner_folds(data: Data, clips: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """An inner fold for each clip: whole recordings, those of a class dealt out in turn."""
    random = np.random.default_rng(seed)
    fold_of = dict[int, int]()
    turn = 0
    for clip in sorted(random.permutation(clips).tolist(), key=lambda each: data.label[each]):
        name = int(data.recording[clip])
        if name not in fold_of:
            fold_of[name] = turn % _INNER_FOLDS
            turn += 1
    return np.array([fold_of[int(name)] for name in data.recording[clips]])
