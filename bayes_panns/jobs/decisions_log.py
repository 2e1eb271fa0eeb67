"""What a user is told of decisions when they are fitted."""

import logging
from collections.abc import Sequence

from bayes_panns.core.choices import FittedTo, Target
from bayes_panns.metrics.deciding import needed
from bayes_panns.posterior import Decisions

logger = logging.getLogger(__name__)

_SHOWN = 5


def log_decisions(decisions: Decisions, labels: Sequence[str]) -> None:
    """Log how many labels have thresholds, from which clips, and warn of those that are never decided."""
    of = {kind: [labels[k] for k, each in enumerate(decisions.fitted) if each is kind] for kind in FittedTo}
    told = f"{decisions.target} {decisions.value:g} with a confidence of {decisions.confidence:g}"
    called, wrong = sum(decisions.called), sum(decisions.wrong)
    logger.info(
        f"decisions: {told}: labels with a threshold of their own {len(of[FittedTo.OWN])}, sharing one "
        f"{len(of[FittedTo.POOLED])}, never decided {len(of[FittedTo.NEVER])}; of {decisions.clips} clips of "
        f"{decisions.recordings} recordings {called} calls, {wrong} of them wrong"
    )
    never, least = of[FittedTo.NEVER], 0
    if decisions.target is not Target.FALSE_ALARMS:
        rate = decisions.value if decisions.target is Target.RISK else 1 - decisions.value
        least = needed(rate, decisions.confidence)
    if never:
        why = (
            f"; that takes {least} independent call{'s'[: least != 1]} without an error, or more with some"
            if least
            else ""
        )
        logger.warning(
            f"never decided: {_listed(never)}; no threshold is shown to meet {told}{why}; calibrate on more clips, or "
            "ask for less"
        )
    if of[FittedTo.POOLED] and decisions.target is Target.PRECISION:
        logger.warning(
            f"one threshold for {_listed(of[FittedTo.POOLED])}: each alone has too few held-out clips, so the "
            "precision is of all their calls together, not of each label's"
        )


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more
