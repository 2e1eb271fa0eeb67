"""Dropout of parts of a step's clips: each has masks of its own, and the random state that they share stays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bayes_panns.ranks.shard import generator_of, shard

_DROPOUT = 1
"""The stream of random numbers of dropout among those of a seed and a step."""


@contextmanager
def own_dropout(module: nn.Module, seed: int, *, own: bool) -> Iterator[Callable[[int], None]]:
    """A block in which dropouts draw their masks from generators that are seeded by (seed, step, first clip's place).

    Otherwise, as in one process, they draw from torch's random state.

    Args:
        module: The network.
        seed: The seed of the fit.
        own: Whether to.

    Yields:
        A function that must be called with the number of each step before it.
    """
    dropouts = [each for each in module.modules() if isinstance(each, nn.Dropout)]
    if not own or not dropouts:
        yield lambda step: None
        return
    generators: dict[int, torch.Generator] = {}
    now = 0

    def generator(values: Tensor) -> torch.Generator:
        start = shard(len(values)).start
        if start not in generators:
            generators[start] = generator_of(seed, now, start, _DROPOUT, device=values.device)
        return generators[start]

    def start(step: int) -> None:
        nonlocal now
        now = step
        generators.clear()

    def masked(dropout: nn.Dropout, values: Tensor) -> Tensor:
        if not dropout.training or dropout.p == 0:
            return values
        kept = torch.rand(values.shape, generator=generator(values), device=values.device) >= dropout.p
        return values * kept / (1 - dropout.p)

    for each in dropouts:
        each.forward = _bound(masked, each)  # type: ignore[method-assign,assignment]
    try:
        yield start
    finally:
        for each in dropouts:
            del each.forward


def _bound(masked: Callable[[nn.Dropout, Tensor], Tensor], dropout: nn.Dropout) -> Callable[[Tensor], Tensor]:
    return lambda input: masked(dropout, input)
