"""Ways to damage a file without knowing what is in it. Each takes a generator and the bytes, and gives new bytes."""

import struct
from collections.abc import Callable

import numpy as np

Mutation = Callable[[np.random.Generator, bytes], bytes]

INTERESTING = (
    *(0, 1, 2, 3, 7, 8, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFF000, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1),
)
"""Values at which counts, sizes and rates overflow or mean "unknown"."""

_HEADER = 512
"""Most fields that matter are in the first bytes of a file."""


def place(rng: np.random.Generator, size: int) -> int:
    """An offset into ``size`` bytes: in half the cases near the start, where headers are."""
    if size == 0:
        return 0
    return int(rng.integers(min(size, _HEADER) if rng.random() < 0.5 else size))


def flip_bits(rng: np.random.Generator, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9)) if out else 0):
        out[place(rng, len(out))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def set_byte(rng: np.random.Generator, data: bytes) -> bytes:
    out = bytearray(data)
    if out:
        out[place(rng, len(out))] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)]))
    return bytes(out)


def write_integer(rng: np.random.Generator, data: bytes) -> bytes:
    width, order = int(rng.choice([1, 2, 4, 8])), str(rng.choice(["little", "big"]))
    value = int(INTERESTING[rng.integers(len(INTERESTING))]) % (1 << 8 * width)
    at = place(rng, len(data))
    at -= at % int(rng.choice([1, 2, 4]))
    return data[:at] + value.to_bytes(width, order) + data[at + width :]


def write_float(rng: np.random.Generator, data: bytes) -> bytes:
    at, value = place(rng, len(data)), float(rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, 1e-40]))
    form = str(rng.choice(["<f", ">f", "<d", ">d"]))
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def insert(rng: np.random.Generator, data: bytes) -> bytes:
    at, size = place(rng, len(data)), int(rng.choice([1, 2, 4, 16, 300]))
    return data[:at] + (rng.bytes(size) if rng.random() < 0.5 else bytes(size)) + data[at:]


def delete(rng: np.random.Generator, data: bytes) -> bytes:
    at, size = place(rng, len(data)), int(rng.choice([1, 2, 4, 16, 300]))
    return data[:at] + data[at + size :]


def truncate(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: place(rng, len(data) + 1)]


def zero_block(rng: np.random.Generator, data: bytes) -> bytes:
    at, size = place(rng, len(data)), int(rng.choice([4, 64, 512, 4096]))
    return data[:at] + bytes(len(data[at : at + size])) + data[at + size :]


def swap_blocks(rng: np.random.Generator, data: bytes) -> bytes:
    size = int(rng.choice([4, 16, 256]))
    first, second = sorted((place(rng, len(data)), place(rng, len(data))))
    second = max(second, first + size)
    return (
        data[:first]
        + data[second : second + size]
        + data[first + size : second]
        + data[first : first + size]
        + data[second + size :]
    )


def repeat_block(rng: np.random.Generator, data: bytes) -> bytes:
    at, size = place(rng, len(data)), int(rng.choice([8, 64, 1024]))
    return data[:at] + data[at : at + size] * int(rng.integers(2, 9)) + data[at + size :]


def append(rng: np.random.Generator, data: bytes) -> bytes:
    tail = rng.choice(["zeros", "noise", "itself"])
    return data + {"zeros": bytes(4096), "noise": rng.bytes(1024), "itself": data}[str(tail)]


BYTES: tuple[Mutation, ...] = (
    *(flip_bits, set_byte, write_integer, write_integer, write_float, insert, delete),
    *(truncate, zero_block, swap_blocks, repeat_block, append),
)
"""Those that go with any file."""


def splice(other: bytes) -> Mutation:
    """The head of the file and the tail of another one."""

    def mutate(rng: np.random.Generator, data: bytes) -> bytes:
        return data[: place(rng, len(data))] + other[place(rng, len(other)) :]

    return mutate
