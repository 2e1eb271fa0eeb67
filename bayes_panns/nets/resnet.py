"""PANNs' ResNet-22, -38 and -54, and a narrow one of the same blocks (Kong et al., 2020, arXiv:1912.10211)."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from bayes_panns.audio.front_end import MEL_BINS
from bayes_panns.core.choices import CheckpointKind
from bayes_panns.nets.network import register
from bayes_panns.nets.panns import ConvBlock, PannsNetwork, channels_last, convolution, initialised

HALVINGS = 5
"""How many times the networks halve time and frequency."""


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
                *pool, convolution(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out)
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
        self.conv1 = convolution(channels_in, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
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
        self.conv1 = convolution(channels_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, width * self.expansion, 1)
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


class ResNet(PannsNetwork):
    """A PANNs residual network from log-mel spectrogram to logits.

    Features are log-mels in dB, shape ``(batch, frames, 64)``; fewer than 32 frames (times ``pool``) are padded with
    silence.

    Args:
        architecture: The block, the depths and the widths.
        classes: How many labels.
    """

    checkpoints = (CheckpointKind.PANNS, CheckpointKind.VI_PANN)

    def __init__(self, architecture: Architecture, classes: int):
        super().__init__()
        width, embedding = architecture.width, architecture.embedding
        self.pool = architecture.pool
        self.shortest = 2**HALVINGS * architecture.pool
        self.bn0 = nn.BatchNorm2d(MEL_BINS)
        self.conv_block1 = ConvBlock(1, width, pool=2)
        self.resnet = _Stages(architecture.block, architecture.depths, width)
        self.conv_block_after1 = ConvBlock(self.resnet.channels, embedding, pool=1)
        self.fc1 = initialised(nn.Linear(embedding, embedding))
        self.fc_audioset = initialised(nn.Linear(embedding, classes))
        self.dropout_maps = nn.Dropout(0.2)
        self.dropout_clip = nn.Dropout(0.5)

    def activation_bytes(self, frames: int) -> int:
        """About how much memory one clip of ``frames`` frames takes in a forward pass without gradients."""
        # The first stages are the widest: input, output and what is between.
        return 4 * self.map_bytes(frames, len(self.conv_block1.bn1.weight))

    def maps(self, spectrogram: Tensor) -> Tensor:
        """Maps ``(batch, embedding, frames / (32 pool), 2)``."""
        x = F.avg_pool2d(spectrogram, (self.pool, 1)) if self.pool > 1 else spectrogram
        x = self.dropout_maps(self.conv_block1(x))
        x = self.dropout_maps(F.avg_pool2d(self.resnet(x), 2))
        return self.dropout_maps(self.conv_block_after1(x))


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
    channels_last(net)
    return net


for _name, _architecture in ARCHITECTURES.items():
    register(_name, _architecture.summary, partial(_make, _architecture))
