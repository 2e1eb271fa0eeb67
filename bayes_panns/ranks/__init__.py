"""Several processes that work on one job, by ``torch.distributed``: what they share, and what each does by itself."""

from bayes_panns.ranks.group import Group, group
from bayes_panns.ranks.shard import Shard, per_clip, shard, sharded

__all__ = ["Group", "Shard", "group", "per_clip", "shard", "sharded"]
