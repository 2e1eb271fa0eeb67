"""JSON that every reader accepts: without NaN and infinity, which the standard does not have."""

import json
import math
import re
from collections.abc import Mapping
from enum import Enum
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from bayes_panns.core.files import whole_file

_SURROGATE = re.compile("[\ud800-\udfff]")
"""What UTF-8 cannot write; JSON can, as an escape."""


def strict(value: Any) -> Any:
    """``value`` with ``None`` in place of every number that is not finite, at any depth.

    Example:
        >>> strict({"folds": [0.5, float("nan")], "deviation": float("inf")})
        {'folds': [0.5, None], 'deviation': None}
    """
    # Most of a large result; the checks of kinds below are slow.
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [strict(each) for each in value]
    if isinstance(value, Enum):
        return strict(value.value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    # NumPy's scalars are numbers too.
    return int(value) if isinstance(value, Integral) else float(value) if math.isfinite(value) else None


def defined(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a flat mapping without those that are not finite numbers.

    Example:
        >>> defined({"cls/auc": float("nan"), "cls/map": 0.5})
        {'cls/map': 0.5}
    """
    return {name: value for name, value in values.items() if not isinstance(value, Real) or math.isfinite(value)}


def dumps(value: Any, *, indent: int | None = None) -> str:
    """``value`` as JSON text that ends in a newline; numbers that are not finite become ``null``.

    Bytes of file names that are not valid Unicode are escaped, and read back as they were.

    Raises:
        TypeError: JSON has no form for a value, such as an array or a path.
    """
    text = json.dumps(strict(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def write_json(value: Any, path: Path, *, indent: int | None = 1) -> None:
    """Write :func:`dumps` of ``value`` to a file, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    with whole_file(path) as part:
        part.write_text(dumps(value, indent=indent), encoding="utf-8")
