"""What decisions reach on labelled clips."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_panns.metrics.bootstrap import Interval, bootstrap
from bayes_panns.predictions.deciding import Decided


def decision_metrics(made: Decided, target: NDArray[np.bool_]) -> dict[str, float]:
    """How much is decided, and how often that is right; NaN where nothing is called.

    - ``dec/coverage``: the share of the clips that are decided.
    - ``dec/precision``: the share of the calls that are right.
    - ``dec/outside``: the share of the clips that are marked as outside.

    Args:
        made: What was decided for N clips and K labels.
        target: ``(N, K)``.
    """
    return {f"dec/{name}": metric(*arrays) for name, (metric, arrays) in _measured(made, target).items()}


def decision_intervals(made: Decided, target: NDArray[np.bool_], **settings: Any) -> dict[str, Interval]:
    """The bootstrap interval of each of :func:`decision_metrics`.

    Args:
        made: As there.
        target: As there.
        **settings: Of :func:`~bayes_panns.metrics.bootstrap`.
    """
    return {
        f"dec/{name}": bootstrap(metric, *arrays, **settings)
        for name, (metric, arrays) in _measured(made, target).items()
    }


def _measured(made: Decided, target: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "coverage": (_share, (~made.left,)),
        "precision": (_precision, (made.called, target)),
        "outside": (_share, (made.outside,)),
    }


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean())


def _precision(called: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    calls = int(called.sum())
    return float((called & target).sum()) / calls if calls else float("nan")
