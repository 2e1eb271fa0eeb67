"""Batches of clips that other processes read ahead."""

import logging
import multiprocessing
import signal
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bayes_panns.clips.clipset import ClipSet
from bayes_panns.clips.reader import ClipReader, Reader
from bayes_panns.clips.samples import as_floats
from bayes_panns.clips.shared import shared
from bayes_panns.core.errors import BayesPannsError, FitError
from bayes_panns.core.processes import signals_held, subordinate

logger = logging.getLogger(__name__)

DEEP = 2
"""How many batches each process reads ahead."""

_DIED = ("DataLoader worker", "Pin memory thread exited")
"""How torch begins to say that a process has died."""

_PATIENCE = 5.0
"""Seconds that a process may take to end after its connections have closed."""

Planned = tuple[int, Tensor]
"""The number of a reader, and the numbers of the clips of a batch that it reads: int64 ``(n,)``."""


class Ahead:
    """Reads batches ahead in other processes, in order: a context manager and an iterator.

    A thin layer over :class:`torch.utils.data.DataLoader`. The processes are started anew (``spawn``), open each file
    once, leave signals to this process from their first moment on, and end when it ends them or dies. Batches come
    through shared memory: about ``workers * DEEP`` of them are there at a time; where it has no room for one, that one
    is copied. Torch's random state is not touched.

    Args:
        readers: What reads them; they are sent to the processes.
        batches: Which reader reads each batch, and the numbers of its clips. They are taken as they are needed,
            ``workers * DEEP`` ahead.
        workers: How many processes, 1 or more.
        pinned: Whether the batches come in pinned memory, for a GPU.

    Raises:
        BayesPannsError: What is wrong with a store, as in this process.
        FitError: Processes cannot be started, or one has ended before its time.
    """

    def __init__(
        self, readers: Sequence[Reader], batches: Iterable[Planned], *, workers: int, pinned: bool = False
    ) -> None:
        self._found: Any = None
        self._processes, self._cramped = list[BaseProcess](), False
        before = set(multiprocessing.active_children())
        with warnings.catch_warnings():
            # More processes than cores are of use where they wait for a disk.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            loader = DataLoader(
                _Batches(readers),
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
                with signals_held():
                    self._found = iter(loader)
                    # One that dies is no active child any more.
                    self._processes = list(self._found._workers)
            except BaseException as error:
                # What is left would keep this process from ending: it does not hear SIGTERM.
                self._processes = self._processes or list(set(multiprocessing.active_children()) - before)
                self._end()
                if not isinstance(error, OSError):
                    raise
                raise FitError(
                    f"processes that read clips ahead cannot be started ({error.strerror or error}); set fewer "
                    "--workers, or 0"
                ) from error

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
        try:
            found = next(self._found)
        except (EOFError, OSError) as error:
            # A process that is killed closes its connections a little before it has ended, and torch looks only once.
            if self._dies():
                raise RuntimeError(f"{_DIED[0]} has closed its connections") from error
            raise
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
        # Torch raises it wherever this process happens to be, so it may be in the words of another error.
        died = _is_of_a_death(error)
        if died:
            # Torch may say so a little before the system does.
            self._dies()
        codes = [each.exitcode for each in self._processes if each.exitcode is not None]
        self._end()
        if died:
            how = f" {_told(max(codes, key=abs))}" if codes else ""
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
            _kill(self._processes)

    def _dies(self) -> bool:
        """Whether a process has ended, or does so within a moment."""
        until = time.monotonic() + _PATIENCE
        while all(each.is_alive() for each in self._processes):
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)
        return True


def _kill(processes: Iterable[BaseProcess]) -> None:
    """End processes, which do not hear SIGTERM."""
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()


@contextmanager
def waveforms(clips: ClipSet, batches: Sequence[Tensor], *, workers: int = 0) -> Iterator[Iterator[Tensor]]:
    """A block with the waveforms of batches of clips, which are read ahead meanwhile.

    Args:
        clips: The clips.
        batches: Their numbers, int64 ``(n,)``.
        workers: How many processes read ahead; with 0, or no batches, this one reads.

    Yields:
        float32 ``(n, samples)`` for each batch, in order: those of :meth:`ClipSet.waveform`.
    """
    if not workers or not batches:
        yield (torch.from_numpy(clips.waveform(index)) for index in batches)
        return
    with Ahead([ClipReader(clips)], ((0, index) for index in batches), workers=workers) as ahead:
        yield (as_floats(values) for values in ahead)


def _is_of_a_death(error: BaseException | None) -> bool:
    """Whether torch has said that a process has died, and this error is that or comes of it."""
    while error is not None:
        if isinstance(error, RuntimeError) and str(error).startswith(_DIED):
            return True
        error = error.__cause__ or error.__context__
    return False


def _told(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


class _Numbers:
    """What torch calls a sampler: the numbers of each batch, once."""

    def __init__(self, batches: Iterable[Planned]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        return ((number, index.numpy()) for number, index in self._batches)


class _Batches(Dataset[Tensor | np.ndarray | Exception]):
    """A batch by the numbers of its clips; or the error, which torch would wrap in a trace of the other process."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = readers

    def __getitem__(self, planned: tuple[int, np.ndarray]) -> Tensor | np.ndarray | Exception:
        number, index = planned
        reader = self._readers[number]
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
    subordinate()
