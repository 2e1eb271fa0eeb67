"""Tensors on their way to a device."""

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device | str) -> Tensor:
    """``values`` on ``device``; a GPU gets them without this process waiting for what the GPU still has to do.

    A copy from ordinary memory to a GPU waits until the GPU has done all its work. From pinned memory it takes its turn
    among that work.

    Args:
        values: Any tensor.
        device: Where to.
    """
    device = torch.device(device)
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
