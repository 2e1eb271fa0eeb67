"""Files that are made to harm: links out of a store, zip bombs, and headers that claim gigabytes."""

import io
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import soundfile

from tests.fuzz.inputs import execute
from tests.fuzz.kinds import Command
from tests.fuzz.material import RATE, tone
from tests.fuzz.seals import reseal
from tests.harness.fork_server import ForkServer

SECRET = "the secret words"
"""What a file beside the hostile one holds; no command may show it or pack it."""

HOSTILE: dict[str, tuple[Callable[[Path, Path], None], Command]] = {}

CHEAP = (
    *("names_in_another_file", "labels_by_an_external_link", "a_link_to_itself", "names_that_claim_gigabytes"),
    *("vectors_that_claim_gigabytes", "tensors_with_a_header_of_gigabytes", "a_header_nested_deeply"),
    *("a_wav_that_claims_two_gigabytes", "a_flac_that_claims_all_samples_there_are", "files_that_are_no_files"),
)
"""Those in the short run."""


def _hostile(*command: str) -> Callable[[Callable[[Path, Path], None]], Callable[[Path, Path], None]]:
    """Register a maker of a hostile file, which takes the good files and the folder, and the command that reads it."""

    def register(make: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        HOSTILE[make.__name__.removeprefix("_")] = make, command
        return make

    return register


def run_hostile(number: int, server: ForkServer, home: Path, folder: Path) -> tuple[int, float, str]:
    """Run a hostile file: exit code, seconds, and what to say of a failure."""
    name = list(HOSTILE)[number]
    make, command = HOSTILE[name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "secret.txt").write_text(SECRET * 20)
    make(home, folder)
    words = tuple(word.replace("HOME", str(home)) for word in command)
    result, faults = execute(words, server, home, folder)
    said = (result.stdout + result.stderr).replace("\0", "")
    made = b"".join(path.read_bytes() for path in folder.rglob("out*") if path.is_file())
    leaks = ("shows what another file holds",) if SECRET[:10] in said or SECRET[:10].encode() in made else ()
    text = "; ".join((*faults, *leaks))
    return (
        result.returncode,
        result.seconds,
        text and f"FAILED hostile {name}: bayes-panns {' '.join(words)}\n       {text}",
    )


_INSPECT = ("inspect", "clips.h5")
_PREDICT = ("predict", "HOME/good/net", "a.wav", "--draws", "0")
_EVALUATE = ("evaluate", "HOME/good/net", "--data", "clips.h5", "--draws", "0")


def _store(home: Path, folder: Path) -> h5py.File:
    return h5py.File(shutil.copy(home / "good" / "clips.h5", folder / "clips.h5"), "r+")


def _named(file: h5py.File, size: int = 9) -> None:
    del file["audio_name"]
    file.create_dataset("audio_name", (size,), dtype="S16", external=[("secret.txt", 0, 16 * size)])


@_hostile(*_INSPECT)
def _names_in_another_file(home: Path, folder: Path) -> None:
    with _store(home, folder) as file:
        _named(file)


@_hostile("embed", "HOME/good/net", "clips.h5", "-o", "out.npz")
def _names_in_another_file_embedded(home: Path, folder: Path) -> None:
    _names_in_another_file(home, folder)


@_hostile(*_EVALUATE, "-o", "out")
def _samples_in_another_file(home: Path, folder: Path) -> None:
    with _store(home, folder) as file:
        shape = file["waveform"].shape
        del file["waveform"]
        file.create_dataset("waveform", shape, dtype="i2", external=[("secret.txt", 0, h5py.h5f.UNLIMITED)])


@_hostile(*_INSPECT)
def _labels_by_an_external_link(home: Path, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["labels"] = np.array([SECRET.encode()] * 3)
    with _store(home, folder) as file:
        del file["label_names"]
        file["label_names"] = h5py.ExternalLink("other.h5", "/labels")


@_hostile(*_EVALUATE)
def _samples_by_a_virtual_layout(home: Path, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.zeros((9, 4000), dtype="i2")
    with _store(home, folder) as file:
        del file["waveform"]
        layout = h5py.VirtualLayout((9, 4000), dtype="i2")
        layout[:] = h5py.VirtualSource(folder / "other.h5", "x", (9, 4000))
        file.create_virtual_dataset("waveform", layout)


@_hostile(*_INSPECT)
def _a_link_to_itself(home: Path, folder: Path) -> None:
    with _store(home, folder) as file:
        del file["label_names"]
        file["label_names"] = h5py.SoftLink("/label_names")


@_hostile(*_EVALUATE)
def _samples_that_claim_terabytes(home: Path, folder: Path) -> None:
    with _store(home, folder) as file:
        del file["waveform"]
        file.create_dataset("waveform", (9, 1 << 36), dtype="i2", chunks=(1, 1 << 20))


@_hostile(*_INSPECT)
def _names_that_claim_gigabytes(home: Path, folder: Path) -> None:
    with _store(home, folder) as file:
        for name, shape, kind in (("audio_name", (1 << 31,), "S64"), ("target", (1 << 31, 3), "bool")):
            del file[name]
            file.create_dataset(name, shape, dtype=kind, chunks=True)


@_hostile(*_EVALUATE)
def _samples_that_unpack_to_gigabytes(home: Path, folder: Path) -> None:
    """4 GB of zeros in some 4 MB."""
    with _store(home, folder) as file:
        del file["waveform"]
        made = file.create_dataset("waveform", (9, 1 << 28), dtype="i2", chunks=(1, 1 << 26), compression="gzip")
        packed = _deflated(1 << 27)
        for row in range(9):
            for column in range(4):
                made.id.write_direct_chunk((row, column << 26), packed)


def _deflated(size: int) -> bytes:
    """A zlib stream of zeros."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def _bomb(path: Path, members: dict[str, bytes], name: str, head: bytes) -> None:
    """Write a zip file whose member ``name`` is ``head`` and then 3 GB of zeros, in 3 MB.

    A compressed block of zeros is repeated, so it is made in no time. Its CRC is wrong, which nobody knows before it is
    unpacked.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = start + block * 3000 + packer.flush()
    with path.open("wb") as out:
        listed = []
        for each, content in {**members, name: packed}.items():
            bomb = each == name
            size = len(head) + (3000 << 20) if bomb else len(content)
            crc = 0 if bomb else zlib.crc32(content)
            common = struct.pack("<HHHHHIIIHH", 20, 0, 8 * bomb, 0, 33, crc, len(content), size, len(each), 0)
            tail = struct.pack("<HHHII", 0, 0, 0, 0, out.tell())
            listed.append(b"PK\1\2\x14\0" + common + tail + each.encode())
            out.write(b"PK\3\4" + common + each.encode() + content)
        at, directory = out.tell(), b"".join(listed)
        out.write(directory)
        out.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, len(listed), len(listed), len(directory), at, 0))


def _npy_header(shape: tuple[int, ...], kind: str) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": kind, "fortran_order": False, "shape": shape})
    return out.getvalue()


@_hostile("pack", "embeddings", "vectors.npz", "-o", "out.h5")
def _a_zip_bomb_of_vectors(home: Path, folder: Path) -> None:
    _bomb(folder / "vectors.npz", {}, "embeddings.npy", _npy_header((3000 << 10, 256), "<f4"))


@_hostile("pack", "embeddings", "vectors.npz", "-o", "out.h5")
def _vectors_that_claim_gigabytes(home: Path, folder: Path) -> None:
    with zipfile.ZipFile(folder / "vectors.npz", "w") as archive:
        archive.writestr("embeddings.npy", _npy_header((1 << 30, 1 << 10), "<f4"))


@_hostile("inspect", "run")
def _fitted_clips_that_claim_gigabytes(home: Path, folder: Path) -> None:
    shutil.copytree(home / "run" / "0" / "run", folder / "run")
    path = folder / "run" / "posterior" / "fitted-clips.npz"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, _npy_header((1 << 40,), "<u8"))
    reseal(folder / "run")


@_hostile("import", "panns", "net.pth", "-o", "out")
def _a_checkpoint_that_is_a_bomb(home: Path, folder: Path) -> None:
    """A storage that unpacks to 3 GB; torch itself never packs them."""
    with zipfile.ZipFile(home / "checkpoint" / "0" / "net.pth") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in members if name.endswith("/data/0"))
    _bomb(folder / "net.pth", members, name, b"")


@_hostile("evaluate", "run", "--data", "HOME/good/vectors.h5", "--draws", "0")
def _tensors_with_a_header_of_gigabytes(home: Path, folder: Path) -> None:
    shutil.copytree(home / "run" / "0" / "run", folder / "run")
    path = folder / "run" / "posterior" / "guide.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    reseal(folder / "run")


def _wav(folder: Path, **fields: int) -> None:
    """A short WAV file with other numbers in its header: each field is ``at_<offset>``, 4 bytes."""
    out = io.BytesIO()
    soundfile.write(out, tone(0), RATE, format="WAV", subtype="PCM_16")
    data = bytearray(out.getvalue())
    for name, value in fields.items():
        at = int(name.removeprefix("at_"))
        data[at : at + 4] = struct.pack("<I", value)
    (folder / "a.wav").write_bytes(data)


@_hostile(*_PREDICT)
def _a_wav_that_claims_two_gigabytes(home: Path, folder: Path) -> None:
    _wav(folder, at_4=0xFFFFFFF0, at_40=0x80000000)


@_hostile(*_PREDICT)
def _a_wav_of_four_billion_hertz(home: Path, folder: Path) -> None:
    _wav(folder, at_24=0xFFFFFFFF)


@_hostile(*_PREDICT)
def _a_wav_of_one_hertz(home: Path, folder: Path) -> None:
    _wav(folder, at_24=1, at_28=2)


@_hostile("predict", "HOME/good/net", "a.flac", "--draws", "0")
def _a_flac_that_claims_all_samples_there_are(home: Path, folder: Path) -> None:
    out = io.BytesIO()
    soundfile.write(out, tone(0), RATE, format="FLAC")
    data = bytearray(out.getvalue())
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    (folder / "a.flac").write_bytes(data)


@_hostile("predict", "HOME/good/net", "a.flac", "--draws", "0")
def _a_flac_picture_of_16_megabytes_that_is_not_there(home: Path, folder: Path) -> None:
    out = io.BytesIO()
    soundfile.write(out, tone(0), RATE, format="FLAC")
    data = out.getvalue()
    (folder / "a.flac").write_bytes(data[:42] + b"\x06\xff\xff\xff" + data[42:])


@_hostile("predict", "HOME/good/net", "a.aiff", "--draws", "0")
def _an_aiff_that_claims_gigabytes(home: Path, folder: Path) -> None:
    out = io.BytesIO()
    soundfile.write(out, tone(0), RATE, format="AIFF")
    data = bytearray(out.getvalue())
    at = data.find(b"COMM") + 10
    data[at : at + 4] = b"\x7f\xff\xff\xff"
    (folder / "a.aiff").write_bytes(data)


@_hostile("pack", "folder", "t.csv", "-o", "out.h5", "--sample-rate", "8000", "--seconds", "0.5")
def _a_table_that_names_files_outside(home: Path, folder: Path) -> None:
    inside = folder / "data"
    inside.mkdir()
    _wav(folder)
    (folder / "t.csv").write_text("file,labels\n/etc/passwd,a\n../../../../etc/hostname,b\na.wav,a\n")


@_hostile("predict", "HOME/good/net", "a.wav", "b.wav", "c.wav", "d.wav", "--draws", "0")
def _files_that_are_no_files(home: Path, folder: Path) -> None:
    """A pipe without a writer, an endless device, a link to itself, a folder of the name of a sound."""
    os.mkfifo(folder / "a.wav")
    (folder / "b.wav").symlink_to("/dev/zero")
    (folder / "c.wav").symlink_to("c.wav")
    (folder / "d.wav").mkdir()


@_hostile("inspect", "run")
def _a_header_nested_deeply(home: Path, folder: Path) -> None:
    shutil.copytree(home / "run" / "0" / "run", folder / "run")
    (folder / "run" / "posterior" / "posterior.toml").write_text("x = " + "[" * 100_000)
