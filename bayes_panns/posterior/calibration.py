"""What a calibration adds to a posterior."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


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

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    threshold: Annotated[float, Field(ge=0, le=1)]
    coverage: Annotated[float, Field(gt=0, lt=1)]
    draws: Annotated[int, Field(ge=0)]
    clips: tuple[int, int]
    data: tuple[str, ...]
