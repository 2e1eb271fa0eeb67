"""What share of a step goes through the weights one by one: draws, their gradients, and the update."""

from collections.abc import Callable, Iterator

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.contenders import TRAIN, Step
from benchmarks.gpu.setting import WARM_UP, Found, Setting, room

KERNEL = 0.1
"""Above this share of a step, draw and update are worth a kernel of their own."""

DRAWN = ("_Draw", "_DrawBackward")
"""The draw with its KL, forward and backward, as the profiler names it."""

UPDATED = "Optimizer.step#"
"""How the names of the optimisers' steps begin."""

PROFILED = ("deterministic", "weights", "mirrored", "flipout", "natural-gradient")


def shares(setting: Setting, ends: float) -> Iterator[Found]:
    """The shares of a step that draw weights and update them, from a profile."""
    for name in PROFILED:
        with room():
            step = TRAIN[name].make(setting.work())
            for _ in range(1 if setting.tiny else WARM_UP):
                step()
            drawn, updated, rest = profiled(step, on_gpu=setting.on_gpu, steps=1 if setting.tiny else 3)
        total = drawn + updated + rest
        note = f"draw and KL {drawn / total:.1%}, update {updated / total:.1%}"
        yield Found(
            f"{name}: draw and update, share of a step",
            (drawn + updated) / total,
            most=None if name == "deterministic" else KERNEL,
            note=note,
            judged=setting.judged,
            details={"draw": drawn, "update": updated, "rest": rest},
        )


def profiled(step: Step, *, on_gpu: bool, steps: int) -> tuple[float, float, float]:
    """Seconds of the device, or of the processor, in draws, updates and all else."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as found:
        for _ in range(steps):
            step()
        if on_gpu:
            torch.cuda.synchronize()
    events = found.key_averages()
    # On a GPU a range of the processor has the time of the kernels that it started, and each kernel is an event too.
    ranges = [each for each in events if each.device_type == DeviceType.CPU]
    kernels = [each for each in events if each.device_type != DeviceType.CPU and not each.is_user_annotation]

    def within(chosen: Callable[[str], bool]) -> float:
        found = [each for each in ranges if chosen(each.key)]
        return sum(each.device_time_total if on_gpu else each.cpu_time_total for each in found)

    drawn, updated = within(DRAWN.__contains__), within(lambda name: name.startswith(UPDATED))
    total = (
        sum(each.self_device_time_total for each in kernels)
        if on_gpu
        else sum(each.self_cpu_time_total for each in ranges)
    )
    return drawn / 1e6, updated / 1e6, (total - drawn - updated) / 1e6
