"""Which device a job computes on, and with which numbers."""

import re

import torch

from bayes_panns.core.choices import Precision
from bayes_panns.core.errors import FitError, SettingError
from bayes_panns.core.launch import launch

DEVICES = "auto, cpu, cuda, cuda:N or mps"
"""The devices that :func:`choose_device` takes, for help texts and error messages."""


def choose_device(device: str) -> torch.device:
    """The device of a name.

    Of several processes on a host that were started together, each takes the GPU of its own number there.

    Args:
        device: ``cpu``; ``cuda``, the current GPU; ``cuda:N``, the GPU of that number, from 0; ``mps``, Apple's GPU; or
            ``auto``, which is ``cuda`` if there is such a GPU and ``cpu`` if not.

    Raises:
        SettingError: There is no device of that name.
        FitError: A GPU is asked for, and torch finds none, or none of that number; or there are fewer of them than
            processes, or several processes are to share one.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    here = launch()
    if device == "auto":
        return choose_device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise SettingError(f"device {device!r}: write {DEVICES}")
    chosen = torch.device(device)
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise FitError(f"device {device}: torch sees no GPU of Apple's here; use cpu or auto")
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise FitError(f"device {device}: torch sees no GPU here; use cpu or auto")
        if chosen.index is not None and chosen.index >= (count := torch.cuda.device_count()):
            raise FitError(f"device {device}: there are {count} GPUs, numbered from 0; use cuda:0")
        if here.local_world > 1:
            if chosen.index is not None:
                raise FitError(
                    f"device {device}: {here.local_world} processes on this host cannot share it; use cuda, by which "
                    "each takes its own GPU"
                )
            if here.local_world > (count := torch.cuda.device_count()):
                raise FitError(f"{here.local_world} processes on this host, and {count} GPUs; start {count} processes")
            return torch.device("cuda", here.local_rank)
    return chosen


def choose_precision(precision: Precision | str) -> Precision:
    """The numbers of a name that a network computes with.

    Raises:
        SettingError: There are none of that name.

    Example:
        >>> choose_precision("bf16").summary.partition(";")[0]
        'bfloat16 in the layers'
    """
    try:
        return Precision(precision)
    except ValueError as error:
        raise SettingError(f"precision {precision!r}: write {' or '.join(Precision.words())}") from error
