"""PANNs' ResNet-22, -38 and -54, and a narrow one of the same blocks (Kong et al., 2020, arXiv:1912.10211).

Parameter names, layer order, initial values and dropout rates are those of the published networks, so their
checkpoints load by name. Dropouts are modules, so that they can be switched apart from BatchNorm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_panns.audio.front_end import MEL_BINS, SILENCE_DB, LogMel
from bayes_panns.core.choices import CheckpointKind
from bayes_panns.nets.network import Network, register

MINIMUM_FRAMES = 32
"""The networks halve time five times; a shorter spectrogram is padded with silence to this."""


def _initialised(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _convolution(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d | nn.Linear:
    return _initialised(nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False))


class ConvBlock(nn.Module):
    """Two 3 x 3 convolutions, each with BatchNorm and ReLU, then average pooling."""

    def __init__(self, channels_in: int, channels_out: int, pool: int):
        super().__init__()
        self.conv1 = _convolution(channels_in, channels_out, 3)
        self.conv2 = _convolution(channels_out, channels_out, 3)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, channels_in, frames, mels)`` to ``(batch, channels_out, frames / pool, mels / pool)``."""
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, self.pool) if self.pool > 1 else x


class _Block(nn.Module):
    """What the two residual blocks share: average pooling in front, the shortcut, and the sum."""

    expansion: int

    def __init__(self, channels_in: int, width: int, stride: int):
        super().__init__()
        channels_out = width * self.expansion
        self.stride = stride
        self.downsample: nn.Module | None = None
        if stride > 1 or channels_in != channels_out:
            pool = [nn.AvgPool2d(stride)] if stride > 1 else []
            self.downsample = nn.Sequential(
                *pool, _convolution(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out)
            )
        self.dropout = nn.Dropout(0.1)

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        return F.relu(self.residual(x) + shortcut)


class BasicBlock(_Block):
    """Two 3 x 3 convolutions beside a shortcut: the block of ResNet-22 and -38."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int = 1):
        super().__init__(channels_in, width, stride)
        self.conv1 = _convolution(channels_in, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        nn.init.zeros_(self.bn2.weight)

    def residual(self, x: Tensor) -> Tensor:
        """The branch beside the shortcut."""
        x = self.dropout(F.relu(self.bn1(self.conv1(x))))
        return self.bn2(self.conv2(x))


class Bottleneck(_Block):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut: the block of ResNet-54."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int = 1):
        super().__init__(channels_in, width, stride)
        self.conv1 = _convolution(channels_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        nn.init.zeros_(self.bn3.weight)

    def residual(self, x: Tensor) -> Tensor:
        """The branch beside the shortcut."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.dropout(F.relu(self.bn2(self.conv2(x))))
        return self.bn3(self.conv3(x))


class _Stages(nn.Module):
    """Four stages of residual blocks; each after the first halves time and frequency and doubles the width."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, int, int, int], width: int):
        super().__init__()
        channels = width
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(channels, width << stage, stride))
                channels = (width << stage) * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.children():
            x = stage(x)
        return x


@dataclass(frozen=True)
class Architecture:
    """What distinguishes the networks of this family.

    Attributes:
        block: The residual block.
        depths: How many blocks each stage has.
        width: Channels of the first stage.
        embedding: The embedding's size.
        summary: What it is, in a few words.
        pool: How many frames of the spectrogram are averaged into one before the first convolution.
    """

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]
    width: int
    embedding: int
    summary: str
    pool: int = 1


class ResNet(Network):
    """A PANNs residual network from log-mel spectrogram to logits.

    Features are log-mels in dB, shape ``(batch, frames, 64)``; fewer than 32 frames (times ``pool``) are padded with
    silence.

    Args:
        architecture: The block, the depths and the widths.
        classes: How many labels.
    """

    head = "fc_audioset"
    checkpoints = (CheckpointKind.PANNS, CheckpointKind.VI_PANN)

    def __init__(self, architecture: Architecture, classes: int):
        super().__init__()
        width, embedding = architecture.width, architecture.embedding
        self.pool = architecture.pool
        self.bn0 = nn.BatchNorm2d(MEL_BINS)
        self.conv_block1 = ConvBlock(1, width, pool=2)
        self.resnet = _Stages(architecture.block, architecture.depths, width)
        self.conv_block_after1 = ConvBlock(self.resnet.channels, embedding, pool=1)
        self.fc1 = _initialised(nn.Linear(embedding, embedding))
        self.fc_audioset = _initialised(nn.Linear(embedding, classes))
        self.dropout_maps = nn.Dropout(0.2)
        self.dropout_clip = nn.Dropout(0.5)

    def front_end(self, sample_rate: int) -> LogMel:
        """PANNs' log-mel spectrogram: 32000, 16000 or 8000 Hz."""
        return LogMel(sample_rate)

    def activation_bytes(self, frames: int) -> int:
        """About how much memory one clip of ``frames`` frames takes in a forward pass without gradients."""
        # The first stages are the widest: input, output and what is between, of channels x frames x mels floats each.
        return 4 * 4 * MEL_BINS * max(frames, MINIMUM_FRAMES) * len(self.conv_block1.bn1.weight)

    def embed(self, features: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The clips' embeddings, shape ``(batch, embedding)``: the input of the last layer.

        Args:
            features: Log-mels in dB, shape ``(batch, frames, 64)``.
            augment: Applied to the normalised spectrogram, shape ``(batch, 1, frames, 64)``, where PANNs place it.
        """
        shortest = MINIMUM_FRAMES * self.pool
        x = F.pad(features, (0, 0, 0, max(0, shortest - features.shape[1])), value=SILENCE_DB)
        # bn0 takes the mel bins as its channels.
        x = self.bn0(x.transpose(1, 2).unsqueeze(-1)).permute(0, 3, 2, 1)
        if augment is not None:
            x = augment(x)
        if self.pool > 1:
            x = F.avg_pool2d(x, (self.pool, 1))
        x = self.dropout_maps(self.conv_block1(x))
        x = self.dropout_maps(F.avg_pool2d(self.resnet(x), 2))
        x = self.dropout_maps(self.conv_block_after1(x)).mean(dim=3)
        x = self.dropout_clip(x.amax(dim=2) + x.mean(dim=2))
        return F.relu(self.fc1(x))

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits, shape ``(batch, classes)``, of embeddings."""
        return self.fc_audioset(embedding)


ARCHITECTURES = {
    "resnet22": Architecture(BasicBlock, (2, 2, 2, 2), 64, 2048, "PANNs ResNet22"),
    "resnet38": Architecture(BasicBlock, (3, 4, 6, 3), 64, 2048, "PANNs ResNet38"),
    "resnet54": Architecture(Bottleneck, (3, 4, 6, 3), 64, 2048, "PANNs ResNet54"),
    "resnet14-narrow": Architecture(BasicBlock, (1, 1, 1, 1), 16, 128, "the same blocks for two cores and minutes"),
    "resnet14-coarse": Architecture(BasicBlock, (1, 1, 1, 1), 16, 128, "the narrow one, at 50 frames a second", 2),
}
"""The networks of this family by name."""


def _make(architecture: Architecture, classes: int) -> ResNet:
    net = ResNet(architecture, classes)
    # Convolutions are fastest in channels last, on CPUs and GPUs alike.
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


for _name, _architecture in ARCHITECTURES.items():
    register(_name, _architecture.summary, partial(_make, _architecture))
