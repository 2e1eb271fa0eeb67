"""Names and labels as text that is safe to show: on one line, in any terminal, and in a spreadsheet."""

import unicodedata

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet takes for a formula."""


def readable(text: str) -> str:
    r"""The text with ``\xe9`` for each byte of a file name that is not valid UTF-8, so that any encoding can write it.

    Python keeps such a byte as a lone surrogate. Different names stay different.

    Example:
        >>> print(readable("caf\udce9.wav"))
        caf\xe9.wav
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # A surrogate that stands for no byte.
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    r"""The text with a space for each control character, so that it stays on one line and cannot steer a terminal.

    Example:
        >>> printable("dog\nbark")
        'dog bark'
    """
    shown = readable(text)
    return "".join(" " if unicodedata.category(letter).startswith("C") else letter for letter in shown)


def cell(text: str) -> str:
    """The text as a cell of a table that a spreadsheet opens: printable, with a quote before what would be a formula.

    Example:
        >>> cell("=1+2"), cell("dog")
        ("'=1+2", 'dog')
    """
    shown = printable(text)
    return f"'{shown}" if text.startswith(_FORMULA) else shown
