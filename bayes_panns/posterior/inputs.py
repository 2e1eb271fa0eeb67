"""What a posterior takes: sound at its rate, or embeddings of one model; the only place that decides what fits."""

from pathlib import Path
from typing import Protocol

from bayes_panns.clips import ClipSet
from bayes_panns.clips.store_format import in_words
from bayes_panns.core.choices import Holds
from bayes_panns.core.errors import PredictionError, StoreError


class Takes(Protocol):
    """What is known of a predictor's clips."""

    sample_rate: int
    embeddings_of: str
    folder: Path | None

    @property
    def takes(self) -> Holds:
        """What a clip is to it."""

    @property
    def width(self) -> int:
        """How many numbers a clip has: samples, or those of an embedding."""


def described(predictor: Takes) -> str:
    """What a posterior takes, in words, such as ``embeddings of 1024 numbers (BirdNET)``."""
    return in_words(predictor.takes, predictor.sample_rate, predictor.width, predictor.embeddings_of)


def require_inputs(predictor: Takes, clips: ClipSet) -> None:
    """Check that a posterior takes what there is of some clips.

    Raises:
        StoreError: It takes sound and they are embeddings, or the other way round; or they have another sample rate or
            width, or are of another model.
    """
    path = clips.stores[0].path
    if clips.holds != predictor.takes:
        raise StoreError(f"{path}: holds {clips.contents}, but the posterior takes {described(predictor)}")
    if clips.sample_rate != predictor.sample_rate:
        raise StoreError(
            f"{path}: sample rate {clips.sample_rate} Hz, but the posterior's is {predictor.sample_rate} Hz; pack it "
            f"again with --sample-rate {predictor.sample_rate}"
        )
    if clips.holds == Holds.EMBEDDINGS:
        another = clips.model and predictor.embeddings_of and clips.model != predictor.embeddings_of
        if clips.width != predictor.width or another:
            raise StoreError(
                f"{path}: holds {clips.contents}, but the posterior takes {described(predictor)}; pack embeddings of "
                "that model"
            )


def require_sound(predictor: Takes) -> None:
    """Check that a posterior takes sound.

    Raises:
        PredictionError: It takes embeddings.
    """
    if predictor.takes != Holds.WAVEFORMS:
        raise PredictionError(
            f"{predictor.folder or 'posterior'}: takes {described(predictor)}, not sound; let that model make "
            "embeddings of the files, pack them with `bayes-panns pack embeddings`, and score the store with evaluate"
        )
