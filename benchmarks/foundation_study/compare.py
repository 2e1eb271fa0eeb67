"""The comparison of all rows of the study."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from bayes_panns import __version__
from bayes_panns.clips import ClipSet
from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import auroc, ece_if_calibrated
from benchmarks.foundation_study.design import DEFAULT, LOGISTIC, Stage, Study
from benchmarks.foundation_study.fits import Found, seconds
from benchmarks.transfer_study.compare import plain
from benchmarks.transfer_study.fits import Folds
from benchmarks.transfer_study.measures import difference, measure
from benchmarks.transfer_study.out_of_distribution import OutOfDistribution
from benchmarks.transfer_study.results import Result

logger = logging.getLogger(__name__)


def compare(study: Study, found: Found, todo: Sequence[Stage], note: str = "") -> dict[str, Any]:
    """Every number of the study, for JSON. It contains no path.

    A difference is over the seeds that both rows have.
    """
    data = ClipSet(study.data)
    outside = OutOfDistribution(ClipSet(study.near), None if study.speech is None else ClipSet(study.speech))
    rows: list[dict[str, Any]] = []
    for (share, name), seeds in found.items():
        logger.info(f"comparing: {name}, {share:.0%} of the labels")
        row: dict[str, Any] = {"share": share, "name": name, "seeds": len(seeds)}
        rows.append(row)
        if not seeds:
            continue
        line = _result(name, seeds, list(seeds))
        row["draws"] = line.runs[0].uncertainty.draws
        row["metrics"] = plain(measure(line, outside, study.resamples)) | _detection(seeds, outside)
        row["ece_if_calibrated"] = float(
            np.mean([ece_if_calibrated(each.uncertainty.probability, each.task) for each in line.runs])
        )
        times = [seconds(study, stage) for stage in todo if (stage.share, stage.row.name) == (share, name)]
        row["seconds_a_fold"] = round(float(np.mean(times)), 2)
        row["nll_minus"] = {}
        for other in (DEFAULT, LOGISTIC):
            theirs = found.get((share, other), {})
            both = [seed for seed in seeds if seed in theirs]
            if other != name and both:
                pair = _result(name, seeds, both), _result(other, theirs, both)
                row["nll_minus"] |= plain({other: difference(*pair, "nll", outside, study.resamples)})
    return {
        "bayes_panns": __version__,
        "note": note,
        "embeddings": data.model,
        "clips": {"inside": len(data)} | {kind: len(ClipSet(each)) for kind, each in _outside(study).items()},
        "folds": np.unique(np.asarray(data.folds)).tolist(),
        "resamples": study.resamples,
        "rows": rows,
    }


def _detection(seeds: dict[int, Folds], outside: OutOfDistribution) -> dict[str, dict[str, float]]:
    """The AUROCs as means over folds and seeds.

    Each fold has a prior, a KL weight or a C of its own, and scores of different posteriors have different scales.
    """
    found = {}
    runs = [each for folds in seeds.values() for each in folds.values()]
    for kind in outside.present:
        for score in ("entropy", "mutual_information"):
            pairs = [(getattr(each.uncertainty, score), getattr(each.ood, score)) for each in runs]
            if any(known.any() or strange.any() for known, strange in pairs):
                values = [
                    auroc(known, strange[outside.of(each, kind)])
                    for each, (known, strange) in zip(runs, pairs, strict=True)
                ]
                found[f"{kind}_{score}"] = {"value": float(np.mean(values))}
    return found


def _result(name: str, seeds: dict[int, Folds], chosen: Sequence[int]) -> Result:
    return Result(name, [Evaluation.pool(list(seeds[seed].values())) for seed in chosen], len(chosen))


def _outside(study: Study) -> dict[str, str]:
    return {"near": study.near} | ({} if study.speech is None else {"speech": study.speech})
