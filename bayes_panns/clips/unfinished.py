"""What an interrupted pack leaves behind, and how it is gone on with.

The folder ``STORE.part`` beside a store holds ``store.unfinished``, which becomes the store
(:mod:`~bayes_panns.clips.written_again`), and ``journal.jsonl``. The first line of the journal says what is packed. A
line for each clip follows, in order: where its samples are, their SHA-256, how long the sound was and what a user
should know of it, or why it was skipped; and the size and time of its file. Another line says that a store is finished,
of which a pack may make several. Each line has its digest. The folder is locked meanwhile, and removed at the end.
"""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from bayes_panns.clips.writer import prepare_place, writing
from bayes_panns.core.errors import OutputError, StoreError
from bayes_panns.core.files import locked, put_in_place, remove_abandoned
from bayes_panns.core.growing import PART
from bayes_panns.core.json_lines import append_lines, read_line

logger = logging.getLogger(__name__)

_FORMAT = 1

_JOURNAL, _STORE = "journal.jsonl", "store.unfinished"

_ATTEMPTS = 100
"""How often to try again when another pack of the same store ends meanwhile."""


class Unfinished:
    """The folder of a pack that is under way; made by :func:`unfinished`.

    Attributes:
        file: What becomes the store.
        finished: The size and the inode of each store that is finished, by its number.
        done: Lines of clips in the journal.
    """

    def __init__(self, output: Path, folder: Path) -> None:
        self.output, self.folder, self.file = output, folder, folder / _STORE
        self.finished: dict[int, tuple[int, int]] = {}
        self.done = 0
        self._journal = folder / _JOURNAL
        self._lines: BinaryIO | None = None
        self._next = self._settled = 0

    def begin(self, inputs: Mapping[str, Any], resume: bool, clips: int, stores: int) -> bool:
        """Read the journal of an earlier pack, or begin one; and say whether there was an earlier one.

        Args:
            inputs: What is packed, as JSON values with what each is called.
            resume: Whether to go on with an earlier one.
            clips: How many clips there are.
            stores: How many stores are to be written.

        Raises:
            StoreError: There is an earlier one, and it is not to be gone on with, or is of something else.
        """
        earlier = self._scan()
        # One that was killed after its last store was finished has left nothing to lose.
        if earlier is None or (not resume and len(self.finished) == stores):
            self._journal.unlink(missing_ok=True)
            self.file.unlink(missing_ok=True)
            self.finished, self.done, self._settled = {}, 0, 0
            append_lines(self._journal, [{"pack": _FORMAT, "inputs": inputs}])
            return False
        if not resume:
            raise StoreError(
                f"{self.output}: an interrupted pack of it is there ({self.done:,} clips are done); go on with "
                f"--resume, or remove {self.folder} to begin anew"
            )
        if differing := [name for name in {**earlier, **inputs} if earlier.get(name) != inputs.get(name)]:
            raise StoreError(
                f"{self.output}: the interrupted pack of it had {differing[0]} other than now; give the same, or "
                f"remove {self.folder} to begin anew"
            )
        logger.info(f"{self.output}: {self.done:,} of {clips:,} clips are done; going on")
        self._lines = self._journal.open("rb")
        self._lines.readline()
        return True

    def entry(self, clip: int) -> dict[str, Any] | None:
        """The line of the next clip, if the journal has it; None for all that follow, once there is none.

        Args:
            clip: Its number; clips are asked for in order.
        """
        while self._lines is not None:
            self._next = self._lines.tell()
            line = read_line(self._lines.readline())
            if line is not None and "store" in line:
                continue
            if line is not None and line.get("clip") == clip:
                return line
            self.cut(clip)
        return None

    def cut(self, clip: int) -> None:
        """Leave out the line of a clip, the last that :meth:`entry` was asked for, and all that follow.

        Raises:
            StoreError: A store was finished after it.
        """
        if self._lines is not None:
            if self._next < self._settled:
                raise StoreError(f"{self.folder}: its journal is damaged; remove the folder to begin anew")
            self._lines.close()
            self._lines, self.done = None, clip
            with writing(self.output):
                os.truncate(self._journal, self._next)

    def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to the journal.

        Raises:
            StoreError: It cannot be written.
        """
        entries = list(entries)
        if entries:
            with writing(self.output):
                append_lines(self._journal, entries)
            self.done += sum("clip" in entry for entry in entries)

    def finish(self, number: int, path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
        """Put the file in its place: it is a whole store.

        Args:
            number: The number of the store.
            path: Its place.
            entries: Lines of its last clips, which are not in the journal yet.
        """
        status = self.file.stat()
        self.finished[number] = status.st_size, status.st_ino
        self.append([*entries, {"store": number, "bytes": status.st_size, "inode": status.st_ino}])
        put_in_place(self.file, path)

    def settle(self, number: int, path: Path) -> None:
        """See that a store that is finished is in its place; a kill may have come in between.

        Raises:
            StoreError: It is gone, or another file is there.
        """
        size, inode = self.finished[number]
        if self.file.is_file() and self.file.stat().st_ino == inode:
            put_in_place(self.file, path)
        if not path.is_file() or path.stat().st_size != size:
            raise StoreError(
                f"{path}: was finished, and is not there any more; put it back, or remove {self.folder} to begin anew"
            )

    def discard(self) -> None:
        """Let nothing be kept: it would be of no use."""
        self.done = 0

    def close(self) -> None:
        """Close the journal."""
        if self._lines is not None:
            self._lines.close()

    def _scan(self) -> dict[str, Any] | None:
        """The inputs that a journal names, if it has a clip; its finished stores are noted."""
        try:
            lines = self._journal.open("rb")
        except FileNotFoundError:
            return None
        with lines:
            first = read_line(lines.readline())
            place = lines.tell()
            for line in lines:
                if not line.startswith(b'{"store"'):
                    self.done += 1
                elif found := read_line(line):
                    self.finished[found["store"]] = found["bytes"], found["inode"]
                    self._settled = place
                place += len(line)
        known = first is not None and first.get("pack") == _FORMAT
        return first["inputs"] if known and first is not None and self.done else None


@contextmanager
def unfinished(
    output: Path, inputs: Mapping[str, Any], *, resume: bool, clips: int, stores: Sequence[Path]
) -> Iterator[Unfinished]:
    """A block that packs a store, or several, so that an interruption loses next to nothing.

    When the block ends without an error, the folder is removed. After an error, an interrupt or a kill it stays, if
    there is a clip in it, and what to do is said.

    Args:
        output: The store, or what the stores are named after; missing folders above it are made.
        inputs: As for :meth:`Unfinished.begin`.
        resume: Whether to go on with an earlier pack that was interrupted.
        clips: How many clips there are.
        stores: The stores that are to be written.

    Raises:
        StoreError: As :meth:`Unfinished.begin`; or the place cannot be written; or there is nothing to go on with, and
            the stores are there.
        OutputError: ``output`` is a folder, or another process packs it.
    """
    prepare_place(output)
    with writing(output):
        remove_abandoned(output.parent)
    folder = output.with_name(output.name + PART)
    with _locked(output, folder):
        part = Unfinished(output, folder)
        try:
            with writing(output):
                begun = part.begin(inputs, resume, clips, len(stores))
            if resume and not begun and all(store.exists() for store in stores):
                raise StoreError(
                    f"{output}: is packed already, and there is no interrupted pack to go on with; pack it again "
                    "without --resume"
                )
        except StoreError:
            part.close()
            _remove_empty(folder, part)
            raise
        try:
            yield part
        except BaseException:
            part.close()
            if not _remove_empty(folder, part):
                logger.warning(
                    f"{output}: {part.done:,} of {clips:,} clips are kept in {folder}; go on with the same command and "
                    "--resume"
                )
            raise
        part.close()
        shutil.rmtree(folder, ignore_errors=True)


def _remove_empty(folder: Path, part: Unfinished) -> bool:
    """Remove the folder if no clip is in it, and say whether that was so."""
    if not part.done:
        shutil.rmtree(folder, ignore_errors=True)
    return not part.done


@contextmanager
def _locked(output: Path, folder: Path) -> Iterator[None]:
    """A block in which the folder is there and nobody else has it.

    Raises:
        StoreError: It cannot be made.
        OutputError: Another process has it.
    """
    with ExitStack() as stack:
        for _ in range(_ATTEMPTS):
            with writing(output):
                folder.mkdir(exist_ok=True)
            try:
                ours = stack.enter_context(locked(folder))
            except FileNotFoundError:  # The one that had it has just ended, and removed it.
                continue
            if not ours:
                raise OutputError(f"{output}: another process is packing it; choose another file, or wait")
            break
        else:
            raise OutputError(f"{output}: other processes keep packing it; choose another file")
        yield
