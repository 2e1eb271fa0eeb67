"""What a page reports on: a run, a posterior, an evaluation or a cross-validation, as it is found on disk."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bayes_panns.clips import ClipSet, Task
from bayes_panns.core.errors import BayesPannsError, PosteriorError, StoreError
from bayes_panns.evaluations import Evaluation, is_evaluation
from bayes_panns.jobs import RUN_TOML, choose_device, divide, evaluate_clips
from bayes_panns.posterior import Posterior, load
from bayes_panns.posterior.disk import read_header
from bayes_panns.predictions import Draws
from bayes_panns.recipes import Run, read_run
from bayes_panns.svi import METRICS, read_metrics

logger = logging.getLogger(__name__)

_ITSELF = "The posterior"

EVALUATION = "evaluation"
"""Where a run's own evaluation stands, in its folder."""

_COVARIANCES = 1 << 24
"""The most covariances between labels that are kept of an evaluation: 128 MB."""


@dataclass(frozen=True)
class Data:
    """The clips to score a posterior on, as ``evaluate`` takes them, and how.

    Attributes:
        stores: Files of labelled clips; empty to take what was scored before.
        folds: The folds to score; by default all, and for a cross-validation those that each run was not fitted to.
        ood: Files of clips that show none of the labels.
        draws: Posterior draws a clip.
        device: ``auto``, ``cpu`` or ``cuda``.
        guide_function: ``module:function`` of the guide, for a posterior that was fitted with one.
    """

    stores: Sequence[str | Path] = ()
    folds: Sequence[int] | None = None
    ood: Sequence[str | Path] = ()
    draws: Draws = 20
    device: str = "auto"
    guide_function: str | None = None


@dataclass(frozen=True)
class Part:
    """One posterior and what is known of it.

    Attributes:
        name: What to call it.
        folder: Its run's folder, or its own, or its evaluation's.
        posterior: Its folder; None where it is gone.
        header: What ``posterior.toml`` says; empty where it is gone.
        recipe: The run's recipe, if it is a run's.
        metrics: What the fit logged.
        evaluation: What it says of some clips, if anything was scored.
        clips: These clips, in the evaluation's order; None where they are gone.
        strangers: The out-of-distribution clips, likewise.
        guide_function: Of its guide, if it needs one.
        notes: What a reader has to know, such as what is missing.
        warnings: Why a reader should not trust its numbers.
    """

    name: str
    folder: Path
    posterior: Path | None
    header: Mapping[str, Any]
    recipe: Run | None
    metrics: Sequence[Mapping[str, float]]
    evaluation: Evaluation | None
    clips: ClipSet | None
    strangers: ClipSet | None
    guide_function: str | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def load(self, device: torch.device | str = "cpu") -> Posterior:
        """The posterior, from disk.

        Args:
            device: Where to put it.

        Raises:
            PosteriorError: It is gone or damaged, or needs a guide function that was not given.
        """
        if self.posterior is None:
            raise PosteriorError(f"{self.name}: its posterior is gone")
        return load(self.posterior, device=device, guide_function=self.guide_function)


@dataclass(frozen=True)
class Subject:
    """What a section of a page is about.

    Attributes:
        name: What to call it.
        kind: ``run``, ``posterior``, ``evaluation`` or ``cross-validation``.
        parts: The posterior, or those of a cross-validation.
    """

    name: str
    kind: str
    parts: tuple[Part, ...]

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The evaluation; that of a cross-validation is of all its folds together."""
        found = [part.evaluation for part in self.parts if part.evaluation is not None]
        if not found:
            return None
        return found[0] if len(found) == 1 else Evaluation.pool(found)

    @property
    def scored(self) -> tuple[Part, ...]:
        """The parts that have an evaluation, in the order of its clips."""
        return tuple(part for part in self.parts if part.evaluation is not None)


def read_subjects(path: str | Path, data: Data) -> list[Subject]:
    """Read what there is, and score what is to be scored.

    With ``data.stores`` a posterior is scored now, and a run keeps what came of it in ``evaluation/``. Without, a run's
    ``evaluation/`` is taken; where there is none, the clips that it held out are scored.

    Args:
        path: The folder of a run, a posterior, an evaluation or a cross-validation: runs in a folder, one a fold, or
            folders of such folders, one a strategy and seed.
        data: What to score it on, and how.

    Returns:
        One, or one for each strategy and seed of a cross-validation.

    Raises:
        BayesPannsError: There is nothing at ``path``, or it is none of these, or damaged, or does not fit the clips.
    """
    path = Path(path)
    name = path.resolve().name
    if is_evaluation(path):
        if data.stores:
            raise BayesPannsError(f"{path}: is an evaluation; name its run instead, or leave the clips out")
        name = path.resolve().parent.name if name == EVALUATION else name
        return [Subject(name, "evaluation", (_evaluated(path),))]
    if (path / RUN_TOML).is_file():
        return [Subject(name, "run", (_run(path, data),))]
    if (path / "posterior.toml").is_file():
        return [Subject(name, "posterior", (_part(name, path, path, data),))]
    series: dict[Path, list[Path]] = {}
    for depth in ("*", "*/*", "*/*/*"):
        for recipe in sorted(path.glob(f"{depth}/{RUN_TOML}"), key=_natural):
            series.setdefault(recipe.parent.parent, []).append(recipe.parent)
    if series:
        names = {folder: str(folder.relative_to(path)) if folder != path else name for folder in series}
        return [_series(names[folder], runs, data) for folder, runs in series.items()]
    if not path.exists():
        raise BayesPannsError(f"{path}: no such folder")
    raise BayesPannsError(f"{path}: is no run (run.toml), posterior (posterior.toml), evaluation or folder of runs")


def _series(name: str, runs: Sequence[Path], data: Data) -> Subject:
    """The runs of a cross-validation, one a fold."""
    parts = tuple(_run(run, data, fold=True) for run in runs)
    seen: dict[str, str] = {}
    for part in parts:
        for clip in [] if part.evaluation is None else part.evaluation.names:
            if seen.setdefault(clip, part.name) != part.name:
                raise BayesPannsError(
                    f"{part.folder}: is scored on {clip}, as {seen[clip]} is, so these are not the folds of a "
                    "cross-validation; name the runs one by one to compare them"
                )
    return Subject(name, "cross-validation", parts)


def _run(folder: Path, data: Data, *, fold: bool = False) -> Part:
    """A run, or one of the runs of a cross-validation."""
    recipe = read_run(folder / RUN_TOML)
    if fold and data.stores and data.folds is None:
        known = ClipSet(list(data.stores)).folds
        if known is None or recipe.data.folds is None:
            what = data.stores[0] if known is None else folder / RUN_TOML
            raise BayesPannsError(f"{what}: names no folds, so which of them to score is unclear; give --folds")
        data = replace(data, folds=sorted(set(known.tolist()) - set(recipe.data.folds)))
    posterior = folder / "posterior"
    return _part(folder.resolve().name, folder, posterior if posterior.is_dir() else None, data, recipe)


def _part(name: str, folder: Path, posterior: Path | None, data: Data, recipe: Run | None = None) -> Part:
    """A posterior, scored as ``data`` says."""
    header = {} if posterior is None else read_header(posterior)
    part = Part(
        name=name,
        folder=folder,
        posterior=posterior,
        header=header,
        recipe=recipe,
        metrics=read_metrics(folder / METRICS),
        evaluation=None,
        clips=None,
        strangers=None,
        guide_function=data.guide_function if header.get("guide_function") else None,
        notes=() if posterior is not None else ("The run has no posterior yet.",),
        warnings=(),
    )
    if data.stores:
        if posterior is None:
            raise PosteriorError(f"{folder}: has no posterior to score yet; fit it first")
        logger.info(f"scoring {name}")
        evaluation = _scored(part, ClipSet(list(data.stores), folds=data.folds), data)
        if recipe is not None:
            evaluation.save(folder / EVALUATION)
        return _with_clips(part, evaluation)
    if is_evaluation(folder / EVALUATION):
        return _with_clips(part, Evaluation.load(folder / EVALUATION))
    return _validated(part, data)


def _scored(part: Part, clips: ClipSet, data: Data) -> Evaluation:
    posterior = part.load(choose_device(data.device))
    many = len(clips) * len(posterior.labels) ** 2
    return evaluate_clips(
        posterior,
        clips,
        ClipSet(list(data.ood)) if data.ood else None,
        draws=data.draws,
        covariance=posterior.task == Task.MULTI_LABEL and many <= _COVARIANCES,
    )


def _validated(part: Part, data: Data) -> Part:
    """A part scored on the clips that its run held out, where it did and they are there."""
    missing = "Nothing was scored: name clips with --data"
    if part.recipe is None or part.posterior is None or not part.recipe.data.validation:
        return replace(part, notes=(*part.notes, f"{missing}."))
    try:
        held, _ = divide(part.recipe)
    except BayesPannsError as error:
        return replace(part, notes=(*part.notes, f"{missing}; those that the run held out cannot be had ({error})."))
    assert held is not None, "the recipe holds some out"
    logger.info(f"scoring {part.name} on the {len(held)} clips that it held out")
    note = (
        f"Scored on the {len(held)} clips that the run held out of its training set. They come from the same stores as "
        "what it was fitted to, and may have guided its settings: name others with --data for a fair test."
    )
    evaluation = _scored(part, held, data)
    # It was not fitted to these clips of its stores; what it started from may have been.
    warnings = tuple(warning for warning in _leaks(part, evaluation) if not warning.startswith(_ITSELF))
    return replace(part, evaluation=evaluation, clips=held, notes=(*part.notes, note), warnings=warnings)


def _evaluated(folder: Path) -> Part:
    """The part that a saved evaluation is of."""
    evaluation = Evaluation.load(folder)
    said = evaluation.provenance.get("posterior")
    # A run may have been moved, and its evaluation with it.
    near = folder.resolve().parent
    homes = [near] if (near / RUN_TOML).is_file() else [Path(said), Path(said).parent] if isinstance(said, str) else []
    run = next((home for home in homes if (home / RUN_TOML).is_file()), None)
    places = [place for home in homes for place in (home / "posterior", home)]
    posterior = next((place for place in places if (place / "posterior.toml").is_file()), None)
    missing = "The evaluation is not of one posterior on disk: clips and weights are not shown."
    if isinstance(said, str):
        missing = f"The posterior is gone, so clips and weights are not shown: {said}"
    part = Part(
        name=folder.resolve().name,
        folder=run or folder,
        posterior=posterior,
        header={} if posterior is None else read_header(posterior),
        recipe=None if run is None else read_run(run / RUN_TOML),
        metrics=[] if run is None else read_metrics(run / METRICS),
        evaluation=None,
        clips=None,
        strangers=None,
        guide_function=None,
        notes=() if posterior is not None else (missing,),
        warnings=(),
    )
    return _with_clips(part, evaluation)


def _with_clips(part: Part, evaluation: Evaluation) -> Part:
    """The part with an evaluation and, where they are still there, the clips that it is of."""
    said, notes = evaluation.provenance, list(part.notes)

    def found(stores: Sequence[str], folds: Sequence[int] | None, names: Sequence[str]) -> ClipSet | None:
        try:
            clips = ClipSet(list(stores), folds=folds) if stores else None
        except StoreError as error:
            notes.append(f"Clips cannot be shown: {error}")
            return None
        if clips is not None and clips.names != list(names):
            notes.append(f"Clips cannot be shown: {stores[0]} holds other clips now than those that were scored.")
            return None
        return clips

    calibrated = set((part.header.get("calibration") or {}).get("data", []))
    if calibrated & {Path(store).name for store in said.get("stores", [])}:
        notes.append(
            f"Its temperature and its label sets were fitted to clips of {', '.join(sorted(calibrated))}: if they are "
            "among those scored here, its calibration looks better than it is."
        )
    if part.header and tuple(part.header["labels"]) != evaluation.labels:
        raise BayesPannsError(f"{part.folder}: its evaluation is of other labels than its posterior's; evaluate again")
    folds = None if said.get("folds") in (None, "all") else said["folds"]
    clips = found(said.get("stores", []), folds, evaluation.names)
    strangers = found(said.get("ood", []), None, evaluation.ood_names)
    return replace(
        part,
        evaluation=evaluation,
        clips=clips,
        strangers=strangers,
        notes=tuple(notes),
        warnings=tuple(_leaks(part, evaluation)),
    )


def _leaks(part: Part, evaluation: Evaluation) -> Iterator[str]:
    """Which of the scored stores the posterior, or one it started from, had been fitted to."""
    stores = {Path(store).name for store in evaluation.provenance.get("stores", [])}
    scored = evaluation.provenance.get("folds", "all")
    fitted, who = part.header.get("provenance", {}), _ITSELF
    while fitted:
        shared, folds = sorted(stores & set(fitted.get("data", []))), fitted.get("folds", "all")
        both = "all" if "all" in (scored, folds) else sorted(set(scored) & set(folds))
        if shared and both:
            which = "" if both == "all" else f", fold {', '.join(map(str, both))}"
            yield f"{who} was fitted to clips of {', '.join(shared)}{which}, and is scored on them here."
        fitted, who = fitted.get("upstream"), "What it started from"


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts fold-10 behind fold-9."""
    return [(int(digits or -1), text) for digits, text in re.findall(r"(\d+)|(\D+)", str(path))]
