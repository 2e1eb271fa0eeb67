"""The folder of a run: every path in it, its lock, and what must be unchanged when its fit is resumed.

============== ======================================================================================
``run.toml``     the recipe as it was run
``resume.json``  digests of the fit's inputs, how often it was continued, whether it freezes to points
``metrics.jsonl`` what the fit logged after each epoch
``checkpoint.pt`` all that a resumed fit needs
``posterior/``   the posterior
``evaluation/``  the run's evaluation, if one was kept
``start.json``   what is left of the start in its widths, if that was checked
``report.html``  its report, if one was made
============== ======================================================================================
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from bayes_panns.clips import ClipSet, Store
from bayes_panns.core import toml
from bayes_panns.core.choices import Holds, SplitRule
from bayes_panns.core.errors import FitError
from bayes_panns.core.files import locked, require_folder, whole_file
from bayes_panns.core.strict_json import write_json
from bayes_panns.posterior.disk import read_header
from bayes_panns.recipes import Run, is_function, read_run, read_strategy, replaced
from bayes_panns.svi import CHECKPOINT, METRICS

RUN_TOML = "run.toml"


class Inputs(BaseModel):
    """What a fit is made of, by content: the same inputs may be at another place when the fit is resumed.

    Attributes:
        stores: A digest of each store: of its labels, and of its clips' names, targets, folds, sources and lengths.
        upstream: The digest of the tensors of the posterior that it starts from.
        guide: A digest of the guide recipe; None for a guide in Python.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stores: tuple[str, ...]
    upstream: str | None = None
    guide: str | None = None

    @classmethod
    def of(cls, recipe: Run, clips: ClipSet) -> Self:
        """The inputs of a run.

        Args:
            recipe: The run.
            clips: Its clips.

        Raises:
            BayesPannsError: A store, the upstream posterior or the guide recipe is missing or damaged.
        """
        upstream = guide = None
        if recipe.upstream is not None:
            upstream = read_header(posterior_at(recipe.upstream))["sha256"]
        if not is_function(recipe.guide):
            # Without defaults, so that a new key of a later version changes no digest.
            table = read_strategy(recipe.guide).model_dump(mode="json", exclude_defaults=True, exclude={"description"})
            guide = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
        return cls(stores=tuple(_digest(store) for store in clips.stores), upstream=upstream, guide=guide)


class Continued(BaseModel):
    """A fit that was continued to more epochs.

    Attributes:
        epochs: ``fit.epochs`` before.
        step: The step from which on the schedule of the longer fit was followed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int
    step: int


class Resumable(BaseModel):
    """What ``resume.json`` holds.

    Attributes:
        format_version: Of the file.
        inputs: What the fit was started with.
        continued: How often it was continued to more epochs, oldest first.
        frozen_points: Whether frozen weights without a width of their own are points. They were drawn in runs of older
            versions, which do not say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = 1
    inputs: Inputs
    continued: tuple[Continued, ...] = ()
    frozen_points: bool = False


class RunFolder:
    """The folder of a run.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        path: The folder.

    Example:
        >>> run = RunFolder("runs/mine")
        >>> run.posterior.as_posix(), run.is_run
        ('runs/mine/posterior', False)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def around(cls, path: str | Path) -> "RunFolder | None":
        """The run whose folder ``path`` is, or whose posterior or evaluation is there; None if there is none."""
        places = cls(path), cls(Path(path).resolve().parent)
        return next((place for place in places if place.is_run), None)

    @property
    def recipe(self) -> Path:
        """The recipe as it was run."""
        return self.path / RUN_TOML

    @property
    def resumable(self) -> Path:
        """What must be unchanged when the fit is resumed: see :class:`Resumable`."""
        return self.path / "resume.json"

    @property
    def metrics(self) -> Path:
        """What the fit logged after each epoch, as JSON lines."""
        return self.path / METRICS

    @property
    def checkpoint(self) -> Path:
        """All that a resumed fit needs."""
        return self.path / CHECKPOINT

    @property
    def posterior(self) -> Path:
        """The folder of the posterior."""
        return self.path / "posterior"

    @property
    def evaluation(self) -> Path:
        """The folder of the run's evaluation."""
        return self.path / "evaluation"

    @property
    def start(self) -> Path:
        """What is left of the start in its widths: see :class:`~bayes_panns.jobs.StartMemory`."""
        return self.path / "start.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def is_run(self) -> bool:
        """Whether a run was started here."""
        return self.recipe.is_file()

    @property
    def complete(self) -> bool:
        """Whether the posterior is that of all epochs of the recipe.

        Raises:
            BayesPannsError: The recipe or the posterior is damaged.
        """
        if not self.is_run or not self.posterior.is_dir():
            return False
        fitted = read_header(self.posterior)["provenance"]
        # A fit that was continued to more epochs leaves the posterior of fewer until it ends.
        enough = fitted.get("converged") or fitted.get("epochs", 0) >= self.read_recipe().fit.epochs
        return bool(fitted.get("complete")) and bool(enough)

    def read_recipe(self) -> Run:
        """The recipe as it was run.

        The recipe of an older version says nothing about ``data.split``: such a run held clips out by the rule
        ``prefix``, and its validation clips are found by that rule.

        Raises:
            FitError: No run was started here.
            RecipeError: The recipe is damaged.
        """
        if not self.is_run:
            raise FitError(f"{self.path}: there is no run ({RUN_TOML} is missing)")
        recipe = read_run(self.recipe)
        if "split" in recipe.data.model_fields_set:
            return recipe
        return replaced(recipe, {"data.split": SplitRule.PREFIX})

    def read_resumable(self) -> Resumable | None:
        """What the run was started with; None for a run of an older version.

        Raises:
            FitError: ``resume.json`` is damaged.
        """
        if not self.resumable.is_file():
            return None
        try:
            return Resumable.model_validate_json(self.resumable.read_bytes())
        except ValidationError as error:
            raise FitError(
                f"{self.resumable}: is damaged; delete it to resume the run, if its stores are still at their places"
            ) from error

    def require(self, *, resume: bool) -> None:
        """Check, before any work, that a fit can be started here, or resumed.

        Args:
            resume: Whether it is to be resumed.

        Raises:
            FitError: There is something in the folder already, or nothing to resume; or a fit is running there.
            OutputError: The folder cannot be written.
        """
        require_folder(self.path)
        if resume and not self.is_run:
            raise FitError(f"{self.path}: there is nothing to resume ({RUN_TOML} is missing)")
        if self.path.exists():
            with self._locked():
                if not resume:
                    self._require_empty()

    def require_same(self, recipe: Run, inputs: Inputs) -> None:
        """Check that the run can be resumed with a recipe: that only the places of its inputs differ, or its epochs.

        The inputs are compared by content. For a run of an older version, which did not record them, their resolved
        paths are compared. ``fit.epochs`` may grow; it may be smaller only if the fit is complete.

        Args:
            recipe: The recipe to go on with.
            inputs: Its inputs.

        Raises:
            FitError: Something else has changed; the message says what.
        """
        before, recorded = self.read_recipe(), self.read_resumable()
        was, now = before.model_dump(mode="json"), recipe.model_dump(mode="json")
        if now["fit"]["epochs"] < was["fit"]["epochs"] and not self.complete:
            raise FitError(
                f"{self.path}: was started with fit.epochs = {was['fit']['epochs']}, not {now['fit']['epochs']}; a fit "
                "can be continued to more epochs, not to fewer"
            )
        now["fit"]["epochs"] = was["fit"]["epochs"]
        now["description"] = was["description"]
        if recorded is None:
            _compare_paths(was, now)
        else:
            self._compare_inputs(recorded.inputs, inputs, was, now)
        difference = next(_differences(was, now), None)
        if difference is not None:
            key, old, new = difference
            raise FitError(
                f"{self.path}: was started with {key} = {old!r}, not {new!r}; resume with the same recipe, or start in "
                "another folder"
            )

    @contextmanager
    def claimed(self, *, resume: bool) -> Iterator[None]:
        """The folder, made if it is missing, for the fit in this block alone.

        Raises:
            FitError: Another fit is running there; or there is something in it and ``resume`` is False.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not resume:
                self._require_empty()
            yield

    def write(self, recipe: Run, resumable: Resumable) -> None:
        """Write down what is run; what is written already stays as it is.

        Raises:
            OSError: The folder cannot be written.
        """
        if not self.is_run or self.read_recipe() != recipe:
            with whole_file(self.recipe) as part:
                part.write_text(toml.dumps(recipe.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
        if self.read_resumable() != resumable:
            write_json(resumable.model_dump(mode="json", exclude_none=True), self.resumable)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self.path) as ours:
            if not ours:
                raise FitError(
                    f"{self.path}: another fit is running there; wait for it, or choose another folder with -o"
                )
            yield

    def _require_empty(self) -> None:
        if any(self.path.iterdir()):
            raise FitError(
                f"{self.path}: is not empty; resume the run there with --resume, or choose another folder with -o"
            )

    def _compare_inputs(self, before: Inputs, inputs: Inputs, was: dict[str, Any], now: dict[str, Any]) -> None:
        """Take the inputs of the same content as the same, wherever they are.

        Raises:
            FitError: One is at the same place and its content has changed.
        """
        if len(before.stores) == len(inputs.stores):
            for index, (old, new) in enumerate(zip(before.stores, inputs.stores, strict=True)):
                if old != new:
                    store, first = now["data"]["stores"][index], was["data"]["stores"][index]
                    raise FitError(
                        f"{store}: is not the store that the run in {self.path} was started with, {first}: its "
                        "names, labels, folds or lengths differ; resume with that one, or start in another folder"
                    )
            # Given label names are part of a store's digest.
            now["data"]["stores"], now["data"]["labels"] = was["data"]["stores"], was["data"]["labels"]
        for key, what in (("upstream", "posterior"), ("guide", "guide recipe")):
            old, new = getattr(before, key), getattr(inputs, key)
            if old is not None and new is not None and old != new:
                raise FitError(
                    f"{now[key]}: is not the {what} that the run in {self.path} was started with, {was[key]}; resume "
                    "with that one, or start in another folder"
                )
            if old is not None and new is not None:
                now[key] = was[key]


def posterior_at(path: str | Path) -> Path:
    """The folder of the posterior that is at ``path``, or in the run at ``path``."""
    inside = RunFolder(path).posterior
    return inside if inside.is_dir() else Path(path)


def _compare_paths(was: dict[str, Any], now: dict[str, Any]) -> None:
    """Take inputs whose resolved paths are the same as the same."""
    pairs = ((was, now, "upstream"), (was["data"], now["data"], "labels"))
    for old, new, key in pairs:
        if old[key] is not None and new[key] is not None and Path(old[key]).resolve() == Path(new[key]).resolve():
            new[key] = old[key]
    resolved = [[Path(store).resolve() for store in each["data"]["stores"]] for each in (was, now)]
    if resolved[0] == resolved[1]:
        now["data"]["stores"] = was["data"]["stores"]


def _digest(store: Store) -> str:
    """SHA-256 of a store's labels and of its clips' names, targets, folds, sources and lengths; not of their sound."""
    header = {
        "labels": store.labels,
        "task": str(store.task),
        "sample_rate": store.sample_rate,
        "samples": store.width,
        "names": store.names,
        "folds": None if store.folds is None else store.folds.tolist(),
        "sources": None if store.sources is None else store.sources.tolist(),
        "seconds": None if store.seconds is None else store.seconds.tolist(),
    }
    if store.holds == Holds.EMBEDDINGS:
        header["embeddings of"] = store.model
    digest = hashlib.sha256(json.dumps(header).encode())
    digest.update(np.packbits(store.target()).tobytes())
    return digest.hexdigest()


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Keys with dots whose values differ, and both values."""
    for key in before:
        if isinstance(before[key], dict):
            yield from _differences(before[key], now[key], f"{prefix}{key}.")
        elif before[key] != now[key]:
            yield prefix + key, before[key], now[key]
