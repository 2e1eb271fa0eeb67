"""What calibrations add to a posterior: a power from its own training clips, and more from held-out clips."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Power(BaseModel):
    """A power of the mean probability over draws, from a cross-validation inside the training clips.

    See :func:`~bayes_panns.metrics.apply_power` for what it does, and :func:`~bayes_panns.svi.last_layer.choose_head`
    for how it is found.

    Attributes:
        exponent: One power for all labels; or, for multi-label, one for each.
        folds: How many inner folds there were.
        clips: How many clips it was fitted to.
        nll: The NLL of the inner folds without a power and with powers that were fitted without the fold, in nats a
            clip.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    exponent: Annotated[tuple[Annotated[float, Field(ge=0.05, le=100)], ...], Field(min_length=1)]
    folds: Annotated[int, Field(ge=2)]
    clips: Annotated[int, Field(ge=1)]
    nll: tuple[float, float]


class Calibration(BaseModel):
    """A temperature and a threshold for label sets, fitted on held-out clips.

    Attributes:
        temperature: Divides the logits of every draw (Guo et al., 2017, arXiv:1706.04599).
        threshold: The label set of a clip is every label at least that probable.
        coverage: The share of true labels that such sets are to hold.
        draws: How many posterior draws it is for.
        clips: How many clips the temperature and the threshold were fitted on.
        data: The stores' names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: Annotated[float, Field(ge=1e-3, le=1e3)]
    threshold: Annotated[float, Field(ge=0, le=1)]
    coverage: Annotated[float, Field(gt=0, lt=1)]
    draws: Annotated[int, Field(ge=0)]
    clips: tuple[int, int]
    data: tuple[str, ...]
