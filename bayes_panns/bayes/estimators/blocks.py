"""Elementwise work over large tensors, in blocks that stay in cache, shared out to as many threads as torch has.

A block has a random stream of its own, so that a draw does not depend on the number of threads. On other devices than
the CPU a tensor is one block.

On a GPU each operation is then a pass over its memory, and they are left as they are, without torch.compile and without
a kernel of their own. This is an estimate: it has not been measured. Bytes a weight that a step moves in float32:

| pass | reads and writes | bytes |
|---|---|---|
| draw | exp, normal, times, plus | 36 |
| KL | a difference, two squares, three sums | 36 |
| gradients of draw and KL | ten operations | 96 |
| Adam, of loc and log-scale | fused, one pass | 56 |
| cast to bfloat16, and its gradient back | two passes | 12 |

About 240 bytes a weight. ResNet-54 has 104 million, so 25 GB: 7 ms at the 3.35 TB/s of an H100, 9 ms at four fifths
of it. A step of 32 clips of 10 s is estimated at 0.25 s there, from 130 clips a second in bfloat16: elementwise passes
are 3 to 4 % of it, and one kernel for draw and KL, with one for their gradients, would save some 2 %. They would have
to be written for each form of a draw and each prior; from a tenth of a step on that would be worth it, as with 4 clips
a step.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

BLOCK = 1 << 19
"""Elements a block. Threads take turns at calling torch: with smaller blocks they would wait for each other."""

Work = Callable[[int, slice, list[Tensor], torch.Generator | None], None]
"""The work on a block: called with its number, its span, two scratch blocks and, if there is a seed, a generator."""


def count_blocks(like: Tensor) -> int:
    """How many blocks a tensor like ``like`` has."""
    return -(-like.numel() // BLOCK) if like.device.type == "cpu" else 1


def each_block(like: Tensor, work: Work, seed: int | None = None) -> None:
    """Do ``work`` for each block of a tensor like ``like``, on all of torch's threads.

    Args:
        like: Its size and device decide the blocks, its type that of the scratch blocks.
        work: See :data:`Work`.
        seed: Seeds a generator for each block.
    """
    blocks, size = count_blocks(like), like.numel()
    length = size if blocks == 1 else BLOCK

    def share(first: int, step: int) -> None:
        generator = None if seed is None else torch.Generator()
        scratch = _scratch(like, length)
        with torch.no_grad():
            for index in range(first, blocks, step):
                if generator is not None and seed is not None:
                    generator.manual_seed(seed + index)
                span = slice(index * length, min((index + 1) * length, size))
                work(index, span, [each[: span.stop - span.start] for each in scratch], generator)

    threads = min(torch.get_num_threads(), blocks)
    if threads == 1:
        share(0, 1)
        return
    pool = _pool(torch.get_num_threads(), os.getpid())
    for done in [pool.submit(share, first, threads) for first in range(threads)]:
        done.result()


def _use_one_thread() -> None:
    # The first call of get_num_threads in a thread sets the thread up, which would undo a setting made before.
    torch.get_num_threads()
    torch.set_num_threads(1)


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads in each of which torch computes on one thread; ``process`` gives a fork a pool of its own."""
    started = threading.Barrier(threads)
    pool = ThreadPoolExecutor(threads, "fused", initializer=_use_one_thread)
    for waiting in [pool.submit(started.wait) for _ in range(threads)]:
        waiting.result()
    # Each thread has its own setting, but a thread that torch starts later takes over the last one made.
    torch.set_num_threads(threads)
    return pool


_local = threading.local()


def _scratch(like: Tensor, length: int) -> list[Tensor]:
    """Two scratch blocks; on the CPU a thread keeps them, since fresh memory is slow."""
    if like.device.type != "cpu":
        return [torch.empty(length, dtype=like.dtype, device=like.device) for _ in range(2)]
    name = str(like.dtype)
    if not hasattr(_local, name):
        setattr(_local, name, torch.empty(2, BLOCK, dtype=like.dtype))
    return list(getattr(_local, name)[:, :length])
