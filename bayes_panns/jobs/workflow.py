"""Whole jobs: from a recipe and stores to a posterior on disk, and from a posterior to what it is worth."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tomli_w
import torch

from bayes_panns import __version__
from bayes_panns.clips import ClipSet, Task, read_labels
from bayes_panns.core.errors import FitError, RecipeError, StoreError
from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import conformal_threshold, fit_temperature
from bayes_panns.posterior import (
    LOCS,
    Calibration,
    Ensemble,
    FittedClips,
    Inherited,
    Posterior,
    Predictor,
    load,
    save,
)
from bayes_panns.predictions import Draws, predict, predict_logits
from bayes_panns.recipes.reading import Run, read_run, read_strategy
from bayes_panns.svi import Embeddings, Features, Fit, require_fixed

logger = logging.getLogger(__name__)

RUN_TOML = "run.toml"


@dataclass(frozen=True)
class Fitted:
    """What a fit came to.

    Attributes:
        posterior: The posterior, also in ``folder/posterior``.
        inherited: What it took over from upstream, if it started there.
        complete: False where it was interrupted; it can be resumed.
        folder: The run's folder.
    """

    posterior: Posterior
    inherited: Inherited | None
    complete: bool
    folder: Path


def fit(
    recipe: Run,
    folder: str | Path,
    *,
    device: str = "auto",
    resume: bool = False,
) -> Fitted:
    """Fit a posterior as ``recipe`` says: from scratch, or from ``recipe.upstream``.

    Args:
        recipe: The run; its ``data.stores`` say where the clips are.
        folder: Where everything goes: ``posterior/``, ``metrics.jsonl``, ``run.toml`` and ``checkpoint.pt``.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: Go on from the folder's checkpoint.

    Raises:
        BayesPannsError: The recipe, the stores, the upstream posterior or the folder do not fit; or the fit diverged.
    """
    folder, chosen = Path(folder), choose_device(device)
    held, fitted = divide(recipe)
    task = Task(recipe.data.task) if recipe.data.task else fitted.task
    if not fitted.labels:
        raise StoreError(f"{recipe.data.stores[0]}: its clips have no labels to learn")

    torch.manual_seed(recipe.fit.seed)
    upstream = None if recipe.upstream is None else load(recipe.upstream)
    own = ":" in recipe.guide and not Path(recipe.guide).is_file()
    posterior = Posterior.build(
        net=recipe.net,
        labels=fitted.labels,
        task=task,
        sample_rate=fitted.sample_rate,
        clip_seconds=fitted.seconds_per_clip,
        strategy=None if own else read_strategy(recipe.guide),
        guide_function=recipe.guide if own else None,
        upstream=upstream,
        clips=len(fitted),
    )
    inherited = None if upstream is None else posterior.start_from(upstream)
    if recipe.head == "probe" and (inherited is None or not posterior.guide.explicit):
        raise RecipeError('head = "probe" needs a posterior to start from (finetune --from) and a guide recipe')
    posterior.freeze(recipe.freeze)
    rotated = posterior.guide.needs_embeddings
    if rotated and recipe.fit.features != "embeddings":
        raise RecipeError(
            'posterior "rotated" takes its axes from the embeddings of a frozen backbone: set '
            'fit.features = "embeddings", as the recipe rotated-head does'
        )
    new = inherited is None or f"{posterior.model.head}.weight" in inherited.new
    if LOCS in recipe.freeze and new and (inherited is None or not (rotated or recipe.head == "probe")):
        raise RecipeError(
            "freeze: with locs frozen, weights that nothing has fitted would stay at random: start from a posterior of "
            'the same labels (finetune --from), or set head = "probe"'
        )
    if recipe.fit.features == "embeddings":
        require_fixed(posterior.model)
    _prepare(folder, recipe, resume)

    logger.info(
        f"{len(fitted)} clips of {fitted.seconds_per_clip:g} s, {len(fitted.labels)} labels ({task}), on {chosen}"
    )
    if inherited is not None:
        logger.info(
            f"taken from {recipe.upstream}: {len(inherited.taken)} tensors; new: {', '.join(inherited.new) or 'none'}"
        )
    kept: Callable[..., Features | Embeddings]
    data: Features | Embeddings
    if recipe.fit.features == "embeddings":
        kept = partial(Embeddings, model=posterior.model, task=task, device=chosen)
        data = kept(fitted, views=recipe.fit.views, seed=recipe.fit.seed)
    else:
        kept = partial(
            Features,
            front_end=posterior.front_end,
            task=task,
            keep=recipe.fit.features,
            folder=folder,
        )
        data = kept(fitted)
    job = Fit(
        posterior.model,
        posterior.guide,
        data,
        recipe.fit,
        folder,
        validation=None if held is None else kept(held),
        device=chosen,
    )
    if resume and job.checkpointed:
        job.load_checkpoint()
        logger.info(f"resuming at epoch {job.epoch:.1f} of {recipe.fit.epochs}")
    else:
        posterior.prepare(
            data, new_head=new, head=recipe.head, spec_augment=recipe.fit.spec_augment, seed=recipe.fit.seed
        )
    complete = job.run()
    posterior.metrics = dict(job.metrics)
    posterior.provenance = {
        "data": [Path(store).name for store in recipe.data.stores],
        "folds": sorted(recipe.data.folds) if recipe.data.folds else "all",
        "clips": len(fitted),
        "steps": job.step,
        "epochs": round(job.epoch, 3),
        "complete": complete,
        "seed": recipe.fit.seed,
        "kl_weight": recipe.fit.kl_weight,
        "tempered": recipe.fit.kl_weight != 1,
        "device": str(chosen),
        "versions": {
            "bayes_panns": __version__,
            "python": sys.version.split()[0],
            **{package: version(package) for package in ("torch", "torchaudio", "pyro-ppl")},
        },
    }
    digests = (digest for store, _, rows in fitted.by_store() for digest in store.digests(rows))
    posterior.fitted_clips = FittedClips.of(digests, None if upstream is None else upstream.fitted_clips)
    if upstream is not None:
        posterior.provenance["upstream"] = {"folder": Path(str(recipe.upstream)).name, **upstream.provenance}
    save(posterior, folder / "posterior")
    return Fitted(posterior, inherited, complete, folder)


def evaluate_posterior(
    posterior: Predictor,
    stores: Sequence[str | Path],
    *,
    folds: Sequence[int] | None = None,
    ood: Sequence[str | Path] = (),
    draws: Draws = 20,
    covariance: bool = False,
) -> Evaluation:
    """Score a posterior on labelled clips and, where given, against out-of-distribution ones.

    Args:
        posterior: What to score, or an ensemble of several.
        stores: Files of clips with the posterior's labels, in any order.
        folds: The folds to score; by default all.
        ood: Files of clips that show none of the labels.
        draws: Posterior draws a clip; 0 is one pass at the posterior mean, ``"moments"`` one that propagates moments.
        covariance: Whether to keep the epistemic covariance between labels too.

    Raises:
        StoreError: A store's labels, task or sample rate are not the posterior's.
    """
    return evaluate_clips(
        posterior,
        ClipSet(list(stores), folds=folds),
        ClipSet(list(ood)) if ood else None,
        draws=draws,
        covariance=covariance,
    )


def evaluate_clips(
    posterior: Predictor,
    clips: ClipSet,
    ood: ClipSet | None = None,
    *,
    draws: Draws = 20,
    covariance: bool = False,
) -> Evaluation:
    """As :func:`evaluate_posterior`, for clips at hand, such as a run's own validation clips.

    Raises:
        StoreError: The clips' labels, task or sample rate are not the posterior's.
    """
    target = _target(posterior, clips)
    for each in (clips, ood):
        if each is not None:
            _check_rate(posterior, each)
    uncertainty = predict(posterior, clips, draws, covariance=covariance)
    outside = None if ood is None else predict(posterior, ood, draws, covariance=covariance)
    members = posterior.members if isinstance(posterior, Ensemble) else ()
    return Evaluation.of(
        uncertainty,
        target,
        outside,
        names=clips.names,
        labels=posterior.labels,
        sources=clips.sources,
        ood_names=[] if ood is None else ood.names,
        provenance={
            "posterior": None if posterior.folder is None else str(posterior.folder),
            **({"members": [str(each.folder) for each in members]} if members else {}),
            "stores": [str(store.path) for store in clips.stores],
            "folds": "all" if clips.folds is None else sorted({int(fold) for fold in clips.folds}),
            "ood": [] if ood is None else [str(store.path) for store in ood.stores],
            "draws": draws if posterior.stochastic or draws == "moments" else 0,
            **({} if posterior.calibration is None else {"threshold": posterior.calibration.threshold}),
        },
    )


def calibrate(
    posterior: Posterior,
    clips: ClipSet,
    *,
    coverage: float = 0.9,
    draws: int = 20,
    seed: int = 0,
) -> Calibration:
    """Fit a temperature and a threshold for label sets to clips that the posterior was not fitted to.

    The temperature is fitted on one half of the clips and the threshold, with that temperature, on the other: so the
    sets' coverage is guaranteed for clips like these, where recordings are independent of each other. A recording's
    clips stay in one half.

    Args:
        posterior: What to calibrate; its ``calibration`` becomes the one returned.
        clips: Held-out clips with the posterior's labels.
        coverage: The share of true labels that sets are to hold, in (0, 1).
        draws: Posterior draws; predict with as many.
        seed: Seeds the halves.

    Raises:
        StoreError: The clips do not fit the posterior, or are too few for the coverage.
    """
    _check_rate(posterior, clips)
    first, second = clips.split(0.5, seed)
    logits = predict_logits(posterior, first, draws)
    temperature = fit_temperature(logits, _target(posterior, first), posterior.task)
    posterior.calibration = None
    scaled = torch.from_numpy(predict_logits(posterior, second, draws)) / temperature
    probability = posterior.model.likelihood.probability(scaled).double().mean(dim=0).numpy()
    try:
        threshold = conformal_threshold(probability, _target(posterior, second), coverage)
    except ValueError as error:
        raise StoreError(f"{clips.stores[0].path}: {error}") from error
    posterior.calibration = Calibration(
        temperature=temperature,
        threshold=threshold,
        coverage=coverage,
        draws=draws if posterior.stochastic else 0,
        clips=(len(first), len(second)),
        data=tuple(store.path.name for store in clips.stores),
    )
    return posterior.calibration


def divide(recipe: Run) -> tuple[ClipSet | None, ClipSet]:
    """The clips that a run holds out, to be scored after each epoch, if it does; and those that it is fitted to.

    Raises:
        RecipeError: The recipe names no store.
        StoreError: A store cannot be read, or the clips cannot be split.
    """
    if not recipe.data.stores:
        raise RecipeError("no clips to fit: name a store with --data, or in the recipe's data.stores")
    labels = None if recipe.data.labels is None else read_labels(recipe.data.labels)
    clips = ClipSet(recipe.data.stores, folds=recipe.data.folds, labels=labels)
    if recipe.data.share < 1:
        clips = clips.sample(recipe.data.share, seed=recipe.fit.seed)
    return clips.split(recipe.data.validation, seed=recipe.fit.seed) if recipe.data.validation else (None, clips)


def held_out(run: str | Path, stores: Sequence[str | Path] = (), *, folds: Sequence[int] | None = None) -> ClipSet:
    """Clips that a posterior was not fitted to: those in ``stores``, or by default the run's own validation clips.

    Args:
        run: The run's folder, or the posterior's in it.
        stores: Files of clips.
        folds: The folds of ``stores`` to take; by default all.

    Raises:
        StoreError: There are no stores given, and the run held none out or is not known.
        BayesPannsError: The run's recipe or a store is damaged.
    """
    if stores:
        return ClipSet(list(stores), folds=folds)
    run = Path(run)
    recipes = [folder / RUN_TOML for folder in (run, run.resolve().parent) if (folder / RUN_TOML).is_file()]
    held = divide(read_run(recipes[0]))[0] if recipes else None
    if held is None:
        raise StoreError(
            f"{run}: its run held no clips out; name a store of clips that it was not fitted to with --data"
        )
    return held.select(folds=folds)


def choose_device(device: str) -> torch.device:
    """``auto`` is a GPU where there is one.

    Raises:
        FitError: ``cuda`` is wanted and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise FitError("--device cuda: torch sees no GPU here; use --device cpu or auto")
    return torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")


def _check_rate(posterior: Predictor, clips: ClipSet) -> None:
    if clips.sample_rate != posterior.sample_rate:
        raise StoreError(
            f"{clips.stores[0].path}: sample rate {clips.sample_rate} Hz, but the posterior's is "
            f"{posterior.sample_rate}; pack it again with --sample-rate {posterior.sample_rate}"
        )


def _target(posterior: Predictor, clips: ClipSet) -> np.ndarray:
    """The clips' targets ``(N, K)``, in the order of the posterior's labels.

    Stores without label names, such as PANNs' packs, are taken to have the posterior's, in its order.
    """
    path = clips.stores[0].path
    # One label a clip is a case of any number of them, but not the other way round.
    if clips.task == Task.MULTI_LABEL and posterior.task == Task.ONE_OF_K:
        raise StoreError(f"{path}: its task is {clips.task}, but the posterior's is {posterior.task}")
    if not any(store.named for store in clips.stores) and len(clips.labels) == len(posterior.labels):
        return clips.target()
    if set(clips.labels) != set(posterior.labels):
        missing = sorted(set(posterior.labels) - set(clips.labels))
        extra = sorted(set(clips.labels) - set(posterior.labels))
        difference = " and ".join(
            f"{word} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
            for word, names in (("lacks", missing), ("adds", extra))
            if names
        )
        raise StoreError(f"{path}: its labels are not the posterior's: it {difference}; pack it with the same labels")
    return clips.target()[:, [clips.labels.index(label) for label in posterior.labels]]


def _prepare(folder: Path, recipe: Run, resume: bool) -> None:
    """Make the run's folder and write down the recipe, or see that it is the recipe to resume."""
    path = folder / RUN_TOML
    if resume:
        if not path.is_file():
            raise FitError(f"{folder}: nothing to resume there ({RUN_TOML} is missing)")
        before = read_run(path)
        if before != recipe:
            key, was, now = next(_differences(before.model_dump(mode="json"), recipe.model_dump(mode="json")))
            raise FitError(f"{folder}: was started with {key} = {was!r}, not {now!r}; resume with the same recipe")
        return
    if folder.exists() and any(folder.iterdir()):
        raise FitError(f"{folder}: is not empty; go on with it with --resume, or choose another folder with -o")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(tomli_w.dumps(recipe.model_dump(exclude_none=True)), encoding="utf-8")


def _differences(before: dict, now: dict, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    for key in before:
        if isinstance(before[key], dict):
            yield from _differences(before[key], now[key], f"{prefix}{key}.")
        elif before[key] != now[key]:
            yield prefix + key, before[key], now[key]
