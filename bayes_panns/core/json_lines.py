"""Lines of JSON in a file that is appended to, each with its digest, so that a kill costs half a line at most."""

import errno
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bayes_panns.core.digests import DIGEST, sealed, unsealed
from bayes_panns.core.files import writes
from bayes_panns.core.strict_json import dumps


def line_of(table: Mapping[str, Any]) -> str:
    r"""A table as a line with its digest.

    Example:
        >>> read_line(line_of({"epoch": 1}))
        {'epoch': 1}
    """
    return dumps(sealed(table))


def read_line(line: str | bytes, *, without_digest: bool = False) -> dict[str, Any] | None:
    """The table in a line, or None if the line is damaged.

    Args:
        line: The line.
        without_digest: Whether a line may have no digest, as in files of earlier versions.
    """
    try:
        table = json.loads(line)
        known = isinstance(table, dict) and (without_digest or DIGEST in table)
        return unsealed(table) if known else None
    except (ValueError, RecursionError):
        return None


def append_lines(path: Path, tables: Iterable[Mapping[str, Any]]) -> None:
    """Append tables, all of them or none.

    Raises:
        OSError: The file cannot be written, or the disk is full.
    """
    lines = "".join(map(line_of, tables)).encode()
    with writes(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            if file.write(lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(before)
            raise
