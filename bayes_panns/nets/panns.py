"""What PANNs' networks share (Kong et al., 2020, arXiv:1912.10211): the way in, the way out, and convolution blocks.

Parameter names, layer order, initial values and dropout rates are those of the published networks, so their
checkpoints load by name. Dropouts are modules, so that they can be switched apart from BatchNorm.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_panns.audio.front_end import MEL_BINS, SILENCE_DB, LogMel
from bayes_panns.core.choices import CheckpointKind
from bayes_panns.nets.network import Network


def initialised(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The layer with PANNs' initial values: Glorot's uniform weights, and a bias of 0."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolution(channels_in: int, channels_out: int, kernel: int, *, groups: int = 1) -> nn.Conv2d | nn.Linear:
    """A square convolution without a bias that keeps the size of its input."""
    return initialised(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups, bias=False),
    )


def channels_last(net: Network) -> Network:
    """The network, its convolutions in channels last: they are fastest so, on CPUs and GPUs alike."""
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


class ConvBlock(nn.Module):
    """Two 3 x 3 convolutions, each with BatchNorm and ReLU, then average pooling."""

    def __init__(self, channels_in: int, channels_out: int, pool: int):
        super().__init__()
        self.conv1 = convolution(channels_in, channels_out, 3)
        self.conv2 = convolution(channels_out, channels_out, 3)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, channels_in, frames, mels)`` to ``(batch, channels_out, frames / pool, mels / pool)``."""
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, self.pool) if self.pool > 1 else x


class ConvBlock5x5(nn.Module):
    """A 5 x 5 convolution with BatchNorm and ReLU, then average pooling."""

    def __init__(self, channels_in: int, channels_out: int, pool: int):
        super().__init__()
        self.conv1 = convolution(channels_in, channels_out, 5)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, channels_in, frames, mels)`` to ``(batch, channels_out, frames / pool, mels / pool)``."""
        x = F.relu_(self.bn1(self.conv1(x)))
        return F.avg_pool2d(x, self.pool) if self.pool > 1 else x


class PannsNetwork(Network):
    """A PANNs network from log-mel spectrogram to logits.

    Features are log-mels in dB, shape ``(batch, frames, 64)``; fewer frames than :attr:`shortest` are padded with
    silence. A subclass makes ``bn0``, its own layers, ``fc1`` and ``fc_audioset``, in this order, and ``dropout_clip``,
    and defines :meth:`maps`.

    Attributes:
        shortest: The fewest frames of which pooling leaves one.
    """

    head = "fc_audioset"
    checkpoints: ClassVar[tuple[CheckpointKind, ...]] = (CheckpointKind.PANNS,)
    shortest: int
    bn0: nn.BatchNorm2d
    fc1: nn.Conv2d | nn.Linear
    fc_audioset: nn.Conv2d | nn.Linear
    dropout_clip: nn.Module

    def front_end(self, sample_rate: int) -> LogMel:
        """PANNs' log-mel spectrogram: 32000, 16000 or 8000 Hz."""
        return LogMel(sample_rate)

    def maps(self, spectrogram: Tensor) -> Tensor:
        """Feature maps ``(batch, C, frames', mels')`` of normalised spectrograms ``(batch, 1, frames, 64)``."""
        raise NotImplementedError

    def normalised(self, features: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Spectrograms ``(batch, 1, frames, 64)``, each mel bin normalised by ``bn0``, then augmented.

        Args:
            features: Log-mels in dB, shape ``(batch, frames, 64)``.
            augment: Applied to the normalised spectrogram, where PANNs place it.
        """
        x = F.pad(features, (0, 0, 0, max(0, self.shortest - features.shape[1])), value=SILENCE_DB)
        # bn0 takes the mel bins as its channels.
        x = self.bn0(x.transpose(1, 2).unsqueeze(-1)).permute(0, 3, 2, 1)
        return x if augment is None else augment(x)

    def embed(self, features: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The clips' embeddings, shape ``(batch, embedding)``: the input of the last layer.

        The maps' mean over frequency, its maximum and mean over time added, and ``fc1`` with ReLU.

        Args:
            features: Log-mels in dB, shape ``(batch, frames, 64)``.
            augment: Applied to the normalised spectrogram, shape ``(batch, 1, frames, 64)``, where PANNs place it.
        """
        x = self.maps(self.normalised(features, augment)).mean(dim=3)
        x = self.dropout_clip(x.amax(dim=2) + x.mean(dim=2))
        return F.relu(self.fc1(x))

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits, shape ``(batch, classes)``, of embeddings."""
        return self.fc_audioset(embedding)

    def map_bytes(self, frames: int, channels: int) -> int:
        """Bytes of a clip's map of ``channels`` channels before any pooling."""
        return 4 * channels * MEL_BINS * max(frames, self.shortest)
