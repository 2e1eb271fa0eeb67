"""Schedules: small pure functions of how far a fit has come."""

import math
from typing import Literal


def kl_warmup(step: int, steps: int) -> float:
    """The share of the KL weight in force at ``step`` (from 0): rises linearly to 1 over ``steps``; 0 steps is none.

    Bowman et al., 2016, arXiv:1511.06349.
    """
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


def learning_rate(step: int, steps: int, shape: Literal["constant", "cosine"]) -> float:
    """The share of the peak learning rate at ``step`` of ``steps``: 1, or half a cosine from 1 to 0.

    Loshchilov and Hutter, 2017, arXiv:1608.03983, without restarts.
    """
    return 1.0 if shape == "constant" else 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
