"""Whether what is on disk is what was written: a store, a posterior or a run against its digests."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bayes_panns.clips import Store
from bayes_panns.core.archives import check_zip
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.evaluations import disk as evaluations
from bayes_panns.jobs.inputs import posterior_at
from bayes_panns.jobs.memory import read_start_memory
from bayes_panns.jobs.run_folder import RunFolder
from bayes_panns.posterior import disk as posteriors
from bayes_panns.posterior.header import HEADER
from bayes_panns.svi.metrics import damaged_lines

_NAMED = 10
"""The damaged clips that are named."""


@dataclass(frozen=True)
class Verification:
    """What a check has found.

    Attributes:
        lines: A line for each part.
        whole: Whether no part is damaged.
    """

    lines: tuple[str, ...]
    whole: bool


def verify(path: str | Path) -> Verification:
    """Read all of a store, a posterior's folder or a run's folder, and check it against its digests.

    Args:
        path: A file or a folder.

    Raises:
        BayesPannsError: It is none of the three.
    """
    path = Path(path)
    run = RunFolder(path)
    if path.is_file():
        parts: dict[str, Callable[[], str]] = {path.name: lambda: _store(path)}
    elif (path / HEADER).is_file():
        parts = {path.name: lambda: _posterior(path)}
    elif run.is_run:
        parts = _parts(run)
    else:
        raise BayesPannsError(f"{path}: is not a store (a file), a posterior ({HEADER}) or a run (run.toml)")
    lines, whole = [], True
    for name, check in parts.items():
        try:
            lines.append(f"{name}: {check()}")
        except (BayesPannsError, OSError, ValueError) as error:
            whole = False
            lines.append(f"{name}: damaged: {error}")
    return Verification(tuple(lines), whole)


def _store(path: Path) -> str:
    with Store(path) as store:
        store.target()
        if not store.verifiable:
            return f"nothing to verify: it has no digests of its {len(store)} clips; `bayes-panns repack` adds them"
        if names := list(store.damaged()):
            more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise BayesPannsError(f"{len(names)} of {len(store)} clips: {', '.join(names[:_NAMED])}{more}")
        return f"verified: {len(store)} clips{'' if store.sealed else '; their names and labels have no digest'}"


def _posterior(folder: Path) -> str:
    return "verified" if posteriors.verify(folder) else "its weights are verified; its header has no digest"


def _parts(run: RunFolder) -> dict[str, Callable[[], str]]:
    """The checks of the files of a run, those that there are."""

    def recipe() -> str:
        run.read_recipe()
        run.read_resumable()
        return "verified" if run.sealed else "read; an earlier version kept no digest of it"

    def metrics() -> str:
        if count := damaged_lines(run.metrics):
            raise BayesPannsError(f"{count} of its lines")
        return "verified"

    def checkpoint(path: Path) -> str:
        check_zip(path)
        return "verified"

    def evaluation() -> str:
        evaluations.read(run.evaluation)
        return "verified"

    def start() -> str:
        read_start_memory(run)
        return "verified"

    places: dict[Path, Callable[[], str]] = {
        run.recipe: recipe,
        run.metrics: metrics,
        **{path: partial(checkpoint, path) for path in run.checkpoints},
        run.posterior: lambda: _posterior(posterior_at(run.path)),
        run.best: lambda: _posterior(run.best),
        run.evaluation: evaluation,
        run.start: start,
    }
    return {place.name: check for place, check in places.items() if place.exists()}
