"""Several processes that work on one job, by ``torch.distributed``: what they share, and what each does by itself."""

from bayes_panns.ranks.batch_norm import synchronised_batch_norm
from bayes_panns.ranks.crew import helped, led
from bayes_panns.ranks.dropout import own_dropout
from bayes_panns.ranks.group import Group, alone, group, leave, lost, speaks
from bayes_panns.ranks.shard import Shard, generator_of, per_clip, shard, sharded
from bayes_panns.ranks.sharing import in_order, shared_out

__all__ = [
    "Group",
    "Shard",
    "alone",
    "generator_of",
    "group",
    "helped",
    "in_order",
    "leave",
    "led",
    "lost",
    "own_dropout",
    "per_clip",
    "shard",
    "sharded",
    "shared_out",
    "speaks",
    "synchronised_batch_norm",
]
