"""Several processes that work on one job, by ``torch.distributed``: what they share, and what each does by itself."""

from bayes_panns.ranks.crew import helped, led
from bayes_panns.ranks.group import Group, alone, group
from bayes_panns.ranks.shard import Shard, per_clip, shard, sharded
from bayes_panns.ranks.sharing import in_order, shared_out

__all__ = [
    "Group",
    "Shard",
    "alone",
    "group",
    "helped",
    "in_order",
    "led",
    "per_clip",
    "shard",
    "sharded",
    "shared_out",
]
