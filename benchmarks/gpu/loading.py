"""Clips a second that are read from a store, beside those that a step takes."""

import statistics
import time
from collections.abc import Iterator

import torch

from bayes_panns.clips import ClipSet, Sampler, Task
from bayes_panns.svi import Features
from bayes_panns.svi.loader import one_pass
from benchmarks.gpu.measures import generated_store, plain_step
from benchmarks.gpu.setting import WARM_UP, Found, Setting, room

BATCHES = 8
"""Batches of clips in the store."""

WORKERS = (0, 2, 4)
"""How many processes read ahead."""


def loading(setting: Setting, ends: float) -> Iterator[Found]:
    """Random batches of a generated store, onto the device, by the reader of a fit."""
    work = setting.work()
    with room():
        step = plain_step(work)
        for _ in range(1 if setting.tiny else WARM_UP):
            step()
        eaten = work.clips / statistics.median(setting.time(step) for _ in range(1 if setting.tiny else 5))
    yield Found("a step in plain PyTorch takes", eaten, "clips/s")
    clips = ClipSet(generated_store(setting.folder / "read.h5", work, BATCHES * work.clips))
    data = Features(clips, work.front_end(), Task.MULTI_LABEL, keep="none")
    best = 0.0
    for workers in (0,) if setting.tiny else WORKERS:
        found = _clips_a_second(setting, data, work.clips, workers)
        best = max(best, found)
        yield Found(f"read, {workers} processes ahead", found, "clips/s", note="int16, from the page cache")
    yield Found("read, at best", best, "clips/s", least=eaten, judged=setting.judged)


def _clips_a_second(setting: Setting, data: Features, batch: int, workers: int) -> float:
    """Of a pass; one before it checks the digest of each clip, and starts the processes."""
    sampler = Sampler(data.target, batch, seed=0)
    plan = [sampler.batch(number) for number in range(2 * sampler.batches)]
    with one_pass(data, plan, setting.device, workers=workers) as read:
        for number, _ in enumerate(read):
            # The first pass is over.
            if number == sampler.batches - 1:
                started = time.monotonic()
        if setting.on_gpu:
            torch.cuda.synchronize()
        return len(data) / (time.monotonic() - started)
