"""Standard output and standard error, made able to show any text on any terminal."""

import codecs
import io
import sys

_PLAIN = {"±": "+-", "−": "-", "↑": "^", "↓": "v", "∞": "inf", "\u00a0": " ", "–": "-", "…": "..."}
"""Signs of our own tables, in ASCII."""

_ERRORS = "plain-signs"


def show_any_text() -> None:
    """Let the standard streams take any text.

    A stream that is not UTF-8, such as that of Windows' cp1252 or of the C locale, gets our own signs in ASCII where it
    lacks them, and escapes of other letters.
    """
    codecs.register_error(_ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What takes the place of letters that an encoding lacks, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end]
    plain = "".join(
        _PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode("ascii") for letter in letters
    )
    return plain, error.end
