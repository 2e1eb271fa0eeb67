"""Zip archives of strangers, which NumPy's ``.npz`` and PyTorch's checkpoints are: checked before they are read.

A zip knows how long each of its parts is and keeps a CRC of it. PyTorch does not check the CRC, and NumPy asks for as
much memory as the header of an array says.
"""

import ast
import math
import os
import re
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

FREE = 2**28
"""Bytes that the parts of any archive may have together."""

RATIO = 100
"""How many times its own size the parts of a larger archive may have."""

_BLOCK = 1 << 20
"""Bytes that are read at once."""

_HEADER = 1 << 16
"""The most bytes of an array's header."""

_SIZE_AT = {1: 2, 2: 4, 3: 4}
"""How many bytes give the length of an array's header, by the version of the format."""


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip archive does.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4"


def check_zip(path: Path) -> None:
    """Read every part of an archive in small blocks, and check its length and its CRC.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is damaged, is no archive, or holds far more than its own size.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                _check_sizes(archive.infolist(), file)
                for member in archive.infolist():
                    with archive.open(member) as part:
                        # The end of a part is where its CRC is checked.
                        while part.read(_BLOCK):
                            pass
        except ValueError:
            raise
        except Exception as error:
            # A damaged archive makes zipfile and zlib raise a dozen kinds of errors.
            raise ValueError(_reason(error)) from error


def check_npz(path: Path, names: Collection[str] | None = None) -> None:
    """Check the arrays of an ``.npz`` file without reading them: NumPy checks their CRCs when it does.

    Args:
        path: The file.
        names: The arrays that are to be read; by default all.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is damaged, is no archive, or holds far more than its own size; or one of the arrays is not as
            large as it says, or one of Python objects.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                chosen = [
                    member
                    for member in archive.infolist()
                    if names is None or member.filename.removesuffix(".npy") in names
                ]
                _check_sizes(chosen, file)
                for member in archive.infolist():
                    # Each name is there twice, and compared here: damage to one would hide an array.
                    with archive.open(member) as part:
                        if member in chosen:
                            _check_array(member, part)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(_reason(error)) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check_sizes(members: list[zipfile.ZipInfo], file: IO[bytes]) -> None:
    there = os.fstat(file.fileno()).st_size
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ValueError("two of its parts have the same name")
    for member in members:
        # PyTorch takes a part for a folder, and reads nothing, where this one bit says so.
        if member.external_attr & 0x10 and not member.is_dir():
            raise ValueError(f"its part {member.filename} is marked as a folder")
    if sum(member.compress_size for member in members) > there:
        raise ValueError("its parts are longer than the file")
    declared = sum(member.file_size for member in members)
    if declared > max(FREE, RATIO * there):
        raise ValueError(f"it unpacks from {there} to {declared} bytes, which no array or network does")


def _check_array(member: zipfile.ZipInfo, part: IO[bytes]) -> None:
    """Check that the header of an array fits the length of its part of the archive."""
    start = part.read(8)
    if len(start) < 8 or start[:6] != b"\x93NUMPY" or start[6] not in _SIZE_AT:
        raise ValueError(f"{member.filename} is not a NumPy array")
    digits = part.read(_SIZE_AT[start[6]])
    length = int.from_bytes(digits, "little")
    if length > _HEADER:
        raise ValueError(f"{member.filename} has a header of {length} bytes")
    header = ast.literal_eval(part.read(length).decode("latin-1"))
    described = header["descr"]
    found = re.fullmatch(r"[<>|=]?([?biufcmMSUOV])(\d*)(\[.*\])?", described) if isinstance(described, str) else None
    if found is None or found[1] in "OV":
        raise ValueError(f"{member.filename} is an array of Python objects; save texts with dtype=str")
    each = int(found[2] or 1) * (4 if found[1] == "U" else 1)
    declared = math.prod(header["shape"]) * each
    if len(start) + len(digits) + length + declared != member.file_size or min(header["shape"], default=0) < 0:
        raise ValueError(f"{member.filename} says that it has {declared} bytes, and is not that long")
