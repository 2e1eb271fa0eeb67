"""Scores of held-out clips while a fit runs."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bayes_panns.bayes import BayesianNet, logits_under, mean_weights
from bayes_panns.core.choices import Task
from bayes_panns.devices import forked
from bayes_panns.metrics import accuracy, mean_average_precision, nll
from bayes_panns.ranks import Shard, group
from bayes_panns.svi.embeddings import Embeddings
from bayes_panns.svi.features import Features, as_observed


def own_batches(clips: int, batch_size: int) -> tuple[Tensor, ...]:
    """The batches of held-out clips that this process scores, in order: int64 ``(n,)`` each.

    Args:
        clips: How many clips there are.
        batch_size: Clips a pass.
    """
    several = group()
    part = Shard.of(several.rank, several.size, clips)
    return torch.arange(part.start, part.stop).split(batch_size)


@torch.no_grad()
def validate(
    model: BayesianNet,
    guide: nn.Module,
    data: Features | Embeddings,
    *,
    batch_size: int,
    device: torch.device,
    read: Callable[[Tensor], tuple[Tensor, Tensor]],
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Score clips at the posterior mean; the model is left in eval mode, and torch's random states as they were.

    Several processes take a share of the clips each, and all get the scores of all clips.

    Args:
        model: The model.
        guide: A Pyro guide with ``median()``.
        data: The clips.
        batch_size: Clips a pass.
        device: Where the model is.
        read: Reads the batches of :func:`own_batches`, in order, as ``data.batch`` does.
        stopped: Whether to give up. All processes ask as often, and must get the same answer.

    Returns:
        ``val/nll`` in nats a clip, and ``val/accuracy`` for one-of-K or ``val/map``, the mean average precision over
        the labels that some clip has, for multi-label. Without such a label there is no ``val/map``. None if it was
        given up.
    """
    model.eval()
    model.drop(False)
    several, logits = group(), []
    part = Shard.of(several.rank, several.size, len(data))
    batches = own_batches(len(data), batch_size)
    # The first process has as many as any.
    most = -(-len(Shard.of(0, several.size, len(data))) // batch_size)
    with forked(device):
        weights = mean_weights(guide, data.batch(torch.arange(1), device)[0])
        for number in range(most):
            if stopped():
                return None
            if number < len(batches):
                clips, _ = read(batches[number])
                logits.append(logits_under(model, weights, clips, embedded=data.embedded).cpu())
    # Of fewer clips than processes one has none; the labels say how wide its rows are.
    own = torch.cat(logits) if logits else torch.zeros(0, len(data.clips.labels))
    score, truth = several.rows(own, part.start, part.total), as_observed(data.target)
    found = {"val/nll": -model.likelihood(score, truth).log_prob(truth).mean().item()}
    if model.likelihood.task is Task.ONE_OF_K:
        return found | {"val/accuracy": (score.argmax(dim=1) == truth).float().mean().item()}
    present = truth.any(dim=0).numpy()
    if not present.any():
        return found
    # Slow to import, and a prediction needs none.
    from sklearn.metrics import average_precision_score

    precision = average_precision_score(truth.numpy()[:, present], score.numpy()[:, present], average="macro")
    return found | {"val/map": float(precision)}


def held_out_scores(probability: NDArray[np.float64], target: NDArray, task: Task) -> dict[str, float]:
    """The scores of :func:`validate` for predicted probabilities.

    Args:
        probability: ``(N, K)``.
        target: Label indices ``(N,)`` for one-of-K, ``(N, K)`` for multi-label.
        task: What the labels mean.
    """
    hot = target > 0.5 if target.ndim == 2 else np.eye(probability.shape[1], dtype=bool)[target]
    found = {"val/nll": nll(probability, hot, task)}
    if task is Task.ONE_OF_K:
        return found | {"val/accuracy": accuracy(probability, hot)}
    present = hot.any(axis=0)
    return found | ({"val/map": mean_average_precision(probability, hot)} if present.any() else {})
