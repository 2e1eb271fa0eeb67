"""The folder of a run: every path in it, its lock, and what must be unchanged when its fit is resumed.

========================== ========================================================================================
``run.toml``               the recipe as it was run, and its digest
``resume.json``            digests of the fit's inputs, and its own; how often the fit was continued
``metrics.jsonl``          what the fit logged after each epoch
``checkpoint.pt``          all that a resumed fit needs
``checkpoint.previous.pt`` the checkpoint before it, for a fit whose last one is damaged
``checkpoint.best.pt``     that of the epoch with the lowest ``val/nll``, if there are validation clips
``features.bin``           the clips' log-mels, while a fit with ``features = "disk"`` is under way
``posterior/``             the posterior
``best/``                  the posterior of the best epoch, if that is not the last
``evaluation/``            the run's evaluation, if one was kept
``start.json``             what is left of the start in its widths, if that was checked
``report.html``            its report, if one was made
``learn.json``             what ``learn`` made the run of; beside it then are its clips, their embeddings, a
                           cross-validation and the evaluation of a baseline
========================== ========================================================================================
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from bayes_panns.core import toml
from bayes_panns.core.choices import SplitRule
from bayes_panns.core.digests import DIGEST, read_sealed, sealed
from bayes_panns.core.errors import FitError
from bayes_panns.core.files import locked, remove_abandoned, require_folder, whole_file
from bayes_panns.core.strict_json import write_json
from bayes_panns.jobs.inputs import POSTERIOR, Inputs, Resumable, recipe_digest
from bayes_panns.posterior.disk import read_header
from bayes_panns.recipes import Run, read_run, replaced
from bayes_panns.svi import BEST, CHECKPOINT, METRICS, PREVIOUS

RUN_TOML = "run.toml"

Resume = bool | Literal["auto"]
"""Whether a fit is resumed; with ``"auto"`` if there is one to resume."""

LEARN, LEARN_CLIPS, LEARN_CROSSVAL = "learn.json", "clips.h5", "crossval"
"""What ``learn`` has in the run's folder before the run: what it was told, the clips, and their cross-validation."""

SECOND_FIT = ".check-start-"
"""What the name of the folder of a second fit begins with, inside that of the run."""


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
    def checkpoints(self) -> tuple[Path, ...]:
        """Every file that a checkpoint may be in: the last, the one before, and that of the best epoch."""
        return tuple(self.path / name for name in (CHECKPOINT, PREVIOUS, BEST))

    @property
    def features(self) -> Path:
        """The clips' log-mels, until the fit is complete: see :mod:`bayes_panns.svi.feature_file`."""
        return self.path / "features.bin"

    @property
    def posterior(self) -> Path:
        """The folder of the posterior."""
        return self.path / POSTERIOR

    @property
    def best(self) -> Path:
        """The folder of the posterior of the epoch with the lowest ``val/nll``, if that was not the last."""
        return self.path / "best"

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

    @property
    def sealed(self) -> bool:
        """Whether the recipe that was run has a digest; in runs of older versions it has none."""
        return self.is_run and DIGEST in self._recipe_table()

    def read_recipe(self) -> Run:
        """The recipe as it was run.

        The recipe of an older version says nothing about ``data.split``: such a run held clips out by the rule
        ``prefix``, and its validation clips are found by that rule. Nor does it say anything of ``fit.scale_bounds``:
        there were none.

        Raises:
            FitError: No run was started here, or the recipe is not the one that was run.
            RecipeError: The recipe is damaged.
        """
        if not self.is_run:
            raise FitError(f"{self.path}: there is no run ({RUN_TOML} is missing)")
        recipe, table = read_run(self.recipe), self._recipe_table()
        if table.get(DIGEST, recipe_digest(table)) != recipe_digest(table):
            raise self._changed()
        unsaid: dict[str, Any] = {} if "split" in recipe.data.model_fields_set else {"data.split": SplitRule.PREFIX}
        if "scale_bounds" not in recipe.fit.model_fields_set:
            unsaid["fit.scale_bounds"] = []
        return replaced(recipe, unsaid) if unsaid else recipe

    def read_resumable(self) -> Resumable | None:
        """What the run was started with; None for a run of an older version.

        Raises:
            FitError: ``resume.json`` is damaged, missing or of a newer version.
        """
        if not self.resumable.is_file():
            if self.sealed:
                raise FitError(f"{self.resumable}: is missing; restore it, or fit again in another folder")
            return None
        try:
            table = read_sealed(self.resumable)
            version, newest = table.get("format_version"), Resumable.model_fields["format_version"].default
            if isinstance(version, int) and version > newest:
                raise FitError(f"{self.resumable}: was written by a newer version of bayes_panns; update it")
            return Resumable.model_validate(table)
        except ValueError as error:
            raise FitError(f"{self.resumable}: is damaged; restore it, or fit again in another folder") from error

    def resumes(self, resume: Resume) -> bool:
        """Whether a fit here is resumed: as asked, or with ``"auto"`` if a run was started."""
        return self.is_run if resume == "auto" else resume

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
            with self.claimed(resume=resume):
                pass

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
    def claimed(self, *, resume: bool, shared: bool = False) -> Iterator[None]:
        """The folder, made if it is missing, for the fit in this block alone.

        Args:
            resume: Whether there may be something in it.
            shared: Whether other blocks that share it may run at the same time, but no fit.

        Raises:
            FitError: Another fit is running there; or there is something in it and ``resume`` is False.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path, shared=shared) as ours:
            if not ours:
                raise FitError(
                    f"{self.path}: another fit is running there, or a command that writes there; wait for it, or "
                    "choose another folder with -o"
                )
            self._sweep()
            if not resume:
                self._require_empty()
            yield

    def write(self, recipe: Run, resumable: Resumable) -> None:
        """Write down what is run; what is written already stays as it is.

        Raises:
            OSError: The folder cannot be written.
        """
        # Before the recipe: a run begins with that.
        if self.read_resumable() != resumable:
            write_json(sealed(resumable.model_dump(mode="json", exclude_none=True)), self.resumable)
        if not self.is_run or self.read_recipe() != recipe:
            table = recipe.model_dump(mode="json", exclude_none=True)
            with whole_file(self.recipe) as part:
                part.write_text(toml.dumps({**table, DIGEST: recipe_digest(table)}), encoding="utf-8")

    def _changed(self) -> FitError:
        return FitError(
            f"{self.recipe}: is not the recipe that was run: it was changed by hand or damaged; restore it, or fit "
            "again in another folder"
        )

    def _recipe_table(self) -> dict[str, Any]:
        """The recipe as it is written, and its digest."""
        return toml.loads(self.recipe.read_text(encoding="utf-8"))

    def _sweep(self) -> None:
        """Remove what killed commands left; the folder is locked."""
        for folder in (self.path, self.posterior, self.best, self.evaluation):
            if folder.is_dir():
                remove_abandoned(folder)
        for left in self.path.glob(f"{SECOND_FIT}*"):
            shutil.rmtree(left, ignore_errors=True)
        # Older versions kept log-mels in such files.
        for file in self.path.glob("tmp*.features"):
            file.unlink(missing_ok=True)

    def _require_empty(self) -> None:
        # A fit that was killed before it wrote its recipe may have left the first of these.
        known = {self.resumable.name}
        if (self.path / LEARN).is_file():
            clips = Path(LEARN_CLIPS).with_suffix(".embeddings").name
            known |= {LEARN, LEARN_CLIPS, clips, LEARN_CROSSVAL, self.evaluation.name}
        if self.is_run or any(place.name not in known for place in self.path.iterdir()):
            raise FitError(
                f"{self.path}: is not empty; resume the run there with --resume, or choose another folder with -o"
            )

    def _compare_inputs(self, before: Inputs, inputs: Inputs, was: dict[str, Any], now: dict[str, Any]) -> None:
        """Take the inputs of the same content as the same, wherever they are.

        Raises:
            FitError: One is at the same place and its content has changed.
        """
        if len(was["data"]["stores"]) != len(before.stores):
            raise self._changed()
        if len(before.stores) == len(inputs.stores):
            stores = zip(now["data"]["stores"], was["data"]["stores"], strict=True)
            for index, (store, first) in enumerate(stores):
                differs = (
                    "names, labels, folds or lengths differ" if before.stores[index] != inputs.stores[index] else ""
                )
                if not differs and before.clips and inputs.clips and before.clips[index] != inputs.clips[index]:
                    differs = "clips have the same names and labels, but what is heard in them differs"
                if differs:
                    raise FitError(
                        f"{store}: is not the store that the run in {self.path} was started with, {first}: its "
                        f"{differs}; resume with that one, or start in another folder"
                    )
            # Given label names are part of a store's digest.
            now["data"]["stores"], now["data"]["labels"] = was["data"]["stores"], was["data"]["labels"]
        for key, what in (("upstream", "posterior"), ("header", "posterior"), ("guide", "guide recipe")):
            old, new = getattr(before, key), getattr(inputs, key)
            key = "upstream" if key == "header" else key
            if old is not None and new is not None and old != new:
                raise FitError(
                    f"{now[key]}: is not the {what} that the run in {self.path} was started with, {was[key]}; resume "
                    "with that one, or start in another folder"
                )
            if old is not None and new is not None:
                now[key] = was[key]


@contextmanager
def unless_fitting(path: str | Path) -> Iterator[None]:
    """A block that writes at ``path``: into the run there, or that is around it, no fit writes meanwhile.

    Raises:
        FitError: A fit is running there.
    """
    run = RunFolder.around(path)
    if run is None:
        yield
    else:
        with run.claimed(resume=True, shared=True):
            yield


def _compare_paths(was: dict[str, Any], now: dict[str, Any]) -> None:
    """Take inputs whose resolved paths are the same as the same."""
    pairs = ((was, now, "upstream"), (was["data"], now["data"], "labels"))
    for old, new, key in pairs:
        if old[key] is not None and new[key] is not None and Path(old[key]).resolve() == Path(new[key]).resolve():
            new[key] = old[key]
    resolved = [[Path(store).resolve() for store in each["data"]["stores"]] for each in (was, now)]
    if resolved[0] == resolved[1]:
        now["data"]["stores"] = was["data"]["stores"]


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Keys with dots whose values differ, and both values."""
    for key in before:
        if isinstance(before[key], dict):
            yield from _differences(before[key], now[key], f"{prefix}{key}.")
        elif before[key] != now[key]:
            yield prefix + key, before[key], now[key]
