"""The header of a posterior on disk: ``posterior.toml``.

It ends with a digest of all that it says, which is checked when it is read. Headers before format 7 have none.
"""

import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from bayes_panns.bayes import Strategy
from bayes_panns.clips.store_format import HIGHEST_RATE, LONGEST
from bayes_panns.core import toml
from bayes_panns.core.choices import ShortClips, Task
from bayes_panns.core.digests import DIGEST, sealed, unsealed
from bayes_panns.core.errors import PosteriorError
from bayes_panns.core.strict_json import defined
from bayes_panns.nets.embeddings import takes_embeddings
from bayes_panns.posterior.calibration import Calibration, Power

FORMAT = 8
"""The version of the folder's format that this code writes; it reads this one and those before it."""

HEADER = "posterior.toml"

_LARGEST = 1 << 24
"""The most bytes of a header: some 100,000 labels."""

_SHORTEST = 1e-3
"""The shortest clips of sound, in seconds."""


class _Upstream(BaseModel):
    """What is read of the provenance of the posterior that a fit started from."""

    folder: str
    data: tuple[str, ...] = ()
    checkpoint: str = ""


class _Provenance(BaseModel):
    """What is read of a provenance, which may say anything else too."""

    epochs: float = 0
    clips: int = 0
    data: tuple[str, ...] = ()
    folds: Literal["all"] | tuple[int, ...] = "all"
    complete: bool = True
    converged: bool = True
    tempered: bool = False
    kl_weight: float = 1
    weights: Annotated[int, Field(ge=1)] = 1
    effective_parameters: float = 0
    at_prior: int = 0
    checkpoint: str = ""
    versions: dict[str, Any] = {}
    upstream: _Upstream | None = None


class Header(BaseModel):
    """What ``posterior.toml`` holds.

    Attributes:
        format_version: See :data:`FORMAT`.
        net: The network's name.
        task: What the labels mean.
        sample_rate: The front end's rate, in Hz; 0 for a network that takes embeddings, since format 5.
        clip_seconds: The length of the clips it was fitted to; 0 for embeddings.
        embeddings_of: The model whose embeddings it takes; empty where that is unknown, and for sound. Since format 5.
        labels: K label names.
        guide_function: ``module:function`` of a guide of the user's own.
        short_clips: How shorter clips are shown. Before format 4 headers did not say: fits padded them, and imported
            checkpoints were shown them at their own length.
        sha256: Of ``guide.safetensors``.
        clips_sha256: Of ``fitted-clips.npz``, if there is one. Since format 7.
        strategy: The guide recipe; since format 6 it says which frozen weights are points.
        power: The power of its mean probabilities, if it has one.
        calibration: The temperature and the threshold, if it was calibrated.
        provenance: Where it comes from.
        metrics: What was measured at the end of the fit.
    """

    model_config = ConfigDict(extra="forbid")

    format_version: Annotated[int, Field(ge=1)]
    net: str
    task: Task
    sample_rate: Annotated[int, Field(ge=0, le=HIGHEST_RATE)]
    clip_seconds: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)]
    embeddings_of: str | None = None
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    guide_function: str | None = None
    short_clips: ShortClips | None = None
    sha256: str
    clips_sha256: str | None = None
    strategy: Strategy
    power: Power | None = None
    calibration: Calibration | None = None
    provenance: dict[str, Any] = {}
    metrics: dict[str, float] = {}

    @field_validator("sample_rate", "clip_seconds")
    @classmethod
    def _of_sound_alone(cls, value: float, fields: ValidationInfo) -> float:
        if takes_embeddings(fields.data.get("net", "")) != (value == 0) or 0 < value < _SHORTEST:
            raise ValueError(f"{value} does not fit what the network takes")
        return value

    @field_validator("provenance")
    @classmethod
    def _readable(cls, value: dict[str, Any]) -> dict[str, Any]:
        value = _defined(value)
        _Provenance.model_validate(value)
        return value

    @field_validator("metrics")
    @classmethod
    def _finite(cls, value: dict[str, float]) -> dict[str, float]:
        return defined(value)

    @model_validator(mode="after")
    def _as_long_as_clips_of_stores(self) -> Self:
        if self.sample_rate * self.clip_seconds > LONGEST:
            raise ValueError(f"clips of {self.clip_seconds:g} s are longer than {LONGEST} samples")
        return self

    @model_validator(mode="after")
    def _powers_fit_the_labels(self) -> Self:
        if self.power is not None:
            allowed = (1, len(self.labels)) if self.task is Task.MULTI_LABEL else (1,)
            if len(self.power.exponent) not in allowed:
                raise ValueError(f"{len(self.power.exponent)} powers for {len(self.labels)} labels ({self.task})")
        return self

    @property
    def shown_short_clips(self) -> ShortClips:
        """How shorter clips are shown, also for headers that do not say."""
        if self.short_clips is not None:
            return self.short_clips
        return ShortClips.PAD if "epochs" in self.provenance else ShortClips.OWN_LENGTH

    def toml(self) -> str:
        """The text of ``posterior.toml``, with its digest."""
        return toml.dumps(sealed(self.model_dump(mode="json", exclude_none=True)))


def _defined(value: Any) -> Any:
    """A value without the numbers in it that are not finite, at any depth."""
    if isinstance(value, dict):
        return {key: _defined(each) for key, each in value.items() if not _undefined(each)}
    return [_defined(each) for each in value if not _undefined(each)] if isinstance(value, list | tuple) else value


def _undefined(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def read(folder: Path) -> Header:
    """Read and check ``posterior.toml``.

    Raises:
        PosteriorError: The folder is no posterior, or its header is damaged, was changed or is of a newer format.
    """
    path = folder / HEADER
    if not path.is_file():
        raise PosteriorError(f"{folder}: is not a posterior ({HEADER} is missing)")
    if path.stat().st_size > _LARGEST:
        raise PosteriorError(f"{path}: is damaged: it has {path.stat().st_size} bytes, and a header at most {_LARGEST}")
    try:
        table = toml.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PosteriorError(f"{path}: is damaged: {error}") from error
    version = table.get("format_version")
    if isinstance(version, int) and version > FORMAT:
        raise PosteriorError(f"{path}: format {version} is newer than this bayes_panns reads ({FORMAT}); update it")
    try:
        header = Header.model_validate({key: value for key, value in table.items() if key != DIGEST})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        what = f"{place}: {first['msg']}" if place else first["msg"].removeprefix("Value error, ")
        raise PosteriorError(f"{path}: is damaged: {what}") from error
    try:
        unsealed(table)
    except ValueError as error:
        raise PosteriorError(
            f"{path}: {error}; put back the one that was saved, or delete its line {DIGEST!r} if you mean the change"
        ) from error
    return header
