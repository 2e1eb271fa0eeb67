"""An evaluation: predictions beside the truth, the calibration that was used, and the metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax

from bayes_panns.core.choices import Task
from bayes_panns.core.errors import EvaluationError
from bayes_panns.evaluations import disk
from bayes_panns.evaluations.decisions import decision_intervals, decision_metrics
from bayes_panns.evaluations.measures import evaluate, intervals
from bayes_panns.metrics.bootstrap import RESAMPLES, Interval, bootstrap
from bayes_panns.metrics.conformal import label_sets, set_quality
from bayes_panns.metrics.power import logits_of
from bayes_panns.posterior import Calibration
from bayes_panns.predictions import Draws, Uncertainty, concatenate, decompose, mixture
from bayes_panns.predictions.deciding import decided


@dataclass(frozen=True)
class Evaluation:
    """A posterior's predictions for labelled clips, and the metrics of those predictions.

    Make one with :meth:`of`, or read one with :meth:`load`.

    Attributes:
        metrics: By name, as ``evaluate --json`` prints them.
        uncertainty: The predictions for N clips and K labels.
        target: The truth, bool, ``(N, K)``.
        ood: The predictions for M out-of-distribution clips, if there were any.
        names: N clip names.
        labels: K label names.
        sources: ``(N,)``, the recording that each clip was cut from, ``""`` if unknown: clips of one recording are not
            independent, so the bootstrap resamples recordings.
        ood_names: M names of the out-of-distribution clips.
        draws: How many posterior draws were made; 0 for one pass at the posterior mean, ``"moments"`` for one that
            propagated moments.
        calibration: The calibration whose temperature was applied to the predictions, if there was one.
        sets: ``(N, K)``, bool, each clip's label set, made with the threshold of the posterior that predicted the clip;
            None if a posterior was not calibrated.
        provenance: ``posterior`` (its folder), ``precision``, ``stores``, ``folds`` and ``ood`` (stores); ``leaks``,
            how many of the clips the posterior was fitted to; ``members`` of an ensemble or mixture, ``pooled``
            evaluations and ``temperature`` of a tempered one.
    """

    metrics: dict[str, Any]
    uncertainty: Uncertainty
    target: NDArray[np.bool_]
    ood: Uncertainty | None
    names: list[str]
    labels: tuple[str, ...]
    sources: NDArray[np.str_] | None
    ood_names: list[str]
    draws: Draws
    calibration: Calibration | None
    sets: NDArray[np.bool_] | None
    provenance: dict[str, Any]

    @classmethod
    def of(
        cls,
        uncertainty: Uncertainty,
        target: NDArray[np.bool_],
        ood: Uncertainty | None = None,
        *,
        names: Sequence[str],
        labels: Sequence[str],
        sources: NDArray[np.str_] | None = None,
        ood_names: Sequence[str] = (),
        draws: Draws | None = None,
        calibration: Calibration | None = None,
        sets: NDArray[np.bool_] | None = None,
        provenance: dict[str, Any],
    ) -> "Evaluation":
        """Measure predictions against the truth.

        Args:
            uncertainty: The predictions for N clips and K labels.
            target: ``(N, K)``, one-hot for one-of-K.
            ood: The predictions for M out-of-distribution clips.
            names: N clip names.
            labels: K label names.
            sources: ``(N,)``, the recording of each clip, if known.
            ood_names: M clip names.
            draws: How many posterior draws were made, 0 for a pass at the posterior mean; by default those of
                ``uncertainty``.
            calibration: The calibration whose temperature was applied to the predictions.
            sets: ``(N, K)``, the clips' label sets; by default those of ``calibration``, if there is one.
            provenance: As in :class:`Evaluation`.

        Raises:
            ValueError: Shapes, labels or tasks do not fit together.
        """
        if sets is None and calibration is not None:
            sets = label_sets(uncertainty.probability, calibration.threshold)
        draws = uncertainty.draws if draws is None else draws
        metrics = evaluate(uncertainty, target, uncertainty.task, ood) | {"draws": draws}
        if sets is not None:
            metrics |= {f"set/{name}": metric(sets, target) for name, metric in _SET_METRICS.items()}
        if calibration is not None and calibration.decisions is not None:
            made = decided(calibration, uncertainty)
            metrics |= decision_metrics(made, target)
        return cls(
            metrics=metrics,
            uncertainty=uncertainty,
            target=target,
            ood=ood,
            names=list(names),
            labels=tuple(labels),
            sources=sources,
            ood_names=list(ood_names),
            draws=draws,
            calibration=calibration,
            sets=sets,
            provenance=provenance,
        )

    @property
    def task(self) -> str:
        """``"one-of-k"`` or ``"multi-label"``."""
        return self.uncertainty.task

    @property
    def groups(self) -> NDArray[np.int_]:
        """``(N,)``, a number for each clip's recording, or for its name if the recording is unknown."""
        names = np.array([f"\0{name}" for name in self.names])
        known = names if self.sources is None else np.where(self.sources == "", names, self.sources)
        return np.unique(known, return_inverse=True)[1]

    @property
    def ood_groups(self) -> NDArray[np.int_] | None:
        """``(M,)``, a number for each out-of-distribution clip's name: several posteriors may have scored it."""
        return None if self.ood is None else np.unique(self.ood_names, return_inverse=True)[1]

    def intervals(self, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval]:
        """The 95 % bootstrap interval of every metric, from resampled recordings: see :func:`intervals`.

        Args:
            resamples: How many.
            seed: Of the random choice.
        """
        found = intervals(
            self.uncertainty,
            self.target,
            self.task,
            self.ood,
            groups=self.groups,
            ood_groups=self.ood_groups,
            resamples=resamples,
            seed=seed,
        )
        settings: dict[str, Any] = {"groups": self.groups, "resamples": resamples, "seed": seed}
        if self.sets is not None:
            found |= {
                f"set/{name}": bootstrap(metric, self.sets, self.target, **settings)
                for name, metric in _SET_METRICS.items()
            }
        if self.calibration is not None and self.calibration.decisions is not None:
            made = decided(self.calibration, self.uncertainty)
            found |= decision_intervals(made, self.target, **settings)
        return found

    def save(self, folder: str | Path) -> None:
        """Write to ``folder``, whole or not at all; an evaluation that is already there is replaced.

        Raises:
            OutputError: ``folder`` holds something else.
        """
        disk.write(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> "Evaluation":
        """Read an evaluation that :meth:`save` wrote; nothing in it is run as code.

        Raises:
            EvaluationError: It is missing, damaged or of a newer format.
        """
        arguments = disk.read(Path(folder))
        try:
            return cls.of(**arguments)
        except ValueError as error:
            raise disk.damaged(Path(folder), error) from error

    @classmethod
    def pool(cls, evaluations: Sequence["Evaluation"]) -> "Evaluation":
        """The folds of a cross-validation as one evaluation of all their clips.

        Each clip keeps the label set that its own fold's threshold gave it; if a fold has no label sets, there are
        none. The calibration is kept if all folds share it. Out-of-distribution clips count once for each fold's
        posterior. ``provenance`` keeps what all folds agree on; its ``folds`` lists the folds', ``pooled`` is their
        number, and ``leaks`` are added up.

        Args:
            evaluations: At least one; of the same labels, task and number of draws.

        Raises:
            EvaluationError: There are none, or they do not fit together.
        """
        if (
            len(
                {(each.labels, each.task, each.uncertainty.draws, each.draws, each.ood is None) for each in evaluations}
            )
            != 1
        ):
            raise EvaluationError(
                "evaluations can be pooled if they have the same labels, task and draws, and all or none have "
                "out-of-distribution clips"
            )
        first = evaluations[0]
        outside = [each.ood for each in evaluations if each.ood is not None]
        sets = [each.sets for each in evaluations if each.sets is not None]
        known = any(each.sources is not None for each in evaluations)
        provenance = _shared([each.provenance for each in evaluations])
        provenance |= {"folds": [each.provenance.get("folds") for each in evaluations], "pooled": len(evaluations)}
        return cls.of(
            concatenate([each.uncertainty for each in evaluations]),
            np.concatenate([each.target for each in evaluations]),
            concatenate(outside) if outside else None,
            names=[name for each in evaluations for name in each.names],
            labels=first.labels,
            sources=np.concatenate([_sources(each) for each in evaluations]) if known else None,
            ood_names=[name for each in evaluations for name in each.ood_names],
            draws=first.draws,
            calibration=first.calibration
            if all(each.calibration == first.calibration for each in evaluations)
            else None,
            sets=np.concatenate(sets) if len(sets) == len(evaluations) else None,
            provenance=provenance | _leaks(evaluations, sum),
        )

    @classmethod
    def mix(cls, evaluations: Sequence["Evaluation"]) -> "Evaluation":
        """Several posteriors' evaluations of the same clips as that of their :func:`mixture`, without predicting again.

        A mixture has no calibration and no label sets: a threshold holds for a single posterior only. ``draws`` is the
        sum of the members', and ``provenance["members"]`` lists them. Of the ``leaks``, the largest is kept: at least
        so many of the clips were used to fit a member.

        Args:
            evaluations: At least one; of the same labels, and of the same clips in the same order, including those out
                of distribution.

        Raises:
            EvaluationError: There are none, or they are of other clips or labels.
        """
        if not evaluations:
            raise EvaluationError("no evaluations to mix: give at least one")
        first, *others = evaluations
        for each in others:
            for attribute in ("labels", "task", "names", "ood_names"):
                if getattr(each, attribute) != getattr(first, attribute):
                    raise EvaluationError(
                        "evaluations can be mixed if they are of the same labels and the same clips in the same order; "
                        f"{each.provenance.get('posterior')} and {first.provenance.get('posterior')} have different "
                        f"{attribute}"
                    )
            if not np.array_equal(each.target, first.target):
                raise EvaluationError("evaluations can be mixed if they have the same target; these do not")
        try:
            inside = mixture([each.uncertainty for each in evaluations])
            outside = [each.ood for each in evaluations if each.ood is not None]
            mixed = mixture(outside) if outside else None
        except ValueError as error:
            raise EvaluationError(f"evaluations cannot be mixed: {error}") from error
        members = [
            member
            for each in evaluations
            for member in each.provenance.get("members", [each.provenance.get("posterior")])
        ]
        provenance = _shared([each.provenance for each in evaluations]) | {"posterior": None, "members": members}
        return cls.of(
            inside,
            first.target,
            mixed,
            names=first.names,
            labels=first.labels,
            sources=first.sources,
            ood_names=first.ood_names,
            # Passes at the mean count as none, as in an evaluation of one posterior.
            draws="moments" if inside.draws == "moments" else sum(int(each.draws) for each in evaluations),
            provenance=provenance | _leaks(evaluations, max),
        )

    def tempered(self, temperature: float) -> "Evaluation":
        """The same predictions at another temperature, for a posterior of a single draw, such as a deterministic one.

        ``provenance["temperature"]`` says which. The calibration and the label sets are dropped: they hold for the
        temperature before.

        Args:
            temperature: Divides the logits; above 1 it softens.

        Raises:
            EvaluationError: There were several draws: their logits are not in an evaluation.
        """
        if self.uncertainty.draws != 1:
            raise EvaluationError(
                f"the predictions are a mean of {self.uncertainty.draws} draws, and only a single one can be tempered"
            )
        return Evaluation.of(
            _tempered(self.uncertainty, temperature),
            self.target,
            None if self.ood is None else _tempered(self.ood, temperature),
            names=self.names,
            labels=self.labels,
            sources=self.sources,
            ood_names=self.ood_names,
            draws=self.draws,
            provenance=self.provenance | {"temperature": temperature},
        )


def _set_coverage(sets: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    return set_quality(sets, target).coverage


def _set_size(sets: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    return set_quality(sets, target).size


_SET_METRICS = {"coverage": _set_coverage, "size": _set_size}
"""The metrics of label sets."""


def _tempered(uncertainty: Uncertainty, temperature: float) -> Uncertainty:
    scaled = logits_of(uncertainty.probability, uncertainty.task) / temperature
    p = softmax(scaled, axis=1) if uncertainty.task == Task.ONE_OF_K else expit(scaled)
    return decompose(torch.from_numpy(p)[None], uncertainty.task, covariance=uncertainty.covariance is not None)


def _sources(evaluation: Evaluation) -> NDArray[np.str_]:
    return np.full(len(evaluation.names), "") if evaluation.sources is None else evaluation.sources


def _shared(provenances: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The entries that all agree on."""
    first, *others = provenances
    return {
        name: value for name, value in first.items() if all(name in other and other[name] == value for other in others)
    }


def _leaks(evaluations: Sequence[Evaluation], combine: Callable[[list[int]], int]) -> dict[str, Any]:
    """The ``leaks`` of several evaluations, combined; none if one of them does not know its own."""
    leaks = [each.provenance.get("leaks") for each in evaluations]
    known = [each for each in leaks if each is not None]
    if len(known) < len(leaks):
        return {}
    return {"leaks": {name: combine([each[name] for each in known]) for name in known[0]}}
