"""Checkpoints that are written while the fit goes on, and the files of them that are kept.

A checkpoint is copied to the CPU's memory between two steps, and a thread writes the copy. The buffers of the copy are
kept: as many bytes as a checkpoint has, which for mean-field Normals under Adam are 24 for each weight of the network.
From a GPU they are pinned, and the copy is queued before the next step.

========================== =======================================================================
``checkpoint.pt``          the last one
``checkpoint.previous.pt`` the one before it; if the last one is damaged or gone, the fit resumes from here
``checkpoint.best.pt``     the one of the epoch with the lowest ``val/nll``
========================== =======================================================================

The best one is a second name of another while it is the same. On disk these are up to three checkpoints, and a fourth
while one is written.
"""

import io
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar, cast

import torch
from torch import Tensor

from bayes_panns.core.errors import FitError, reason
from bayes_panns.core.files import same_file, whole_file
from bayes_panns.svi.checkpoint import BEST, CHECKPOINT, PREVIOUS, DamagedCheckpointError

logger = logging.getLogger(__name__)

_Loaded = TypeVar("_Loaded")

_SHARE = 20
"""Of the time, checkpoints at the ends of epochs take at most one part in so many, but for the best and the last."""


class Snapshot:
    """Copies of tensors, in buffers that the next copy uses again."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, ...], Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    @torch.no_grad()
    def take(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Content with its tensors copied to the CPU; the copy of the time before is overwritten.

        From a GPU the copy may still be under way: see :meth:`wait`. What the GPU is told later cannot change it.
        """
        self._copied, seen = None, dict[tuple[Any, ...], Tensor]()
        found = {key: self._copy(value, (key,), seen) for key, value in content.items()}
        cuda = [key[0] for key in seen if key[0].type == "cuda"]
        if cuda:
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(cuda[0]))
        return found

    def wait(self) -> None:
        """Wait until the copy is there."""
        if self._copied is not None:
            self._copied.synchronize()

    def _copy(self, value: Any, place: tuple[str, ...], seen: dict[tuple[Any, ...], Tensor]) -> Any:
        if isinstance(value, Mapping):
            return {key: self._copy(each, (*place, str(key)), seen) for key, each in value.items()}
        if isinstance(value, list):
            return [self._copy(each, (*place, str(number)), seen) for number, each in enumerate(value)]
        if not isinstance(value, Tensor):
            return value
        # What two names share is kept once, as torch keeps it.
        what = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if what not in seen or not value.numel():
            seen[what] = self._buffer(value, place).copy_(value, non_blocking=value.is_cuda)
        return seen[what]

    def _buffer(self, value: Tensor, place: tuple[str, ...]) -> Tensor:
        kept = self._buffers.get(place)
        if kept is None or (kept.shape, kept.dtype, kept.stride()) != (value.shape, value.dtype, value.stride()):
            kept = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
            self._buffers[place] = kept
        return kept


class CheckpointWriter:
    """Writes the checkpoints of a fit, one at a time, in a thread.

    As a block it waits at its end until the last one is written. If the block ends in an error, that error counts; a
    Ctrl-C abandons what is being written.

    Args:
        folder: Where they go.
        minutes: The longest time from one to the next.
        clock: Seconds that pass.
    """

    def __init__(self, folder: Path, minutes: float = 10.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._minutes, self._clock = folder, minutes, clock
        self._snapshot = Snapshot()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._abandoned = threading.Event()
        self._began = self._last = clock()
        self.seconds: float | None = None
        """How long the last one took, from the copy until it was on disk; None before there is one."""

    def __enter__(self) -> Self:
        self._began = self._last = self._clock()
        self._abandoned.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()
            return
        if not issubclass(kind, Exception):
            self._abandoned.set()
        self.settle()

    @property
    def overdue(self) -> bool:
        """Whether the longest time has passed, and none is being written."""
        return self._clock() - self._last >= 60 * self._minutes and not self._writing

    @property
    def worthwhile(self) -> bool:
        """Whether one at the end of an epoch would take a small part of the time since the last."""
        if self.seconds is None:
            return not self._writing
        return self._clock() - self._last >= _SHARE * self.seconds and not self._writing

    def save(self, content: Mapping[str, Any], *, best: bool = False) -> None:
        """Copy a checkpoint and begin to write it, once the one before is written.

        Args:
            content: What it holds, as :func:`~bayes_panns.svi.checkpoint.checkpoint_content` has it.
            best: Whether it is of the best epoch so far.

        Raises:
            OSError: The one before could not be written, such as to a full disk.
        """
        self.wait()
        self._last = self._clock()
        copied = self._snapshot.take(content)
        self._thread = threading.Thread(target=self._write, args=(copied, best), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until none is being written.

        Raises:
            OSError: It could not be written; the one before is as it was.
        """
        if self._thread is not None:
            self._thread.join()
        self.check()

    def check(self) -> None:
        """See whether the last one that ended could be written.

        Raises:
            OSError: It could not.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def settle(self) -> None:
        """Wait until none is being written; if it fails, that is logged."""
        try:
            self.wait()
        except Exception as error:
            if not self._abandoned.is_set():
                logger.warning(f"a checkpoint could not be written: {reason(error)}")

    @property
    def _writing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _write(self, content: dict[str, Any], best: bool) -> None:
        """The life of the thread."""
        try:
            self._snapshot.wait()
            last = self._folder / CHECKPOINT
            with whole_file(last) as part:
                # Given a path, torch does not say why a write failed.
                with part.open("wb") as file:
                    torch.save(content, cast(IO[bytes], _Abandonable(file, self._abandoned)))
                if last.is_file():
                    same_file(last, self._folder / PREVIOUS)
            if best:
                same_file(last, self._folder / BEST)
            self.seconds = self._clock() - self._last
        except BaseException as error:
            self._failure = error


class _Abandonable(io.RawIOBase):
    """A file for :func:`torch.save` that a second Ctrl-C leaves unwritten."""

    def __init__(self, file: IO[bytes], abandoned: threading.Event) -> None:
        self._file, self._abandoned = file, abandoned

    def write(self, data: Any) -> int:
        if self._abandoned.is_set():
            raise InterruptedError("abandoned")
        return self._file.write(data)


def load_last(folder: Path, load: Callable[[Path], _Loaded]) -> _Loaded:
    """Load the last checkpoint, or the one before if the last is damaged or gone; it then takes the place of the last.

    Args:
        folder: Where the checkpoints are.
        load: Loads one.

    Raises:
        FitError: There is none, or none that is whole, or it belongs to another fit.
    """
    last, previous = folder / CHECKPOINT, folder / PREVIOUS
    damage: DamagedCheckpointError | None = None
    if last.is_file() or not previous.is_file():
        try:
            return load(last)
        except DamagedCheckpointError as error:
            if not previous.is_file():
                raise
            damage = error
    try:
        found = load(previous)
    except DamagedCheckpointError as error:
        raise error if damage is None else FitError(f"{damage}; {error}") from error
    what = "is missing" if damage is None else "is damaged"
    logger.warning(f"{last}: {what}; resuming from the checkpoint before it, {previous.name}")
    same_file(previous, last)
    return found
