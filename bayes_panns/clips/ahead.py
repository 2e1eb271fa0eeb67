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
from bayes_panns.clips.shared import shared
from bayes_panns.core.errors import BayesPannsError, FitError

logger = logging.getLogger(__name__)

DEEP = 2
"""How many batches each process reads ahead."""

_DIED = "DataLoader worker"
"""How torch begins to say that a process has died."""

_STAY = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


class Ahead:
    """Reads batches ahead in other processes, in order: a context manager and an iterator.

    A thin layer over :class:`torch.utils.data.DataLoader`. The processes are started anew (``spawn``), open each file
    once, leave signals to this process, which ends them, and end when it dies. Batches come through shared memory:
    about ``workers * DEEP`` of them are there at a time; where it has no room for one, that one is copied. Torch's
    random state is not touched.

    Args:
        reader: What reads them; it is sent to the processes.
        batches: The numbers of the clips of each batch, int64 ``(n,)``. They are taken as they are needed, ``workers *
            DEEP`` ahead.
        workers: How many processes, 1 or more.
        pinned: Whether the batches come in pinned memory, for a GPU.

    Raises:
        BayesPannsError: What is wrong with a store, as in this process.
        FitError: Processes cannot be started, or one has ended before its time.
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
            try:
                self._found: Any = iter(loader)
            except OSError as error:
                raise FitError(
                    f"processes that read clips ahead cannot be started ({error.strerror or error}); set fewer "
                    "--workers, or 0"
                ) from error
        self._processes = set(multiprocessing.active_children()) - before
        self._cramped = False

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
        if isinstance(found, np.ndarray):
            if not self._cramped:
                self._cramped = True
                logger.warning(
                    "/dev/shm has no room for batches that are read ahead, so they are copied, which is slower; "
                    "give it more (docker run --shm-size 8g)"
                )
            return torch.from_numpy(found)
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        codes = [each.exitcode for each in self._processes if each.exitcode]
        self._end()
        # Torch raises it wherever this process happens to be, so it may be in the words of another error.
        if _is_of_a_death(error):
            how = f" {_told(codes[0])}" if codes else ""
            raise FitError(
                f"a process that reads clips ahead has ended{how}, perhaps for lack of memory; go on with --resume, "
                "and fewer --workers"
            ) from error

    def _end(self) -> None:
        """End the processes; they finish what they read."""
        found, self._found = self._found, None
        try:
            # An interrupt within it leaves a trace that keeps it alive.
            if found is not None:
                found._shutdown_workers()
        except RuntimeError as error:
            # One that dies now has done its work.
            if not _is_of_a_death(error):
                raise
        finally:
            for process in self._processes:
                # They do not hear SIGTERM.
                if process.is_alive():
                    process.kill()
                process.join()


def _is_of_a_death(error: BaseException | None) -> bool:
    """Whether torch has said that a process has died, and this error is that or comes of it."""
    while error is not None:
        if isinstance(error, RuntimeError) and str(error).startswith(_DIED):
            return True
        error = error.__cause__ or error.__context__
    return False


def _told(code: int) -> str:
    """An exit code in words."""
    if code > 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


class _Numbers:
    """What torch calls a sampler: the numbers of each batch, once."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[np.ndarray]:
        return (index.numpy() for index in self._batches)


class _Batches(Dataset[Tensor | np.ndarray | Exception]):
    """A batch by the numbers of its clips; or the error, which torch would wrap in a trace of the other process."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __getitem__(self, index: np.ndarray) -> Tensor | np.ndarray | Exception:
        reader = self._reader
        try:
            try:
                # Read into the memory that is shared, and not copied there.
                room = shared((len(index), *reader.shape), reader.dtype)
            except OSError:
                # An array is sent through a pipe.
                return reader.read(index).numpy()
            return reader.read(index, room)
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
