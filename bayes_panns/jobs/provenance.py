"""Where a fitted posterior comes from: what is written beside it, and read again."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bayes_panns import __version__
from bayes_panns.bayes import Effective, effective_parameters
from bayes_panns.jobs.inputs import Resumable
from bayes_panns.recipes import Run
from bayes_panns.svi import Fit, HeadFit


def provenance_of(recipe: Run, job: Fit | HeadFit, complete: bool, resumable: Resumable) -> dict[str, Any]:
    """Where a posterior comes from."""
    found: dict[str, Any] = {
        "data": [Path(store).name for store in recipe.data.stores],
        "folds": sorted(recipe.data.folds) if recipe.data.folds else "all",
        "clips": len(job.data),
        "steps": job.step,
        "epochs": round(job.epoch, 3),
        "complete": complete,
        "seed": recipe.fit.seed,
        "optimizer": str(recipe.fit.optimizer),
        "start": str(recipe.fit.start),
        "features": str(recipe.fit.features),
        "kl_weight": job.kl_weight,
        "tempered": job.kl_weight != 1,
        "device": str(job.device),
        "versions": {
            "bayes_panns": __version__,
            "python": sys.version.split()[0],
            **{package: version(package) for package in ("torch", "torchaudio", "pyro-ppl")},
        },
    }
    effective = effective_parameters(job.model, job.guide).total
    if effective.weights:
        found["weights"] = effective.weights
        found["effective_parameters"] = effective.gamma
        found["at_prior"] = effective.at_prior
    if isinstance(job, HeadFit):
        found["converged"] = job.converged
    if isinstance(job, HeadFit) and job.choice is not None:
        found["selection"] = [asdict(each) for each in job.choice.candidates]
    if resumable.continued:
        found["continued"] = [each.model_dump() for each in resumable.continued]
    return found


def determined(provenance: Mapping[str, Any]) -> Effective | None:
    """How many weights the clips determine, from the provenance of a posterior.

    None if it does not say: an older version fitted it, or none of its weights is a mean-field Normal.
    """
    if not {"weights", "effective_parameters", "at_prior"} <= provenance.keys():
        return None
    return Effective(provenance["weights"], provenance["effective_parameters"], provenance["at_prior"])
