"""Likelihoods: the distribution of a clip's labels, given its logits."""

from typing import Any, Protocol

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F

from bayes_panns.core.choices import Task
from bayes_panns.ranks import per_clip, shard


class ExpectedCategorical(dist.TorchDistribution):
    """A categorical distribution that also takes soft targets.

    ``log_prob`` of a soft target q is the expected log-likelihood, sum_k q_k log p_k; of a one-hot target it is that of
    ``Categorical``. A draw is one-hot.

    Args:
        logits: shape ``(..., K)``; the event is the last dimension.
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012 (torch's own convention)
    support = constraints.simplex

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits = logits.log_softmax(dim=-1)
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "ExpectedCategorical":
        """The same distribution with a larger batch shape."""
        logits = self.logits.expand(torch.Size(batch_shape) + self.event_shape)
        return ExpectedCategorical(logits, validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """One-hot draws, shape ``sample_shape + (..., K)``."""
        index = torch.distributions.Categorical(logits=self.logits).sample(sample_shape)
        return F.one_hot(index, self.event_shape[0]).to(self.logits)

    def log_prob(self, value: Tensor) -> Tensor:
        """Expected log-likelihood in nats, shape ``(...)``, of targets of shape ``(..., K)``."""
        if self._validate_args:
            self._validate_sample(value)
        return (value * self.logits).sum(dim=-1)


class Likelihood(Protocol):
    """A likelihood: the labels' distribution, and the probabilities that a prediction reports."""

    task: Task

    def __call__(self, logits: Tensor, target: Tensor | None = None) -> dist.TorchDistribution:
        """The distribution of the labels, ``batch_shape (batch,)``, which must accept ``target`` as an observation."""

    def probability(self, logits: Tensor) -> Tensor:
        """Probabilities of the labels, shape of ``logits``: ``(batch, K)``."""


class OneOfK:
    """One of K labels.

    A target is an index, int64 ``(batch,)``, under ``Categorical``; or a float ``(batch, K)`` of soft labels, as mixup
    makes them, under :class:`ExpectedCategorical`.
    """

    task = Task.ONE_OF_K

    def __call__(self, logits: Tensor, target: Tensor | None = None) -> dist.TorchDistribution:
        """``Categorical``, or for a soft target :class:`ExpectedCategorical`; ``batch_shape (batch,)``."""
        if target is not None and target.is_floating_point():
            return ExpectedCategorical(logits)
        return dist.Categorical(logits=logits)

    def probability(self, logits: Tensor) -> Tensor:
        """The softmax, shape ``(batch, K)``."""
        return logits.softmax(dim=-1)


class MultiLabel:
    """Any of K labels, independent given the logits.

    A target is a float ``(batch, K)`` in [0, 1]. A soft target gives the expected log-likelihood, which for a Bernoulli
    is the same formula.
    """

    task = Task.MULTI_LABEL

    def __call__(self, logits: Tensor, target: Tensor | None = None) -> dist.TorchDistribution:
        """Independent ``Bernoulli``; ``batch_shape (batch,)``, ``event_shape (K,)``."""
        # Validation off: torch's support check would refuse soft targets.
        return dist.Bernoulli(logits=logits, validate_args=False).to_event(1)

    def probability(self, logits: Tensor) -> Tensor:
        """The sigmoid, shape ``(batch, K)``."""
        return logits.sigmoid()


@torch.no_grad()
def drawn_labels(labels: dist.TorchDistribution) -> Tensor:
    """Labels of each clip of a batch, drawn; the same in any sharing out of the step's clips over processes.

    The numbers are those of ``labels.sample()``.

    Args:
        labels: What a likelihood returned, ``batch_shape (batch,)``.

    Raises:
        ValueError: The batch is a part of a step's, and the distribution is none of this package's likelihoods.
    """
    each = labels.base_dist if isinstance(labels, dist.Independent) else labels
    if not isinstance(each, dist.Bernoulli | dist.Categorical | ExpectedCategorical):
        if len(part := shard(clips := labels.batch_shape[0])) < part.total:
            raise ValueError(f"labels of a {type(each).__name__} cannot be drawn for {clips} of a step's clips")
        return labels.sample()
    if isinstance(each, dist.Bernoulli):
        probability = each.probs
        return (_uniform(probability) < probability).to(probability)
    probability = each.logits.softmax(dim=-1)
    # The label whose exponential clock, of a rate of its probability, rings first, as torch.multinomial draws it.
    index = (probability / _exponential(probability)).argmax(dim=-1)
    return F.one_hot(index, probability.shape[1]).to(probability) if isinstance(each, ExpectedCategorical) else index


def _uniform(like: Tensor) -> Tensor:
    return per_clip(lambda clips: like.new_empty(clips, *like.shape[1:]).uniform_(), len(like))


def _exponential(like: Tensor) -> Tensor:
    return per_clip(lambda clips: like.new_empty(clips, *like.shape[1:]).exponential_(), len(like))


LIKELIHOODS: dict[Task, Likelihood] = {Task.ONE_OF_K: OneOfK(), Task.MULTI_LABEL: MultiLabel()}
"""The likelihood of each task."""
