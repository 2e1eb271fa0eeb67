"""The processes that a launcher has started together, and what they tell each other."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bayes_panns.core.errors import ProcessError, reason
from bayes_panns.core.launch import Launch, launch

_Value = TypeVar("_Value")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others in one exchange. One that has ended is noticed at once.

Only a host that is silent, such as one without power, takes so long to be missed. Shorter would be wrong: before the
first step each process reads and keeps all clips (``features = "memory"``), and hosts differ in that by many minutes;
in a step the first one may wait for its last checkpoint to be written to a slow disk. What the first one does alone,
for however long, is not an exchange: see :meth:`Group.first_ahead`.
"""

_POLL = 0.05
"""Seconds between two looks at what the first process has done."""

_LET_GO = 0.1
"""Seconds that threads have to let go of what was exchanged last."""

_GRACE = timedelta(seconds=3)
"""How long a process that failed waits to hear whether the first one failed alike."""


class Group:
    """The processes of one job. A process that was started by itself is a group of one, and nothing is sent.

    Values that are no tensors are sent by pickle, among processes of one job only.

    Args:
        here: Which of them this one is.

    Raises:
        ProcessError: The others cannot be reached.
    """

    def __init__(self, here: Launch):
        self.rank, self.size, self.local_rank = here.rank, here.world, here.local_rank
        self.first = here.first
        self._told = 0
        if self.size == 1 or dist.is_initialized():
            return
        # Numbers and files go over gloo, gradients that are on a GPU over NCCL.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        try:
            store = dist.PrefixStore("group", _meeting_place())
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        except (RuntimeError, ValueError, OSError) as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise ProcessError(
                f"process {self.rank} of {self.size} cannot meet the others at {where}: {error}"
            ) from error

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

    def rows(self, values: Tensor, start: int, total: int) -> Tensor:
        """The rows of all processes, in order, in all of them.

        Args:
            values: This one's rows.
            start: The number of its first row.
            total: How many there are in all.
        """
        if self.size == 1:
            return values
        whole = values.new_zeros(total, *values.shape[1:])
        whole[start : start + len(values)] = values
        return self.total(whole)

    def equal(self, values: Tensor) -> Tensor:
        """Whether each element of a tensor is the same in all processes: bool, of its shape."""
        if self.size == 1:
            return torch.ones_like(values, dtype=torch.bool)
        least, most = values.clone(), values.clone()
        dist.all_reduce(least, dist.ReduceOp.MIN)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return least == most

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

    @contextmanager
    def first_ahead(self) -> Iterator[None]:
        """A block that the first process goes through alone; the others follow when it is done, however long it takes.

        Raises:
            ProcessError: The first process failed there; in the others, with what it said.
        """
        self._told += 1
        key, store = f"ahead/{self._told}", None if self.size == 1 else _meeting_place()
        if store is None:
            yield
        elif self.first:
            said = "another error"
            try:
                yield
                said = ""
            except BaseException as error:
                said = reason(error) or repr(error)
                raise
            finally:
                store.set(key, said)
        else:
            while not store.check([key]):
                time.sleep(_POLL)
            said = store.get(key).decode()
            if said:
                raise ProcessError(said)
            yield

    def only_first(self, work: Callable[[], object]) -> None:
        """Do ``work`` in the first process; the others wait for it.

        Raises:
            ProcessError: It failed; in the others, with what the first one said.
        """
        with self.first_ahead():
            if self.first:
                work()


def leave() -> None:
    """Leave the group, at the end of the job, if it was joined."""
    if dist.is_initialized():
        # A thread of gloo lets go of the last tensor a little after all have it, and waits for the interpreter to do
        # so. If that ends first, the thread aborts the process.
        time.sleep(_LET_GO)
        dist.destroy_process_group()


def speaks(message: str, *, lost: bool = False) -> bool:
    """Whether this process is the one that says an error: once, if several fail alike.

    Args:
        message: The error.
        lost: Whether it says no more than that another process has ended.
    """
    here = launch()
    if here.world == 1:
        return True
    try:
        store = _meeting_place()
        if here.first:
            store.set("failed", message)
            return True
        try:
            store.wait(["failed"], _GRACE)
        except RuntimeError:
            # The first process has not failed, or cannot say so any more.
            return store.add("lost", 1) == 1 if lost else True
        return not lost and store.get("failed").decode() != message
    except (RuntimeError, OSError):
        # The launcher has ended.
        return True


@cache
def _meeting_place() -> dist.Store:
    """Where processes leave short notes for each other: what the launcher keeps for them."""
    store, *_ = next(dist.rendezvous("env://", timeout=PATIENCE))
    return store


def lost(error: BaseException) -> bool:
    """Whether an error says that another process of the group cannot be reached any more."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(each in str(error) for each in ("gloo", "onnection closed by peer"))
    )


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
