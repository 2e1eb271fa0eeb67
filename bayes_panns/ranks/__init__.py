"""Several processes that work on one job, by ``torch.distributed``: what they share, and what each does by itself."""

from bayes_panns.ranks.batch_norm import synchronised_batch_norm
from bayes_panns.ranks.dropout import own_dropout
from bayes_panns.ranks.group import Group, group, lost
from bayes_panns.ranks.shard import Shard, generator_of, per_clip, shard, sharded

__all__ = [
    "Group",
    "Shard",
    "generator_of",
    "group",
    "lost",
    "own_dropout",
    "per_clip",
    "shard",
    "sharded",
    "synchronised_batch_norm",
]
