"""Samplers: which clips make up each batch of a fit."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bayes_panns.core.errors import StoreError

_ROUND, _VISIT = 0, 1
"""What a stream of random numbers is for: the order of labels in a round, of clips in a label."""


class Sampler:
    """PANNs' three ways to choose clips (Kong et al., 2020, arXiv:1912.10211, section III.D and their code).

    ``random`` shows every clip once in each pass. ``balanced`` draws labels: all of them in random order, then all of
    them in another order, and so on; and for each label drawn the next of its clips, in a random order that is new
    whenever they all have been shown. So each label is drawn equally often, a clip of a rare label often, and a clip
    without labels never. ``alternate`` takes a balanced batch, then a random one, and so on.

    A batch is a function of the seed and its number and of nothing else: a fit can go on from any step without a
    sampler's state. PANNs' samplers keep theirs.

    Args:
        target: int64 of shape ``(clips,)``, one label each, or of shape ``(clips, K)``, not 0 where a label holds.
        batch_size: Clips a batch; batches differ by one at most, so that the last of a pass is not a small one.
        sampling: How.
        seed: A whole number from 0 up.

    Attributes:
        batches: Batches a pass: as many as show as many clips as there are.

    Raises:
        StoreError: No clip has a label to balance by.
    """

    def __init__(
        self,
        target: Tensor,
        batch_size: int,
        *,
        sampling: Literal["random", "balanced", "alternate"] = "random",
        seed: int = 0,
    ):
        self._clips, self._sampling, self._seed = len(target), sampling, seed
        self.batches = math.ceil(self._clips / batch_size)
        self._members = [] if sampling == "random" else _members(target)
        self._passes: dict[bool, tuple[int, tuple[Tensor, ...]]] = {}

    def batch(self, step: int) -> Tensor:
        """The clips of the batch ``step``, counting from 0 over all passes: int64, shape ``(batch,)``."""
        if self._sampling == "alternate":
            step, odd = divmod(step, 2)
            balanced = not odd
        else:
            balanced = self._sampling == "balanced"
        number, place = divmod(step, self.batches)
        kept = self._passes.get(balanced)
        if kept is None or kept[0] != number:
            clips = self._balanced(number) if balanced else self._random(number)
            kept = self._passes[balanced] = (number, clips.tensor_split(self.batches))
        return kept[1][place]

    def _random(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        return torch.randperm(self._clips, generator=generator)

    def _balanced(self, number: int) -> Tensor:
        """The draws of pass ``number``. A round draws each label once, so a label's visits before round r are r."""
        labels = len(self._members)
        rounds, place = np.divmod(np.arange(number * self._clips, (number + 1) * self._clips), labels)
        first, end = int(rounds[0]), int(rounds[-1]) + 1
        order = np.stack([self._shuffled(labels, _ROUND, each) for each in range(first, end)])
        shown = np.stack([self._shown(label, first, end) for label in range(labels)])
        return torch.from_numpy(shown[order[rounds - first, place], rounds - first])

    def _shown(self, label: int, first: int, end: int) -> np.ndarray:
        """The clips that the visits ``first`` to ``end - 1`` to a label show."""
        members = self._members[label]
        begin = first // len(members)
        orders = [
            self._shuffled(len(members), _VISIT, label, each) for each in range(begin, (end - 1) // len(members) + 1)
        ]
        return members[np.concatenate(orders)[first - begin * len(members) : end - begin * len(members)]]

    def _shuffled(self, count: int, *purpose: int) -> np.ndarray:
        return np.random.default_rng((self._seed, *purpose)).permutation(count)


def _members(target: Tensor) -> list[np.ndarray]:
    """The clips of each label that has any, int64."""
    if target.dim() == 1:
        clip, label = torch.arange(len(target)), target
    else:
        clip, label = target.nonzero(as_tuple=True)
    if len(clip) == 0:
        raise StoreError('no clip has a label to balance by; set fit.sampling = "random"')
    members = clip[label.argsort(stable=True)].split(label.bincount().tolist())
    return [each.numpy() for each in members if len(each)]
