"""Columns of text by :mod:`rich`: plain, as wide as they need to be, the same on a terminal and in a file."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bayes_panns.core.text import printable

_UNLIMITED = 1 << 20
"""Columns of a console: nothing is wrapped or cut off."""


def columns(rows: Sequence[Sequence[str]], *, gap: int = 2) -> str:
    r"""Lay out rows in aligned columns.

    Args:
        rows: The cells of each row; every row has as many. Control characters are replaced by spaces.
        gap: Spaces between columns.

    Returns:
        A line for each row, without trailing spaces, each ending in a newline; no colours.

    Example:
        >>> print(columns([["label", "clips"], ["dog", "12"]]), end="")
        label  clips
        dog    12
    """
    if not rows:
        return ""
    table = Table.grid(padding=(0, gap, 0, 0))
    for _ in rows[0]:
        table.add_column(no_wrap=True, overflow="ignore")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    text = io.StringIO()
    Console(file=text, width=_UNLIMITED, color_system=None, force_terminal=False, legacy_windows=False).print(table)
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())
