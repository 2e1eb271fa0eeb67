"""The settings of a fit: the table ``[fit]`` of a run recipe."""

import time
from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bayes_panns.core.choices import Curvature, Features, Optimizer, Precision, Sampling, Schedule, WidthStart

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_OF_BATCHES = (
    "steps_per_epoch",
    "batch_size",
    "accumulate",
    "precision",
    "sampling",
    "block",
    "learning_rate",
    "schedule",
    "kl_warmup",
    "scale_bounds",
    "clip_gradient",
    "natural",
    "start",
)
"""Settings of steps over batches, which a fit of a rotated last layer over all clips does not make."""

_Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Natural(BaseModel):
    """How natural gradients fit mean-field Normals: the table ``[fit.natural]``.

    See :class:`~bayes_panns.svi.NaturalGradient`. The other parameters are Adam's, with ``fit.learning_rate``.

    Attributes:
        learning_rate: The peak step of the means, in (0, 1] of a Newton step; it follows ``fit.schedule``.
        momentum: How much of the gradient's running mean a step keeps, in [0, 1).
        memory: How much of the curvature a step keeps, in [0, 1).
        clip: The largest step of a mean before the learning rate, in units of its prior's standard deviation.
        curvature: What stands for the curvature: :class:`~bayes_panns.core.choices.Curvature`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    momentum: _Share = 0.9
    memory: _Share = 0.95
    clip: _Positive = 0.3
    curvature: Annotated[Curvature, Field(strict=False)] = Curvature.SQUARED_GRADIENTS


class Selection(BaseModel):
    """How a rotated last layer is calibrated from its own training clips: the table ``[fit.selection]``.

    A cross-validation over the recordings of the training clips chooses the width of the prior and the weight of the
    KL, and fits the power of the averaged predictive (:func:`~bayes_panns.metrics.apply_power`). The power is kept only
    if it lowers the NLL of folds that it was not fitted to by more than a standard error.

    Attributes:
        folds: The folds of the cross-validation. 0 makes none: the width is then the one of the greatest ELBO, and
            there is no power.
        prior_scales: The prior's standard deviations to choose from, in units of the root of the embeddings' mean
            variance, if the guide recipe has ``learn_prior``.
        kl_weights: The factors on ``fit.kl_weight`` to choose from.
        smoothing: How many clips of evenly spread labels the power's loss counts besides the training clips.
        balanced: Whether one-of-K predictions are for clips in which all labels are equally frequent, instead of as
            frequent as among the training clips: the logits less the logs of their shares (Saerens et al., 2002,
            https://doi.org/10.1162/089976602753284446). What is learned is the same.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    folds: Annotated[int, Field(ge=0)] = 5
    prior_scales: Annotated[list[_Positive], Field(min_length=1)] = [0.1, 0.15, 0.2, 0.3, 0.5]
    kl_weights: Annotated[list[_Positive], Field(min_length=1)] = [1.0, 0.3, 0.1]
    smoothing: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    balanced: bool = False

    @field_validator("folds")
    @classmethod
    def _not_one(cls, folds: int) -> int:
        if folds == 1:
            raise PydanticCustomError("folds", "A cross-validation needs two folds or more; 0 makes none")
        return folds


@dataclass(frozen=True)
class Running:
    """How a fit runs on this machine. None of it changes what is fitted, and a resumed fit may run otherwise.

    Attributes:
        workers: Processes that read clips ahead, for each process of the fit; 0 for none, None for as many as what is
            read and the cores suggest.
        checkpoint_minutes: The longest time from one checkpoint to the next.
        time_limit: Seconds after which the fit has ended itself with a checkpoint; None for no limit. In a job of
            SLURM that says when it ends (``SLURM_JOB_END_TIME``), that is a limit too.
        started: When the time began to count, in seconds since 1970; by default now.
    """

    workers: int | None = 0
    checkpoint_minutes: float = 10.0
    time_limit: float | None = None
    started: float = field(default_factory=time.time, compare=False, repr=False)


class FitSettings(BaseModel):
    """The settings of a fit: the table ``[fit]`` of a run recipe.

    The words are those of :mod:`bayes_panns.core.choices`.

    Attributes:
        optimizer: How: :class:`~bayes_panns.core.choices.Optimizer`.
        epochs: Passes over the clips; with the samplings balanced and alternate, as many steps as that takes. For a
            rotated last layer by natural gradients the most of them: that fit ends when it has converged.
        accumulate: Parts that a step is made in, one after the other, for a memory that a whole batch does not fit in.
            Their gradients are summed under the same weights. BatchNorm's statistics are those of each part.
        precision: What the network computes with: :class:`~bayes_panns.core.choices.Precision`.
        steps_per_epoch: Steps between two lines of metrics, each with a checkpoint; by default one pass.
        batch_size: Clips a step.
        sampling: Which clips make up a batch: :class:`~bayes_panns.core.choices.Sampling`.
        block: With the sampling ``blocks``, how many clips a run has.
        learning_rate: Adam's peak step size.
        schedule: How the learning rate changes: :class:`~bayes_panns.core.choices.Schedule`.
        kl_weight: The weight of the KL: 1 is the ELBO, below it a tempered posterior.
        kl_warmup: Epochs over which the KL's weight rises from 0.
        scale_bounds: The least and the largest width that Adam gives a weight, in units of its prior's standard
            deviation: see :class:`~bayes_panns.svi.ScaleBounds`. An empty list for none. Natural gradients keep widths
            below the prior's by themselves.
        clip_gradient: The largest norm of the gradient that Adam steps along, of the loss a clip, over all its
            parameters; none by default. That of a natural gradient is ``natural.clip``.
        spec_augment: Whether to mask stripes of the spectrograms.
        mixup: Whether to mix pairs of clips and their targets.
        features: What a step starts from: :class:`~bayes_panns.core.choices.Features`.
        views: With ``embeddings``, how many more embeddings of each clip a step may take: of its spectrogram under
            SpecAugment, computed once a fit.
        selection: With natural gradients of a rotated last layer: how prior and KL weight are chosen, and the
            predictions calibrated.
        natural: With natural gradients of mean-field Normals: their settings.
        start: Where the widths of mean-field Normals start: :class:`~bayes_panns.core.choices.WidthStart`.
        seed: Seeds the initial weights, the order of clips, augmentation and draws.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    optimizer: Annotated[Optimizer, Field(strict=False)] = Optimizer.ADAM
    epochs: Annotated[int, Field(ge=1)] = 30
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32
    accumulate: Annotated[int, Field(ge=1)] = 1
    precision: Annotated[Precision, Field(strict=False)] = Precision.FLOAT32
    sampling: Annotated[Sampling, Field(strict=False)] = Sampling.RANDOM
    block: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    schedule: Annotated[Schedule, Field(strict=False)] = Schedule.COSINE
    kl_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    kl_warmup: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    scale_bounds: list[_Positive] = [1e-6, 3.0]
    clip_gradient: _Positive | None = None
    spec_augment: bool = True
    mixup: bool = False
    features: Annotated[Features, Field(strict=False)] = Features.MEMORY
    views: Annotated[int, Field(ge=0)] = 0
    selection: Selection = Selection()
    natural: Natural = Natural()
    start: Annotated[WidthStart, Field(strict=False)] = WidthStart.GUIDE
    seed: Annotated[int, Field(ge=0, lt=2**40)] = 0

    @field_validator("scale_bounds")
    @classmethod
    def _bounds_are_two(cls, bounds: list[float]) -> list[float]:
        if bounds and (len(bounds) != 2 or bounds[0] >= bounds[1]):
            raise PydanticCustomError("scale_bounds", "Give the lower and the upper bound, or [] for none")
        return bounds

    @field_validator("features")
    @classmethod
    def _embeddings_are_not_augmented(cls, features: Features, fields: ValidationInfo) -> Features:
        asked = [name for name in ("spec_augment", "mixup") if fields.data.get(name)]
        if features == Features.EMBEDDINGS and asked:
            wanted = " and ".join(f"fit.{name} = false" for name in asked)
            raise PydanticCustomError(
                "augmented", "Embeddings are computed once and not augmented; set {wanted}", {"wanted": wanted}
            )
        return features

    @field_validator("views")
    @classmethod
    def _views_are_embeddings(cls, views: int, fields: ValidationInfo) -> int:
        if views and fields.data.get("features") != Features.EMBEDDINGS:
            raise PydanticCustomError("views", 'Views are of embeddings; set fit.features = "embeddings"')
        return views

    @field_validator("accumulate")
    @classmethod
    def _parts_have_clips(cls, parts: int, fields: ValidationInfo) -> int:
        if parts > fields.data.get("batch_size", parts):
            raise PydanticCustomError("accumulate", "A step cannot have more parts than fit.batch_size has clips")
        return parts

    @model_validator(mode="after")
    def _settings_of_the_optimizer(self) -> Self:
        if self.optimizer == Optimizer.ADAM:
            for name, default in (("selection", Selection()), ("natural", Natural())):
                if getattr(self, name) != default:
                    raise PydanticCustomError(
                        "optimizer",
                        '{name} is for natural gradients; set fit.optimizer = "natural-gradient"',
                        {"name": name},
                    )
        elif self.kl_weight == 0:
            raise PydanticCustomError("optimizer", "Natural gradients need a kl_weight above 0")
        elif self.kl_warmup:
            raise PydanticCustomError("optimizer", "kl_warmup is a setting of Adam; natural gradients need none")
        return self

    @model_validator(mode="after")
    def _fisher_has_a_prior(self) -> Self:
        if self.start == WidthStart.FISHER and self.kl_weight == 0:
            raise PydanticCustomError("start", 'start = "fisher" needs a kl_weight above 0')
        return self

    def require_all_clips(self) -> None:
        """Check that nothing is set that a fit over all clips a step does not use.

        Raises:
            ValueError: Something is.
        """
        default = type(self)()
        other = [name for name in _OF_BATCHES if getattr(self, name) != getattr(default, name)]
        if not self.scale_bounds and "scale_bounds" in other:
            # Runs of older versions have no bounds, and go on so.
            other.remove("scale_bounds")
        if other:
            raise ValueError(f"fit.{other[0]} is a setting of steps over batches; this fit takes all clips a step")
