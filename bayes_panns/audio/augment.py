"""Augmentation of normalised log-mel spectrograms: SpecAugment's stripes and mixup, drawn once a batch."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayes_panns.devices import sent
from bayes_panns.ranks import Shard, per_clip


def _stripes(batch: int, length: int, *, width: int, count: int, generator: torch.Generator | None) -> Tensor:
    """Where ``count`` stripes of 0 to ``width - 1`` bins fall, as in PANNs: bool, shape ``(batch, length)``."""
    size = per_clip(lambda clips: torch.randint(0, width, (clips, count, 1), generator=generator), batch)
    size = size.clamp(max=length)
    place = per_clip(lambda clips: torch.rand((clips, count, 1), generator=generator), batch)
    start = (place * (length - size + 1).clamp(min=1)).long()
    position = torch.arange(length)
    return ((position >= start) & (position < start + size)).any(dim=1)


@dataclass(frozen=True)
class SpecAugment:
    """Stripes of each clip's spectrogram set to its normalised mean, 0 (Park et al., 2019, arXiv:1904.08779).

    PANNs' sizes are the defaults: two stripes of less than 64 frames and two of less than 8 mel bins a clip.
    """

    time_width: int = 64
    time_stripes: int = 2
    mel_width: int = 8
    mel_stripes: int = 2

    def __call__(self, spectrogram: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mask ``spectrogram``, shape ``(batch, 1, frames, mels)``; returns a new tensor of that shape.

        ``generator`` is a CPU generator; without one the global CPU generator is used.
        """
        batch, _, frames, mels = spectrogram.shape
        time = _stripes(batch, frames, width=self.time_width, count=self.time_stripes, generator=generator)
        mel = _stripes(batch, mels, width=self.mel_width, count=self.mel_stripes, generator=generator)
        hidden = time[:, None, :, None] | mel[:, None, None, :]
        return spectrogram.masked_fill(sent(hidden, spectrogram.device), 0.0)


@dataclass(frozen=True)
class Mixup:
    """Convex mixtures of pairs of clips and of their targets (Zhang et al., 2018, arXiv:1710.09412).

    Each clip of a batch keeps a share ``portion`` of itself, drawn from Beta(alpha, alpha), and takes the rest from a
    partner in the batch. The same call mixes spectrograms and targets, so that both get the same shares.
    """

    partner: Tensor
    portion: Tensor

    @classmethod
    def draw(cls, batch: int, alpha: float = 1.0, generator: torch.Generator | None = None) -> "Mixup":
        """Draw partners and portions for ``batch`` clips; ``alpha = 1`` is PANNs' choice."""
        partner = torch.randperm(batch, generator=generator)
        # Beta(a, a) as a ratio of two Gammas, since torch's Beta takes no generator.
        shape = torch.full((2, batch), float(alpha))
        gamma = torch._standard_gamma(shape, generator=generator)
        return cls(partner, gamma[0] / gamma.sum(dim=0))

    def with_partners(self, part: Shard) -> Shard:
        """A part of the batch with the partners of its clips that are outside it."""
        own = self.partner[part.start : part.stop].tolist()
        return replace(part, partners=tuple(sorted({each for each in own if not part.start <= each < part.stop})))

    def of(self, part: Shard) -> "Mixup":
        """The mixing of a part of the batch: of its own clips, with their partners behind them."""
        row = {place: row for row, place in enumerate(part.rows.tolist())}
        own = slice(part.start, part.stop)
        return Mixup(torch.tensor([row[each] for each in self.partner[own].tolist()]), self.portion[own])

    def __call__(self, values: Tensor) -> Tensor:
        """Mix ``values``, floats of shape ``(batch, ...)``, along the batch; what is behind it ends there."""
        portion = sent(self.portion, values.device).to(values.dtype).view(-1, *[1] * (values.dim() - 1))
        return portion * values[: len(portion)] + (1 - portion) * values[sent(self.partner, values.device)]
