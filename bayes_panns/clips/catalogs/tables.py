"""CSV files, row by row, each row checked by a pydantic model. Every error names the file and the line.

The table of a published data set may have more columns than are read. A table that a user writes may not
(:class:`UserRow`): a column that is not understood would be ignored without a word.
"""

import codecs
import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from bayes_panns.core.errors import StoreError


class PublishedRow(BaseModel):
    """A row of a published data set's table; columns that no field names are ignored."""

    model_config = ConfigDict(frozen=True)


class UserRow(BaseModel):
    """A row of a table that a user writes; a column that no field names is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Fold = Annotated[int, Field(ge=0, lt=2**31)]
"""A fold, counted from 0 up."""

Name = Annotated[str, Field(min_length=1)]
"""Text that may not be empty."""


def _with_point(value: object, info: ValidationInfo) -> object:
    # Where commas stand between the fields, 1,000 is more likely a thousand.
    return value.replace(",", ".") if isinstance(value, str) and info.context != "," else value


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_with_point)]
"""A time in seconds, with a decimal comma only where something else stands between the fields."""


def _inside(name: str) -> str:
    if name in {".", ".."} or any(letter in name for letter in "/\\\0"):
        raise ValueError("is not the name of a file in the data set's folder")
    return name


FileName = Annotated[Name, AfterValidator(_inside)]
"""The name of a file without folders: a published table may come from a stranger too."""

_Row = TypeVar("_Row", bound=BaseModel)

_REASONS = {
    "int_parsing": "is not a whole number",
    "string_too_short": "is empty",
    "bool_parsing": "is not true or false",
    "float_parsing": "is not a number",
    "finite_number": "is not a finite number",
}
"""Pydantic's kinds of errors in this package's words."""


def read_table(table: Path, row: type[_Row], *, also: Sequence[str] = ()) -> list[tuple[int, _Row]]:
    """The rows of a CSV file with a header, each with its line number.

    Args:
        table: The file, in UTF-8 or Excel's UTF-16; commas, semicolons or tabs stand between its fields.
        row: What a row holds. Fields that have a default are columns that may be missing.
        also: Columns that a table of another kind may have, for the error that lists the known ones.

    Raises:
        StoreError: There is no such file, it is not CSV, it lacks a column or has one that is not known, a row does not
            fit, or there is none.
    """
    if not table.is_file():
        raise StoreError(f"{table}: no such file; name the folder that the data set was unpacked to")
    rows = []
    with one_line_errors(table), table.open(newline="", encoding=encoding_of(table)) as file:
        reader, columns = _reader(file)
        columns = _as_known(columns, row)
        _check_columns(table, columns, row, also)
        for values in reader:
            # A spreadsheet writes a row that was emptied as nothing but commas.
            if not any(map(str.strip, values)):
                continue
            if len(values) != len(columns):
                raise StoreError(
                    f"{table}: line {reader.line_num} does not have {len(columns)} fields, as the first line does; put "
                    "a field that holds a comma in quotes"
                )
            fields = dict(zip(columns, values, strict=True))
            rows.append((reader.line_num, _checked(table, reader.line_num, fields, row, reader.dialect.delimiter)))
            # A store would cut the text there.
            if any("\0" in value for value in values):
                raise StoreError(f"{table}: line {reader.line_num} holds a zero byte; save the table as text again")
    if not rows:
        raise StoreError(f"{table}: lists no clips; name a CSV file with a row a clip")
    return rows


def columns_of(table: Path) -> list[str]:
    """The first line of a CSV file as its columns, lower case; none if it cannot be read as CSV."""
    try:
        with table.open(newline="", encoding=encoding_of(table)) as file:
            return [name.strip().lower() for name in _reader(file)[1]]
    except (OSError, UnicodeError, csv.Error):
        return []


def encoding_of(table: Path) -> str:
    """The encoding of a text file: UTF-8, or the UTF-16 of Excel's "Unicode text", which begins with a mark.

    Raises:
        OSError: It cannot be read.
    """
    with table.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _reader(file: TextIO) -> tuple[Any, list[str]]:
    """The rows of a CSV file, and its columns, which are its first line.

    Spreadsheets put semicolons between the fields in countries that write decimal commas, and others put tabs.
    """
    first = file.readline()
    delimiter = next((sign for sign in ",;\t" if sign in first), ",")
    file.seek(0)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    return reader, next(reader, [])


def _as_known(columns: list[str], row: type[BaseModel]) -> list[str]:
    """The columns of a user's table as they are known, whatever their letter case and the spaces around them."""
    if row.model_config.get("extra") != "forbid":
        return columns
    known = {name.lower(): name for name in row.model_fields}
    return [known.get(name.strip().lower(), name) for name in columns]


def read_lines(table: Path, fields: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file without a header, in which lines that start with # are comments.

    Args:
        table: The file, in UTF-8. A space may follow a comma.
        fields: The names of its fields.

    Yields:
        The line number, and the fields by their names.

    Raises:
        StoreError: The file cannot be read or is not CSV, or a row does not have these fields.
    """
    with one_line_errors(table), table.open(newline="", encoding=encoding_of(table)) as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        for values in reader:
            if not values or values[0].startswith("#"):
                continue
            if len(values) != len(fields):
                raise StoreError(
                    f"{table}: line {reader.line_num} has {len(values)} fields, not {len(fields)} ("
                    f"{', '.join(fields)}); put a field that holds a comma in quotes"
                )
            yield reader.line_num, dict(zip(fields, values, strict=True))


def require_distinct(table: Path, rows: Iterable[tuple[int, _Row]], key: Callable[[_Row], str]) -> None:
    """Check that no two rows are of the same clip.

    Raises:
        StoreError: Two rows have the same ``key``.
    """
    first: dict[str, int] = {}
    for line, row in rows:
        name = key(row)
        if name in first:
            raise StoreError(f"{table}: line {line} lists {name!r} again, after line {first[name]}; remove one of them")
        first[name] = line


def _check_columns(table: Path, columns: list[str], row: type[BaseModel], also: Sequence[str]) -> None:
    known = {field.alias or name: field.is_required() for name, field in row.model_fields.items()}
    missing = [name for name, required in known.items() if required and name not in columns]
    if missing:
        what = f"column{'s'[: len(missing) != 1]} {', '.join(missing)}"
        raise StoreError(f"{table}: lacks the {what}; it has {', '.join(columns) or 'none'}")
    repeated = [name for name, count in Counter(columns).items() if count > 1 and name in known]
    if repeated:
        raise StoreError(f"{table}: has the column {repeated[0]!r} more than once; keep one of them")
    unknown = [name for name in columns if name not in known]
    if unknown and row.model_config.get("extra") == "forbid":
        raise StoreError(
            f"{table}: has columns that are not understood: {', '.join(map(repr, unknown))}; known are "
            f"{', '.join([*known, *also])}; rename or remove the others"
        )


def _checked(table: Path, line: int, values: dict[str, str], row: type[_Row], delimiter: str) -> _Row:
    try:
        return row.model_validate(values, context=delimiter)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        column = str(first["loc"][0])
        reason = _REASONS.get(first["type"], first["msg"].removeprefix("Input ").removeprefix("Value error, "))
        raise StoreError(
            f"{table}: line {line} has {column} {values.get(column, '')!r}, which {reason}; correct the line"
        ) from error


@contextmanager
def one_line_errors(table: Path) -> Iterator[None]:
    """A block in which a table is read; what Python raises becomes one line.

    Raises:
        StoreError: The table cannot be read, or is not CSV in UTF-8.
    """
    try:
        yield
    except UnicodeError as error:
        raise StoreError(f"{table}: is not in UTF-8 ({error}); save it in that encoding") from error
    except csv.Error as error:
        raise StoreError(f"{table}: cannot be read as CSV ({error}); correct it") from error
    except OSError as error:
        raise StoreError(f"{table}: cannot be read ({error.strerror}); check its permissions") from error
