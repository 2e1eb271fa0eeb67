"""How a fit gets its batches: read when they are needed, or ahead by other processes."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from bayes_panns.clips.ahead import Ahead, Planned
from bayes_panns.clips.reader import Reader
from bayes_panns.core import choices
from bayes_panns.core.launch import launch
from bayes_panns.svi.features import Features
from bayes_panns.svi.settings import Running

_MOST = 4
"""The most processes that read ahead by default."""

_NOTED = 0.1
"""A fit that waits longer for its clips than this part of its time says so."""


class Inputs(Protocol):
    """Clips by index, such as :class:`~bayes_panns.svi.Features`."""

    @property
    def embedded(self) -> bool:
        """Whether they are embeddings, for the last layer."""

    @property
    def reader(self) -> Reader | None:
        """Reads the inputs in other processes; None where they are in this one's memory."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor, device: torch.device | str) -> tuple[Tensor, Any]:
        """What the model takes of the clips at ``index``, and their targets."""


class Loader:
    """Batches of clips, in the order in which they are taken.

    A context manager. The same batches come whether they are read ahead or not. Waiting is timed.

    Args:
        sets: The sets of clips.
        device: Where the batches go.
        plan: The batches to come, of whichever set: the number of the set, and its clips, int64 ``(batch,)``.
        workers: How many processes read them ahead; with 0 they are read when they are asked for.

    Attributes:
        workers: How many processes read ahead; 0 where the inputs are in memory.

    Raises:
        BayesPannsError: What is wrong with a store.
        FitError: A process was killed.
    """

    def __init__(
        self, sets: Sequence[Inputs], device: torch.device | str, plan: Iterable[Planned] = (), workers: int = 0
    ) -> None:
        self._sets, self._device = sets, torch.device(device)
        self._plan = plan
        self._readers = [each.reader for each in sets if each.reader is not None]
        # Sets of one fit are kept alike.
        self.workers = workers if len(self._readers) == len(sets) else 0
        self._ahead: Ahead | None = None
        self._planned = deque[Planned]()
        self._exits = ExitStack()
        self._waited, self._since, self._told = 0.0, 0.0, not self._readers

    def __enter__(self) -> Self:
        if self.workers:
            pinned = self._device.type == "cuda"
            ahead = Ahead(self._readers, self._noted(), workers=self.workers, pinned=pinned)
            self._ahead = self._exits.enter_context(ahead)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead = None
        self._exits.__exit__(kind, error, trace)

    def _noted(self) -> Iterator[Planned]:
        """The plan, and a note of what has been asked for."""
        for planned in self._plan:
            self._planned.append(planned)
            yield planned

    def batch(self, index: Tensor, *, of: int = 0) -> tuple[Tensor, Any]:
        """The clips at ``index``, as the set's ``batch`` gives them.

        Args:
            index: int64 ``(n,)``: the next clips of the plan, or some of them. Others are read now.
            of: The number of the set.
        """
        started = time.monotonic()
        values, data = self._taken(index, of), self._sets[of]
        if values is None:
            found = data.batch(index, self._device)
        else:
            assert isinstance(data, Features), "others are in memory"
            found = data.with_targets(values, index, self._device)
        if self._since:
            self._waited += time.monotonic() - started
        else:
            # Until the first batch is there, processes start and pages are read that later ones share.
            self._since = time.monotonic()
        return found

    def _taken(self, index: Tensor, of: int) -> Tensor | None:
        """The inputs of clips, if they are of the batch that is read ahead next."""
        if self._ahead is None or not self._planned or self._planned[0][0] != of:
            return None
        place = _within(self._planned[0][1], index)
        if place is None:
            return None
        values = next(self._ahead)
        self._planned.popleft()
        return values if isinstance(place, slice) else values[place]

    def waiting(self) -> str | None:
        """What to do if the fit has waited for its clips since it was last asked; said once."""
        since, waited = self._since, self._waited
        self._since = self._waited = 0.0
        if not since or self._told:
            return None
        share = waited / max(time.monotonic() - since, 1e-9)
        if share <= _NOTED:
            return None
        self._told = True
        spare = _cores() - self.workers
        advice = f"read ahead by more processes (--workers {self.workers + max(1, min(2, spare))}, now {self.workers})"
        if spare < 1:
            advice = 'keep log-mels on disk (fit.features = "disk"), which are a fraction of the work'
        return (
            f"{100 * share:.0f} % of the time was spent waiting for clips: {advice}, or read clips that lie together "
            '(fit.sampling = "blocks"); see docs/loading.md'
        )


@contextmanager
def one_pass(
    data: Inputs, batches: Sequence[Tensor], device: torch.device | str, *, workers: int = 0
) -> Iterator[Iterator[tuple[Tensor, Any]]]:
    """A block with batches of one set of clips, which are read ahead meanwhile.

    Args:
        data: The clips.
        batches: The clips of each batch, int64 ``(n,)``.
        device: Where the batches go.
        workers: As for :class:`Loader`.

    Yields:
        What ``data.batch`` gives for each batch, in order.
    """
    with Loader([data], device, ((0, index) for index in batches), workers) as loader:
        yield (loader.batch(index) for index in batches)


def default_workers(features: choices.Features | str, device: torch.device) -> int:
    """How many processes read ahead if nobody says.

    Waveforms are read by up to 4 processes, one less than there are cores for each process of the fit; log-mels on disk
    too, for a GPU. Otherwise the fit reads by itself.
    """
    read = features == choices.Features.NONE or (features == choices.Features.DISK and device.type != "cpu")
    return max(0, min(_MOST, _cores() - 1)) if read else 0


def workers_for(running: Running | None, features: choices.Features | str, device: torch.device) -> int:
    """How many processes read ahead for each pass over the clips of a fit, if they are not in memory.

    Args:
        running: How the fit runs; by default without any.
        features: What a step starts from.
        device: Where the fit computes.
    """
    chosen = (running or Running()).workers
    return default_workers(features, device) if chosen is None else chosen


def _cores() -> int:
    """The cores for each process of a job on this host."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return allowed // launch().local_world


def _within(planned: Tensor, index: Tensor) -> Tensor | slice | None:
    """Where the clips ``index`` are in a batch that was planned; None if one is not."""
    if torch.equal(planned, index):
        return slice(None)
    order = np.argsort(planned.numpy(), kind="stable")
    ascending = planned.numpy()[order]
    place = np.searchsorted(ascending, index.numpy()).clip(max=len(ascending) - 1)
    found = torch.from_numpy(order[place])
    return found if torch.equal(planned[found], index) else None
