"""How much of a run's widths is where they started: a second fit from other widths, and what is left of the difference.

| symbol | what |
|---|---|
| s, s' | a weight's standard deviation after the run's fit, and after the second fit |
| f | the factor on the starting widths of the second fit |
| left | the mean of abs(log(s' / s)) / log f over a tensor's weights |

``left`` is 1 where a fit multiplies whatever it is given and 0 where the data alone decide. Spearman's rank correlation
of s and s' says whether both fits agree on which weights are the certain ones; it can be high where all of the start is
left, since both fits move the same weights the same way.
"""

import logging
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from scipy.stats import rankdata
from torch import Tensor

from bayes_panns.core.choices import Optimizer
from bayes_panns.core.digests import read_sealed, sealed
from bayes_panns.core.errors import FitError
from bayes_panns.core.strict_json import write_json
from bayes_panns.devices import as_float64
from bayes_panns.jobs.fit import fit
from bayes_panns.jobs.inputs import Inputs
from bayes_panns.jobs.run_folder import SECOND_FIT, RunFolder
from bayes_panns.jobs.splits import divide
from bayes_panns.jobs.starting import takes_all_clips
from bayes_panns.posterior import load
from bayes_panns.posterior.disk import read_header
from bayes_panns.svi import trained_log_scales

logger = logging.getLogger(__name__)

FACTOR = 100.0
"""How much wider the second fit starts."""

_SAMPLE = 1 << 20
"""The most weights of a tensor that its rank correlation is computed from."""


class WidthMemory(BaseModel):
    """What is left of the start in the widths of a weight tensor.

    Attributes:
        weights: How many weights it has.
        left: The share of the log of the factor that is left between the two fits.
        rank_correlation: Spearman's, of the two fits' widths; None where all widths of one are the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: int
    left: float
    rank_correlation: float | None = None


class StartMemory(BaseModel):
    """What is left of the start in a run's widths: what ``start.json`` holds.

    Attributes:
        format_version: Of the file.
        factor: The factor on the widths that the second fit started from.
        sha256: The digest of the tensors of the run's posterior.
        parameters: Each weight tensor whose widths were fitted, by the name of the parameter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = 1
    factor: float
    sha256: str
    parameters: dict[str, WidthMemory]

    @property
    def left(self) -> float:
        """The share that is left over all weights."""
        weights = sum(each.weights for each in self.parameters.values())
        return sum(each.left * each.weights for each in self.parameters.values()) / weights


def check_start(folder: str | Path, *, factor: float | None = None, device: str = "auto") -> StartMemory | None:
    """Fit a finished run again from other starting widths, and compare the widths of both fits.

    The second fit has the run's recipe, seed and clips, which must be where the recipe says, and takes as long as the
    first. Nothing of it is kept but the result, in ``start.json`` in the run's folder. It is meant for the same device
    and versions as the first, whose draws it repeats.

    Args:
        folder: The run's folder.
        factor: The factor on the starting widths, above 0 and not 1; by default :data:`FACTOR`. For natural gradients
            its inverse: they cut widths above the prior's down to it in the first step; narrow ones last longer.
        device: See :func:`~bayes_panns.jobs.choose_device`.

    Returns:
        The comparison; None if Ctrl-C or SIGTERM ended the second fit early.

    Raises:
        BayesPannsError: The run is not complete, its clips or its upstream posterior have changed or are missing, no
            width was fitted, or the second fit diverged.
        ValueError: The factor is 1, or not above 0 and finite.
    """
    if factor is not None and (factor == 1 or not 0 < factor < math.inf):
        raise ValueError(f"the factor on the starting widths must be above 0, finite and not 1, not {factor}")
    run = RunFolder(folder)
    recipe = run.read_recipe()
    if factor is None:
        factor = 1 / FACTOR if recipe.fit.optimizer == Optimizer.NATURAL_GRADIENT else FACTOR
    if not run.complete:
        raise FitError(f"{run.path}: its fit is not complete; resume it first")
    run.require_same(recipe, Inputs.of(recipe, divide(recipe)[1]))
    first = load(run.posterior)
    if takes_all_clips(first, recipe):
        raise FitError(
            f"{run.path}: its last layer was fitted over all clips until it converged, so nothing is left of a start"
        )
    before = trained_log_scales(first.guide)
    if not before:
        raise FitError(f"{run.path}: no weight has a width of its own that was fitted, so there is nothing to compare")
    recorded = run.read_resumable()
    if recipe.freeze and (recorded is None or not recorded.frozen_points):
        raise FitError(f"{run.path}: an older version fitted it, and froze weights in another way; fit it again")
    if recorded is not None and recorded.continued:
        logger.warning(f"{run.path}: was continued to more epochs, and the second fit is not: the schedules differ too")
    logger.info(f"fitting again from widths that are {factor:g} times as large")
    with run.claimed(resume=True), tempfile.TemporaryDirectory(prefix=SECOND_FIT, dir=run.path) as place:
        second = fit(recipe, Path(place) / "run", device=device, widen=factor)
        if not second.complete:
            return None
        parameters = compared(before, trained_log_scales(second.posterior.guide), factor)
        found = StartMemory(factor=factor, sha256=read_header(run.posterior)["sha256"], parameters=parameters)
        write_json(sealed(found.model_dump(mode="json")), run.start)
    return found


def read_start_memory(run: RunFolder) -> StartMemory | None:
    """What is left of the start in a run's widths; None if it was not checked, or fitted on since.

    Raises:
        FitError: ``start.json`` is damaged.
    """
    if not run.start.is_file() or not run.posterior.is_dir():
        return None
    try:
        found = StartMemory.model_validate(read_sealed(run.start))
    except ValueError as error:
        raise FitError(f"{run.start}: is damaged; delete it, and run check-start again") from error
    return found if found.sha256 == read_header(run.posterior)["sha256"] else None


@torch.no_grad()
def compared(first: Mapping[str, Tensor], second: Mapping[str, Tensor], factor: float) -> dict[str, WidthMemory]:
    """What is left of the start in each weight tensor of the second fit.

    Args:
        first: The logarithms of the widths after the first fit, by the name of the parameter.
        second: Those after the fit that started at ``factor`` times the widths.
        factor: The factor.
    """
    found = {}
    for name, after in second.items():
        before = first[name].to(after.device)
        left = as_float64((after - before).abs()).mean().item() / abs(math.log(factor))
        found[name] = WidthMemory(weights=after.numel(), left=left, rank_correlation=_rank_correlation(before, after))
    return found


def _rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Spearman's rank correlation, of regularly spaced values of large tensors."""
    step = -(-first.numel() // _SAMPLE)
    ranks = [rankdata(values.flatten()[::step].cpu().numpy()) for values in (first, second)]
    if any(np.ptp(each) == 0 for each in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
