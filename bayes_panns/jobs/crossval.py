"""Cross-validation: a fit for each of a data set's own folds, and what all of them say together."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bayes_panns.clips import ClipSet, Task
from bayes_panns.core.errors import FitError, RecipeError, StoreError
from bayes_panns.core.files import whole_file
from bayes_panns.evaluations import Evaluation, compare
from bayes_panns.jobs.workflow import RUN_TOML, evaluate_posterior, fit
from bayes_panns.metrics import Interval
from bayes_panns.metrics.bootstrap import RESAMPLES
from bayes_panns.posterior import Posterior, load
from bayes_panns.posterior.disk import read_header
from bayes_panns.predictions import Draws
from bayes_panns.recipes.reading import Run, read_run

logger = logging.getLogger(__name__)

LEVEL = 0.95

_TOLD = {Task.ONE_OF_K: ("cls/accuracy", "cal/nll"), Task.MULTI_LABEL: ("cls/map", "cal/nll")}
"""What is said of each fold when it is scored."""


@dataclass(frozen=True)
class Spread:
    """A metric over the folds.

    Attributes:
        folds: Its value for each fold, the mean over the seeds.
        mean: Their mean.
        deviation: Their standard deviation, with k - 1; NaN for a single fold.
        low: The lower end of the 95 % t interval of the mean; NaN for a single fold. The folds' fits share most of
            their clips, so it is somewhat too narrow (Bengio and Grandvalet, 2004).
        high: Its upper end.
    """

    folds: tuple[float, ...]
    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class CrossValidation:
    """The evaluations of a cross-validation.

    Attributes:
        evaluations: By strategy, seed and fold: each fold's clips as the posterior sees them that was fitted to the
            others.
        resamples: How many the bootstrap intervals are made of.
    """

    evaluations: Mapping[str, Mapping[int, Mapping[int, Evaluation]]]
    resamples: int = RESAMPLES

    def spread(self, strategy: str) -> dict[str, Spread]:
        """Every metric over the folds; one that is undefined in a fold is NaN."""
        seeds = list(self.evaluations[strategy].values())
        return {
            name: _spread(np.array([[each[fold].metrics[name] for fold in each] for each in seeds], dtype=float))
            for name, value in next(iter(seeds[0].values())).metrics.items()
            if name not in ("draws", "clips") and not isinstance(value, str)
        }

    def pooled(self, strategy: str) -> Evaluation:
        """All folds' clips, and all seeds', as one evaluation; a clip that several seeds predict stays one group."""
        seeds = self.evaluations[strategy].values()
        return Evaluation.pool([evaluation for folds in seeds for evaluation in folds.values()])

    @cached_property
    def intervals(self) -> dict[str, dict[str, Interval]]:
        """Each strategy's pooled metrics with bootstrap intervals over recordings.

        Out-of-distribution clips count once for every fit, and stay together in a resample.
        """
        return {name: self.pooled(name).intervals(resamples=self.resamples) for name in self.evaluations}

    @cached_property
    def differences(self) -> dict[tuple[str, str], dict[str, Interval]]:
        """For each pair of strategies, first minus second of every pooled metric, with its paired interval."""
        pooled = {name: self.pooled(name) for name in self.evaluations}
        found = {}
        for a, b in combinations(pooled, 2):
            one, two = pooled[a], pooled[b]
            found[a, b] = compare(
                one.uncertainty, two.uncertainty, one.target, one.task, groups=one.groups, resamples=self.resamples
            )
        return found


def crossval(
    recipe: Run,
    folder: str | Path,
    *,
    guides: Sequence[str] = (),
    seeds: Sequence[int] = (),
    folds: Sequence[int] | None = None,
    ood: Sequence[str | Path] = (),
    draws: Draws = 20,
    device: str = "auto",
    resume: bool = False,
) -> CrossValidation | None:
    """Fit to all folds but one and score on that one, for each fold, strategy and seed.

    Each fit is a run in ``folder/<strategy>/seed-<seed>/fold-<fold>``, with its predictions in ``evaluation/``.

    Args:
        recipe: The run; its ``data.folds`` gives way to all folds but one. Its ``upstream`` may be one strategy of
            another cross-validation, ``folder/<strategy>``: then each fit starts from the posterior of its own seed and
            fold, which has not seen the fold that is scored either.
        folder: Where the runs go.
        guides: Guide recipes to compare; by default the recipe's.
        seeds: Seeds of the fits; by default the recipe's.
        folds: The folds to score on; by default all.
        ood: Files of clips that show none of the labels, scored beside each fold.
        draws: Posterior draws a clip.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: Go on in ``folder``: what is fitted is kept, and a fit that was stopped goes on.

    Returns:
        The evaluations, or None where a fit was interrupted.

    Raises:
        BayesPannsError: As :func:`~bayes_panns.jobs.fit`; the clips have no folds, two guides share a name, or the
            upstream cross-validation lacks a seed or fold.
    """
    folder = Path(folder)
    if not resume and folder.exists() and any(folder.iterdir()):
        raise FitError(f"{folder}: is not empty; go on with it with --resume, or choose another folder with -o")
    if not recipe.data.stores:
        raise RecipeError("no clips to fit: name a store with --data, or in the recipe's data.stores")
    there = _folds(ClipSet(recipe.data.stores))
    chosen = there if folds is None else list(folds)
    if set(chosen) - set(there) or len(there) < 2:
        named = ", ".join(map(str, there))
        raise StoreError(f"{recipe.data.stores[0]}: has the folds {named}; choose two or more, and only those")
    strategies = {_name(guide): guide for guide in guides or [recipe.guide]}
    if len(strategies) < len(guides):
        raise RecipeError(f"two guides have one name: {', '.join(guides)}")
    upstreams = _upstreams(recipe.upstream, seeds or [recipe.fit.seed], chosen)
    found: dict[str, dict[int, dict[int, Evaluation]]] = {}
    for name, guide in strategies.items():
        for seed in seeds or [recipe.fit.seed]:
            for fold in chosen:
                one = recipe.model_copy(
                    update={
                        "guide": guide,
                        "upstream": upstreams[seed, fold],
                        "data": recipe.data.model_copy(update={"folds": [each for each in there if each != fold]}),
                        "fit": recipe.fit.model_copy(update={"seed": seed}),
                    }
                )
                run = run_folder(folder / name, seed, fold)
                posterior = _fitted(one, run, device, resume)
                if posterior is None:
                    return None
                evaluation = _scored(posterior, run, recipe.data.stores, fold, ood, draws)
                shown = ", ".join(f"{metric} {evaluation.metrics[metric]:.3f}" for metric in _TOLD[posterior.task])
                logger.info(f"{name}, seed {seed}, fold {fold}: {shown}")
                found.setdefault(name, {}).setdefault(seed, {})[fold] = evaluation
    return CrossValidation(found)


def run_folder(strategy: str | Path, seed: int, fold: int) -> Path:
    """Where a cross-validation has the run of a seed and fold.

    Args:
        strategy: The folder of the strategy in that of the cross-validation.
        seed: Of the fit.
        fold: The one that it is scored on.
    """
    return Path(strategy) / f"seed-{seed}" / f"fold-{fold}"


def write_results(result: CrossValidation, path: str | Path) -> None:
    """Write every number of a cross-validation as JSON: folds, means, intervals, pooled metrics and differences.

    Args:
        result: The cross-validation.
        path: The file; written whole or not at all.
    """
    table: dict[str, Any] = {"strategies": {}, "differences": []}
    for name in result.evaluations:
        table["strategies"][name] = {
            "seeds": list(result.evaluations[name]),
            "folds": list(next(iter(result.evaluations[name].values()))),
            "metrics": {metric: _finite(vars(spread)) for metric, spread in result.spread(name).items()},
            "pooled": {metric: _finite(vars(interval)) for metric, interval in result.intervals[name].items()},
        }
    for (a, b), metrics in result.differences.items():
        table["differences"].append(
            {"of": a, "minus": b, "pooled": {metric: _finite(vars(each)) for metric, each in metrics.items()}}
        )
    with whole_file(Path(path)) as fresh:
        fresh.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def _upstreams(upstream: str | None, seeds: Sequence[int], folds: Sequence[int]) -> dict[tuple[int, int], str | None]:
    """Where the fit of each seed and fold starts."""
    pairs = list(product(seeds, folds))
    if upstream is None or not any(Path(upstream).glob("seed-*")):
        return dict.fromkeys(pairs, upstream)
    runs = {pair: run_folder(upstream, *pair) for pair in pairs}
    for (seed, fold), run in runs.items():
        if not (run / "posterior").is_dir():
            raise FitError(
                f"{upstream}: has no posterior of seed {seed}, fold {fold}, for that fit to start from; fit it first"
            )
        if not read_header(run / "posterior")["provenance"].get("complete"):
            raise FitError(f"{run}: its fit was interrupted; go on with it first, with --resume")
    return {pair: str(run) for pair, run in runs.items()}


def _fitted(recipe: Run, folder: Path, device: str, resume: bool) -> Posterior | None:
    """The run's posterior: fitted now, or found complete; None where the fit was interrupted."""
    begun = resume and (folder / RUN_TOML).is_file()
    ended = begun and (folder / "posterior").is_dir() and read_run(folder / RUN_TOML) == recipe
    if ended and read_header(folder / "posterior")["provenance"].get("complete"):
        return load(folder)
    fitted = fit(recipe, folder, device=device, resume=begun)
    return load(folder) if fitted.complete else None


def _scored(
    posterior: Posterior,
    run: Path,
    stores: Sequence[str],
    fold: int,
    ood: Sequence[str | Path],
    draws: Draws,
) -> Evaluation:
    """The run's evaluation: found, where it was made of the same clips and draws, or made now."""
    folder = run / "evaluation"
    if folder.is_dir():
        kept = Evaluation.load(folder)
        if kept.draws == posterior.draws_made(draws) and [
            Path(store).resolve() for store in kept.provenance["ood"]
        ] == [Path(store).resolve() for store in ood]:
            return kept
    made = evaluate_posterior(posterior, stores, folds=[fold], ood=ood, draws=draws)
    made.save(folder)
    return made


def _folds(clips: ClipSet) -> list[int]:
    if clips.folds is None:
        raise StoreError(f"{clips.stores[0].path}: its clips have no folds; crossval takes those of the data set")
    return sorted({int(fold) for fold in clips.folds})


def _name(guide: str) -> str:
    return guide.rpartition(":")[2] if ":" in guide and not Path(guide).is_file() else Path(guide).stem


def _spread(values: NDArray[np.float64]) -> Spread:
    """Of values ``(seeds, folds)``."""
    folds = values.mean(axis=0)
    mean = float(folds.mean())
    if len(folds) < 2 or not np.isfinite(folds).all():
        return Spread(tuple(folds.tolist()), mean, math.nan, math.nan, math.nan)
    deviation = float(folds.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(folds) - 1)) * deviation / len(folds) ** 0.5
    return Spread(tuple(folds.tolist()), mean, deviation, mean - half, mean + half)


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN or infinity: what is undefined is left out."""
    return {name: value for name, value in values.items() if not isinstance(value, float) or math.isfinite(value)}
