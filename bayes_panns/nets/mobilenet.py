"""EfficientAT's MobileNets: MobileNetV3 on log-mel spectrograms.

Schmid, Koutini and Widmer, "Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge Distillation", ICASSP
2023, arXiv:2211.04772; Howard et al., "Searching for MobileNetV3", ICCV 2019, arXiv:1905.02244. Parameter names, layer
order and dropout rate are those of the published networks, so their checkpoints load by name; initial values are
MobileNetV3's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_panns.audio.front_end import KaldiLogMel
from bayes_panns.core.choices import CheckpointKind
from bayes_panns.nets.network import Network, register

STEM_CHANNELS = 16
LAST_EXPANSION = 6
"""Channels of the last convolution for each of its inputs."""
EMBEDDING = 1280
"""The embedding's size at width 1."""


@dataclass(frozen=True)
class BlockShape:
    """The shape of a block at width 1.

    Attributes:
        kernel: The depthwise kernel's size.
        expanded: Channels of the depthwise convolution.
        channels: Channels of the output.
        squeeze: Whether it has a squeeze-and-excitation.
        hard_swish: Whether its activation is hard-swish rather than ReLU.
        stride: In time and frequency.
    """

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    hard_swish: bool
    stride: int


BLOCKS = (
    BlockShape(3, 16, 16, squeeze=False, hard_swish=False, stride=1),
    BlockShape(3, 64, 24, squeeze=False, hard_swish=False, stride=2),
    BlockShape(3, 72, 24, squeeze=False, hard_swish=False, stride=1),
    BlockShape(5, 72, 40, squeeze=True, hard_swish=False, stride=2),
    BlockShape(5, 120, 40, squeeze=True, hard_swish=False, stride=1),
    BlockShape(5, 120, 40, squeeze=True, hard_swish=False, stride=1),
    BlockShape(3, 240, 80, squeeze=False, hard_swish=True, stride=2),
    BlockShape(3, 200, 80, squeeze=False, hard_swish=True, stride=1),
    BlockShape(3, 184, 80, squeeze=False, hard_swish=True, stride=1),
    BlockShape(3, 184, 80, squeeze=False, hard_swish=True, stride=1),
    BlockShape(3, 480, 112, squeeze=True, hard_swish=True, stride=1),
    BlockShape(3, 672, 112, squeeze=True, hard_swish=True, stride=1),
    BlockShape(5, 672, 160, squeeze=True, hard_swish=True, stride=2),
    BlockShape(5, 960, 160, squeeze=True, hard_swish=True, stride=1),
    BlockShape(5, 960, 160, squeeze=True, hard_swish=True, stride=1),
)
"""MobileNetV3-Large: Howard et al., table 1."""


def whole_eighths(channels: float) -> int:
    """The multiple of 8 that is nearest to ``channels``; at least 8, and never more than a tenth below ``channels``.

    Example:
        >>> [whole_eighths(channels) for channels in (1.6, 25.6, 28, 64)]
        [8, 24, 32, 64]
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class Convolution(nn.Sequential):
    """A convolution without a bias, BatchNorm and, unless it is ``None``, an activation.

    A pass in eval mode that needs no gradient folds BatchNorm into the weight, which saves two passes over the maps,
    the widest of which do not fit into cache.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.ReLU] | type[nn.Hardswish] | None = None,
    ):
        convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        # Torch takes a second to find out how to draw normal numbers that are not stored.
        if not convolution.weight.is_meta:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
        norm = nn.BatchNorm2d(channels_out, eps=1e-3, momentum=0.01)
        super().__init__(convolution, norm, *([] if activation is None else [activation()]))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, channels_in, mels, frames)`` to ``(batch, channels_out, ...)``."""
        convolution, norm = self[0], cast(nn.BatchNorm2d, self[1])
        # Another package may have put a layer of its own in the convolution's place.
        if norm.training or not isinstance(convolution, nn.Conv2d) or not _plain(x):
            return super().forward(x)
        weight = convolution.weight
        if not _plain(weight):
            return super().forward(x)
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        gain = norm.weight * (variance + norm.eps).rsqrt()
        x = F.conv2d(
            x,
            weight * gain[:, None, None, None],
            norm.bias - mean * gain,
            convolution.stride,
            convolution.padding,
            groups=convolution.groups,
        )
        if len(self) < 3:
            return x
        return F.relu_(x) if isinstance(self[2], nn.ReLU) else F.hardswish(x, inplace=True)


def _plain(x: Tensor) -> bool:
    """Whether ``x`` may be overwritten once it is used: no gradient, and no tensor that stands for something else."""
    return type(x) in (Tensor, nn.Parameter) and not torch.is_grad_enabled()


def _linear(features_in: int, features_out: int) -> nn.Linear:
    layer = nn.Linear(features_in, features_out)
    if not layer.weight.is_meta:
        nn.init.normal_(layer.weight, 0, 0.01)
        nn.init.zeros_(layer.bias)
    return layer


class ChannelExcitation(nn.Module):
    """Scales each channel by a number in (0, 1) that depends on the means of all channels (Hu et al., 2018)."""

    def __init__(self, channels: int):
        super().__init__()
        squeezed = whole_eighths(channels // 4)
        self.fc1 = _linear(channels, squeezed)
        self.fc2 = _linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, channels, mels, frames)`` to the same shape."""
        scale = self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3))))).sigmoid()
        scale = scale[:, :, None, None]
        # Nothing else reads what the activation in front has made.
        return x.mul_(scale) if _plain(x) else x * scale


class SqueezeExcitation(nn.Module):
    """The published networks' squeeze-and-excitation, which keeps a list of one, over channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.conc_se_layers = nn.ModuleList([ChannelExcitation(channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, channels, mels, frames)`` to the same shape."""
        return self.conc_se_layers[0](x)


class InvertedResidual(nn.Module):
    """A 1 x 1 convolution that adds channels, a depthwise one, and a 1 x 1 one that takes them away.

    Where input and output have one shape, the input is added to the output.
    """

    def __init__(self, channels_in: int, expanded: int, channels_out: int, shape: BlockShape):
        super().__init__()
        activation = nn.Hardswish if shape.hard_swish else nn.ReLU
        layers = [] if expanded == channels_in else [Convolution(channels_in, expanded, activation=activation)]
        layers.append(
            Convolution(expanded, expanded, shape.kernel, stride=shape.stride, groups=expanded, activation=activation)
        )
        squeeze = [SqueezeExcitation(expanded)] if shape.squeeze else []
        self.block = nn.Sequential(*layers, *squeeze, Convolution(expanded, channels_out))
        self.residual = shape.stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, channels_in, mels, frames)`` to ``(batch, channels_out, mels / stride, frames / stride)``."""
        if not self.residual:
            return self.block(x)
        branch = self.block(x)
        return branch.add_(x) if _plain(branch) else branch + x


@dataclass(frozen=True)
class Architecture:
    """What distinguishes the networks of this family.

    Attributes:
        width: Every number of channels is this many times that of MobileNetV3-Large.
        summary: What it is, in a few words.
        hop: Samples from one frame to the next.
        mels: Mel bins.
    """

    width: float
    summary: str
    hop: int = 320
    mels: int = 128

    def channels(self, at_width_1: int) -> int:
        """The number of channels that is ``at_width_1`` in MobileNetV3-Large."""
        return whole_eighths(at_width_1 * self.width)


class MobileNet(Network):
    """An EfficientAT network from log-mel spectrogram to logits.

    Features are scaled log-mels, shape ``(batch, frames, mels)``, with any number of frames from 1 up. The dropout
    before the last layer is a module, so that it can be switched apart from BatchNorm.

    Args:
        architecture: The width, and the front end's hop and mel bins.
        classes: How many labels.
    """

    head = "classifier.5"
    checkpoints: ClassVar[tuple[CheckpointKind, ...]] = (CheckpointKind.EFFICIENTAT,)

    def __init__(self, architecture: Architecture, classes: int):
        super().__init__()
        self.architecture = architecture
        channels = architecture.channels(STEM_CHANNELS)
        layers: list[nn.Module] = [Convolution(1, channels, 3, stride=2, activation=nn.Hardswish)]
        for shape in BLOCKS:
            expanded, channels_out = architecture.channels(shape.expanded), architecture.channels(shape.channels)
            layers.append(InvertedResidual(channels, expanded, channels_out, shape))
            channels = channels_out
        pooled, embedding = LAST_EXPANSION * channels, architecture.channels(EMBEDDING)
        self.pooled = pooled
        self.features = nn.Sequential(*layers, Convolution(channels, pooled, activation=nn.Hardswish))
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            _linear(pooled, embedding),
            nn.Hardswish(),
            nn.Dropout(0.2),
            _linear(embedding, classes),
        )

    def front_end(self, sample_rate: int) -> KaldiLogMel:
        """EfficientAT's log-mel spectrogram, with the network's own hop and mel bins: 32000 Hz."""
        return KaldiLogMel(sample_rate, hop=self.architecture.hop, mels=self.architecture.mels)

    def activation_bytes(self, frames: int) -> int:
        """About how much memory one clip of ``frames`` frames takes in a forward pass without gradients."""
        # The second block's expansion is the widest: its output, and the input or the next layer's output, of floats at
        # half the frames and half the mels.
        expanded = self.architecture.channels(BLOCKS[1].expanded)
        return 4 * 2 * expanded * -(-frames // 2) * -(-self.architecture.mels // 2)

    def maps(self, features: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The last convolution's output, shape ``(batch, channels, mels, frames)``; arguments as for :meth:`embed`."""
        x = features.unsqueeze(1)
        if augment is not None:
            x = augment(x)
        return self.features(x.transpose(2, 3))

    def embed(self, features: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The clips' embeddings, shape ``(batch, embedding)``: the input of the last layer.

        Args:
            features: Scaled log-mels, shape ``(batch, frames, mels)``.
            augment: Applied to them, shape ``(batch, 1, frames, mels)``: they are normalised already.
        """
        x = self.maps(features, augment)
        # One by one: a slice of a Sequential would be a new module, which a Bayesian network refuses.
        for index in range(5):
            x = self.classifier[index](x)
        return x

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits, shape ``(batch, classes)``, of embeddings."""
        return self.classifier[5](embedding)


class PooledMobileNet(MobileNet):
    """An EfficientAT network without its hidden layer: the last layer reads the pooled features.

    The hidden layer was made for AudioSet's labels. For others a last layer on what comes before it does better with
    few clips; see ``docs/last-layer.md``.

    Args:
        architecture: As for :class:`MobileNet`.
        classes: How many labels.
    """

    head = "fc"
    checkpoints: ClassVar[tuple[CheckpointKind, ...]] = ()

    def __init__(self, architecture: Architecture, classes: int):
        super().__init__(architecture, classes)
        del self.classifier
        self.dropout = nn.Dropout(0.2)
        self.fc = _linear(self.pooled, classes)

    def embed(self, features: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The clips' pooled features, shape ``(batch, channels)``; arguments as for :class:`MobileNet`."""
        return self.dropout(self.maps(features, augment).mean(dim=(2, 3)))

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits, shape ``(batch, classes)``, of embeddings."""
        return self.fc(embedding)


def _architectures() -> dict[str, Architecture]:
    widths = {f"mn{round(10 * width):02}": width for width in (0.1, 0.2, 0.4, 0.5, 1.0, 2.0, 3.0, 4.0)}
    found = {name: Architecture(width, f"EfficientAT {name}") for name, width in widths.items()}
    for milliseconds in (5, 15, 20, 25):
        summary = f"EfficientAT mn10, a frame every {milliseconds} ms"
        found[f"mn10_as_hop_{milliseconds}"] = Architecture(1.0, summary, hop=32 * milliseconds)
    for mels in (40, 64, 256):
        found[f"mn10_as_mels_{mels}"] = Architecture(1.0, f"EfficientAT mn10, {mels} mel bins", mels=mels)
    return found


ARCHITECTURES = _architectures()
"""The networks of this family by name."""


def _make(family: type[MobileNet], architecture: Architecture, classes: int) -> MobileNet:
    net = family(architecture, classes)
    # Convolutions are fastest in channels last: 0.6 of the time on a CPU.
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


for _name, _architecture in ARCHITECTURES.items():
    register(
        _name,
        _architecture.summary,
        partial(_make, MobileNet, _architecture),
        pooled=partial(_make, PooledMobileNet, _architecture),
    )
