"""Fits and scores of the study's stages."""

import logging
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from bayes_panns.clips import ClipSet
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs import crossval, divide, evaluate_posterior, run_folder
from bayes_panns.posterior import load
from bayes_panns.predictions import Uncertainty, UncertaintyAccumulator
from bayes_panns.recipes import replaced
from bayes_panns.svi import METRICS
from bayes_panns.svi.metrics import append_metrics
from benchmarks.foundation_study.design import DEFAULT, LOGISTIC, ROWS, UNPOWERED, Stage, Study
from benchmarks.foundation_study.logistic import MEMBERS, Chosen, Predict, choose, laplace
from benchmarks.transfer_study.fits import Folds, logged_seconds

logger = logging.getLogger(__name__)

Found = dict[tuple[float, str], dict[int, Folds]]
"""By share and row, then by seed and fold."""

PEERS = {"laplace-torch": "laplace"}
"""The modules of rows that are left out where these are not installed."""


def fit_and_score(study: Study, todo: list[Stage]) -> Found | None:
    """The evaluations of every stage, which are fitted first if need be; None if a fit was interrupted.

    A row whose package is not installed has none.
    """
    found: Found = {}
    for number, stage in enumerate(todo, 1):
        logger.info(f"[{number}/{len(todo)}] {stage}")
        name, folds = stage.row.name, None
        if name in PEERS and find_spec(PEERS[name]) is None:
            logger.info(f"{name}: is not installed")
            found.setdefault((stage.share, name), {})
            continue
        if stage.row.recipe is not None:
            folds = _crossval(study, stage)
        elif name == UNPOWERED:
            folds = _unpowered(study, stage)
        else:
            numbers = np.unique(np.asarray(ClipSet(study.data).folds)).tolist()
            folds = {fold: _baseline(study, stage, fold) for fold in numbers}
        if folds is None:
            return None
        found.setdefault((stage.share, name), {})[stage.seed] = folds
    return found


def seconds(study: Study, stage: Stage) -> float:
    """The wall-clock seconds of the fits of a stage, a fold."""
    folder = study.folder(stage.share) / (DEFAULT if stage.row.name == UNPOWERED else stage.row.name)
    seed = folder / f"seed-{stage.seed}"
    return logged_seconds(seed) / max(1, len(list(seed.glob(f"fold-*/{METRICS}"))))


def _crossval(study: Study, stage: Stage) -> Folds | None:
    result = crossval(
        study.recipe(stage.row, stage.share),
        study.folder(stage.share),
        seeds=[stage.seed],
        ood=study.outside,
        resume=True,
    )
    return None if result is None else dict(result.evaluations[stage.row.name][stage.seed])


def _unpowered(study: Study, stage: Stage) -> Folds | None:
    """The default's posteriors, scored without their powers."""
    default = next(row for row in ROWS if row.name == DEFAULT)
    fitted = _crossval(study, Stage(stage.share, default, stage.seed))
    if fitted is None:
        return None
    found = {}
    for fold in fitted:
        kept = run_folder(study.folder(stage.share) / UNPOWERED, stage.seed, fold) / "evaluation"
        if not kept.is_dir():
            posterior = load(run_folder(study.folder(stage.share) / DEFAULT, stage.seed, fold))
            posterior.power = None
            evaluate_posterior(posterior, study.data, folds=[fold], ood=study.outside).save(kept)
        found[fold] = Evaluation.load(kept)
    return found


def _baseline(study: Study, stage: Stage, fold: int) -> Evaluation:
    run = run_folder(study.folder(stage.share) / stage.row.name, stage.seed, fold)
    if not (run / "evaluation").is_dir():
        chosen, spent = _chosen(study, stage.share, stage.seed, fold)
        started = time.monotonic()
        predict, power = _fitted(stage.row.name, chosen, stage.seed)
        spent += time.monotonic() - started
        evaluation = _evaluation(study, fold, predict, power)
        run.mkdir(parents=True, exist_ok=True)
        (run / METRICS).write_text("")
        line = {"epoch": 1, "step": 1, "seconds": spent, "penalty": chosen.penalty, "power": power or 1.0}
        append_metrics(run / METRICS, line)
        evaluation.save(run / "evaluation")
        nll = evaluation.metrics["cal/nll"]
        logger.info(f"{stage}, fold {fold}: C {chosen.penalty:.3g}, NLL {nll:.3f} ({spent:.1f} s)")
    return Evaluation.load(run / "evaluation")


@cache
def _chosen(study: Study, share: float, seed: int, fold: int) -> tuple[Chosen, float]:
    """The choice of all baselines of a fold, from the clips that the default is fitted to; and its seconds."""
    folds = np.unique(np.asarray(ClipSet(study.data).folds)).tolist()
    default = next(row for row in ROWS if row.name == DEFAULT)
    changes = {"data.folds": [each for each in folds if each != fold], "fit.seed": seed}
    _, clips = divide(replaced(study.recipe(default, share), changes))
    started = time.monotonic()
    chosen = choose(clips, seed)
    return chosen, time.monotonic() - started


def _fitted(name: str, chosen: Chosen, seed: int) -> tuple[Predict, float | None]:
    """What predicts, and the power of its predictions."""
    if name == "laplace-torch":
        return laplace(chosen), None
    if name == "logistic-ensemble":
        models = [chosen.fit(chosen.resampled(MEMBERS * seed + member)) for member in range(MEMBERS)]
        return chosen.of(*models), None
    return chosen.of(chosen.fit()), None if name == LOGISTIC else chosen.power()


def _evaluation(study: Study, fold: int, predict: Predict, power: float | None) -> Evaluation:
    clips, outside = ClipSet(study.data, folds=[fold]), ClipSet(study.outside)

    def uncertainty(each: ClipSet) -> Uncertainty:
        exponent = None if power is None else np.array([power])
        accumulator = UncertaintyAccumulator(str(clips.task), power=exponent)
        for draw in predict(each.embedding(np.arange(len(each)))):
            accumulator.update(torch.from_numpy(draw))
        return accumulator.result()

    return Evaluation.of(
        uncertainty(clips),
        clips.target(),
        uncertainty(outside),
        names=clips.names,
        labels=clips.labels,
        sources=clips.sources,
        ood_names=outside.names,
        provenance={
            "posterior": None,
            "stores": [Path(study.data).name],
            "folds": [fold],
            "ood": [Path(each).name for each in study.outside],
        },
    )
