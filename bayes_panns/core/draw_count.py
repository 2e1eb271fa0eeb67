"""How many draws a caller asks for."""

import operator
from typing import Any, Literal, NoReturn

from bayes_panns.core.errors import SettingError


def draw_count(draws: Any, least: int = 0) -> int:
    """A number of draws, as an int.

    Args:
        draws: What the caller gave: an int, or another whole number such as NumPy's.
        least: How many there must be.

    Raises:
        SettingError: It is no whole number, or a smaller one.

    Example:
        >>> draw_count(20)
        20
        >>> draw_count(2.5)
        Traceback (most recent call last):
        bayes_panns.core.errors.SettingError: draws is 2.5: give a whole number from 0 up
    """
    number = _whole(draws)
    if number is None or number < least:
        _refuse(draws, f"a whole number from {least} up")
    return number


def draws_or_moments(draws: Any) -> int | Literal["moments"]:
    """A number of draws from 0 up, or ``"moments"``.

    Raises:
        SettingError: It is neither.

    Example:
        >>> draws_or_moments("moment")
        Traceback (most recent call last):
        bayes_panns.core.errors.SettingError: draws is 'moment': give a whole number from 0 up, or "moments"
    """
    if isinstance(draws, str) and draws == "moments":
        return "moments"
    number = _whole(draws)
    if number is None or number < 0:
        _refuse(draws, 'a whole number from 0 up, or "moments"')
    return number


def _whole(draws: Any) -> int | None:
    if isinstance(draws, bool):
        return None
    try:
        return operator.index(draws)
    except TypeError:
        return None


def _refuse(draws: Any, wanted: str) -> NoReturn:
    raise SettingError(f"draws is {' '.join(repr(draws).split())}: give {wanted}")
