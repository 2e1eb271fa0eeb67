"""TOML whose texts may be file names of any bytes."""

import tomllib
from collections.abc import Callable, Mapping
from datetime import date, time
from typing import Any

import tomli_w

_BYTE, _PRIVATE = 0xDC00, 0x10FF00
"""Where Python puts a byte of a name that is not valid UTF-8, which TOML cannot hold; and where a file has it instead:
in the last private letters of Unicode."""


def dumps(table: Mapping[str, Any]) -> str:
    r"""A table as TOML, which :func:`loads` reads as it was.

    Example:
        >>> loads(dumps({"store": "caf\udce9.h5"}))
        {'store': 'caf\udce9.h5'}
    """
    return tomli_w.dumps(_mapped(table, lambda text: _moved(text, _BYTE, _PRIVATE)))


def loads(text: str) -> dict[str, Any]:
    """The table in a text.

    Raises:
        tomllib.TOMLDecodeError: It is not valid TOML, or holds a date, which no file of this package has.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("it is nested too deeply") from error
    except ValueError as error:  # A number of thousands of digits.
        raise tomllib.TOMLDecodeError(str(error)) from error
    return _mapped(table, lambda value: _moved(value, _PRIVATE, _BYTE))


def _moved(text: str, source: int, target: int) -> str:
    if text.isascii():
        return text
    return "".join(
        chr(ord(letter) - source + target) if source + 0x80 <= ord(letter) <= source + 0xFF else letter
        for letter in text
    )


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A value with each text in it changed, at any depth."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(each, change) for each in value]
    if isinstance(value, date | time):
        raise tomllib.TOMLDecodeError(f"it holds the date or time {value}, and no value is one")
    return value
