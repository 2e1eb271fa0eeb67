"""Which of several processes this one is, as ``torchrun`` and other launchers say it in the environment."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """The place of a process among those that were started together.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
        local_rank: Its number on its own host, from 0.
        local_world: How many there are on its host.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and prints."""
        return self.rank == 0


def launch() -> Launch:
    """The place of this process; the only one, where no launcher has started it.

    Example:
        >>> launch()
        Launch(rank=0, world=1, local_rank=0, local_world=1)
    """
    environment = os.environ
    # Other programs set WORLD_SIZE too; a process group also needs to know where to meet.
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        return Launch()
    return Launch(
        int(environment["RANK"]),
        int(environment["WORLD_SIZE"]),
        int(environment.get("LOCAL_RANK", 0)),
        int(environment.get("LOCAL_WORLD_SIZE", 1)),
    )
