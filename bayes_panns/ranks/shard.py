"""Which clips of a step's batch this process has, and random numbers that do not depend on how they are shared out.

Every process draws from the same random state. What is drawn once for the batch, such as a weight, is then the same in
all of them. What is drawn for each clip is drawn for the clips of all processes, and each keeps its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """The clips from ``start`` to before ``stop`` of a batch of ``total``, in order."""

    start: int
    stop: int
    total: int

    def __len__(self) -> int:
        return self.stop - self.start

    @classmethod
    def of(cls, rank: int, world: int, total: int) -> "Shard":
        """The share of a process: their sizes differ by one at most, the larger ones first.

        Example:
            >>> [Shard.of(rank, 3, 8) for rank in range(3)]
            [Shard(start=0, stop=3, total=8), Shard(start=3, stop=6, total=8), Shard(start=6, stop=8, total=8)]
        """
        each, more = divmod(total, world)
        start = rank * each + min(rank, more)
        return cls(start, start + each + (rank < more), total)


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
        clips: How many clips this batch has.
    """
    part = shard(clips)
    return draw(part.total)[part.start : part.stop]
