"""Clips a second that are read from a store, beside those that a step takes."""

import statistics
import time
from collections.abc import Iterator

import torch

from bayes_panns.clips import ClipSet, Sampler, Task
from bayes_panns.svi import Features
from benchmarks.gpu.measures import generated_store, plain_step
from benchmarks.gpu.setting import WARM_UP, Found, Setting, room

BATCHES = 8
"""Batches of clips in the store."""


def loading(setting: Setting, ends: float) -> Iterator[Found]:
    """Random batches of a generated store of int16 clips in the page cache, onto the device."""
    work = setting.work()
    with room():
        step = plain_step(work)
        for _ in range(1 if setting.tiny else WARM_UP):
            step()
        eaten = work.clips / statistics.median(setting.time(step) for _ in range(1 if setting.tiny else 5))
    yield Found("a step in plain PyTorch takes", eaten, "clips/s")
    clips = ClipSet(generated_store(setting.folder / "read.h5", work, BATCHES * work.clips))
    data = Features(clips, work.front_end(), Task.MULTI_LABEL, keep="none")
    sampler = Sampler(data.target, work.clips, seed=0)
    for _ in range(2):
        # The first pass checks the digest of each clip.
        started = time.monotonic()
        for number in range(sampler.batches):
            data.batch(sampler.batch(number), setting.device)
        if setting.on_gpu:
            torch.cuda.synchronize()
        seconds = time.monotonic() - started
    yield Found(
        "read by one process, no reading ahead",
        len(clips) / seconds,
        "clips/s",
        least=eaten,
        note="second pass, from the page cache",
        judged=setting.on_gpu,
    )
