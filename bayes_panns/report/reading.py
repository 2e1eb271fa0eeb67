"""Reads what a page reports on from disk, and scores it where clips are named."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bayes_panns.clips import ClipSet, Task
from bayes_panns.core.errors import BayesPannsError, PosteriorError, StoreError
from bayes_panns.evaluations import Evaluation, is_evaluation
from bayes_panns.jobs import RunFolder, choose_device, divide, evaluate_clips, read_start_memory
from bayes_panns.posterior import Calibration
from bayes_panns.posterior.disk import read_header
from bayes_panns.recipes import Run
from bayes_panns.report.sources import Scoring, Source, SourcePart
from bayes_panns.svi import read_metrics

logger = logging.getLogger(__name__)

_COVARIANCES = 1 << 24
"""The most covariances between labels that an evaluation keeps: 128 MB."""


def read_sources(path: str | Path, scoring: Scoring) -> list[Source]:
    """Read a run, a posterior, an evaluation or a cross-validation, and score it if clips are named.

    With ``scoring.stores`` the posterior is scored now. A run keeps the result in ``evaluation/`` if it has none yet,
    or one of the same clips; an evaluation of other clips is never replaced. Without ``scoring.stores`` the run's
    ``evaluation/`` is read; if there is none, the clips that the run held out are scored, and nothing is kept.

    Args:
        path: The folder of a run, a posterior, an evaluation or a cross-validation: a folder of runs, one for each
            fold, or a folder of such folders, one for each strategy and seed.
        scoring: The clips to score, and how.

    Returns:
        One source, or one for each strategy and seed of a cross-validation.

    Raises:
        BayesPannsError: ``path`` is missing, none of these, or damaged; or it does not fit the clips.
    """
    path = Path(path)
    name = path.resolve().name
    if is_evaluation(path):
        if scoring.stores:
            raise BayesPannsError(f"{path}: is an evaluation; name its run instead, or leave out --data")
        home = RunFolder(path.resolve().parent)
        name = home.path.name if path.resolve() == home.evaluation else name
        return [Source(name, "evaluation", (_read_evaluation(path),))]
    if RunFolder(path).is_run:
        return [Source(name, "run", (_read_run(path, scoring),))]
    if (path / "posterior.toml").is_file():
        return [Source(name, "posterior", (_read_part(name, path, path, scoring),))]
    series: dict[Path, list[Path]] = {}
    for depth in ("*", "*/*", "*/*/*"):
        for folder in sorted(path.glob(depth), key=_natural):
            if RunFolder(folder).is_run:
                series.setdefault(folder.parent, []).append(folder)
    if series:
        names = {folder: str(folder.relative_to(path)) if folder != path else name for folder in series}
        return [_read_series(names[folder], runs, scoring) for folder, runs in series.items()]
    if not path.exists():
        raise BayesPannsError(f"{path}: no such folder")
    raise BayesPannsError(
        f"{path}: is not a run (run.toml), a posterior (posterior.toml), an evaluation or a folder of runs"
    )


def _read_series(name: str, runs: Sequence[Path], scoring: Scoring) -> Source:
    """The runs of a cross-validation, one for each fold."""
    parts = tuple(_read_run(run, scoring, fold=True) for run in runs)
    seen: dict[str, str] = {}
    for part in parts:
        for clip in [] if part.evaluation is None else part.evaluation.names:
            if seen.setdefault(clip, part.name) != part.name:
                raise BayesPannsError(
                    f"{part.folder}: {clip} is scored by {seen[clip]} too, so these runs are not the folds of a "
                    "cross-validation; name the runs one by one to compare them"
                )
    return Source(name, "cross-validation", parts)


def _read_run(folder: Path, scoring: Scoring, *, fold: bool = False) -> SourcePart:
    """A run; with ``fold``, one of the runs of a cross-validation."""
    run = RunFolder(folder)
    recipe = run.read_recipe()
    if fold and scoring.stores and scoring.folds is None:
        known = ClipSet(list(scoring.stores)).folds
        if known is None or recipe.data.folds is None:
            what = scoring.stores[0] if known is None else run.recipe
            raise BayesPannsError(f"{what}: has no folds, so it is unclear which to score; name them with --folds")
        scoring = replace(scoring, folds=sorted(set(known.tolist()) - set(recipe.data.folds)))
    posterior = run.posterior if run.posterior.is_dir() else None
    return _read_part(folder.resolve().name, folder, posterior, scoring, recipe)


def _read_part(
    name: str, folder: Path, posterior: Path | None, scoring: Scoring, recipe: Run | None = None
) -> SourcePart:
    """A posterior, scored as ``scoring`` says."""
    run = RunFolder(folder)
    header = {} if posterior is None else read_header(posterior)
    part = SourcePart(
        name=name,
        folder=folder,
        posterior=posterior,
        header=header,
        recipe=recipe,
        metrics=read_metrics(run.metrics),
        start=read_start_memory(run),
        guide_function=scoring.guide_function if header.get("guide_function") else None,
        notes=() if posterior is not None else ("The run has no posterior yet.",),
    )
    if scoring.stores:
        if posterior is None:
            raise PosteriorError(f"{folder}: has no posterior to score yet; fit it first")
        logger.info(f"scoring {name}")
        evaluation = _score(part, ClipSet(list(scoring.stores), folds=scoring.folds), scoring)
        if recipe is not None:
            _keep(evaluation, run.evaluation)
        return _with_evaluation(part, evaluation)
    if is_evaluation(run.evaluation):
        return _with_evaluation(part, Evaluation.load(run.evaluation))
    return _score_held_out(part, scoring)


def _score(part: SourcePart, clips: ClipSet, scoring: Scoring) -> Evaluation:
    posterior = part.load(choose_device(scoring.device), scoring.precision)
    covariances = len(clips) * len(posterior.labels) ** 2
    return evaluate_clips(
        posterior,
        clips,
        ClipSet(list(scoring.ood)) if scoring.ood else None,
        draws=scoring.draws,
        covariance=posterior.task == Task.MULTI_LABEL and covariances <= _COVARIANCES,
    )


def _keep(evaluation: Evaluation, place: Path) -> None:
    """Save a run's evaluation if it has none."""
    if place.exists():
        logger.info(f"{place}: already exists and is kept; bayes-panns evaluate -o {place} replaces it")
    else:
        evaluation.save(place)


def _score_held_out(part: SourcePart, scoring: Scoring) -> SourcePart:
    """A part scored on the clips that its run held out, if it did and they are still there."""
    missing = "Nothing was scored; name clips with --data"
    if part.recipe is None or part.posterior is None or not part.recipe.data.validation:
        return replace(part, notes=(*part.notes, f"{missing}."))
    try:
        held, _ = divide(part.recipe)
    except BayesPannsError as error:
        return replace(
            part, notes=(*part.notes, f"{missing}. The clips that the run held out are not available ({error}).")
        )
    assert held is not None, "the recipe holds some out"
    logger.info(f"scoring {part.name} on the {len(held)} clips that it held out")
    note = (
        f"Scored on the {len(held)} clips that the run held out of its training set. They come from the same stores as "
        "the training set and may have been used to choose settings; for a fair test, name other clips with --data."
    )
    evaluation = _score(part, held, scoring)
    warnings = tuple(_leaks(part, evaluation, held_out=True))
    return replace(part, evaluation=evaluation, clips=held, notes=(*part.notes, note), warnings=warnings)


def _read_evaluation(folder: Path) -> SourcePart:
    """The part that a saved evaluation is of."""
    evaluation = Evaluation.load(folder)
    named = evaluation.provenance.get("posterior")
    # A run may have been moved, and its evaluation with it.
    near = folder.resolve().parent
    homes = [near] if RunFolder(near).is_run else []
    if not homes and isinstance(named, str):
        homes = [Path(named), Path(named).parent]
    run = next((RunFolder(home) for home in homes if RunFolder(home).is_run), None)
    places = [place for home in homes for place in (RunFolder(home).posterior, home)]
    posterior = next((place for place in places if (place / "posterior.toml").is_file()), None)
    missing = "The evaluation is not of a single posterior on disk, so clips and weights are not shown."
    if isinstance(named, str):
        missing = f"The posterior is missing, so clips and weights are not shown: {named}"
    part = SourcePart(
        name=folder.resolve().name,
        folder=folder if run is None else run.path,
        posterior=posterior,
        header={} if posterior is None else read_header(posterior),
        recipe=None if run is None else run.read_recipe(),
        metrics=[] if run is None else read_metrics(run.metrics),
        start=None if run is None else read_start_memory(run),
        notes=() if posterior is not None else (missing,),
    )
    return _with_evaluation(part, evaluation)


def _with_evaluation(part: SourcePart, evaluation: Evaluation) -> SourcePart:
    """The part with an evaluation and, where they are still there, the clips that it is of."""
    provenance, notes = evaluation.provenance, list(part.notes)

    def found(stores: Sequence[str], folds: Sequence[int] | None, names: Sequence[str]) -> ClipSet | None:
        try:
            clips = ClipSet(list(stores), folds=folds) if stores else None
        except StoreError as error:
            notes.append(f"Clips are not shown: {error}")
            return None
        if clips is not None and clips.names != list(names):
            notes.append(f"Clips are not shown: {stores[0]} no longer holds the clips that were scored.")
            return None
        return clips

    if part.header and tuple(part.header["labels"]) != evaluation.labels:
        raise BayesPannsError(f"{part.folder}: its evaluation has other labels than its posterior; evaluate again")
    part = replace(part, evaluation=evaluation)
    calibration = part.calibration
    shared = set() if calibration is None else set(calibration.data) & _store_names(evaluation)
    if shared:
        notes.append(
            f"The calibration was fitted on clips of {', '.join(sorted(shared))}. If some of these clips are scored "
            "here, calibration and label sets look better than they are."
        )
    warnings = [*_changes(part, evaluation), *_leaks(part, evaluation)]
    for warning in _changes(part, evaluation):
        logger.warning(f"{part.folder}: {warning}")
    folds = None if provenance.get("folds") in (None, "all") else provenance["folds"]
    clips = found(provenance.get("stores", []), folds, evaluation.names)
    ood_clips = found(provenance.get("ood", []), None, evaluation.ood_names)
    return replace(
        part,
        clips=clips,
        ood_clips=ood_clips,
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


def _changes(part: SourcePart, evaluation: Evaluation) -> Iterator[str]:
    """Sentences on what has changed in the posterior since it was evaluated."""
    scored = evaluation.provenance.get("sha256")
    if part.header and scored not in (None, part.header.get("sha256")):
        yield "The posterior was fitted again after this evaluation: its metrics are those of the earlier posterior."
    elif part.header and scored is not None:
        now = part.header.get("calibration")
        if (None if now is None else Calibration.model_validate(now)) != evaluation.calibration:
            yield (
                "The posterior was calibrated after this evaluation: temperature and label sets here are those of the "
                "evaluation."
            )


def _store_names(evaluation: Evaluation) -> set[str]:
    return {Path(store).name for store in evaluation.provenance.get("stores", [])}


def _leaks(part: SourcePart, evaluation: Evaluation, *, held_out: bool = False) -> Iterator[str]:
    """Sentences on scored clips that the posterior, or one it started from, was fitted to.

    An evaluation counts them. Older ones do not: then the names of stores say what is possible.
    """
    counted = evaluation.provenance.get("leaks")
    if counted is not None:
        for key, whose in (("own", "this posterior"), ("upstream", "the posterior that this one started from")):
            if counted.get(key):
                yield (
                    f"{counted[key]} of the {len(evaluation.names)} scored clips were in the training set of {whose}, "
                    "so the metrics look better than they are."
                )
        return
    scored = evaluation.provenance.get("folds", "all")
    fitted, whose = part.header.get("provenance", {}), "this posterior"
    if held_out:
        # The run was fitted to other clips of the same stores.
        fitted, whose = fitted.get("upstream"), "the posterior that this one started from"
    while fitted:
        shared, folds = sorted(_store_names(evaluation) & set(fitted.get("data", []))), fitted.get("folds", "all")
        both = "all" if "all" in (scored, folds) else sorted(set(scored) & set(folds))
        if shared and both:
            which = "" if both == "all" else f" (fold {', '.join(map(str, both))})"
            yield (
                f"Some of the scored clips may have been in the training set of {whose}, which was fitted to "
                f"{', '.join(shared)}{which}. Evaluate again to compare them clip by clip."
            )
        fitted, whose = fitted.get("upstream"), "the posterior that this one started from"


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts fold-10 after fold-9."""
    return [(int(digits or -1), text) for digits, text in re.findall(r"(\d+)|(\D+)", str(path))]
