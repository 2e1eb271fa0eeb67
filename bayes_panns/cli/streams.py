"""Standard output and standard error, made able to show any text on any terminal."""

import codecs
import io
import sys

_PLAIN = {
    "±": "+-",
    "−": "-",
    "↑": "^",
    "↓": "v",
    "∞": "inf",
    "\u00a0": " ",
    "–": "-",
    "…": "...",
    "²": "2",
}
"""Signs of our own tables, in ASCII."""


def show_any_text() -> None:
    """Let the standard streams take any text.

    A stream that is not UTF-8, such as that of Windows' cp1252 or of the C locale, gets our own signs in ASCII, which
    every reader understands, the letters that it has as they are, and others as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        encoding = codecs.lookup(stream.encoding).name
        if encoding == "utf-8":
            stream.reconfigure(errors="backslashreplace")
        elif _widens_ascii(encoding):
            name = f"bayes_panns.{encoding}"
            codecs.register_error(name, lambda error, encoding=encoding: _in_plain(error, encoding))  # type: ignore[misc]
            stream.reconfigure(encoding="ascii", errors=name)
        else:
            stream.reconfigure(errors="backslashreplace")


def _in_plain(error: UnicodeError, encoding: str) -> tuple[bytes, int]:
    """What takes the place of letters that are not ASCII, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(letter, letter) for letter in letters)
    return plain.encode(encoding, "backslashreplace"), error.end


def _widens_ascii(encoding: str) -> bool:
    """Whether text in ASCII is the same in an encoding; it is not in UTF-16, say."""
    ascii_text = "".join(map(chr, range(32, 127)))
    return ascii_text.encode(encoding, "replace") == ascii_text.encode("ascii")
