"""Passes of clips through a posterior: draws, moments and embeddings."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.audio.front_end import FrontEnd
from bayes_panns.audio.length import fit_length
from bayes_panns.bayes import (
    BayesianNet,
    ComposedGuide,
    draw_weights,
    embeddings_under,
    gaussian_weights,
    head_logits,
    logits_under,
    mean_weights,
    mirrored_draws,
    moments_under,
)
from bayes_panns.core.choices import Dropout, Precision, ShortClips
from bayes_panns.core.draw_count import draw_count, draws_or_moments
from bayes_panns.core.errors import PosteriorError
from bayes_panns.devices import forked
from bayes_panns.nets import Network
from bayes_panns.posterior.calibration import Calibration, Power

logger = logging.getLogger(__name__)

NETWORK_DRAWS, HEAD_DRAWS = 20, 200
"""How many draws are made by default: of the network's weights, and of its last layer alone."""

_FEW_CLIPS, _FEW_BYTES = 4, 48 << 20
"""On a CPU, the clips that a pass takes for each thread: so many, or as many as have activations of so many bytes.

Above some 50 MiB the maps leave the cache and glibc gives their memory back after each layer: mn04 takes 1.3 times as
long with 32 clips as with 16, mn10 1.6 times as long as with 8.
"""


class Passes:
    """What a :class:`~bayes_panns.posterior.Posterior` does with clips; its attributes are described there."""

    model: BayesianNet
    guide: ComposedGuide
    net: str
    sample_rate: int
    clip_seconds: float
    short_clips: ShortClips
    power: Power | None
    calibration: Calibration | None

    @property
    def front_end(self) -> FrontEnd:
        """Waveforms to log-mels, as the model takes them."""
        assert self.model.front_end is not None, "build() gives every model one"
        return self.model.front_end

    @property
    def stochastic(self) -> bool:
        """Whether two draws of a prediction can differ."""
        return self.guide.stochastic or self.model.dropout == Dropout.ALWAYS

    @property
    def precision(self) -> Precision:
        """What the network's layers compute with; logits, and all that follows from them, are float32 or wider."""
        return self.model.precision

    @property
    def mirrored(self) -> bool:
        """Whether :meth:`draws` come in mirrored pairs, which are not independent draws."""
        return self.guide.explicit and self.guide.stochastic and self.model.dropout != Dropout.ALWAYS

    def draws_for(self, draws: int | Literal["moments"] | None) -> int | Literal["moments"]:
        """``draws``, or if it is None the default: 20; where only the last layer is drawn, 200, which cost little.

        Raises:
            SettingError: ``draws`` is neither a whole number from 0 up nor ``"moments"``.
        """
        if draws is not None:
            return draws_or_moments(draws)
        return HEAD_DRAWS if self.mirrored and self.model.only_head else NETWORK_DRAWS

    def warn_of_other_draws(self, draws: int | Literal["moments"]) -> None:
        """Warn if the label sets were calibrated for far more draws than are made."""
        calibrated = 0 if self.calibration is None else self.calibration.draws
        made = self.draws_made(draws)
        if made != "moments" and made < calibrated / 4:
            logger.warning(
                f"the label sets are calibrated for {calibrated} draws, and with {made or 'a single pass'} they do not "
                f"hold what they promise; leave --draws out, or give {calibrated}"
            )

    def draws_made(self, draws: int | Literal["moments"]) -> int | Literal["moments"]:
        """How many draws :meth:`draws` makes when asked for ``draws``; 0 for a single pass at the posterior mean."""
        return draws if draws == "moments" or self.stochastic else 0

    def exponent(self, draws: int | Literal["moments"]) -> NDArray[np.float64] | None:
        """The power for the mean of ``draws`` draws, shape ``(1,)`` or ``(K,)``; None if there is none to apply.

        It belongs to the mean over draws: a single pass at the posterior mean has none.
        """
        return None if self.power is None or self.draws_made(draws) == 0 else np.array(self.power.exponent)

    def probability(self, logits: Tensor) -> Tensor:
        """The labels' probabilities for a draw's logits ``(N, K)``, at the calibrated temperature; without the power.

        The power is of the mean over draws: :func:`bayes_panns.predictions.predict` applies it.
        """
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        return self.model.likelihood.probability(logits / temperature)

    def draws(
        self,
        clips: Tensor | Sequence[Tensor],
        draws: int = 20,
        *,
        seed: int = 0,
        batch_size: int = 32,
        memory: int = 1 << 30,
    ) -> Iterator[Tensor]:
        """Draw from the posterior predictive, one draw of the weights at a time.

        The weights of draw t depend on ``seed`` and t only, so sets of clips that are predicted one after the other are
        predicted by the same networks. Torch's global random state is left as it was. Draws of an explicit guide come
        in mirrored pairs: see :func:`~bayes_panns.bayes.mirrored_draws`. Where only the last layer is drawn, the rest
        of the network runs once. Clips shorter than ``clip_seconds`` are treated as ``short_clips`` says.

        Args:
            clips: Waveforms, shape ``(N, samples)``, or several such groups of different lengths, N clips in all; their
                features are computed once.
            draws: How many; 0 for a single pass at the posterior mean, with dropout off. A posterior that is not
                stochastic always makes that single pass.
            seed: Seeds the draws.
            batch_size: The most clips a pass.
            memory: Bytes that the activations of a pass may take: long clips go through in smaller batches, down to
                one at a time.

        Yields:
            Probabilities of each label, shape ``(N, K)``, on the CPU.

        Raises:
            SettingError: ``draws`` is no whole number from 0 up.
        """
        for logits in self.logits(clips, draws, seed=seed, batch_size=batch_size, memory=memory):
            yield self.probability(logits)

    @torch.no_grad()
    def logits(
        self,
        clips: Tensor | Sequence[Tensor],
        draws: int = 20,
        *,
        seed: int = 0,
        batch_size: int = 32,
        memory: int = 1 << 30,
    ) -> Iterator[Tensor]:
        """The logits of :meth:`draws`, before any temperature: same arguments, same draws.

        Yields:
            Logits of each label, shape ``(N, K)``, on the CPU.
        """
        draws = draw_count(draws)
        at_mean = draws == 0 or not self.stochastic
        self.model.eval()
        if at_mean:
            self.model.drop(False)
        # Dropout's masks depend on the size of the batches.
        fast = at_mean or self.mirrored
        found = self._batches(clips, batch_size, memory, fast=fast)
        if self.mirrored and self.model.only_head and not at_mean:
            # Clips of other lengths may have another number of segments.
            embeddings = [self.model.embed(batch) for batch in found]
            if self.model.single_embedding:
                embeddings = [torch.cat(embeddings)]
            for weights in islice(mirrored_draws(self.guide, seed), draws):
                yield torch.cat([head_logits(self.model, weights, each) for each in embeddings]).cpu()
            return
        batches = list(found)
        if at_mean:
            yield self._logits(mean_weights(self.guide, batches[0]), batches).cpu()
        elif self.mirrored:
            for weights in islice(mirrored_draws(self.guide, seed), draws):
                yield self._logits(weights, batches).cpu()
        else:
            for index in range(draws):
                yield self._logits(None, batches, seed * 1_000_003 + index).cpu()

    def moments(
        self, clips: Tensor | Sequence[Tensor], *, batch_size: int = 32, memory: int = 1 << 30
    ) -> tuple[Tensor, Tensor]:
        """The moments of the logits under the posterior, from one pass and without a draw.

        Args:
            clips: Waveforms, as :meth:`draws` takes them.
            batch_size: The most clips a pass.
            memory: Bytes that the activations of a pass may take, as in :meth:`draws`.

        Returns:
            Means ``(N, K)`` and deviations ``(R, N, K)``, on the CPU: the covariance of a clip's logits i and j is the
            sum over R of the products of their deviations. See :mod:`bayes_panns.bayes.propagation`.

        Raises:
            PosteriorError: The guide is a custom one, its last layer is rotated or of low rank, dropout is part of the
                posterior, moments cannot be propagated through one of the network's layers, or the precision is not
                float32.
        """
        if not self.guide.explicit:
            raise PosteriorError("moments cannot be propagated with a custom guide; use draws")
        if not self.guide.independent:
            raise PosteriorError("moments need independent weights, and the last layer's are not; use draws")
        if self.model.dropout == Dropout.ALWAYS:
            raise PosteriorError("moments cannot be propagated through dropout; use draws")
        if self.precision != Precision.FLOAT32:
            raise PosteriorError(f"moments are computed in {Precision.FLOAT32} only, not {self.precision}; use draws")
        self.model.eval()
        weights = gaussian_weights(self.guide)
        batches = self._batches(clips, batch_size, memory // 4)
        try:
            parts = [moments_under(self.model, weights, batch) for batch in batches]
        except NotImplementedError as error:
            raise PosteriorError(f"net {self.net}: {error}") from error
        return torch.cat([loc for loc, _ in parts]).cpu(), torch.cat([factor for _, factor in parts], dim=1).cpu()

    @torch.no_grad()
    def embed(self, clips: Tensor | Sequence[Tensor], *, batch_size: int = 32, memory: int = 1 << 30) -> Tensor:
        """The embeddings of clips under the posterior's mean: what the last layer takes.

        Args:
            clips: Waveforms, as :meth:`draws` takes them.
            batch_size: The most clips a pass.
            memory: Bytes that the activations of a pass may take, as in :meth:`draws`.

        Returns:
            Shape ``(N, E)``, on the CPU.
        """
        self.model.eval()
        self.model.drop(False)
        batches = list(self._batches(clips, batch_size, memory, fast=True))
        weights = mean_weights(self.guide, batches[0])
        return torch.cat([embeddings_under(self.model, weights, batch).cpu() for batch in batches])

    def shown(self, waveforms: Tensor) -> Tensor:
        """Waveforms ``(N, samples)`` as they are shown to the network: longer ones whole, others by ``short_clips``."""
        samples = round(self.clip_seconds * self.sample_rate)
        pad = self.short_clips == ShortClips.PAD and waveforms.shape[1] < samples
        return fit_length(waveforms, samples) if pad else waveforms

    @torch.no_grad()
    def _batches(
        self, clips: Tensor | Sequence[Tensor], batch_size: int, memory: int, *, fast: bool = False
    ) -> Iterator[Tensor]:
        """Features of the clips, in batches whose activations fit; ``fast``: in smaller ones where that is faster."""
        device = next(self.model.buffers()).device
        for group in map(self.shown, [clips] if isinstance(clips, Tensor) else clips):
            clip = cast(Network, self.model.net).activation_bytes(self.front_end.frames(group.shape[1]))
            size = min(batch_size, memory // clip)
            if fast and device.type == "cpu":
                size = min(size, torch.get_num_threads() * max(_FEW_CLIPS, _FEW_BYTES // clip))
            for batch in group.split(max(1, size)):
                yield self.front_end(batch.to(device))

    def _logits(self, weights: Mapping[str, Tensor] | None, batches: list[Tensor], seed: int = 0) -> Tensor:
        """Logits ``(N, K)`` under ``weights``, or under a draw of the guide."""
        device = batches[0].device
        # A model draws its labels as well, and dropout its masks.
        with forked(device):
            torch.manual_seed(seed)
            weights = draw_weights(self.guide, batches[0]) if weights is None else weights
            return torch.cat([logits_under(self.model, weights, batch) for batch in batches])
