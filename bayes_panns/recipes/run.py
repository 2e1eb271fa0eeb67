"""Run recipes (``runs/*.toml``): what to fit, to which clips, and how."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from bayes_panns.core.choices import EmbeddingKind, HeadStart, SplitRule, Task
from bayes_panns.svi import FitSettings


class Data(BaseModel):
    """The clips of a run: the table ``[data]``.

    Attributes:
        stores: Clip stores; the option ``--data`` replaces them.
        folds: The folds to fit to; by default all.
        validation: The share of clips that are held out and scored after each epoch, in [0, 1). Where recordings are
            known, all clips of a recording are on the same side.
        split: Which clips are held out; see :class:`~bayes_panns.core.choices.SplitRule`.
        share: The share of clips to use, in (0, 1], to measure what fewer labels cost: see
            :meth:`~bayes_panns.clips.ClipSet.sample`. Validation clips are taken from it.
        task: ``one-of-k`` or ``multi-label``; by default the stores' own.
        labels: A CSV file with the label names of stores that have none, as :func:`~bayes_panns.clips.read_labels`
            reads it; the option ``--labels`` replaces it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    stores: list[str] = []
    folds: list[int] | None = None
    validation: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.1
    split: Annotated[SplitRule, Field(strict=False)] = SplitRule.STRATIFIED
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    task: Annotated[Task, Field(strict=False)] | None = None
    labels: str | None = None

    @field_validator("task")
    @classmethod
    def _has_labels(cls, task: Task | None) -> Task | None:
        if task is Task.UNLABELLED:
            known = f"'{Task.ONE_OF_K}' or '{Task.MULTI_LABEL}'"
            raise PydanticCustomError("unlabelled", "A fit needs labels: write {known}", {"known": known})
        return task

    @field_validator("folds")
    @classmethod
    def _distinct(cls, folds: list[int] | None) -> list[int] | None:
        if folds is not None and (not folds or len(set(folds)) < len(folds)):
            raise PydanticCustomError("folds", "Name one fold or more, each once")
        return folds


class Run(BaseModel):
    """A run recipe.

    A recipe is data: a fit runs a Python function as the guide only if its caller names the function too.

    Attributes:
        description: What the run is, in a sentence.
        net: The network's name, one of :mod:`bayes_panns.nets`; by default the upstream posterior's, or else
            ``resnet14-narrow``.
        embedding: What the last layer reads: :class:`~bayes_panns.core.choices.EmbeddingKind`. ``pooled``
            leaves out the hidden layer after the pooling where a network has both; others are taken as they are.
        guide: A guide recipe, by name or file; the option ``--guide`` replaces it. In the recipe of a run that was
            started with a guide in Python it is ``module:function``.
        upstream: The folder of the posterior to start from; the option ``--from`` replaces it.
        freeze: Modules of the network that are not trained, such as ``resnet``; ``backbone`` is all but the last
            layer; ``locs`` is every mean and point weight, so that only the posterior's widths are fitted. A frozen
            weight is drawn only if it has a width from the upstream posterior, which it keeps; otherwise it is a point,
            whatever the guide recipe says.
        head: Where a last layer for new labels starts; see :class:`~bayes_panns.core.choices.HeadStart`. A ``probe``
            protects the backbone from the first steps of a random head (Kumar et al., 2022, arXiv:2202.10054). With
            ``upstream`` the last layer goes on from that of the upstream posterior, which has the same labels.
        data: Which clips.
        fit: How to fit.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    description: str = ""
    net: str | None = None
    embedding: Annotated[EmbeddingKind, Field(strict=False)] = EmbeddingKind.LAST
    guide: str = "flip"
    upstream: str | None = None
    freeze: list[str] = []
    head: Annotated[HeadStart, Field(strict=False)] = HeadStart.RANDOM
    data: Data = Data()
    fit: FitSettings = FitSettings()
