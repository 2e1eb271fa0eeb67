"""Names and labels as text that is safe to show: on one line, in any terminal, and in a spreadsheet."""

import unicodedata
from pathlib import Path

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a cell begins that a spreadsheet takes for a formula; the last four are the wide forms of the first four."""

_JOINERS = "\u200c\u200d"
"""Format characters that Persian, Indian scripts and emoji need; they cannot steer a terminal."""

STDIN = "-"
"""The file name that stands for standard input."""


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
    r"""The text with an escape for each control character, so that it stays on one line and cannot steer a terminal.

    Control characters are also those that turn the direction of the text, those that cannot be seen, and those that
    end a line.

    Example:
        >>> print(printable("dog\nbark\x1b[31m"))
        dog\nbark\x1b[31m
    """
    shown = readable(text)
    # Nearly all text; the loop below is slow.
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(_escaped(letter) if _steers(letter) else letter for letter in shown)


def printable_lines(text: str) -> str:
    r"""The lines of a text, each printable.

    Example:
        >>> print(printable_lines("a\tb\nc"))
        a\tb
        c
    """
    return "\n".join(printable(line) for line in text.split("\n"))


def shortened(text: str, most: int = 1900) -> str:
    """The text without its middle if it has more than ``most`` characters, as where a file holds an endless word.

    Example:
        >>> shortened("line 3 has the label '" + 100 * "9" + "', which is unknown", 60)
        "line 3 has the label '99999 [...] 9999999', which is unknown"
    """
    if len(text) <= most:
        return text
    gap = " [...] "
    start, end = -(-(most - len(gap)) // 2), (most - len(gap)) // 2
    return text[:start] + gap + text[len(text) - end :]


def cell(text: str) -> str:
    """The text as a cell of a table that a spreadsheet opens: printable, with a quote before what would be a formula.

    Example:
        >>> cell("=1+2"), cell("dog")
        ("'=1+2", 'dog')
    """
    shown = printable(text)
    return f"'{shown}" if text.startswith(_FORMULA) else shown


def shown_name(file: str | Path) -> str:
    """What a file is called in results and messages: its path, or ``standard input`` for ``-``.

    Example:
        >>> shown_name("-"), shown_name("a/b.wav")
        ('standard input', 'a/b.wav')
    """
    return "standard input" if str(file) == STDIN else str(file)


def _steers(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return (kind.startswith("C") and letter not in _JOINERS) or kind in ("Zl", "Zp")


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
