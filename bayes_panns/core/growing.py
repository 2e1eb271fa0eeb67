"""A file of results that is written as they come, and whose results an interruption does not lose."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from bayes_panns.core.errors import OutputError
from bayes_panns.core.files import locked_part

logger = logging.getLogger(__name__)

PART = ".part"
"""What a file's name ends in while it grows, and after it was interrupted."""


def is_special(path: Path) -> bool:
    """Whether there is something other than a file or folder, such as ``/dev/null`` or a pipe, which is written to."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def growing_file(path: Path) -> Iterator[TextIO]:
    """A text file to write piece by piece: ``NAME.part``, which takes the place of ``path`` when the block ends.

    If the block ends with an error or an interruption, ``NAME.part`` stays with what was written, and ``path`` is as it
    was. The next writer of ``path`` replaces both. What is no file, such as a pipe, is written to directly.

    Args:
        path: The file; its folder exists. Of a symbolic link, the file that it points to is replaced.

    Yields:
        The open file, in UTF-8; what is flushed survives a kill.

    Raises:
        OutputError: Another process is writing it.
        OSError: It cannot be written.
    """
    if is_special(path):
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
        return
    path = path.resolve() if path.is_symlink() else path
    part = path.with_name(path.name + PART)
    with locked_part(part) as ours:
        if not ours:
            raise OutputError(f"{path}: another process is writing it; choose another file, or wait")
        with part.open("w", encoding="utf-8", newline="") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                _keep(part, file)
                raise
        part.replace(path)


def _keep(part: Path, file: TextIO) -> None:
    """Say where the results are, if there are any."""
    with suppress(OSError):  # The disk is full: what could be written is there.
        file.flush()
    if part.stat().st_size:
        logger.warning(f"the results so far are in {part}")
    else:
        part.unlink()
