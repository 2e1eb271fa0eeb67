"""An evaluation, in memory and on disk: predictions beside the truth, and what they are worth."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax

from bayes_panns.core.errors import BayesPannsError
from bayes_panns.core.files import whole_folder
from bayes_panns.evaluations.measures import evaluate, intervals
from bayes_panns.metrics.bootstrap import RESAMPLES, Interval, bootstrap
from bayes_panns.metrics.checks import ONE_OF_K
from bayes_panns.metrics.conformal import label_sets, set_quality
from bayes_panns.metrics.temperature import logits_of
from bayes_panns.predictions.uncertainty import StandardError, Uncertainty, concatenate, decompose, mixture

FORMAT = 1
"""The version of the folder's format."""

_JSON, _ARRAYS = "evaluation.json", "predictions.npz"


@dataclass(frozen=True)
class Evaluation:
    """What a posterior says of labelled clips, and what that is worth.

    Attributes:
        metrics: By name, as ``evaluate --json`` prints them.
        uncertainty: The predictions for N clips.
        target: The truth, bool, ``(N, K)``.
        ood: The predictions for the out-of-distribution clips, if there were any.
        names: N clip names.
        labels: K label names.
        sources: ``(N,)``, the recording each clip was cut from, where known: clips of one recording are not
            independent, so recordings are what a bootstrap resamples.
        ood_names: The out-of-distribution clips' names.
        provenance: ``posterior`` (its folder), ``stores``, ``folds``, ``ood`` (stores) and ``draws``; of a calibrated
            posterior also the ``threshold`` of its label sets.
    """

    metrics: dict[str, Any]
    uncertainty: Uncertainty
    target: NDArray[np.bool_]
    ood: Uncertainty | None
    names: list[str]
    labels: tuple[str, ...]
    sources: NDArray[np.str_] | None
    ood_names: list[str]
    provenance: dict[str, Any]

    @property
    def task(self) -> str:
        """``"one-of-k"`` or ``"multi-label"``."""
        return self.uncertainty.task

    @property
    def groups(self) -> NDArray[np.int_]:
        """``(N,)``, a number for each clip's recording, or for its name where the recording is unknown."""
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
        threshold = self.provenance.get("threshold")
        if threshold is None:
            return found
        inside = self.uncertainty.probability, self.target
        return found | {
            f"set/{name}": bootstrap(
                partial(metric, threshold=threshold), *inside, groups=self.groups, resamples=resamples, seed=seed
            )
            for name, metric in _OF_SETS.items()
        }

    def save(self, folder: str | Path) -> None:
        """Write to ``folder``, whole or not at all; an evaluation that is there is replaced.

        Raises:
            BayesPannsError: ``folder`` holds something else.
        """
        folder = Path(folder)
        require_place(folder)
        arrays = {"target": self.target} | _flat(self.uncertainty, "clips/")
        if self.ood is not None:
            arrays |= _flat(self.ood, "ood/")
        words = {
            "format_version": FORMAT,
            "task": self.task,
            "draws": self.uncertainty.draws,
            "labels": self.labels,
            "names": self.names,
            "sources": None if self.sources is None else self.sources.tolist(),
            "ood_names": self.ood_names,
            "provenance": self.provenance,
            # For people, and for tables; reading it back measures again.
            "metrics": {
                name: value
                for name, value in self.metrics.items()
                if not isinstance(value, float) or math.isfinite(value)
            },
        }
        with whole_folder(folder) as fresh:
            np.savez_compressed(fresh / _ARRAYS, **arrays)
            (fresh / _JSON).write_text(json.dumps(words, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Evaluation":
        """Read one that :meth:`save` wrote; no code of its maker's is run.

        Raises:
            BayesPannsError: It is missing, damaged or of a newer format.
        """
        folder = Path(folder)
        if not is_evaluation(folder):
            raise BayesPannsError(f"{folder}: no evaluation there ({_JSON} is missing)")
        try:
            words = json.loads((folder / _JSON).read_text(encoding="utf-8"))
            if words["format_version"] > FORMAT:
                version = words["format_version"]
                raise BayesPannsError(f"{folder}: format {version} is newer than this bayes_panns reads ({FORMAT})")
            with np.load(folder / _ARRAYS, allow_pickle=False) as archive:
                arrays = dict(archive)
            if not len(words["labels"]) == arrays["target"].shape[1] == arrays["clips/probability"].shape[1]:
                raise ValueError("its labels are not those of its predictions")
            if len(words["names"]) != len(arrays["target"]):
                raise ValueError("its names are not those of its predictions")
            said = {"draws": words["draws"], "task": words["task"]}
            outside = any(name.startswith("ood/") for name in arrays)
            made = cls.of(
                _nested(arrays, "clips/", said),
                arrays["target"],
                _nested(arrays, "ood/", said) if outside else None,
                names=words["names"],
                labels=tuple(words["labels"]),
                sources=None if words["sources"] is None else np.array(words["sources"], dtype=str),
                ood_names=words["ood_names"],
                provenance=words["provenance"],
            )
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise BayesPannsError(f"{folder}: is damaged ({str(error).splitlines()[0]}); evaluate again") from error
        return made

    @classmethod
    def of(
        cls, uncertainty: Uncertainty, target: NDArray[np.bool_], ood: Uncertainty | None, **words: Any
    ) -> "Evaluation":
        """An evaluation whose metrics are measured here; ``words`` are its other attributes."""
        metrics = evaluate(uncertainty, target, uncertainty.task, ood)
        # A pass at the posterior mean is of 0 draws, though it is one set of predictions.
        metrics["draws"] = words["provenance"]["draws"]
        threshold = words["provenance"].get("threshold")
        if threshold is not None:
            metrics |= {
                f"set/{name}": metric(uncertainty.probability, target, threshold) for name, metric in _OF_SETS.items()
            }
        return cls(metrics=metrics, uncertainty=uncertainty, target=target, ood=ood, **words)

    @classmethod
    def pool(cls, evaluations: Sequence["Evaluation"]) -> "Evaluation":
        """The folds of a cross-validation as one evaluation of all their clips.

        Out-of-distribution clips count once for each fold's posterior. ``provenance["folds"]`` lists the folds', and
        ``provenance["pooled"]`` how many there were.

        Args:
            evaluations: At least one; of the same labels, task and number of draws.

        Raises:
            BayesPannsError: They do not fit together.
        """
        if len({(each.labels, each.task, each.uncertainty.draws, each.ood is None) for each in evaluations}) != 1:
            raise BayesPannsError(
                "evaluations can be pooled if they have the same labels, task and draws, and all or none have "
                "out-of-distribution clips"
            )
        first = evaluations[0]
        outside = [each.ood for each in evaluations if each.ood is not None]
        known = any(each.sources is not None for each in evaluations)
        return cls.of(
            concatenate([each.uncertainty for each in evaluations]),
            np.concatenate([each.target for each in evaluations]),
            concatenate(outside) if outside else None,
            names=[name for each in evaluations for name in each.names],
            labels=first.labels,
            sources=np.concatenate([_sources(each) for each in evaluations]) if known else None,
            ood_names=[name for each in evaluations for name in each.ood_names],
            provenance=first.provenance
            | {"folds": [each.provenance.get("folds") for each in evaluations], "pooled": len(evaluations)},
        )

    @classmethod
    def mix(cls, evaluations: Sequence["Evaluation"]) -> "Evaluation":
        """Several posteriors' evaluations of the same clips as that of their :func:`mixture`, without predicting again.

        ``provenance["members"]`` lists the posteriors, ``provenance["draws"]`` is the sum of theirs; label sets are of
        single posteriors only.

        Args:
            evaluations: At least one; of the same labels, and of the same clips in the same order, those from outside
                as well.

        Raises:
            BayesPannsError: They are of other clips or labels.
        """
        first, *others = evaluations
        for each in others:
            for what in ("labels", "task", "names", "ood_names"):
                if getattr(each, what) != getattr(first, what):
                    raise BayesPannsError(
                        "evaluations can be mixed if they are of the same labels and the same clips in the same order; "
                        f"the {what} of {each.provenance.get('posterior')} are not those of "
                        f"{first.provenance.get('posterior')}"
                    )
            if not np.array_equal(each.target, first.target):
                raise BayesPannsError("evaluations can be mixed if they agree on the truth; these do not")
        try:
            inside = mixture([each.uncertainty for each in evaluations])
            outside = [each.ood for each in evaluations if each.ood is not None]
            mixed = mixture(outside) if outside else None
        except ValueError as error:
            raise BayesPannsError(f"evaluations cannot be mixed: {error}") from error
        kept = {name: value for name, value in first.provenance.items() if name != "threshold"}
        members = [
            member
            for each in evaluations
            for member in each.provenance.get("members", [each.provenance.get("posterior")])
        ]
        draws = [each.provenance["draws"] for each in evaluations]
        return cls.of(
            inside,
            first.target,
            mixed,
            names=first.names,
            labels=first.labels,
            sources=first.sources,
            ood_names=first.ood_names,
            provenance=kept
            | {"posterior": None, "members": members, "draws": "moments" if "moments" in draws else sum(draws)},
        )

    def tempered(self, temperature: float) -> "Evaluation":
        """The same at another temperature, for a posterior of a single draw, such as a Det's.

        ``provenance["temperature"]`` says which. Label sets, which hold for the temperature before, are gone.

        Args:
            temperature: What divides the logits; above 1 it softens.

        Raises:
            BayesPannsError: There were several draws: their logits are not in an evaluation.
        """
        if self.uncertainty.draws != 1:
            raise BayesPannsError(
                f"the predictions are a mean of {self.uncertainty.draws} draws, and only single ones can be tempered"
            )
        kept = {name: value for name, value in self.provenance.items() if name != "threshold"}
        return Evaluation.of(
            _tempered(self.uncertainty, temperature),
            self.target,
            None if self.ood is None else _tempered(self.ood, temperature),
            names=self.names,
            labels=self.labels,
            sources=self.sources,
            ood_names=self.ood_names,
            provenance=kept | {"temperature": temperature},
        )


def require_place(folder: Path) -> None:
    """See that an evaluation may be written to ``folder``; worth knowing before one is made.

    Raises:
        BayesPannsError: It holds something else.
    """
    if folder.exists() and not is_evaluation(folder) and (folder.is_file() or any(folder.iterdir())):
        raise BayesPannsError(f"{folder}: is there and is no evaluation; choose another folder")


def is_evaluation(folder: Path) -> bool:
    """Whether ``folder`` holds an evaluation."""
    return (folder / _JSON).is_file()


def _set_coverage(probability: NDArray[np.float64], target: NDArray[np.bool_], threshold: float) -> float:
    return set_quality(label_sets(probability, threshold), target).coverage


def _set_size(probability: NDArray[np.float64], target: NDArray[np.bool_], threshold: float) -> float:
    return set_quality(label_sets(probability, threshold), target).size


_OF_SETS = {"coverage": _set_coverage, "size": _set_size}
"""The metrics of a calibrated posterior's label sets."""


def _tempered(uncertainty: Uncertainty, temperature: float) -> Uncertainty:
    scaled = logits_of(uncertainty.probability, uncertainty.task) / temperature
    p = softmax(scaled, axis=1) if uncertainty.task == ONE_OF_K else expit(scaled)
    return decompose(torch.from_numpy(p)[None], uncertainty.task, covariance=uncertainty.covariance is not None)


def _sources(evaluation: Evaluation) -> NDArray[np.str_]:
    return np.full(len(evaluation.names), "") if evaluation.sources is None else evaluation.sources


def _flat(uncertainty: Uncertainty, prefix: str) -> dict[str, NDArray]:
    """The arrays of predictions by name, those of the standard error under ``standard_error/``."""
    errors = {f"{prefix}standard_error/{name}": array for name, array in _arrays(uncertainty.standard_error).items()}
    return {f"{prefix}{name}": array for name, array in _arrays(uncertainty).items()} | errors


def _nested(arrays: dict[str, NDArray], prefix: str, said: dict[str, Any]) -> Uncertainty:
    mine = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    within = "standard_error/"
    errors = {name.removeprefix(within): array for name, array in mine.items() if name.startswith(within)}
    rest: dict[str, Any] = {name: array for name, array in mine.items() if not name.startswith(within)}
    return Uncertainty(**rest, standard_error=StandardError(**errors), **said)


def _arrays(parts: Uncertainty | StandardError) -> dict[str, NDArray]:
    values = {field.name: getattr(parts, field.name) for field in fields(parts)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
