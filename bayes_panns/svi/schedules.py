"""Schedules: small pure functions of the step of a fit."""

import math

from bayes_panns.core.choices import Schedule


def kl_warmup(step: int, steps: int) -> float:
    """The factor on the KL weight at ``step`` (from 0): rises linearly to 1 over ``steps``; 1 if there are no steps.

    Bowman et al., 2016, arXiv:1511.06349.

    Example:
        >>> [kl_warmup(step, 4) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


def learning_rate(step: int, steps: int, schedule: str) -> float:
    """The factor on the peak learning rate at ``step`` of ``steps``: 1, or half a cosine from 1 to 0.

    Loshchilov and Hutter, 2017, arXiv:1608.03983, without restarts.

    Raises:
        ValueError: There is no such schedule.

    Example:
        >>> [round(learning_rate(step, 4, "cosine"), 3) for step in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if Schedule(schedule) == Schedule.CONSTANT:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
