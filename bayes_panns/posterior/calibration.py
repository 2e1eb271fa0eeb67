"""What calibrations add to a posterior: a power from its own training clips, and more from held-out clips."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bayes_panns.core.choices import FittedTo, Score, Target, Task

_Count = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


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


class Decisions(BaseModel):
    """Thresholds, one a label, that meet a target with a confidence; see :mod:`bayes_panns.metrics.deciding`.

    Attributes:
        target: What is to be met.
        value: The precision, the risk, or the false alarms an hour.
        confidence: How often, over sets of held-out clips, a threshold meets it.
        threshold: K thresholds of the probability. That of a label that is never decided is 1, and not used.
        fitted: Which clips each comes from.
        called: How many held-out clips each label is called on at its threshold.
        wrong: How many of these calls are wrong.
        bound: The upper confidence bound of what is to be met: of the error rate for a precision or a risk, of the
            false alarms an hour. A label whose threshold is pooled has the bound of all of them.
        clips: How many held-out clips there were.
        recordings: Of how many recordings.
        alike: The intraclass correlation of the errors within recordings that was allowed for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Target
    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    threshold: Annotated[tuple[_Share, ...], Field(min_length=1)]
    fitted: tuple[FittedTo, ...]
    called: tuple[_Count, ...]
    wrong: tuple[_Count, ...]
    bound: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]
    clips: _Count
    recordings: _Count
    alike: _Share = 1.0

    @model_validator(mode="after")
    def _one_a_label(self) -> Self:
        if len({len(self.threshold), len(self.fitted), len(self.called), len(self.wrong), len(self.bound)}) != 1:
            raise ValueError("decisions differ in their number of labels")
        return self


class Usual(BaseModel):
    """How a score is distributed among held-out clips: what is beyond is unlike them.

    Attributes:
        score: Which one.
        limit: A window above it is outside.
        level: The share of windows like the held-out clips that are above it.
        quantiles: Of the score, at evenly spaced shares from 0 to 1.
        recordings: How many recordings the clips are of.
        mean, deviation: Over the recordings, of the mean rank of a recording's clips, from 0 to 1.
        clips: How many clips there are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: Score
    limit: _Finite
    level: Annotated[float, Field(gt=0, lt=1)]
    quantiles: Annotated[tuple[_Finite, ...], Field(min_length=2)]
    recordings: Annotated[int, Field(ge=1)]
    mean: _Share
    deviation: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    clips: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if any(low > high for low, high in zip(self.quantiles, self.quantiles[1:], strict=False)):
            raise ValueError("quantiles that fall")
        return self


class Confusion(BaseModel):
    """How held-out clips of each kind were called; counts of other recordings are corrected by it.

    Attributes:
        cells: For one-of-K, ``(true label, label called, clips)`` where there are clips.
        rates: For multi-label, of each label the clips with it that were called and not called, and those without it
            that were called and not called.
        worth: How many independent clips a clip is worth, for each label (one-of-K: that is true); below 1 where
            several clips are of one recording.
        alike: The intraclass correlation of the errors within recordings.
        span: How many clips there are in the recording of a clip, on average.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cells: tuple[tuple[_Count, _Count, _Count], ...] = ()
    rates: tuple[tuple[_Count, _Count, _Count, _Count], ...] = ()
    worth: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)]
    alike: _Share = 1.0
    span: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0

    def fits(self, labels: int, task: Task) -> bool:
        """Whether it is of so many labels of a task."""
        if len(self.worth) != labels:
            return False
        if task is Task.ONE_OF_K:
            return not self.rates and all(max(truth, call) < labels for truth, call, _ in self.cells)
        return not self.cells and len(self.rates) == labels


class Calibration(BaseModel):
    """A temperature and a threshold for label sets, and perhaps decisions, fitted on held-out clips.

    Attributes:
        temperature: Divides the logits of every draw (Guo et al., 2017, arXiv:1706.04599).
        threshold: The label set of a clip is every label at least that probable.
        coverage: The share of true labels that such sets are to hold.
        draws: How many posterior draws it is for.
        clips: How many clips the temperature and the threshold were fitted on.
        data: The stores' names.
        decisions: Thresholds for decisions, if a target was asked for. Since format 8.
        usual: Beyond which score a window is outside. Since format 8.
        confusion: How clips of each kind were called. Since format 8.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: Annotated[float, Field(ge=1e-3, le=1e3)]
    threshold: Annotated[float, Field(ge=0, le=1)]
    coverage: Annotated[float, Field(gt=0, lt=1)]
    draws: Annotated[int, Field(ge=0)]
    clips: tuple[int, int]
    data: tuple[str, ...]
    decisions: Decisions | None = None
    usual: Usual | None = None
    confusion: Confusion | None = None
