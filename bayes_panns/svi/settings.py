"""The settings of a fit: the table ``[fit]`` of a run recipe."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from bayes_panns.core.choices import Features, Sampling, Schedule


class FitSettings(BaseModel):
    """The settings of a fit: the table ``[fit]`` of a run recipe.

    The words are those of :mod:`bayes_panns.core.choices`.

    Attributes:
        epochs: Passes over the clips; with a sampling other than random, as many steps as that takes.
        steps_per_epoch: Steps between two lines of metrics, each with a checkpoint; by default one pass.
        batch_size: Clips a step.
        sampling: Which clips make up a batch: :class:`~bayes_panns.core.choices.Sampling`.
        learning_rate: Adam's peak step size.
        schedule: How the learning rate changes: :class:`~bayes_panns.core.choices.Schedule`.
        kl_weight: The weight of the KL: 1 is the ELBO, below it a tempered posterior.
        kl_warmup: Epochs over which the KL's weight rises from 0.
        spec_augment: Whether to mask stripes of the spectrograms.
        mixup: Whether to mix pairs of clips and their targets.
        features: What a step starts from: :class:`~bayes_panns.core.choices.Features`.
        views: With ``embeddings``, how many more embeddings of each clip a step may take: of its spectrogram under
            SpecAugment, computed once a fit.
        seed: Seeds the initial weights, the order of clips, augmentation and draws.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    epochs: Annotated[int, Field(ge=1)] = 30
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32
    sampling: Annotated[Sampling, Field(strict=False)] = Sampling.RANDOM
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    schedule: Annotated[Schedule, Field(strict=False)] = Schedule.COSINE
    kl_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    kl_warmup: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    spec_augment: bool = True
    mixup: bool = False
    features: Annotated[Features, Field(strict=False)] = Features.MEMORY
    views: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**40)] = 0

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
