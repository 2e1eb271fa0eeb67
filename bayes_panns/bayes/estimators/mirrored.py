"""Mirrored draws: half the batch sees ``loc + noise``, the other half ``loc - noise``."""

from collections.abc import Callable

import torch
from torch import Tensor

from bayes_panns.bayes.estimators.draw_and_kl import copy_gradient
from bayes_panns.bayes.estimators.lazy_weight import LazyWeight, along_channels
from bayes_panns.ranks import shard


class MirroredWeight(LazyWeight):
    """Half the batch sees loc + noise, the other half loc - noise: odd functions of the noise cancel between them.

    It costs about one layer, since each half goes through once. A batch of one sees loc + noise.
    """

    form = "mirrored"

    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """Two layers, each of half the batch."""
        half = _first_half(len(inputs))
        # Slices would each make a gradient of the whole batch.
        halves = zip(inputs.split([half, len(inputs) - half]), self.drawn, strict=True)
        return torch.cat([layer(clips, weight, None, *options, **keywords) for clips, weight in halves if len(clips)])

    def added(self, output: Tensor, dim: int) -> Tensor:
        """The mean, and the noise with the sign of the clip's half."""
        half = _first_half(len(output))
        first, second = (along_channels(copy_gradient(part), output, dim) for part in self.drawn)
        return torch.cat([output[:half] + first, output[half:] + second])


def _first_half(clips: int) -> int:
    """How many clips of a batch are in the first half of its step's clips."""
    part = shard(clips)
    return min(max((part.total + 1) // 2 - part.start, 0), clips)
