"""Samplers: which clips make up each batch of a fit."""

import math

import numpy as np
import torch
from torch import Tensor

from bayes_panns.core.choices import Sampling
from bayes_panns.core.errors import StoreError

_ROUND, _VISIT, _RUNS = 0, 1, 2
"""Streams of random numbers: one orders the labels of a round, one the clips of a label, one the runs of a pass."""


class Sampler:
    """PANNs' three ways to choose clips (Kong et al., 2020, arXiv:1912.10211, section III.D and their code), and runs.

    ``random`` shows every clip once in each pass. ``balanced`` draws labels in rounds: all of them in random order,
    then all of them in another random order, and so on. For each label drawn it shows the next of the label's clips;
    once all have been shown they are shuffled again. So each label is drawn equally often, a clip of a rare label
    often, and a clip without labels never. ``alternate`` takes a balanced batch, then a random one, and so on.

    ``blocks`` shows every clip once in each pass, in runs of ``block`` clips that are neighbours in the file, which
    a disk reads at once. In each pass the clips, in the order of the file and closed to a ring, are cut into runs from
    a random clip on; the last run may be shorter. The runs follow each other in random order, and batches are cut from
    that, through runs where need be. So, over the random numbers,

    - a clip is equally likely at every place of a pass, and passes are independent;
    - two clips that are d apart on the ring of n clips, d at most n / 2, are in one run, and then d apart in the pass,
      with probability (floor(n / block) max(0, block - d) + max(0, n mod block - d)) / n, which is about 1 - d / block
      for neighbours and 0 from d = ``block`` on;
    - whole runs are in every order equally likely: a batch has about ``batch_size / block`` runs from anywhere, so its
      clips are as varied as those of a batch of that many random places. With ``block = 1`` this is ``random``.

    The mean of a batch's gradient is that of ``random``. Its variance is larger where neighbours are alike, up to
    ``block`` times as large if they are all the same: pack such clips in a random order.

    A batch depends on the seed and its number only, so a fit can resume at any step without a sampler's state. PANNs'
    samplers keep a state.

    Args:
        target: int64 of shape ``(clips,)``, one label each, or of shape ``(clips, K)``, not 0 where a label holds; one
            clip or more.
        batch_size: The most clips in a batch, 1 or more; the sizes of batches differ by one at most, so that the last
            of a pass is not a small one.
        sampling: ``random``, ``blocks``, ``balanced`` or ``alternate``.
        seed: A whole number from 0 up.
        block: For ``blocks``: the clips of a run.
        places: For ``blocks``: where each clip lies, in any unit, shape ``(clips,)``; by default in the order given.

    Attributes:
        batches: Batches a pass. A pass draws as many clips as there are.

    Raises:
        StoreError: There are no clips, or none has a label to balance by.
        ValueError: ``batch_size`` or ``block`` is below 1 or ``sampling`` is unknown.
    """

    def __init__(
        self,
        target: Tensor,
        batch_size: int,
        *,
        sampling: Sampling | str = Sampling.RANDOM,
        seed: int = 0,
        block: int = 8,
        places: np.ndarray | None = None,
    ):
        if batch_size < 1 or block < 1:
            raise ValueError(f"a batch and a run have 1 clip or more, not {min(batch_size, block)}")
        if len(target) == 0:
            raise StoreError("there are no clips to draw batches from; name a store, or folds that hold clips")
        self._clips, self._sampling, self._seed = len(target), Sampling(sampling), seed
        self.batches = math.ceil(self._clips / batch_size)
        self._block, self._ring = block, None if places is None else np.argsort(places, kind="stable")
        once = self._sampling in (Sampling.RANDOM, Sampling.BLOCKS)
        self._members = [] if once else _members(target)
        self._passes: dict[tuple[bool, int], tuple[Tensor, ...]] = {}

    def batch(self, step: int) -> Tensor:
        """The clips of the batch ``step``, counting from 0 over all passes: int64, shape ``(batch,)``."""
        if self._sampling is Sampling.ALTERNATE:
            step, odd = divmod(step, 2)
            balanced = not odd
        else:
            balanced = self._sampling is Sampling.BALANCED
        number, place = divmod(step, self.batches)
        if (balanced, number) not in self._passes:
            once = self._in_runs if self._sampling is Sampling.BLOCKS else self._random
            clips = self._balanced(number) if balanced else once(number)
            # A loader that reads ahead is in the next pass before this one has ended.
            for old in [each for each in self._passes if each[0] == balanced][:-1]:
                del self._passes[old]
            self._passes[balanced, number] = clips.tensor_split(self.batches)
        return self._passes[balanced, number][place]

    def _random(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        return torch.randperm(self._clips, generator=generator)

    def _in_runs(self, number: int) -> Tensor:
        random = np.random.default_rng((self._seed, _RUNS, number))
        first, runs = random.integers(self._clips), math.ceil(self._clips / self._block)
        order = (random.permutation(runs)[:, None] * self._block + np.arange(self._block)).ravel()
        order = (order[order < self._clips] + first) % self._clips
        return torch.from_numpy(order if self._ring is None else self._ring[order])

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
