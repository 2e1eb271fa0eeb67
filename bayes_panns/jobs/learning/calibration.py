"""Label sets and decisions of a learned posterior, from clips that were not in the fits that predict them."""

import logging
from pathlib import Path

from bayes_panns.core.errors import SettingError
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs.calibrate import calibrate
from bayes_panns.jobs.decisions_log import log_decisions
from bayes_panns.jobs.learning.messages import only
from bayes_panns.jobs.learning.plan import Plan
from bayes_panns.jobs.splits import held_out
from bayes_panns.metrics import conformal_threshold
from bayes_panns.metrics.deciding import CONFIDENCE
from bayes_panns.posterior import Calibration, Decisions, Posterior, save_calibration
from bayes_panns.predictions import fit_confusion, fit_decisions, usual_scores
from bayes_panns.predictions.deciding import above

logger = logging.getLogger(__name__)

COVERAGE = 0.9
"""The share of true labels that the label sets are to hold."""


def calibrate_learned(plan: Plan, posterior: Posterior, evaluation: Evaluation) -> None:
    """Give a posterior on disk its label sets, and decisions that meet a target if the plan has one.

    They come from clips that it held out, or else from the predictions of the cross-validation. A calibration that is
    there already and meets the same target is kept.

    Args:
        plan: The plan.
        posterior: The posterior.
        evaluation: Every clip, scored by a fit that has heard none of its recording.
    """
    known = posterior.calibration
    if known is not None and (plan.target is None or _meets(known.decisions, plan)):
        return
    if plan.held_out:
        with only("WARNING", "jobs.calibrate"):
            calibrate(posterior, held_out(plan.folder), coverage=COVERAGE, target=plan.target, value=plan.value)
    else:
        found = _by_folds(plan, posterior, evaluation)
        if found is None:
            return
        posterior.calibration = found
    save_calibration(posterior)


def _by_folds(plan: Plan, posterior: Posterior, evaluation: Evaluation) -> Calibration | None:
    """The calibration by the predictions of a cross-validation; None if there are too few clips for label sets."""
    predicted, truth, groups = evaluation.uncertainty, evaluation.target, evaluation.groups
    try:
        threshold = conformal_threshold(predicted.probability, truth, COVERAGE)
    except ValueError as error:
        logger.warning(f"no label sets: {error}")
        return None
    usual = usual_scores(predicted, groups)
    outside = above(usual, predicted)
    decisions = None
    if plan.target is not None and plan.value is not None:
        try:
            decisions = fit_decisions(
                predicted,
                truth,
                groups=groups,
                aim=plan.target,
                value=plan.value,
                confidence=CONFIDENCE,
                seconds=plan.seconds,
                outside=outside,
            )
            log_decisions(decisions, posterior.labels)
        except SettingError as error:
            logger.warning(f"no decisions: {error}")
    # The power has calibrated the probabilities; another temperature would only follow the noise of few clips.
    return Calibration(
        temperature=1.0,
        threshold=threshold,
        coverage=COVERAGE,
        draws=int(evaluation.draws),
        clips=(0, len(evaluation.names)),
        data=tuple(Path(each).name for each in evaluation.provenance["stores"]),
        decisions=decisions,
        usual=usual,
        confusion=fit_confusion(predicted, truth, groups=groups, outside=outside),
    )


def _meets(decisions: Decisions | None, plan: Plan) -> bool:
    return decisions is not None and (decisions.target, decisions.value) == (plan.target, plan.value)
