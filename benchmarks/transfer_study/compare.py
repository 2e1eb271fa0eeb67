"""The comparison of all rows of the study."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bayes_panns import __version__
from bayes_panns.clips import ClipSet
from bayes_panns.metrics import Interval, ece_if_calibrated
from bayes_panns.metrics.bootstrap import LEVEL
from bayes_panns.posterior import load
from benchmarks.transfer_study.design import ARMS, TEMPERED, Stage, Study
from benchmarks.transfer_study.fits import Found, cpu_seconds, wall_seconds
from benchmarks.transfer_study.measures import difference, measure
from benchmarks.transfer_study.out_of_distribution import OutOfDistribution, trivial_auroc
from benchmarks.transfer_study.results import Result, results

logger = logging.getLogger(__name__)


def compare(study: Study, found: Found, todo: Sequence[Stage]) -> dict[str, Any]:
    """Every number of the study, for JSON. It contains no path."""
    outside = OutOfDistribution(ClipSet(study.near), ClipSet(study.speech))
    lines: dict[tuple[str, float], dict[str, Result]] = {}
    for arm, share, _ in found:
        if (arm, share) not in lines:
            lines[arm, share] = {line.name: line for line in results(found, arm, share)}
    rows = []
    for (arm, share), mine in lines.items():
        logger.info(f"comparing: {arm}, {share:.0%} of the labels")
        for line in mine.values():
            chance = [ece_if_calibrated(each.uncertainty.probability, each.task) for each in line.runs]
            references = {
                name: difference(line, mine[name], "nll", outside, study.resamples)
                for name in ("det", TEMPERED)
                if name in mine and name != line.name
            }
            rows.append(
                {
                    "arm": arm,
                    "share": share,
                    "name": line.name,
                    "seeds": line.seeds,
                    "mixed": line.mixed,
                    "draws": line.runs[0].uncertainty.draws,
                    "metrics": plain(measure(line, outside, study.resamples)),
                    "ece_if_calibrated": {
                        "mean": float(np.mean(chance)),
                        "high": float(np.quantile(np.mean(chance, axis=0), LEVEL)),
                    },
                    "nll_minus": plain(references),
                }
            )
    claims = []
    for share in dict.fromkeys(share for _, share in lines):
        one, two = (lines.get((arm, share), {}) for arm in ARMS)
        for name in one:
            if name in two:
                differences = {
                    metric: difference(one[name], two[name], what, outside, study.resamples)
                    for metric, what in (("accuracy", "right"), ("nll", "nll"))
                }
                claims.append({"name": name, "share": share, "transfer_minus_scratch": plain(differences)})
    return {
        "bayes_panns": __version__,
        "clips": {kind: len(ClipSet(store)) for kind, store in _stores(study).items()},
        "resamples": study.resamples,
        "trivial_auroc": plain(trivial_auroc(study, load(study.upstreams["det"]))),
        "rows": rows,
        "claims": claims,
        "times": [
            {
                "stage": str(stage),
                "cpu_seconds": cpu_seconds(study, stage),
                "fit_seconds_by_the_clock": round(wall_seconds(study, stage), 1),
            }
            for stage in todo
        ],
    }


def _stores(study: Study) -> dict[str, str]:
    return {"inside": study.data, "near": study.near, "speech": study.speech}


def plain(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Intervals for JSON, without those that are undefined."""
    return {
        name: {end: float(value) for end, value in vars(each).items()}
        for name, each in intervals.items()
        if np.isfinite(each.value)
    }
