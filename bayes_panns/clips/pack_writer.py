"""The writer of a store that is packed: an interruption leaves what it has written, and it can go on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from bayes_panns.audio.notes import Note
from bayes_panns.clips.catalogs import Clip
from bayes_panns.clips.store_format import digest
from bayes_panns.clips.unfinished import Unfinished
from bayes_panns.clips.writer import StoreWriter
from bayes_panns.clips.written_again import WrittenAgain
from bayes_panns.core.choices import SoundNote


@dataclass(frozen=True)
class Taken:
    """What became of a clip's file.

    Attributes:
        file: The file's size in bytes and when it was changed, in ns; None if it is missing.
        skipped: Why it could not be read; empty if it could.
        samples: The samples as they are stored, int16; None if they are in a store already.
        sha256: Their digest.
        seconds: How long the sound was before it was cut or padded.
        beyond: Whether samples were beyond full scale.
        notes: What a user should know of it.
    """

    file: tuple[int, int] | None
    skipped: str = ""
    samples: np.ndarray | None = None
    sha256: bytes = b""
    seconds: float = 0.0
    beyond: bool = False
    notes: tuple[Note, ...] = ()

    def entry(self, clip: int) -> dict[str, Any]:
        """The line for the journal, all but the place of the samples."""
        entry: dict[str, Any] = {"clip": clip, "file": self.file}
        if self.skipped:
            return {**entry, "skipped": self.skipped}
        entry |= {"sha256": self.sha256.hex(), "seconds": self.seconds}
        if self.beyond:
            entry["beyond"] = True
        if self.notes:
            entry["notes"] = [[str(note.kind), note.text] for note in self.notes]
        return entry

    @classmethod
    def of(cls, entry: Mapping[str, Any], samples: np.ndarray | None = None) -> "Taken":
        """What a line of the journal says, with the samples if they are needed."""
        return cls(
            None if entry["file"] is None else (entry["file"][0], entry["file"][1]),
            entry.get("skipped", ""),
            samples,
            bytes.fromhex(entry.get("sha256", "")),
            entry.get("seconds", 0.0),
            entry.get("beyond", False),
            tuple(Note(SoundNote(kind), text) for kind, text in entry.get("notes", ())),
        )


class PackWriter(StoreWriter):
    """Writes a store clip by clip into the folder of an unfinished pack, and keeps the journal.

    A context manager, as :class:`~bayes_panns.clips.writer.StoreWriter`; but after an error what was written stays.

    Args:
        part: The folder.
        number: The number of the store among those of the pack.
        path: The store.
        options: As for :class:`~bayes_panns.clips.writer.StoreWriter`.
    """

    def __init__(self, part: Unfinished, number: int, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self._unfinished, self._number = part, number
        self._hdf5: WrittenAgain | None = None
        self._entries: list[dict[str, Any]] = []
        self._on_known_ground, self._ending = True, False

    def put(self, clip: Clip, number: int, taken: Taken, *, known: bool) -> None:
        """Append a clip, or note that it was skipped.

        Args:
            clip: The clip.
            number: Its number in the pack.
            taken: What became of its file.
            known: Whether the journal has it already.
        """
        entry = taken.entry(number)
        if not known:
            self._entries.append(entry)
            if self._on_known_ground and self._hdf5 is not None:
                self._on_known_ground = False
                self._hdf5.forget()
        if not taken.skipped:
            # Where it is in the buffer that is written next.
            entry["at"] = len(self) % len(self._waveform)
            assert taken.samples is not None
            self.add_stored(
                clip.name,
                taken.samples,
                taken.sha256,
                clip.labels,
                fold=clip.fold,
                source=clip.source,
                seconds=taken.seconds,
            )

    def recalled(self, entry: Mapping[str, Any]) -> Taken | None:
        """What an earlier process has taken, as the journal says, if it is still in the file as it was."""
        if "skipped" in entry:
            return Taken.of(entry)
        if self._hdf5 is None or entry.get("at") is None:
            return None
        samples = self._hdf5.stored(entry["at"], self.samples)
        taken = Taken.of(entry, samples)
        return taken if len(samples) == self.samples and digest(samples) == taken.sha256 else None

    def skip_store(self) -> None:
        """Note that no clip of this store could be read, for a block that is left with an error then."""
        self._unfinished.append(self._entries)

    def _begin(self) -> h5py.File:
        self._hdf5 = self._part.enter_context(self._placed())
        # Each clip is written when it is given, in their order.
        return h5py.File(self._hdf5, "w", rdcc_nbytes=0)

    @contextmanager
    def _placed(self) -> Iterator[WrittenAgain]:
        """The file, which takes the store's place at the end of the block, unless there was an error."""
        with WrittenAgain(self._unfinished.file) as file:
            yield file
        self._unfinished.finish(self._number, self.path, self._entries)

    def _flush(self, file: h5py.File) -> None:
        assert self._hdf5 is not None
        clips = self._waveform[: len(self) - len(file["waveform"])]
        with self._seen(), self._hdf5.watching(clips):
            super()._flush(file)
        places = dict(enumerate(self._hdf5.places))
        for entry in self._entries:
            if "at" in entry:
                entry["at"] = places.get(entry["at"])
        # What is left at the end is noted with the store itself, so that a short pack leaves nothing.
        if not self._ending:
            self._unfinished.append(self._entries)
            self._entries = []

    def _finish(self) -> None:
        self._ending = True
        with self._seen():
            super()._finish()

    @contextmanager
    def _seen(self) -> Iterator[None]:
        """A block in which HDF5 writes: what was raised meanwhile is raised, which HDF5 may put in its own words.

        Raises:
            BaseException: As the file, such as a KeyboardInterrupt.
        """
        assert self._hdf5 is not None
        try:
            yield
        except BaseException as error:
            if self._hdf5.error is None or self._hdf5.error is error:
                raise
            raise self._hdf5.error from error
        if self._hdf5.error is not None:
            raise self._hdf5.error

    def _abandon(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hdf5 is not None:
            self._hdf5.abandon()
        super()._abandon(kind, error, trace)
