"""What a step of a fit changes before its end, and whether several processes hold the same values."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayes_panns.devices import random_state, set_random_state
from bayes_panns.ranks import Group


@dataclass(frozen=True)
class Moment:
    """What a step changes before all processes have agreed on its gradients: buffers and random states. It is small.

    Attributes:
        buffers: Statistics of BatchNorm, in the order of the module.
        device: Where the fit computes.
        random: The random states: see :func:`~bayes_panns.devices.random_state`.
    """

    buffers: list[Tensor]
    device: torch.device
    random: dict[str, Tensor]

    @classmethod
    def of(cls, objective: nn.Module, device: torch.device) -> "Moment":
        """The present one."""
        return cls([each.clone() for each in _statistics(objective)], device, random_state(device))

    @torch.no_grad()
    def restore(self, objective: nn.Module) -> None:
        """Go back to it."""
        for buffer, before in zip(_statistics(objective), self.buffers, strict=True):
            buffer.copy_(before)
        set_random_state(self.device, self.random)


def _statistics(objective: nn.Module) -> list[Tensor]:
    """The buffers of modules in training mode that a checkpoint keeps; constants are left out."""
    return [
        buffer
        for module in objective.modules()
        if module.training
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    ]


@torch.no_grad()
def unlike(objective: nn.Module, device: torch.device, group: Group) -> str | None:
    """What is not the same in all processes, if anything is: the name of a tensor, or a random state.

    Compared are sums of the bits of each tensor.

    Args:
        objective: Model and guide.
        device: Where they are.
        group: The processes.
    """
    if group.size == 1:
        return None
    states = {f"the random state of {name}": state for name, state in random_state(device).items()}
    values = {**objective.state_dict(), **states}
    sums = torch.stack([_bits(value).cpu() for value in values.values()])
    return next((name for name, same in zip(values, group.equal(sums).tolist(), strict=True) if not same), None)


def _bits(value: Tensor) -> Tensor:
    """The sum of a tensor's 32-bit words, or of its bytes where those do not fit: int64, 0-d."""
    words = value.detach().contiguous().reshape(-1).view(torch.uint8)
    words = words.view(torch.int32) if words.numel() % 4 == 0 and words.storage_offset() % 4 == 0 else words
    return words.sum(dtype=torch.int64)
