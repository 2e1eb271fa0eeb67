"""Reading the clips of a set by their numbers alone: what a process needs that reads ahead, and no more."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bayes_panns.clips.clip_file import ClipFile
from bayes_panns.clips.clipset import ClipSet
from bayes_panns.clips.shared import shared
from bayes_panns.clips.store_format import DIGEST_BYTES, check_indices
from bayes_panns.core.errors import FitError


class Reader(Protocol):
    """What reads the inputs of clips by number, in any process."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one clip's."""

    @property
    def dtype(self) -> torch.dtype:
        """Their type."""

    def read(self, index: np.ndarray, found: Tensor | None = None) -> Tensor:
        """The clips at ``index``, int64 ``(n,)``: shape ``(n, *shape)``, in ``found`` if that is given."""


class ClipReader:
    """Reads the clips of a set as they are stored, int16 or float32.

    It can be sent to other processes. Names, labels and sources stay behind; the places of the clips, their digests and
    which of them were checked are in memory that all processes share: about 50 bytes a clip, once.

    Args:
        clips: The clips.

    Attributes:
        shape: Of one clip: ``(samples,)``, or ``(width,)`` for embeddings.
        dtype: int16 if all stores hold int16, and float32 otherwise.

    Example:
        >>> from bayes_panns.clips import write
        >>> write("pets.h5", np.full((2, 800), 0.5), np.eye(2, dtype=bool), ["cat", "dog"], "one-of-k", 16000)
        >>> ClipReader(ClipSet("pets.h5")).read(np.array([1, 1]))[:, 0]
        tensor([16384, 16384], dtype=torch.int16)
    """

    def __init__(self, clips: ClipSet) -> None:
        self.shape: tuple[int, ...] = (clips.width,)
        whole = all(store.dtype == np.int16 for store in clips.stores)
        self.dtype = torch.int16 if whole else torch.float32
        self._files: list[ClipFile] = [store.file for store in clips.stores]
        self._starts = np.cumsum([0, *(len(each.checked) for each in self._files)])
        places = np.empty(len(clips), dtype=np.int64)
        for number, (store, positions, rows) in clips.numbered():
            places[positions] = self._starts[number] + store.rows[rows]
        self._places = torch.from_numpy(places)
        self._shared: tuple[Tensor, Tensor] | None = None

    @property
    def places(self) -> np.ndarray:
        """Where each clip lies: its row, counted through all files, int64 ``(clips,)``."""
        return self._places.numpy()

    def __len__(self) -> int:
        return len(self._places)

    def read(self, index: np.ndarray, found: Tensor | None = None) -> Tensor:
        """Read clips, in any order and with repeats, one file after the other.

        Args:
            index: Which, int64 ``(n,)``, each in ``[0, len(self))``.
            found: Where they go, of shape ``(n, *shape)`` and this reader's type; by default new memory.

        Raises:
            IndexError: An index is out of range.
            StoreError: A store is damaged, or has changed since it was opened.
        """
        places = self.places[check_indices(index, len(self))]
        if found is None:
            found = torch.empty((len(places), *self.shape), dtype=self.dtype)
        values = found.numpy()
        owner = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(owner):
            rows, mine = places - self._starts[number], owner == number
            # The one file that most batches are of is read in place.
            part = values if mine.all() else np.empty((mine.sum(), *self.shape), dtype=values.dtype)
            self._files[number].read(rows[mine], part)
            if part is not values:
                values[mine] = part
        return found

    def share(self) -> None:
        """Put into shared memory what the processes need that this reader is sent to.

        Raises:
            StoreError: A store is damaged.
            FitError: There is no room for it.
        """
        if self._shared is not None:
            return
        rows = int(self._starts[-1])
        try:
            digests = shared((rows, DIGEST_BYTES), torch.uint8).zero_()
            checked = shared((rows,), torch.bool).zero_()
            self._places = shared((len(self),), torch.int64).copy_(self._places)
        except OSError as error:
            raise FitError(
                f"/dev/shm has no room for the places and digests of {rows:,} clips, {rows * 41 / 1e6:.1f} MB; give it "
                "more (docker run --shm-size 8g), or read in one process (--workers 0)"
            ) from error
        for file, start, end in self._parts():
            if file.verifiable:
                with file.one_line_errors():
                    digests[start:end] = torch.from_numpy(file.kept_digests())
            checked[start:end] = torch.from_numpy(file.checked)
        self._take(digests, checked)

    def _take(self, digests: Tensor, checked: Tensor) -> None:
        self._shared = digests, checked
        for file, start, end in self._parts():
            file.digests = digests[start:end].numpy() if file.verifiable else None
            file.checked = checked[start:end].numpy()

    def _parts(self) -> list[tuple[ClipFile, int, int]]:
        ends = self._starts.tolist()
        return list(zip(self._files, ends[:-1], ends[1:], strict=True))

    def __getstate__(self) -> dict[str, Any]:
        self.share()
        return self.__dict__ | {"_files": [file.bare() for file in self._files]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        assert self._shared is not None
        self._take(*self._shared)
