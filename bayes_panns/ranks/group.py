"""The processes that a launcher has started together, and what they tell each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bayes_panns.core.launch import Launch, launch

_Value = TypeVar("_Value")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others, such as for the one that writes."""


class Group:
    """The processes of one job. A process that was started by itself is a group of one, and nothing is sent.

    Values that are no tensors are sent by pickle, among processes of one job only.

    Args:
        here: Which of them this one is.
    """

    def __init__(self, here: Launch):
        self.rank, self.size, self.local_rank = here.rank, here.world, here.local_rank
        self.first = here.first
        if self.size > 1 and not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
            dist.init_process_group(backend, timeout=PATIENCE)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, whether it is set in any process. All must ask."""
        if self.size == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(bool(each) for each in found)

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in all of them; ``values`` themselves are overwritten."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gathered(self, value: _Value) -> list[_Value]:
        """The values of all processes, by rank, in all of them."""
        if self.size == 1:
            return [value]
        found: list[_Value] = [value] * self.size
        dist.all_gather_object(found, value)
        return found

    def from_first(self, value: _Value) -> _Value:
        """The value that the first process has; in the others ``value`` is ignored."""
        if self.size == 1:
            return value
        found = [value]
        dist.broadcast_object_list(found, src=0)
        return found[0]

    def wait(self) -> None:
        """Wait until all processes have come this far."""
        if self.size > 1:
            # A barrier of its own would choose a device.
            self.any(True)


_apart = 0
"""How many blocks of :func:`alone` are open, in all threads."""


@contextmanager
def alone() -> Iterator[None]:
    """A block of work that this process does by itself: :func:`group` is then a group of one, in every thread."""
    global _apart
    _apart += 1
    try:
        yield
    finally:
        _apart -= 1


def group() -> Group:
    """The group of this process, which is joined at the first call; a group of one within :func:`alone`."""
    return Group(Launch(local_rank=launch().local_rank)) if _apart else joined()


@cache
def joined() -> Group:
    """The group that the launcher has started."""
    return Group(launch())
