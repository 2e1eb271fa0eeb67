"""Which clips of a step's batch this process has, and random numbers that do not depend on how they are shared out.

Every process draws from the same random state. What is drawn once for the batch, such as a weight, is then the same in
all of them. What is drawn for each clip is drawn for the clips of all processes, and each keeps its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """The clips from ``start`` to before ``stop`` of a batch of ``total``, in order.

    Attributes:
        start: The first clip's place in the batch.
        stop: The place after the last clip's.
        total: How many clips the batch has.
        partners: Places of clips of other processes, which come behind its own until mixup has mixed them in.
    """

    start: int
    stop: int
    total: int
    partners: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> Tensor:
        """The places in the batch of its own clips, then of the partners: int64."""
        return torch.cat([torch.arange(self.start, self.stop), torch.tensor(self.partners, dtype=torch.int64)])

    @classmethod
    def of(cls, rank: int, world: int, total: int) -> "Shard":
        """The share of a process: their sizes differ by one at most, the larger ones first.

        Example:
            >>> [(each.start, each.stop) for each in (Shard.of(rank, 3, 8) for rank in range(3))]
            [(0, 3), (3, 6), (6, 8)]
        """
        each, more = divmod(total, world)
        start = rank * each + min(rank, more)
        return cls(start, start + each + (rank < more), total)


def generator_of(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is seeded by whole numbers from 0 up, such as the seed of a fit and a step."""
    (state,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state) >> 1)


_shard: ContextVar[Shard | None] = ContextVar("shard", default=None)


@contextmanager
def sharded(shard: Shard) -> Iterator[None]:
    """A block in which the batch is only a part of a step's."""
    token = _shard.set(shard)
    try:
        yield
    finally:
        _shard.reset(token)


def shard(clips: int) -> Shard:
    """The part of a step's batch that a batch of ``clips`` is: all of it, outside :func:`sharded`."""
    return _shard.get() or Shard(0, clips, clips)


def per_clip(draw: Callable[[int], Tensor], clips: int) -> Tensor:
    """Random numbers for the clips of a batch: drawn for the whole step's, so that they are the same in any sharing.

    Args:
        draw: Draws for a number of clips; its result has clips as its first dimension.
        clips: How many clips this batch has: those of the shard, with its partners or without.

    Raises:
        ValueError: It has another number.
    """
    part = shard(clips)
    drawn = draw(part.total)
    if clips == len(part):
        return drawn[part.start : part.stop]
    if clips == len(part) + len(part.partners):
        return drawn[part.rows.to(drawn.device)]
    raise ValueError(f"a batch of {clips} is not the {len(part)} clips of this process")
