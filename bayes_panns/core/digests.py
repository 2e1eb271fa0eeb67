"""Digests of files, and of tables that carry their own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bayes_panns.core.strict_json import strict

DIGEST = "digest"
"""The key under which a sealed table has its digest."""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(table: Mapping[str, Any]) -> str:
    """The SHA-256 of what a table means, 64 hexadecimal digits.

    The order of its keys and the way that it is written do not matter, so it is the same before the table is written
    as JSON or TOML and after it is read back.

    Args:
        table: Any values that JSON has; tuples count as lists, and numbers that are not finite as null.

    Example:
        >>> digest_of({"rate": 8000, "labels": ("a", "b")}) == digest_of({"labels": ["a", "b"], "rate": 8000})
        True
    """
    # Keys that are numbers become texts, and would be sorted otherwise before.
    meaning = json.loads(json.dumps(strict(table)))
    return hashlib.sha256(json.dumps(meaning, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sealed(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with its digest as one more entry, for a file that :func:`unsealed` checks when it is read back.

    Example:
        >>> unsealed(sealed({"epochs": 2}))
        {'epochs': 2}
    """
    return {**table, DIGEST: digest_of(table)}


def read_sealed(path: Path) -> dict[str, Any]:
    """The table in a JSON file that holds a :func:`sealed` one, or that an earlier version wrote.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(table, dict):
        raise ValueError("it is not a table")
    return unsealed(table)


def unsealed(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table without its digest, if that is right or, as in files of earlier versions, not there.

    Raises:
        ValueError: The table is not the one that was written.
    """
    content = {key: value for key, value in table.items() if key != DIGEST}
    if DIGEST in table and table[DIGEST] != digest_of(content):
        raise ValueError("it was changed by hand or damaged: its digest does not match")
    return content
