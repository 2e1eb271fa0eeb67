"""What a step of a fit changes before its end, and whether several processes hold the same values."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayes_panns.ranks import Group


@dataclass(frozen=True)
class Moment:
    """What a step changes before all processes have agreed on its gradients: buffers and random states. It is small.

    Attributes:
        buffers: Statistics of BatchNorm, in the order of the module.
        random: The random state of the CPU.
        on_gpu: That of the GPU, and the device.
    """

    buffers: list[Tensor]
    random: Tensor
    on_gpu: tuple[torch.device, Tensor] | None

    @classmethod
    def of(cls, objective: nn.Module, device: torch.device) -> "Moment":
        """The present one."""
        on_gpu = (device, torch.cuda.get_rng_state(device)) if device.type == "cuda" else None
        return cls([each.clone() for each in _statistics(objective)], torch.get_rng_state(), on_gpu)

    @torch.no_grad()
    def restore(self, objective: nn.Module) -> None:
        """Go back to it."""
        for buffer, before in zip(_statistics(objective), self.buffers, strict=True):
            buffer.copy_(before)
        torch.set_rng_state(self.random)
        if self.on_gpu is not None:
            torch.cuda.set_rng_state(self.on_gpu[1], self.on_gpu[0])


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
    values = {**objective.state_dict(), "the random state": torch.get_rng_state()}
    if device.type == "cuda":
        values["the random state of the GPU"] = torch.cuda.get_rng_state(device)
    sums = torch.stack([_bits(value).cpu() for value in values.values()])
    return next((name for name, same in zip(values, group.equal(sums).tolist(), strict=True) if not same), None)


def _bits(value: Tensor) -> Tensor:
    """The sum of a tensor's 32-bit words, or of its bytes where those do not fit: int64, 0-d."""
    words = value.detach().contiguous().reshape(-1).view(torch.uint8)
    words = words.view(torch.int32) if words.numel() % 4 == 0 and words.storage_offset() % 4 == 0 else words
    return words.sum(dtype=torch.int64)
