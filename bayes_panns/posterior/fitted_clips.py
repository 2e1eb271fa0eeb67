"""Which clips a posterior was fitted to, so that an evaluation on them is noticed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from bayes_panns.core.archives import check_npz
from bayes_panns.core.errors import PosteriorError

_BYTES = 16
"""The bytes of a digest that are kept: enough to distinguish any two clips."""


@dataclass(frozen=True)
class FittedClips:
    """The clips that a posterior and its upstream posteriors were fitted to, by the digests of their samples.

    Attributes:
        own: The first 16 bytes of :meth:`~bayes_panns.clips.Store.digests` of the clips that it was fitted to.
        upstream: Those of the clips that its upstream posteriors were fitted to.
    """

    own: frozenset[bytes] = frozenset()
    upstream: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, digests: Iterable[bytes], upstream: "FittedClips | None" = None) -> Self:
        """The record of a fit.

        Args:
            digests: Digests of the clips fitted, of 16 bytes or more.
            upstream: The record of the posterior that the fit started from.
        """
        before = frozenset() if upstream is None else upstream.own | upstream.upstream
        return cls(frozenset(digest[:_BYTES] for digest in digests), before)

    def count(self, digests: Iterable[bytes]) -> tuple[int, int]:
        """How many of these clips the posterior was fitted to, and how many of them its upstream posteriors were.

        Example:
            >>> fitted = FittedClips.of([b"a" * 32, b"b" * 32], upstream=FittedClips.of([b"c" * 32]))
            >>> fitted.count([b"a" * 32, b"c" * 32, b"d" * 32])
            (1, 1)

        Args:
            digests: Digests of the clips, of 16 bytes or more.
        """
        short = [digest[:_BYTES] for digest in digests]
        return sum(each in self.own for each in short), sum(each in self.upstream for each in short)

    def save(self, path: Path) -> None:
        """Write ``own`` and ``upstream`` as uint8 arrays ``(n, 16)`` of an ``.npz`` file."""
        np.savez(path, own=_rows(self.own), upstream=_rows(self.upstream))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote; empty if there is no file.

        Raises:
            PosteriorError: The file is damaged.
        """
        if not path.is_file():
            return cls()
        try:
            check_npz(path)
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in ("own", "upstream")}
            for value in found.values():
                if value.dtype != np.uint8 or value.ndim != 2 or value.shape[1] != _BYTES:
                    raise ValueError(f"it holds {value.dtype} of shape {value.shape}")
        except Exception as error:  # A damaged file makes zipfile and NumPy raise a dozen kinds of errors.
            raise PosteriorError(f"{path}: is damaged: {' '.join(str(error).split())}") from error
        return cls(*(frozenset(row.tobytes() for row in value) for value in found.values()))


def _rows(digests: frozenset[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(sorted(digests)), dtype=np.uint8).reshape(-1, _BYTES)
