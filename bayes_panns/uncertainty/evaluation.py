"""All that is measured of a posterior on a labelled set, as one flat mapping."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_panns.uncertainty.calibration import ace, brier, ece, nll
from bayes_panns.uncertainty.checks import ONE_OF_K
from bayes_panns.uncertainty.classification import accuracy, d_prime, mean_auc, mean_average_precision, top_label
from bayes_panns.uncertainty.decomposition import Uncertainty
from bayes_panns.uncertainty.detection import aupr, auroc, fpr95
from bayes_panns.uncertainty.selective import aurc


def evaluate(
    uncertainty: Uncertainty, target: NDArray[np.bool_], task: str, ood: Uncertainty | None = None
) -> dict[str, Any]:
    """Every metric that applies, under the names of ``evaluate --json``.

    ``cls/accuracy`` and ``sc/aurc``, by the probability of the most probable label, are for one-of-K only; ``unc/*``
    are means over the clips of :meth:`Uncertainty.per_clip`; ``ood/*`` score a clip by its predictive
    entropy, and ``ood/auroc_mutual_information`` by what the draws disagree on. An undefined metric is NaN;
    ``cls/d_prime`` is infinite at a perfect AUC. ``draws`` and ``clips`` say of how many.

    Args:
        uncertainty: the predictions for N clips and K labels.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``; that of ``uncertainty``.
        ood: the predictions, by the same posterior, for clips of none of the labels.

    Raises:
        ValueError: shapes, labels or tasks do not fit together.
    """
    if task != uncertainty.task:
        raise ValueError(f"task {task!r}, but the predictions are {uncertainty.task!r}")
    p = uncertainty.probability
    metrics: dict[str, Any] = {}
    if task == ONE_OF_K:
        metrics["cls/accuracy"] = accuracy(p, target)
    auc = mean_auc(p, target)
    metrics |= {"cls/map": mean_average_precision(p, target), "cls/auc": auc, "cls/d_prime": d_prime(auc)}
    metrics |= {f"cal/{metric.__name__}": metric(p, target, task) for metric in (ece, ace, nll, brier)}
    if task == ONE_OF_K:
        confidence, right = top_label(p, target)
        metrics["sc/aurc"] = aurc(-confidence, ~right)
    metrics |= {f"unc/{name}": float(values.mean()) for name, values in uncertainty.per_clip().items()}
    if ood is not None:
        if (ood.task, ood.probability.shape[1]) != (task, p.shape[1]):
            raise ValueError("the out-of-distribution predictions are of another task or other labels")
        metrics |= {
            f"ood/{metric.__name__}": metric(uncertainty.entropy, ood.entropy) for metric in (auroc, aupr, fpr95)
        }
        metrics["ood/auroc_mutual_information"] = auroc(uncertainty.mutual_information, ood.mutual_information)
    return metrics | {"draws": uncertainty.draws, "clips": len(p)}
