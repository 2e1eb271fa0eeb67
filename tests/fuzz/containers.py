"""Ways to damage what is inside a zip, HDF5 or safetensors file, so that its own checksums and offsets still fit."""

import io
import json
import struct
import zipfile
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from tests.fuzz.mutations import BYTES, Mutation


def inside_zip(rng: np.random.Generator, data: bytes) -> bytes:
    """Mutate, drop, double or rename a member of a zip file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return data
    if not members:
        return data
    chosen = int(rng.integers(len(members)))
    out = io.BytesIO()
    what = rng.integers(8)
    with zipfile.ZipFile(out, "w") as archive:
        for index, (info, content) in enumerate(members):
            name = info.filename
            if index == chosen:
                if what == 0:
                    continue
                if what == 1:
                    name = ("../evil", "/abs", name + ".npy", "\x1b[2J.npy", "pickle")[rng.integers(5)]
                elif what == 2:
                    _write(archive, name + ".again", content)
                elif what == 3:
                    content = members[rng.integers(len(members))][1]
                else:
                    content = BYTES[rng.integers(len(BYTES))](rng, content)
            _write(archive, name, content)
    return out.getvalue()


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)


def inside_safetensors(rng: np.random.Generator, data: bytes) -> bytes:
    """Change one value of the header of a safetensors file, whose length then fits."""
    try:
        (size,) = struct.unpack("<Q", data[:8])
        header: dict[str, Any] = json.loads(data[8 : 8 + size])
        name = list(header)[rng.integers(len(header))]
        entry = header[name]
        match rng.integers(6):
            case 0:
                entry["shape"] = [1 << 62, 4] if rng.random() < 0.5 else [*entry["shape"], 0]
            case 1:
                entry["dtype"] = str(rng.choice(["F64", "I8", "BOOL", "F8_E4M3", "X", "BF16", "U64"]))
            case 2:
                entry["data_offsets"] = [0, int(rng.choice([0, 4, 1 << 40, len(data)]))]
            case 3:
                del header[name]
            case 4:
                header[str(rng.choice(["guide/x", "\x1b[2J", "__metadata__", "", "x" * 5000]))] = header.pop(name)
            case _:
                entry["shape"] = entry["shape"][::-1] or [1]
    except (struct.error, ValueError, KeyError, TypeError):
        return data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


_FOREIGN = (b"x" * 100, np.array([1.5, np.nan]), np.array([], dtype=np.int16), np.zeros((2, 2, 2)), "text", -1, 1 << 62)


def inside_hdf5(rng: np.random.Generator, data: bytes) -> bytes:
    """Change a data set, an attribute or a link of an HDF5 file."""
    image = io.BytesIO(data)
    try:
        with h5py.File(image, "r+") as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            _change(rng, file, names)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return data
    return image.getvalue()


_MANY = 1 << 22


def _change(rng: np.random.Generator, file: h5py.File, names: Sequence[str]) -> None:
    name = names[rng.integers(len(names))]
    if file[name].size > _MANY:
        # An earlier mutation claims terabytes.
        return
    values, attributes = file[name][()], dict(file[name].attrs)
    match rng.integers(12):
        case 0:
            del file[name]
        case 1:
            _replace(file, name, values[: len(values) // 2] if np.ndim(values) else values, attributes)
        case 2:
            kinds = ("f4", "i8", "u1", "bool", "S3", "f2", "complex64")
            new = np.zeros(np.shape(values), dtype=str(rng.choice(kinds)))
            _replace(file, name, new, attributes)
        case 3:
            _replace(file, name, _FOREIGN[rng.integers(len(_FOREIGN))], attributes)
        case 4:
            damaged = np.array(values)
            if damaged.size and damaged.dtype.kind in "iuf":
                extreme = np.nan if damaged.dtype.kind == "f" else np.iinfo(damaged.dtype).max
                damaged.flat[rng.integers(damaged.size)] = extreme
            _replace(file, name, damaged, attributes)
        case 5:
            # A shape that claims terabytes and holds nothing.
            del file[name]
            shape = (int(rng.choice([1 << 20, 1 << 34])), *np.shape(values)[1:])
            file.create_dataset(name, shape, dtype="i2" if values.dtype.hasobject else values.dtype, chunks=True)
        case 6:
            del file[name]
            file[name] = h5py.SoftLink(f"/{rng.choice([*names, 'nowhere', name])}")
        case 7:
            del file[name]
            file[name] = h5py.ExternalLink("/etc/passwd", "/")
        case 8:
            del file[name]
            size = max(1, min(int(np.prod(np.shape(values))), 500))
            file.create_dataset(name, (size,), dtype="S1", external=[("/etc/passwd", 0, size)])
        case 9:
            _replace(file, name, np.array(["é", "x" * 1000, "\x1b[2J", "=1+1"], dtype=object), attributes)
        case 10:
            where = file if rng.random() < 0.7 else file[name]
            held = [*where.attrs]
            if held:
                key = held[rng.integers(len(held))]
                del where.attrs[key]
                if rng.random() < 0.8:
                    where.attrs[key] = _FOREIGN[rng.integers(len(_FOREIGN))]
        case _:
            del file[name]
            file.create_group(name)


def _replace(file: h5py.File, name: str, values: Any, attributes: dict[str, Any]) -> None:
    del file[name]
    kind = h5py.string_dtype() if np.asarray(values).dtype.hasobject else None
    made = file.create_dataset(name, data=values, dtype=kind)
    for key, each in attributes.items():
        made.attrs[key] = each


ZIP: tuple[Mutation, ...] = (inside_zip,)
HDF5: tuple[Mutation, ...] = (inside_hdf5,)
SAFETENSORS: tuple[Mutation, ...] = (inside_safetensors,)
