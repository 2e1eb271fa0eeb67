"""Ways to damage text, and the tables, recipes and JSON that are made of it."""

import csv
import io
import json
import re
from typing import Any

import numpy as np

from tests.fuzz.mutations import Mutation

VALUES = (
    *(
        "",
        " ",
        "0",
        "-1",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "0.5",
        "3,5",
        "99999999999999999999",
        "1e-300",
        "true",
        "null",
    ),
    *("=1+1", "@SUM(A1)", "a;b", ";", "a,b", '"', "'", "\\", "a\tb", "a\nb", "a\rb", "\x1b[2J", "\x00", "\u202e", "é"),
    *("e\u0301", "日本", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "x" * 300, "x" * 200_000),
    *("../../etc/passwd", "/etc/passwd", "a/b", ".", "..", "CON", "*", "%s%n", "${HOME}", "{0}", "[]", "{}"),
)
"""What a cell or a value may be replaced by."""

_ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-7", "cp1252", "latin-1", "shift_jis")


def recode(rng: np.random.Generator, data: bytes) -> bytes:
    """Another encoding, or a byte order mark."""
    text = data.decode("utf-8", "replace") + str(rng.choice(["", "é", "日本"]))
    if rng.random() < 0.3:
        return b"\xef\xbb\xbf" + data
    return text.encode(str(rng.choice(_ENCODINGS)), "replace")


def line_ends(rng: np.random.Generator, data: bytes) -> bytes:
    return data.replace(b"\n", (b"\r\n", b"\r", b"\n\n", b"\n \n", b"", b"\x0b")[rng.integers(6)])


def lines(rng: np.random.Generator, data: bytes) -> bytes:
    """A line is dropped, doubled or moved."""
    rows = data.splitlines(keepends=True) or [b""]
    first, second = (int(each) for each in rng.integers(len(rows), size=2))
    row = rows[first]
    match rng.integers(4):
        case 0:
            del rows[first]
        case 1:
            rows.insert(second, row)
        case 2:
            rows[first], rows[second] = rows[second], row
        case _:
            rows[first] = row * int(rng.choice([50, 2000]))
    return b"".join(rows)


def characters(rng: np.random.Generator, data: bytes) -> bytes:
    """A value of :data:`VALUES` somewhere in the text, perhaps instead of what is there."""
    at = int(rng.integers(len(data) + 1))
    return data[:at] + value(rng).encode() + data[at + int(rng.choice([0, 1, 10])) :]


def numbers(rng: np.random.Generator, data: bytes) -> bytes:
    """Another value for one of the numbers in the text."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not found:
        return data
    one = found[rng.integers(len(found))]
    choices = ("0", "-1", "1e999", "nan", "inf", "0.1", "2147483648", "9" * 20, "1_0", "٣", "0x10", "9" * 5000)
    return data[: one.start()] + str(rng.choice(choices)).encode() + data[one.end() :]


TEXT: tuple[Mutation, ...] = (recode, line_ends, lines, characters, numbers, numbers)


def value(rng: np.random.Generator) -> str:
    return VALUES[rng.integers(len(VALUES))]


def cells(delimiter: str = ",") -> Mutation:
    """Change the cells, rows or columns of a table, which stays well formed."""

    def mutate(rng: np.random.Generator, data: bytes) -> bytes:
        csv.field_size_limit(1 << 24)
        try:
            rows = list(csv.reader(io.StringIO(data.decode()), delimiter=delimiter))
        except (csv.Error, UnicodeDecodeError):
            return data
        rows = [row for row in rows if row] or [["x"]]
        row = rows[rng.integers(len(rows))]
        column = int(rng.integers(len(row)))
        match rng.integers(8):
            case 0:
                for each in rows:
                    del each[column : column + 1]
            case 1:
                for each in rows:
                    each.insert(column, each[min(column, len(each) - 1)] if each else "")
            case 2:
                rows[0][min(column, len(rows[0]) - 1) :][:1] = [value(rng)]
            case 3:
                row.append(value(rng))
            case 4:
                for each in rows[1:]:
                    each[column : column + 1] = [value(rng)]
            case 5:
                rows = rows[:1]
            case _:
                row[column] = value(rng)
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, escapechar="\\").writerows(rows)
        return out.getvalue().encode("utf-8", "surrogatepass")

    return mutate


_TOML = (
    *("0", "-1", "1e308", "nan", "inf", "-inf", "true", "false", '""', '"x"', "[]", "{}", "[[]]", "[1, 2]", '["a"]'),
    *("9223372036854775807", "99999999999999999999", "0.5", "1979-05-27", '"\\u0000"', '"\\u001b[2J"', "{ a = 1 }"),
    *('"../x"', '"/dev/zero"', '"os:system"', '["x", "x"]', "[nan]", "[-1]", "1e-300", '"' + "x" * 100_000 + '"'),
)


def settings(rng: np.random.Generator, data: bytes) -> bytes:
    """Change one ``key = value`` of a recipe or a header."""
    rows = data.split(b"\n")
    found = [index for index, row in enumerate(rows) if b"=" in row]
    if not found:
        return data
    index = found[rng.integers(len(found))]
    key = rows[index].partition(b"=")[0]
    new = _TOML[rng.integers(len(_TOML))].encode()
    match rng.integers(6):
        case 0:
            del rows[index]
        case 1:
            rows.insert(index, b"unknown = " + new)
        case 2:
            rows.insert(index, (b"[unknown]", b"[[rule]]", b"[fit]", b"[default]", b"[power]")[rng.integers(5)])
        case _:
            rows[index] = key + b"= " + new
    return b"\n".join(rows)


_JSON: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e308, float("nan"), float("inf"), "", "x", "x" * 100_000, [], {}, [[]], [None], {"a": 1}),
    *("\x00", "\x1b[2J", "../x", 1 << 70, 0.5, ["a", "a"], "\ud800"),
)


def members(rng: np.random.Generator, data: bytes) -> bytes:
    """Change one member of a JSON document, of each of its lines, or of the deepest nesting that a reader takes."""
    try:
        root = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if rng.random() < 0.03:
        return b'{"a":' * 100_000
    if rng.random() < 0.05 or not isinstance(root, dict | list):
        return json.dumps(_JSON[rng.integers(len(_JSON))]).encode()
    at = root
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = keys[rng.integers(len(keys))]
        if isinstance(at[key], dict | list) and rng.random() < 0.7:
            at = at[key]
            continue
        if rng.random() < 0.2:
            del at[key]
        else:
            at[key] = _JSON[rng.integers(len(_JSON))]
        break
    return json.dumps(root).encode()
