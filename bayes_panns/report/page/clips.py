"""Which clips a page shows: the most uncertain, the most certain and wrong, each chosen for one reason."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_panns.evaluations import Evaluation
from bayes_panns.report.page.readings import correct


@dataclass(frozen=True)
class Reason:
    """Why clips are shown.

    Attributes:
        title: A heading.
        text: What these clips are, and what to do with them.
        ood: Whether they are out-of-distribution clips.
    """

    title: str
    text: str
    ood: bool = False


REASONS = {
    "wrong": Reason(
        "Confidently wrong",
        "The clips with the highest probability for a label that they do not have. Listen to check the true label.",
    ),
    "epistemic": Reason(
        "Highest epistemic uncertainty",
        "The draws of the weights disagree most on these clips. The model has seen too few similar clips; labelling "
        "more of them helps it most.",
    ),
    "aleatoric": Reason(
        "Highest aleatoric uncertainty",
        "Nearly every draw of the weights finds these clips ambiguous. More training clips would not change that.",
    ),
    "ood-detected": Reason(
        "Out of distribution, most uncertain",
        "The out-of-distribution clips with the highest entropy: the model recognises that it does not know them.",
        ood=True,
    ),
    "ood-missed": Reason(
        "Out of distribution, least uncertain",
        "The out-of-distribution clips with the lowest entropy: the model mistakes them for known sounds.",
        ood=True,
    ),
}
"""The reasons, in the order of the page."""


def choose_clips(evaluation: Evaluation, count: int) -> dict[str, NDArray[np.int_]]:
    """The clips to show for each of :data:`REASONS`; a clip that fits several is shown for the first.

    Args:
        evaluation: The predictions and the truth.
        count: How many clips for each reason.

    Returns:
        The key of a reason to indices of clips, or of out-of-distribution clips where the reason is about those. A
        reason without clips is left out.
    """
    inside = evaluation.uncertainty
    scores = inside.per_clip()
    wrong = np.where(correct(evaluation), -np.inf, inside.probability.max(axis=1))
    ranked = {"wrong": wrong, "epistemic": scores["epistemic"], "aleatoric": scores["aleatoric"]}
    if not scores["epistemic"].any():
        del ranked["epistemic"]
    chosen = _first_of_each(ranked, count)
    if evaluation.ood is not None:
        entropy = evaluation.ood.entropy
        chosen |= _first_of_each({"ood-detected": entropy, "ood-missed": -entropy}, count)
    return chosen


def _first_of_each(scores: Mapping[str, NDArray[np.float64]], count: int) -> dict[str, NDArray[np.int_]]:
    """For each key the clips of the highest finite scores, without those chosen for the keys before."""
    taken: set[int] = set()
    chosen = {}
    for key, score in scores.items():
        order = [int(i) for i in np.argsort(-score, kind="stable") if np.isfinite(score[i]) and int(i) not in taken]
        if order:
            chosen[key] = np.array(order[:count])
            taken |= set(order[:count])
    return chosen
