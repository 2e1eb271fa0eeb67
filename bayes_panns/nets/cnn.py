"""PANNs' Cnn6, Cnn10, Cnn14, Cnn14_16k and Cnn14_DecisionLevelMax (Kong et al., 2020, arXiv:1912.10211)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_panns.audio.front_end import MEL_BINS, LogMel
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets.network import register
from bayes_panns.nets.panns import ConvBlock, ConvBlock5x5, PannsNetwork, channels_last, initialised


@dataclass(frozen=True)
class Architecture:
    """What distinguishes the networks of this family.

    Attributes:
        block: The block of convolutions.
        widths: Channels after each block. The last is the embedding's size.
        pools: How many of the blocks, from the first on, halve time and frequency.
        summary: What it is, in a few words.
        segments: Whether it tags each segment of a clip and takes the maximum.
        sample_rate: The only rate that it takes, in Hz; None for all of PANNs' front ends.
    """

    block: type[ConvBlock] | type[ConvBlock5x5]
    widths: tuple[int, ...]
    pools: int
    summary: str
    segments: bool = False
    sample_rate: int | None = None


class Cnn(PannsNetwork):
    """A PANNs network of convolution blocks, from log-mel spectrogram to logits.

    Features are log-mels in dB, shape ``(batch, frames, 64)``; fewer than 32 frames (16 for Cnn6 and Cnn10) are padded
    with silence.

    Args:
        architecture: The blocks and their widths.
        classes: How many labels.
    """

    def __init__(self, architecture: Architecture, classes: int):
        super().__init__()
        self.architecture = architecture
        self.shortest = 2**architecture.pools
        self.bn0 = nn.BatchNorm2d(MEL_BINS)
        channels = 1
        for index, width in enumerate(architecture.widths):
            pool = 2 if index < architecture.pools else 1
            self.add_module(f"conv_block{index + 1}", architecture.block(channels, width, pool))
            channels = width
        self.fc1 = initialised(nn.Linear(channels, channels))
        self.fc_audioset = initialised(nn.Linear(channels, classes))
        self.dropout_maps = nn.Dropout(0.2)
        self.dropout_clip = nn.Dropout(0.5)

    def front_end(self, sample_rate: int) -> LogMel:
        """PANNs' log-mel spectrogram: 32000, 16000 or 8000 Hz, for Cnn14_16k 16000 Hz only."""
        only = self.architecture.sample_rate
        if only not in (None, sample_rate):
            raise RecipeError(f"sample_rate {sample_rate}: {self.architecture.summary} is for {only} Hz")
        return super().front_end(sample_rate)

    def activation_bytes(self, frames: int) -> int:
        """About how much memory one clip of ``frames`` frames takes in a forward pass without gradients."""
        # The first block is the widest: the outputs of its convolutions and of BatchNorm.
        return 3 * self.map_bytes(frames, self.architecture.widths[0])

    def maps(self, spectrogram: Tensor) -> Tensor:
        """Maps ``(batch, embedding, frames / 32, 2)``, or ``(batch, embedding, frames / 16, 4)`` of Cnn6 and Cnn10."""
        x = spectrogram
        for index in range(len(self.architecture.widths)):
            x = self.dropout_maps(self.get_submodule(f"conv_block{index + 1}")(x))
        return x


class DecisionLevelMax(Cnn):
    """PANNs' Cnn14_DecisionLevelMax: each segment of a clip is tagged, and a label's probability is its largest one.

    A segment is 32 frames, a third of a second. The sigmoid is monotonic, so a clip's logit is the largest of its
    segments' logits. ``fc1`` and the last layer are applied to every segment, so that a clip has as many embeddings as
    segments, and no single one. :meth:`framewise` says when in a clip a label is active.
    """

    segmentwise = ("fc1", "fc_audioset")

    def __init__(self, architecture: Architecture, classes: int):
        super().__init__(architecture, classes)
        self.dropout_segments = nn.Dropout(0.5)

    def embed(self, features: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The embeddings of the clips' segments, shape ``(batch, segments, embedding)``.

        Args:
            features: Log-mels in dB, shape ``(batch, frames, 64)``.
            augment: Applied to the normalised spectrogram, shape ``(batch, 1, frames, 64)``, where PANNs place it.
        """
        x = self.maps(self.normalised(features, augment)).mean(dim=3)
        # Over each segment and the two beside it.
        largest, mean = F.max_pool1d(x, 3, stride=1, padding=1), F.avg_pool1d(x, 3, stride=1, padding=1)
        x = self.dropout_clip(largest + mean)
        return self.dropout_segments(F.relu(self.fc1(x.transpose(1, 2))))

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` of the embeddings of segments ``(batch, segments, embedding)``."""
        return self.clip_logits(self.fc_audioset(embedding))

    def clip_logits(self, logits: Tensor) -> Tensor:
        """The largest of the segments' logits: ``(batch, classes)`` of ``(batch, segments, classes)``.

        Logits ``(batch, classes)`` are those of clips of one segment.
        """
        return logits if logits.dim() == 2 else logits.amax(dim=1)

    def framewise(self, features: Tensor) -> Tensor:
        """The logits of every frame, shape ``(batch, frames, classes)``; their sigmoid is PANNs' framewise output.

        A frame has the logits of its segment; frames after the last whole segment have those of the last one. The
        largest over frames are the clip's logits, as :meth:`forward` gives them. Under the weights of a draw, or at the
        mean of a posterior::

            features = posterior.front_end(waveforms)
            weights = mean_weights(posterior.guide)
            logits = poutine.condition(posterior.model.net.framewise, data=weights)(features)

        Example:
            >>> net = DecisionLevelMax(Architecture(ConvBlock, (4, 4, 4, 4, 4, 8), 5, "a narrow one"), classes=3).eval()
            >>> features = torch.randn(2, 101, 64)
            >>> net.framewise(features).shape
            torch.Size([2, 101, 3])
            >>> bool((net.framewise(features).amax(dim=1) == net(features)).all())
            True

        Args:
            features: Log-mels in dB, shape ``(batch, frames, 64)``.
        """
        logits = self.fc_audioset(self.embed(features))
        frame = torch.arange(features.shape[1], device=logits.device)
        return logits[:, (frame // self.shortest).clamp(max=logits.shape[1] - 1)]


_FOUR, _SIX = (64, 128, 256, 512), (64, 128, 256, 512, 1024, 2048)

# Networks of the same shapes are tried in this order when a checkpoint is imported.
ARCHITECTURES = {
    "cnn6": Architecture(ConvBlock5x5, _FOUR, 4, "PANNs Cnn6"),
    "cnn10": Architecture(ConvBlock, _FOUR, 4, "PANNs Cnn10"),
    "cnn14-16k": Architecture(ConvBlock, _SIX, 5, "PANNs Cnn14_16k", sample_rate=16000),
    "cnn14": Architecture(ConvBlock, _SIX, 5, "PANNs Cnn14"),
    "cnn14-decision-level-max": Architecture(ConvBlock, _SIX, 5, "PANNs Cnn14_DecisionLevelMax", segments=True),
}
"""The networks of this family by name."""


def make(architecture: Architecture, classes: int) -> Cnn:
    """The network of an architecture, with its initial values."""
    net = DecisionLevelMax(architecture, classes) if architecture.segments else Cnn(architecture, classes)
    channels_last(net)
    return net


for _name, _architecture in ARCHITECTURES.items():
    register(_name, _architecture.summary, partial(make, _architecture))
