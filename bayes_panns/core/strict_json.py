"""JSON that every reader takes: without NaN and infinity, which are not part of it."""

import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from bayes_panns.core.files import whole_file


def strict(value: Any) -> Any:
    """``value`` with every number that is not finite replaced by ``None``, at any depth.

    Example:
        >>> strict({"folds": [0.5, float("nan")], "deviation": float("inf")})
        {'folds': [0.5, None], 'deviation': None}
    """
    if isinstance(value, Mapping):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [strict(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.value if isinstance(value, Enum) else value


def defined(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a flat mapping without those that are not finite numbers.

    Example:
        >>> defined({"cls/auc": float("nan"), "cls/map": 0.5})
        {'cls/map': 0.5}
    """
    return {name: value for name, value in values.items() if not isinstance(value, float) or math.isfinite(value)}


def dumps(value: Any, *, indent: int | None = None) -> str:
    """``value`` as JSON text, with ``null`` for what is not finite; it ends in a newline."""
    return json.dumps(strict(value), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(value: Any, path: Path, *, indent: int | None = 1) -> None:
    """Write :func:`dumps` of ``value`` to a file, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    with whole_file(path) as part:
        part.write_text(dumps(value, indent=indent), encoding="utf-8")
