"""Fits and scores of the study's stages."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tomli_w

from bayes_panns.core.files import whole_folder
from bayes_panns.core.strict_json import write_json
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs import RUN_TOML, crossval, run_folder
from bayes_panns.posterior import load, save
from bayes_panns.recipes import read_run, read_strategy
from bayes_panns.svi import METRICS, read_metrics
from benchmarks.transfer_study.design import Stage, Study

logger = logging.getLogger(__name__)

Folds = dict[int, Evaluation]
Found = dict[tuple[str, float, str], dict[int, Folds]]
"""By arm, share and guide, then by seed and fold."""


def fitted(study: Study, todo: Sequence[Stage]) -> list[Stage]:
    """The stages whose folds are all fitted and scored."""
    return [stage for stage in todo if all((run / "evaluation").is_dir() for run in study.runs(stage).values())]


def fit_and_score(study: Study, todo: Sequence[Stage]) -> Found | None:
    """The evaluations of every stage, which are fitted first if need be; None if a fit was interrupted."""
    found: Found = {}
    for number, stage in enumerate(todo, 1):
        logger.info(f"[{number}/{len(todo)}] {stage}")
        folder, runs = study.folder(stage.arm, stage.share), study.runs(stage)
        if stage.row.guide == "drop":
            for fold, run in runs.items():
                leave_dropout_on(run_folder(folder / "det", stage.seed, fold), run)
        with _timed(study, stage, complete=bool(fitted(study, [stage]))):
            result = crossval(
                study.recipe(stage),
                folder,
                guides=[stage.row.guide],
                seeds=[stage.seed],
                ood=[study.near, study.speech],
                draws=stage.row.draws,
                resume=True,
            )
        if result is None:
            return None
        ((seeds),) = result.evaluations.values()
        found.setdefault((stage.arm, stage.share, stage.row.guide), {})[stage.seed] = dict(seeds[stage.seed])
    return found


def leave_dropout_on(det: Path, drop: Path) -> None:
    """Make Drop's run from Det's: the two are fitted in the same way and differ only in their predictions."""
    if (drop / RUN_TOML).is_file():
        return
    recipe = read_run(det / RUN_TOML).model_copy(update={"guide": "drop"})
    posterior = load(det)
    posterior.strategy = read_strategy("drop")
    with whole_folder(drop) as fresh:
        save(posterior, fresh / "posterior")
        (fresh / RUN_TOML).write_text(tomli_w.dumps(recipe.model_dump(exclude_none=True)), encoding="utf-8")


@contextmanager
def _timed(study: Study, stage: Stage, *, complete: bool) -> Iterator[None]:
    """Add the CPU seconds of the block to those of the stage, unless the stage was complete before."""
    began = time.process_time()
    try:
        yield
    finally:
        path = _times_file(study, stage)
        if not complete:
            path.parent.mkdir(parents=True, exist_ok=True)
            spent = time.process_time() - began + cpu_seconds(study, stage)
            write_json({"cpu_seconds": round(spent, 1)}, path)


def _times_file(study: Study, stage: Stage) -> Path:
    # One file for each stage, since two processes may fit different seeds of one study.
    return study.out / "times" / f"{stage.arm}-{100 * stage.share:g}-{stage.row.guide}-seed-{stage.seed}.json"


def cpu_seconds(study: Study, stage: Stage) -> float:
    """The CPU time of the fits and scores of a stage that this command made."""
    path = _times_file(study, stage)
    return json.loads(path.read_text(encoding="utf-8"))["cpu_seconds"] if path.is_file() else 0.0


def wall_seconds(study: Study, stage: Stage) -> float:
    """The wall-clock time of the fits of a stage, as they logged it."""
    return logged_seconds(study.folder(stage.arm, stage.share) / stage.row.guide / f"seed-{stage.seed}")


def logged_seconds(folds: Path) -> float:
    """The wall-clock time that the fits in ``folds/fold-*`` have logged."""
    return sum(line["seconds"] for log in folds.glob(f"fold-*/{METRICS}") for line in read_metrics(log))
