"""Torch's random states: the CPU's, and that of the device that computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def random_state(device: torch.device | str) -> dict[str, Tensor]:
    """The random states that work on ``device`` draws from, on the CPU: ``cpu``, and the device's own by its type."""
    device = torch.device(device)
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        found["mps"] = torch.mps.get_rng_state()
    return found


def set_random_state(device: torch.device | str, state: dict[str, Tensor]) -> None:
    """Go back to a :func:`random_state`; what it lacks, such as that of a device of another type, stays as it is."""
    device = torch.device(device)
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"].cpu())


@contextmanager
def forked(device: torch.device | str) -> Iterator[None]:
    """A block after which the random states are what they were before it.

    Example:
        >>> with forked("cpu"):
        ...     first = torch.rand(3)
        >>> bool((torch.rand(3) == first).all())
        True
    """
    kept = random_state(device)
    try:
        yield
    finally:
        set_random_state(device, kept)
