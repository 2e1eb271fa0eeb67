"""Batches of clips that other processes read ahead."""

import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bayes_panns.clips.reader import Reader
from bayes_panns.core.errors import BayesPannsError, FitError

DEEP = 2
"""How many batches each process reads ahead."""

_DIED = "DataLoader worker"
"""How torch begins to say that a process has died."""

_STAY = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


class Ahead:
    """Reads batches ahead in other processes, in order: a context manager and an iterator.

    A thin layer over :class:`torch.utils.data.DataLoader`. The processes are started anew (``spawn``), open each file
    once, leave signals to this process, which ends them, and end when it dies. Batches come through shared memory:
    about ``workers * DEEP`` of them are there at a time. Torch's random state is not touched.

    Args:
        reader: What reads them; it is sent to the processes.
        batches: The numbers of the clips of each batch, int64 ``(n,)``. They are taken as they are needed, ``workers *
            DEEP`` ahead.
        workers: How many processes, 1 or more.
        pinned: Whether the batches come in pinned memory, for a GPU.

    Raises:
        BayesPannsError: What is wrong with a store, as in this process.
        FitError: A process has ended before its time.
    """

    def __init__(self, reader: Reader, batches: Iterable[Tensor], *, workers: int, pinned: bool = False) -> None:
        before = set(multiprocessing.active_children())
        with warnings.catch_warnings():
            # More processes than cores are of use where they wait for a disk.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            loader = DataLoader(
                _Batches(reader),
                batch_size=None,
                # A batch as a NumPy array: torch would send a tensor as a file.
                sampler=_Numbers(batches),
                num_workers=workers,
                collate_fn=_as_it_is,
                pin_memory=pinned,
                prefetch_factor=DEEP,
                worker_init_fn=_settle,
                multiprocessing_context="spawn",
                # By default each iterator would move the global random state.
                generator=torch.Generator(),
            )
            self._found: Iterator[Tensor | Exception] | None = iter(loader)
        self._processes = set(multiprocessing.active_children()) - before

    @property
    def processes(self) -> tuple[int, ...]:
        """Their process numbers."""
        return tuple(each.pid for each in self._processes if each.pid is not None)

    def __enter__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        if self._found is None:
            raise StopIteration
        found = next(self._found)
        if isinstance(found, Exception):
            raise found
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        # Torch raises it wherever this process happens to be.
        if isinstance(error, RuntimeError) and str(error).startswith(_DIED):
            raise FitError(
                "a process that reads clips ahead has ended, perhaps killed for lack of memory or of room in /dev/shm; "
                "go on with --resume, and fewer --workers"
            ) from error

    def _end(self) -> None:
        """End the processes; they finish what they read."""
        self._found = None
        for process in self._processes:
            # They do not hear SIGTERM.
            if process.is_alive():
                process.kill()
            process.join()


class _Numbers:
    """What torch calls a sampler: the numbers of each batch, once."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[np.ndarray]:
        return (index.numpy() for index in self._batches)


class _Batches(Dataset[Tensor | Exception]):
    """A batch by the numbers of its clips; or the error, which torch would wrap in a trace of the other process."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __getitem__(self, index: np.ndarray) -> Tensor | Exception:
        reader = self._reader
        shape = (len(index), *reader.shape)
        try:
            # Read into the memory that is shared, and not copied there.
            room = torch.UntypedStorage._new_shared(int(np.prod(shape)) * reader.dtype.itemsize)
            found = torch.empty(0, dtype=reader.dtype).set_(room, 0, shape)  # type: ignore[call-overload]
            return reader.read(index, found)
        except (BayesPannsError, OSError, MemoryError) as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


def _settle(worker: int) -> None:
    """Begin the life of a process that reads: leave signals to the first one, and end with it."""
    for name in _STAY:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    # What there is to warn of, the first process has said.
    logging.getLogger("bayes_panns").addHandler(logging.NullHandler())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
