"""Cross-validation: a fit for each of a data set's own folds, and the metrics over all of them."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bayes_panns.clips import ClipSet
from bayes_panns.core.choices import Precision, Task
from bayes_panns.core.draw_count import draws_or_moments
from bayes_panns.core.errors import FitError, RecipeError, StoreError
from bayes_panns.core.files import require_folder
from bayes_panns.core.strict_json import write_json
from bayes_panns.evaluations import Evaluation, compare
from bayes_panns.jobs.evaluate import evaluate_posterior
from bayes_panns.jobs.fit import fit
from bayes_panns.jobs.inputs import contents
from bayes_panns.jobs.run_folder import Resume, RunFolder
from bayes_panns.jobs.splits import run_clips
from bayes_panns.metrics import Interval
from bayes_panns.metrics.bootstrap import RESAMPLES
from bayes_panns.posterior import Posterior, choose_device, choose_precision, load
from bayes_panns.posterior.disk import read_header
from bayes_panns.predictions import Draws
from bayes_panns.ranks import shared_out
from bayes_panns.recipes import Run, is_function, replaced
from bayes_panns.svi import Running, last_stop
from bayes_panns.svi.interrupts import note_stop

logger = logging.getLogger(__name__)

LEVEL = 0.95

_LOGGED = {Task.ONE_OF_K: ("cls/accuracy", "cal/nll"), Task.MULTI_LABEL: ("cls/map", "cal/nll")}
"""The metrics of a fold that are logged when it is scored."""


@dataclass(frozen=True)
class Spread:
    """A metric over the folds.

    Attributes:
        folds: Its value in each fold, the mean over the seeds; NaN where it is undefined, such as the mean average
            precision of a fold without a positive clip.
        defined: In how many folds it is defined.
        mean: The mean over the folds where it is defined; NaN if there are none.
        deviation: The standard deviation over these folds, with k - 1; NaN if there are fewer than two.
        low: The lower end of the 95 % t interval of the mean; NaN if there are fewer than two. The folds' fits share
            most of their clips, so the interval is somewhat too narrow (Bengio and Grandvalet, 2004).
        high: The upper end.
    """

    folds: tuple[float, ...]
    defined: int
    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class CrossValidation:
    """The evaluations of a cross-validation.

    Attributes:
        evaluations: By strategy, seed and fold: each fold's clips, scored by the posterior that was fitted to the other
            folds.
        resamples: The number of bootstrap resamples of each interval.
    """

    evaluations: Mapping[str, Mapping[int, Mapping[int, Evaluation]]]
    resamples: int = RESAMPLES

    def spread(self, strategy: str) -> dict[str, Spread]:
        """Every metric that is defined in some fold, over the folds."""
        seeds = list(self.evaluations[strategy].values())
        names = dict.fromkeys(
            name
            for folds in seeds
            for evaluation in folds.values()
            for name, value in evaluation.metrics.items()
            if name not in ("draws", "clips") and not isinstance(value, str)
        )
        return {
            name: _spread(
                np.array([[each.metrics.get(name, math.nan) for each in folds.values()] for folds in seeds], float)
            )
            for name in names
        }

    def pooled(self, strategy: str) -> Evaluation:
        """The clips of all folds and seeds as one evaluation; a clip that is scored for several seeds is one group."""
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
    draws: Draws | None = None,
    device: str = "auto",
    precision: Precision | str = Precision.FLOAT32,
    resume: Resume = False,
    running: Running | None = None,
) -> CrossValidation | None:
    """Fit to all folds but one and score on that one, for each fold, strategy and seed.

    Each fit is a run in ``folder/<strategy>/seed-<seed>/fold-<fold>``, with its predictions in ``evaluation/``. Within
    :func:`~bayes_panns.ranks.led` every process fits by itself, each the next one when it is done with one.

    Args:
        recipe: The run; its ``data.folds`` are replaced by all folds but one. Its ``upstream`` may be a strategy's
            folder of another cross-validation, ``folder/<strategy>``: then each fit starts from the posterior of its
            own seed and fold, which was not fitted to the scored fold either.
        folder: Where the runs go.
        guides: Guides to compare, recipes or ``module:function``; by default the recipe's. Functions are run.
        seeds: Seeds of the fits; by default the recipe's.
        folds: The folds to score on; by default all.
        ood: Stores of clips that show none of the labels, scored beside each fold.
        draws: Posterior draws per clip.
        device: Where to fit and to score; see :func:`~bayes_panns.jobs.choose_device`.
        precision: What the network scores with; ``fit.precision`` of the recipe is what it is fitted with.
        resume: Whether to go on in ``folder``: complete fits are kept, and interrupted ones are resumed. Where there
            is nothing it starts, so ``"auto"`` is the same as True.
        running: How the fits run on this machine; its time limit is that of all together.

    Returns:
        The evaluations, or None if a fit was interrupted, as :func:`~bayes_panns.svi.last_stop` says.

    Raises:
        BayesPannsError: As :func:`~bayes_panns.jobs.fit`; or the clips have no folds, a guide, seed or fold is named
            twice, or the upstream cross-validation lacks a seed or fold.
    """
    folder, resume, running = Path(folder), bool(resume), running or Running()
    if draws is not None:
        # Not only once the first fit is done.
        draws = draws_or_moments(draws)
    require_folder(folder)
    if not resume and folder.exists() and any(folder.iterdir()):
        raise FitError(f"{folder}: is not empty; resume the runs there with --resume, or choose another folder with -o")
    choose_device(device)
    numbers = choose_precision(precision)
    known = _folds(run_clips(recipe))
    chosen = known if folds is None else list(folds)
    seeds = list(seeds) or [recipe.fit.seed]
    # The recipe's own guide is data: only one that the caller names may be a function.
    functions = {guide for guide in guides if is_function(guide)}
    guides = list(guides) or [recipe.guide]
    _require_distinct("fold", chosen)
    _require_distinct("seed", seeds)
    _require_distinct("guide", [_name(guide) for guide in guides])
    if set(chosen) - set(known) or len(known) < 2 or not chosen:
        named = ", ".join(map(str, known))
        raise StoreError(
            f"{recipe.data.stores[0]}: has the folds {named}; a cross-validation needs two, and scores only on these"
        )
    upstreams = _upstreams(recipe.upstream, seeds, chosen)
    found: dict[str, dict[int, dict[int, Evaluation]]] = {}
    # Of two in one folder, the other would take the fits of this one for its own.
    with RunFolder(folder).claimed(resume=resume):
        setup = _Setup(recipe, folder, known, upstreams, functions, ood, draws, device, numbers, resume, running)
        order = [_Part(*each) for each in product(guides, seeds, chosen)]
        evaluated = dict[_Part, Evaluation]()
        try:
            for part, evaluation in shared_out(order, _fits, setup):
                logged = ", ".join(
                    f"{metric} {evaluation.metrics.get(metric, math.nan):.3f}"
                    for metric in _LOGGED[Task(evaluation.task)]
                )
                logger.info(f"{_name(part.guide)}, seed {part.seed}, fold {part.fold}: {logged}")
                evaluated[part] = evaluation
        except _InterruptedError as interrupted:
            # It may have been the fit of another process.
            note_stop(interrupted.args[0])
            return None
    for part in order:
        found.setdefault(_name(part.guide), {}).setdefault(part.seed, {})[part.fold] = evaluated[part]
    return CrossValidation(found)


class _Part(NamedTuple):
    """One fit of a cross-validation."""

    guide: str
    seed: int
    fold: int


class _InterruptedError(Exception):
    """A fit was interrupted, by its argument."""


@dataclass(frozen=True)
class _Setup:
    """What a fit needs, beside which one it is; see :func:`crossval`.

    Attributes:
        known: All folds.
        upstreams: The posterior that the fit of each seed and fold starts from.
        functions: The guides that are functions.
    """

    recipe: Run
    folder: Path
    known: Sequence[int]
    upstreams: Mapping[tuple[int, int], str | None]
    functions: Set[str]
    ood: Sequence[str | Path]
    draws: Draws | None
    device: str
    precision: Precision
    resume: bool
    running: Running

    def evaluated(self, part: _Part) -> Iterator[tuple[_Part, Evaluation]]:
        """Fit and score.

        Raises:
            _InterruptedError: The fit was interrupted.
        """
        changes = {
            "guide": part.guide,
            "upstream": self.upstreams[part.seed, part.fold],
            "data.folds": [each for each in self.known if each != part.fold],
            "fit.seed": part.seed,
        }
        function = part.guide if part.guide in self.functions else None
        run = RunFolder(run_folder(self.folder / _name(part.guide), part.seed, part.fold))
        if not _fitted(replaced(self.recipe, changes), run, function, self.device, self.resume, self.running):
            raise _InterruptedError(last_stop())
        place = choose_device(self.device)
        posterior = load(run.posterior, device=place, precision=self.precision, guide_function=function)
        yield part, _scored(posterior, run, self.recipe.data.stores, part.fold, self.ood, self.draws)


def _fits(setup: _Setup) -> Callable[[_Part], Iterator[tuple[_Part, Evaluation]]]:
    """What a process does with one fit."""
    return setup.evaluated


def run_folder(strategy: str | Path, seed: int, fold: int) -> Path:
    """The folder of the run of a seed and fold in a cross-validation.

    Args:
        strategy: The folder of the strategy in that of the cross-validation.
        seed: The seed of the fit.
        fold: The fold that it is scored on.
    """
    return Path(strategy) / f"seed-{seed}" / f"fold-{fold}"


def write_results(result: CrossValidation, path: str | Path) -> None:
    """Write every number of a cross-validation as JSON: folds, means, intervals, pooled metrics and differences.

    Args:
        result: The cross-validation.
        path: The file; written whole or not at all. A number that is undefined is ``null``.
    """
    table = {
        "strategies": {
            name: {
                "seeds": list(seeds),
                "folds": list(next(iter(seeds.values()))),
                "metrics": {metric: vars(spread) for metric, spread in result.spread(name).items()},
                "pooled": {metric: vars(interval) for metric, interval in result.intervals[name].items()},
            }
            for name, seeds in result.evaluations.items()
        },
        "differences": [
            {"of": a, "minus": b, "pooled": {metric: vars(each) for metric, each in metrics.items()}}
            for (a, b), metrics in result.differences.items()
        ],
    }
    write_json(table, Path(path))


def _upstreams(upstream: str | None, seeds: Sequence[int], folds: Sequence[int]) -> dict[tuple[int, int], str | None]:
    """The posterior that the fit of each seed and fold starts from."""
    pairs = list(product(seeds, folds))
    if upstream is None or not any(Path(upstream).glob("seed-*")):
        return dict.fromkeys(pairs, upstream)
    runs = {pair: RunFolder(run_folder(upstream, *pair)) for pair in pairs}
    for (seed, fold), run in runs.items():
        if not run.posterior.is_dir():
            raise FitError(
                f"{upstream}: has no posterior of seed {seed}, fold {fold}, for that fit to start from; fit it first"
            )
        if not read_header(run.posterior)["provenance"].get("complete"):
            raise FitError(f"{run.path}: its fit was interrupted; resume it first, with --resume")
    return {pair: str(run.path) for pair, run in runs.items()}


def _fitted(
    recipe: Run, run: RunFolder, guide_function: str | None, device: str, resume: bool, running: Running
) -> bool:
    """Whether the run has its posterior, fitted now or complete already; not if the fit was interrupted."""
    resume = resume and run.is_run
    if resume and (epochs := run.read_recipe().fit.epochs) > recipe.fit.epochs:
        raise FitError(
            f"{run.path}: was fitted for fit.epochs = {epochs}, not {recipe.fit.epochs}; resume with as many, or "
            "choose another folder with -o"
        )
    return fit(recipe, run.path, guide_function=guide_function, device=device, resume=resume, running=running).complete


def _scored(
    posterior: Posterior,
    run: RunFolder,
    stores: Sequence[str],
    fold: int,
    ood: Sequence[str | Path],
    draws: Draws | None,
) -> Evaluation:
    """The run's evaluation: the one that is there if it is of the same posterior, clips and draws, or a new one."""
    if run.evaluation.is_dir():
        kept = Evaluation.load(run.evaluation)
        same = kept.draws == posterior.draws_made(posterior.draws_for(draws))
        same &= kept.provenance.get("precision", Precision.FLOAT32) == posterior.precision
        same &= _resolved(kept.provenance["stores"]) == _resolved(stores)
        same &= _resolved(kept.provenance["ood"]) == _resolved(ood)
        if "contents" in kept.provenance:  # Older evaluations go by the places alone.
            now = contents(ClipSet(stores)) + contents(ClipSet(ood) if ood else None)
            same &= kept.provenance["contents"] == now
        # Older evaluations do not say of which tensors they are.
        digest = kept.provenance.get("sha256")
        if same and digest in (None, read_header(run.posterior)["sha256"]):
            return kept
    made = evaluate_posterior(posterior, stores, folds=[fold], ood=ood, draws=draws)
    made.save(run.evaluation)
    return made


def _resolved(stores: Sequence[str | Path]) -> list[Path]:
    return [Path(store).resolve() for store in stores]


def _folds(clips: ClipSet) -> list[int]:
    if clips.folds is None:
        raise StoreError(
            f"{clips.stores[0].path}: its clips have no folds, and crossval uses the folds of the data set"
        )
    return sorted({int(fold) for fold in clips.folds})


def _require_distinct(what: str, values: Sequence[int | str]) -> None:
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise RecipeError(f"the {what} {repeated[0]} is named twice; name each {what} once")


def _name(guide: str) -> str:
    """The name of a guide's folder."""
    return guide.rpartition(":")[2] if is_function(guide) else Path(guide).stem


def _spread(values: NDArray[np.float64]) -> Spread:
    """The spread of values ``(seeds, folds)``, NaN where undefined."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    folds = np.where(count > 0, np.where(known, values, 0).sum(axis=0) / np.maximum(count, 1), math.nan)
    defined = folds[np.isfinite(folds)]
    mean = float(defined.mean()) if len(defined) else math.nan
    if len(defined) < 2:
        return Spread(tuple(folds.tolist()), len(defined), mean, math.nan, math.nan, math.nan)
    deviation = float(defined.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(defined) - 1)) * deviation / len(defined) ** 0.5
    return Spread(tuple(folds.tolist()), len(defined), mean, deviation, mean - half, mean + half)
