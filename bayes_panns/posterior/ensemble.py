"""Several posteriors as one predictor: a deep ensemble, or draws of several fits."""

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.core.choices import Holds, Precision, Task
from bayes_panns.core.draw_count import draw_count, draws_or_moments
from bayes_panns.core.errors import PosteriorError
from bayes_panns.posterior.calibration import Calibration
from bayes_panns.posterior.disk import load
from bayes_panns.posterior.posterior import Posterior


class Predictor(Protocol):
    """What predictions need: a posterior, or an :class:`Ensemble`."""

    labels: tuple[str, ...]
    sample_rate: int
    clip_seconds: float
    embeddings_of: str
    calibration: Calibration | None
    folder: Path | None

    @property
    def takes(self) -> Holds:
        """What a clip is to it: sound, or an embedding of another model."""

    @property
    def width(self) -> int:
        """How many numbers a clip has: its samples, or those of its embedding."""

    @property
    def task(self) -> Task:
        """What the labels mean."""

    @property
    def stochastic(self) -> bool:
        """Whether two draws of a prediction can differ."""

    @property
    def mirrored(self) -> bool:
        """Whether draws come in mirrored pairs."""

    @property
    def precision(self) -> Precision:
        """What the network computes predictions with."""

    def draws_for(self, draws: int | Literal["moments"] | None) -> int | Literal["moments"]:
        """``draws``, or the default if it is None."""

    def warn_of_other_draws(self, draws: int | Literal["moments"]) -> None:
        """Warn if label sets were calibrated for far more draws."""

    def draws_made(self, draws: int | Literal["moments"]) -> int | Literal["moments"]:
        """How many draws are made when ``draws`` are asked for; 0 for a pass at the mean."""

    def exponent(self, draws: int | Literal["moments"]) -> NDArray[np.float64] | None:
        """The power for the mean of so many draws, if there is one."""

    def probability(self, logits: Tensor) -> Tensor:
        """The labels' probabilities for logits ``(N, K)``."""

    def draws(self, clips: Tensor | Sequence[Tensor], draws: int = 20) -> Iterator[Tensor]:
        """Probabilities ``(N, K)``, a draw at a time."""

    def moments(self, clips: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The moments of the logits: means ``(N, K)`` and deviations ``(R, N, K)``."""


class Ensemble:
    """Several posteriors of the same labels, each as likely as the others.

    Their disagreement is epistemic: members with point weights make the deep ensemble of Lakshminarayanan et al., 2017
    (arXiv:1612.01474), Bayesian ones the mixture of their posteriors. A member's own temperature is applied to its
    draws, and its own power to their mean. There are no label sets.

    Args:
        members: At least one.

    Raises:
        PosteriorError: There are none, or they differ in labels, task, sample rate, clip length or precision, or take
            embeddings of different models.
    """

    calibration: Calibration | None = None
    folder: Path | None = None

    def __init__(self, members: Sequence[Posterior]):
        if not members:
            raise PosteriorError("an ensemble needs a posterior")
        first = members[0]
        for name in ("labels", "task", "takes", "sample_rate", "clip_seconds", "width", "embeddings_of", "precision"):
            for other in members[1:]:
                if getattr(other, name) != getattr(first, name):
                    whose, than = other.folder or "a member", first.folder or "the first member"
                    raise PosteriorError(f"{whose} and {than} differ in {name}; the members of an ensemble must agree")
        self.members = tuple(members)
        self.labels, self.sample_rate, self.clip_seconds = first.labels, first.sample_rate, first.clip_seconds
        self.embeddings_of = first.embeddings_of

    @property
    def takes(self) -> Holds:
        """What a clip is to its members."""
        return self.members[0].takes

    @property
    def width(self) -> int:
        """How many numbers a clip has."""
        return self.members[0].width

    @property
    def task(self) -> Task:
        """What the labels mean."""
        return self.members[0].task

    @property
    def stochastic(self) -> bool:
        """Whether two draws of a member can differ."""
        return any(member.stochastic for member in self.members)

    @property
    def precision(self) -> Precision:
        """What the members' networks compute predictions with."""
        return self.members[0].precision

    @property
    def mirrored(self) -> bool:
        """Whether draws come in pairs that are not independent: shares are whole pairs if any member is mirrored."""
        return any(member.mirrored for member in self.members)

    def draws_for(self, draws: int | Literal["moments"] | None) -> int | Literal["moments"]:
        """``draws``, or if it is None the least of the members' defaults.

        Raises:
            SettingError: ``draws`` is neither a whole number from 0 up nor ``"moments"``.
        """
        if draws is not None:
            return draws_or_moments(draws)
        return min(int(member.draws_for(None)) for member in self.members)

    def warn_of_other_draws(self, draws: int | Literal["moments"]) -> None:
        """Nothing: an ensemble has no label sets."""

    def draws_made(self, draws: int | Literal["moments"]) -> int | Literal["moments"]:
        """How many draws the members make together; 0 if each makes a single pass at its mean."""
        if draws == "moments" or draws == 0 or not self.stochastic:
            return draws if draws == "moments" else 0
        return sum(self.share(draws) if member.stochastic else 1 for member in self.members)

    def exponent(self, draws: int | Literal["moments"]) -> NDArray[np.float64] | None:
        """None: each member has its own."""
        return None

    @property
    def powered(self) -> bool:
        """Whether a member has a power: then the members' predictions are mixed after it."""
        return any(member.power is not None for member in self.members)

    def probability(self, logits: Tensor) -> Tensor:
        """The labels' probabilities for logits ``(N, K)``, at no temperature."""
        return self.members[0].model.likelihood.probability(logits)

    def share(self, draws: int) -> int:
        """How many of ``draws`` draws a member makes."""
        share = -(-draw_count(draws) // len(self.members))
        return share + (share % 2 if any(member.mirrored for member in self.members) else 0)

    def member_seed(self, number: int, seed: int = 0) -> int:
        """The seed of the draws of member ``number``."""
        return len(self.members) * seed + number

    def draws(self, clips: Tensor | Sequence[Tensor], draws: int = 20, *, seed: int = 0) -> Iterator[Tensor]:
        """Draws of each member in turn, each member with random numbers of its own.

        Args:
            clips: Waveforms, as :meth:`Posterior.draws` takes them.
            draws: How many in all, shared out evenly, and rounded up to whole pairs if a member is mirrored; 0 for
                one pass at the mean of each. A member with point weights makes one pass, which is repeated as often as
                the others draw, so that it weighs as much.
            seed: Seeds the draws: member m of M takes ``M * seed + m``.

        Yields:
            Probabilities of each label, shape ``(N, K)``, on the CPU.

        Raises:
            SettingError: ``draws`` is no whole number from 0 up.
        """
        share = self.share(draws)
        for number, member in enumerate(self.members):
            found = member.draws(clips, share, seed=self.member_seed(number, seed))
            once = self.stochastic and not member.stochastic
            yield from chain.from_iterable(repeat(each, max(1, share)) for each in found) if once else found

    def moments(self, clips: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Refused: a mixture of Gaussians is not Gaussian.

        Raises:
            PosteriorError: Always.
        """
        raise PosteriorError("moments cannot be propagated through an ensemble; use draws")


def load_all(
    folders: Sequence[str | Path],
    *,
    device: torch.device | str = "cpu",
    precision: Precision | str = Precision.FLOAT32,
    guide_function: str | None = None,
) -> Posterior | Ensemble:
    """Read posteriors as :func:`~bayes_panns.posterior.load` does: one as it is, several as an ensemble.

    Raises:
        PosteriorError: One cannot be read or is named twice, or they do not go together.
        SettingError: There is no such precision.
    """
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise PosteriorError("a posterior is named twice; name each member of an ensemble once")
    members = [load(folder, device=device, precision=precision, guide_function=guide_function) for folder in folders]
    return members[0] if len(members) == 1 else Ensemble(members)
