"""Numbers of 64 bits, which Apple's GPUs do not have: what needs them is computed on the CPU there."""

import torch
from torch import Tensor


def has_float64(device: torch.device | str) -> bool:
    """Whether a device computes in float64.

    Example:
        >>> has_float64("cpu"), has_float64("mps")
        (True, False)
    """
    return torch.device(device).type != "mps"


def widest_float(device: torch.device | str) -> torch.dtype:
    """The widest floats of a device, for long sums: float64, or float32 where there is none."""
    return torch.float64 if has_float64(device) else torch.float32


def as_float64(values: Tensor) -> Tensor:
    """``values`` in float64: on their device, or on the CPU where their device has none.

    What follows from them is computed there too, until its result goes back with ``.to(values)``.

    Example:
        >>> as_float64(torch.ones(1)).dtype
        torch.float64
    """
    return values.double() if has_float64(values.device) else values.cpu().double()
