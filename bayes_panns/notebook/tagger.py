"""A posterior that tags sounds itself, and an ensemble that does."""

from dataclasses import fields
from pathlib import Path
from typing import Self, overload

import torch

from bayes_panns.core.choices import Precision
from bayes_panns.notebook.cards import card_html, card_text
from bayes_panns.notebook.predictions import Predictions
from bayes_panns.notebook.sounds import Sounds
from bayes_panns.notebook.tagging import predict
from bayes_panns.posterior import Ensemble, Posterior, choose_device
from bayes_panns.posterior import load as load_posterior
from bayes_panns.predictions import Draws, EventRules


class _Tags:
    """What tags sounds and shows what it is."""

    def predict(
        self,
        sounds: Sounds,
        rate: int | None = None,
        *,
        draws: Draws | None = None,
        window: float | None = None,
        hop: float | None = None,
        channel: str = "mix",
        samples: bool | None = None,
        events: EventRules | None = None,
    ) -> Predictions:
        """Tag sounds; the arguments are those of :func:`bayes_panns.notebook.predict`.

        A sound that is read elsewhere can be given as it is: ``tagger.predict(*soundfile.read("a.wav"))``.
        """
        assert isinstance(self, Posterior | Ensemble), "it is one of the two below"
        return predict(
            self,
            sounds,
            draws,
            rate=rate,
            window=window,
            hop=hop,
            channel=channel,
            samples=samples,
            events=events,
        )

    def __repr__(self) -> str:
        assert isinstance(self, Posterior | Ensemble), "it is one of the two below"
        return card_text(self)

    def _repr_html_(self) -> str:
        assert isinstance(self, Posterior | Ensemble), "it is one of the two below"
        return card_html(self)


class PosteriorTagger(_Tags, Posterior):
    """A posterior that tags sounds itself and shows what it is.

    It is the same posterior: every call that takes one takes this. ``repr`` is a card of it.

    Example:
        >>> from bayes_panns.clips import Task
        >>> posterior = Posterior.build(
        ...     net="resnet14-coarse", labels=("cat", "dog"), task=Task.ONE_OF_K, sample_rate=16000, clip_seconds=0.5
        ... )
        >>> tagger = PosteriorTagger.of(posterior)
        >>> tags = tagger.predict(torch.arange(24000).sin(), rate=16000, draws=4)
        >>> len(tags), tags.labels, [window.end for window in tags.windows]
        (3, ('cat', 'dog'), [0.5, 1.0, 1.5])
    """

    @classmethod
    def of(cls, posterior: Posterior) -> Self:
        """The same posterior, which shares everything with ``posterior``."""
        return cls(**{field.name: getattr(posterior, field.name) for field in fields(Posterior)})


class EnsembleTagger(_Tags, Ensemble):
    """An ensemble that tags sounds itself; see :class:`PosteriorTagger`."""


@overload
def load(
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    precision: Precision | str = Precision.FLOAT32,
    guide_function: str | None = None,
) -> PosteriorTagger: ...


@overload
def load(
    folder: str | Path,
    other: str | Path,
    /,
    *others: str | Path,
    device: torch.device | str = "cpu",
    precision: Precision | str = Precision.FLOAT32,
    guide_function: str | None = None,
) -> EnsembleTagger: ...


def load(
    folder: str | Path,
    *others: str | Path,
    device: torch.device | str = "cpu",
    precision: Precision | str = Precision.FLOAT32,
    guide_function: str | None = None,
) -> PosteriorTagger | EnsembleTagger:
    """Read a posterior, or several of the same labels as an ensemble.

    As :func:`bayes_panns.posterior.load`, whose arguments these are; what it gives tags sounds itself.

    Args:
        folder: The folder, or a run's folder with a ``posterior/`` in it.
        others: More of them, for an ensemble.
        device: Where to put it; ``auto`` is the GPU, if there is one.
        precision: What its network computes predictions with: ``float32`` or ``bf16``.
        guide_function: ``module:function`` of the guide, for a posterior that was fitted with one.

    Raises:
        PosteriorError: One is missing, damaged, of a newer format, or needs a guide function; or they do not go
            together.
        SettingError: There is no such precision.
    """
    place = choose_device(device) if device == "auto" else device
    members = [
        PosteriorTagger.of(load_posterior(each, device=place, precision=precision, guide_function=guide_function))
        for each in (folder, *others)
    ]
    return members[0] if not others else EnsembleTagger(members)
