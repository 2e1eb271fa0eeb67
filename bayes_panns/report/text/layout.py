"""Columns of text: plain, as wide as they need to be, the same on a terminal and in a file."""

from collections.abc import Sequence

from rich.cells import cell_len

from bayes_panns.core.text import printable


class Columns:
    r"""Rows in aligned columns that come piece by piece: a column widens when a wider cell comes.

    Example:
        >>> table = Columns()
        >>> print(table.add([["label", "clips"], ["dog", "12"]]), end="")
        label  clips
        dog    12

    Args:
        gap: Spaces between columns.
    """

    def __init__(self, gap: int = 2) -> None:
        self._gap, self._widths = gap, list[int]()

    def add(self, rows: Sequence[Sequence[str]]) -> str:
        """Lay out more rows.

        Args:
            rows: The cells of each row; every row has as many. Control characters are escaped.

        Returns:
            A line for each row, without trailing spaces, each ending in a newline; no colours.
        """
        shown = [[printable(cell) for cell in row] for row in rows]
        for row in shown:
            self._widths += [0] * (len(row) - len(self._widths))
            self._widths = [max(width, cell_len(cell)) for width, cell in zip(self._widths, row, strict=True)]
        gap = " " * self._gap
        return "".join(
            gap.join(
                cell + " " * (width - cell_len(cell)) for cell, width in zip(row, self._widths, strict=True)
            ).rstrip(" ")
            + "\n"
            for row in shown
        )


def columns(rows: Sequence[Sequence[str]], *, gap: int = 2) -> str:
    r"""Lay out all rows of a table at once; see :class:`Columns`.

    Example:
        >>> print(columns([["label", "clips"], ["dog", "12"]]), end="")
        label  clips
        dog    12
    """
    return Columns(gap).add(rows)
