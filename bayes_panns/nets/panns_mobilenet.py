"""PANNs' MobileNetV1 and MobileNetV2 (Kong et al., 2020, arXiv:1912.10211).

Howard et al., 2017, arXiv:1704.04861, and Sandler et al., 2018, arXiv:1801.04381. Where those have a stride, these
have average pooling after the convolution.
"""

from torch import Tensor, nn

from bayes_panns.audio.front_end import MEL_BINS
from bayes_panns.nets.network import register
from bayes_panns.nets.panns import PannsNetwork, channels_last, convolution, initialised

POOLINGS = 5
"""How many times either network halves time and frequency."""

STEM_CHANNELS = 32
"""Channels of the first convolution."""

V1_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    *[(512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)],
    (1024, 2),
    (1024, 1),
)
"""MobileNetV1's blocks: channels, and the size of the pooling."""

V2_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 2), (6, 160, 3, 1), (6, 320, 1, 1))
"""MobileNetV2's blocks: the expansion, channels, how many, and the size of the pooling in the first of them."""

V2_LAST, V2_EMBEDDING = 1280, 1024
"""Channels of MobileNetV2's last convolution, and the size of its embedding."""


def _layers(
    channels_in: int,
    channels_out: int,
    kernel: int,
    activation: type[nn.Module] | None,
    *,
    groups: int = 1,
    pool: int = 0,
) -> list[nn.Module]:
    """A convolution, average pooling unless ``pool`` is 0, BatchNorm and, unless it is None, an activation.

    A pooling of size 1 is a layer that does nothing: it keeps the numbers of the layers after it.
    """
    pooling = [] if pool == 0 else [nn.AvgPool2d(pool) if pool > 1 else nn.Identity()]
    active = [] if activation is None else [activation(inplace=True)]
    first = convolution(channels_in, channels_out, kernel, groups=groups)
    return [first, *pooling, nn.BatchNorm2d(channels_out), *active]


class InvertedResidual(nn.Module):
    """A 1 x 1 convolution that adds channels, a depthwise one, and a 1 x 1 one that takes them away.

    Where input and output have one shape, the input is added to the output.
    """

    def __init__(self, channels_in: int, channels_out: int, expansion: int, pool: int):
        super().__init__()
        expanded = expansion * channels_in
        layers = [] if expansion == 1 else _layers(channels_in, expanded, 1, nn.ReLU6)
        layers += _layers(expanded, expanded, 3, nn.ReLU6, groups=expanded, pool=pool)
        self.conv = nn.Sequential(*layers, *_layers(expanded, channels_out, 1, None))
        self.residual = pool == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, channels_in, frames, mels)`` to ``(batch, channels_out, frames / pool, mels / pool)``."""
        return x + self.conv(x) if self.residual else self.conv(x)


class _MobileNet(PannsNetwork):
    """What the two share; ``features`` are the convolutions."""

    features: nn.Sequential
    shortest = 2**POOLINGS

    def maps(self, spectrogram: Tensor) -> Tensor:
        """Maps ``(batch, C, frames / 32, 2)``."""
        return self.features(spectrogram)


class MobileNetV1(_MobileNet):
    """PANNs' MobileNetV1 from log-mel spectrogram to logits.

    Features are log-mels in dB, shape ``(batch, frames, 64)``; fewer than 32 frames are padded with silence.

    Args:
        classes: How many labels.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(MEL_BINS)
        channels = STEM_CHANNELS
        blocks = [nn.Sequential(*_layers(1, channels, 3, nn.ReLU, pool=2))]
        for width, pool in V1_BLOCKS:
            depthwise = _layers(channels, channels, 3, nn.ReLU, groups=channels, pool=pool)
            blocks.append(nn.Sequential(*depthwise, *_layers(channels, width, 1, nn.ReLU)))
            channels = width
        self.features = nn.Sequential(*blocks)
        self.fc1 = initialised(nn.Linear(channels, channels))
        self.fc_audioset = initialised(nn.Linear(channels, classes))
        self.dropout_clip = nn.Dropout(0.5)

    def activation_bytes(self, frames: int) -> int:
        """About how much memory one clip of ``frames`` frames takes in a forward pass without gradients."""
        # The first convolution, before its pooling, and what is left of it.
        return 5 * self.map_bytes(frames, STEM_CHANNELS) // 2


class MobileNetV2(_MobileNet):
    """PANNs' MobileNetV2 from log-mel spectrogram to logits; it has no dropout.

    Features are log-mels in dB, shape ``(batch, frames, 64)``; fewer than 32 frames are padded with silence.

    Args:
        classes: How many labels.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(MEL_BINS)
        channels = STEM_CHANNELS
        blocks: list[nn.Module] = [nn.Sequential(*_layers(1, channels, 3, nn.ReLU6, pool=2))]
        for expansion, width, count, pool in V2_BLOCKS:
            for index in range(count):
                blocks.append(InvertedResidual(channels, width, expansion, pool if index == 0 else 1))
                channels = width
        self.features = nn.Sequential(*blocks, nn.Sequential(*_layers(channels, V2_LAST, 1, nn.ReLU6)))
        self.fc1 = initialised(nn.Linear(V2_LAST, V2_EMBEDDING))
        self.fc_audioset = initialised(nn.Linear(V2_EMBEDDING, classes))
        self.dropout_clip = nn.Identity()

    def activation_bytes(self, frames: int) -> int:
        """About how much memory one clip of ``frames`` frames takes in a forward pass without gradients."""
        # The second block's expansion, at half the frames and half the mels, is the widest.
        return 4 * self.map_bytes(frames, V2_BLOCKS[1][0] * V2_BLOCKS[0][1]) // 4


register("mobilenetv1", "PANNs MobileNetV1", lambda classes: channels_last(MobileNetV1(classes)))
register("mobilenetv2", "PANNs MobileNetV2", lambda classes: channels_last(MobileNetV2(classes)))
