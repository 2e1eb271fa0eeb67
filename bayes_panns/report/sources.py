"""What a page reports on: a run, a posterior, an evaluation or a cross-validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bayes_panns.clips import ClipSet
from bayes_panns.core.choices import Precision
from bayes_panns.core.errors import PosteriorError
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs import StartMemory
from bayes_panns.posterior import Calibration, Posterior, load
from bayes_panns.predictions import Draws
from bayes_panns.recipes import Run


@dataclass(frozen=True)
class Scoring:
    """The clips to score posteriors on, and how.

    Attributes:
        stores: Files of labelled clips; empty to take what was scored before.
        folds: The folds to score; by default all, and for a cross-validation those that a run was not fitted to.
        ood: Files of out-of-distribution clips, which have none of the labels.
        draws: Posterior draws per clip.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: What the networks compute with.
        guide_function: ``module:function`` of the guide, for a posterior that was fitted with one.
    """

    stores: Sequence[str | Path] = ()
    folds: Sequence[int] | None = None
    ood: Sequence[str | Path] = ()
    draws: Draws | None = None
    device: str = "auto"
    precision: Precision | str = Precision.FLOAT32
    guide_function: str | None = None


@dataclass(frozen=True)
class SourcePart:
    """One posterior and what is known about it.

    Attributes:
        name: Its name on the page.
        folder: The folder of its run, of the posterior, or of the evaluation.
        posterior: The posterior's folder; None where it is missing.
        header: The content of ``posterior.toml``; empty where it is missing.
        recipe: The run's recipe, if there is a run.
        metrics: The lines of ``metrics.jsonl``.
        start: What is left of the start in its widths, if that was checked.
        evaluation: Its predictions for some clips, if anything was scored.
        clips: The scored clips, in the evaluation's order; None where they are missing.
        ood_clips: The out-of-distribution clips, likewise.
        guide_function: ``module:function`` of its guide, if it needs one.
        notes: What a reader has to know, such as what is missing.
        warnings: Why a reader should not trust its metrics.
    """

    name: str
    folder: Path
    posterior: Path | None = None
    header: Mapping[str, Any] = field(default_factory=dict)
    recipe: Run | None = None
    metrics: Sequence[Mapping[str, float]] = ()
    start: StartMemory | None = None
    evaluation: Evaluation | None = None
    clips: ClipSet | None = None
    ood_clips: ClipSet | None = None
    guide_function: str | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def load(self, device: torch.device | str = "cpu", precision: Precision | str = Precision.FLOAT32) -> Posterior:
        """Load the posterior as it is now.

        Args:
            device: Where to put it.
            precision: What its network computes with.

        Raises:
            PosteriorError: It is missing or damaged, or needs a guide function that was not given.
        """
        if self.posterior is None:
            raise PosteriorError(f"{self.name}: its posterior is missing")
        return load(self.posterior, device=device, precision=precision, guide_function=self.guide_function)

    def load_as_evaluated(self) -> Posterior:
        """Load the posterior with the precision and calibration of its evaluation, which may not be its own now.

        Raises:
            PosteriorError: As :meth:`load`.
        """
        said = {} if self.evaluation is None else self.evaluation.provenance
        posterior = self.load(precision=said.get("precision", Precision.FLOAT32))
        if self.evaluation is not None:
            posterior.calibration = self.calibration
        return posterior

    @property
    def calibration(self) -> Calibration | None:
        """The calibration that its evaluation was made with; None where there was none."""
        return None if self.evaluation is None else self.evaluation.calibration


@dataclass(frozen=True)
class Source:
    """What a page, or one part of a comparison, is about.

    Attributes:
        name: Its name on the page.
        kind: ``run``, ``posterior``, ``evaluation`` or ``cross-validation``.
        parts: The posterior, or those of the folds of a cross-validation.
    """

    name: str
    kind: str
    parts: tuple[SourcePart, ...]

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The evaluation; for a cross-validation, all its folds pooled.

        Raises:
            BayesPannsError: The folds' evaluations do not fit together.
        """
        found = [part.evaluation for part in self.parts if part.evaluation is not None]
        if not found:
            return None
        return found[0] if len(found) == 1 else Evaluation.pool(found)

    @property
    def scored(self) -> tuple[SourcePart, ...]:
        """The parts that have an evaluation, in the order of its clips."""
        return tuple(part for part in self.parts if part.evaluation is not None)
