"""What the rest of the package needs of a network, and the networks by name.

A network family is one file here: a subclass of :class:`Network`, and a call of :func:`register` for each size. Nothing
outside this folder knows the name of a network's last layer or the shape of its input.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from bayes_panns.audio.front_end import FrontEnd
from bayes_panns.core.choices import CheckpointKind, Holds
from bayes_panns.core.errors import RecipeError


class Network(nn.Module):
    """A network that tags clips: a front end, a backbone that embeds a clip, and a linear last layer, the head.

    A subclass defines :attr:`head`, :meth:`embed`, :meth:`classify`, :meth:`front_end` and :meth:`activation_bytes`.

    | shape | what |
    |---|---|
    | ``(batch, ...)`` | features, as the front end makes them of waveforms ``(batch, samples)`` |
    | ``(batch, E)`` | embeddings |
    | ``(batch, K)`` | logits of K labels |

    A network that tags each segment of a clip, see :attr:`segmentwise`, has embeddings ``(batch, segments, E)``.

    Attributes:
        takes: What a clip is to it: sound, or an embedding that another model has made.
        head: The name of the last layer, such as ``fc_audioset`` or ``classifier.5``: an ``nn.Linear`` with a bias,
            from E to K, and the only part that depends on the labels.
        checkpoints: The kinds of published checkpoints that have its parameter names.
        segmentwise: The names of linear layers that are applied to each of several segments of a clip, rather than once
            to the clip. If the last layer is one of them, a clip has no single embedding.
    """

    takes: ClassVar[Holds] = Holds.WAVEFORMS
    head: ClassVar[str]
    checkpoints: ClassVar[tuple[CheckpointKind, ...]] = ()
    segmentwise: ClassVar[tuple[str, ...]] = ()

    def embed(self, features: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Embeddings ``(batch, E)`` of features ``(batch, ...)``: the input of the last layer.

        Args:
            features: What :meth:`front_end` makes.
            augment: Applied to the normalised spectrogram, shape ``(batch, 1, frames, mels)``.

        Call the layers by themselves: a slice of a ``Sequential`` is a new module, and a Bayesian network refuses it.
        """
        raise NotImplementedError

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits ``(batch, K)`` of embeddings ``(batch, E)``: the last layer, and :meth:`clip_logits` of its output."""
        raise NotImplementedError

    def clip_logits(self, logits: Tensor) -> Tensor:
        """Clips' logits ``(batch, K)`` of the last layer's output, which they are unless it tags segments."""
        return logits

    def forward(self, features: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Logits ``(batch, K)`` of features ``(batch, ...)``; see :meth:`embed`."""
        return self.classify(self.embed(features, augment))

    def front_end(self, sample_rate: int) -> FrontEnd:
        """The front end for waveforms at ``sample_rate`` Hz.

        Raises:
            RecipeError: The network has no front end for that rate.
        """
        raise NotImplementedError

    def activation_bytes(self, frames: int) -> int:
        """About how much memory one clip of ``frames`` frames takes in a forward pass without gradients."""
        raise NotImplementedError


@dataclass(frozen=True)
class NetworkEntry:
    """A network in the registry.

    Attributes:
        summary: What it is, in a few words.
        make: Makes the network for a number of labels, with its initial values.
        pooled: Makes the one with the same backbone whose last layer reads the pooled features, without the hidden
            layer after them, where there is such a network. Its name ends in :data:`POOLED`.
    """

    summary: str
    make: Callable[[int], Network]
    pooled: Callable[[int], Network] | None = None


POOLED = "-pooled"
"""The end of the name of a network whose last layer reads the pooled features of the network named before it."""

NETS: dict[str, NetworkEntry] = {}
"""The networks by name; :func:`register` adds one."""


def register(
    name: str, summary: str, make: Callable[[int], Network], pooled: Callable[[int], Network] | None = None
) -> None:
    """Add a network to :data:`NETS`; see :class:`NetworkEntry` for the arguments.

    Raises:
        ValueError: The name is taken.
    """
    if name in NETS:
        raise ValueError(f"there is a network called {name} already")
    NETS[name] = NetworkEntry(summary, make, pooled)


SIZED: dict[str, Callable[[int, int], Network]] = {}
"""Networks of any size, whose names end in it, such as ``embeddings-512``: by what stands before it, a function from
the size and the number of labels. It raises a :class:`~bayes_panns.core.errors.RecipeError` for a size that cannot be.
"""


def build(name: str, classes: int) -> Network:
    """Build a network of :data:`NETS` or :data:`SIZED`, or one on its pooled features, with random initial values.

    Raises:
        RecipeError: There is no network of that name.
    """
    stem = name.removesuffix(POOLED)
    make = NETS[stem].pooled if name != stem and stem in NETS else None
    if make is not None:
        return make(classes)
    if name in NETS:
        return NETS[name].make(classes)
    family, _, size = name.rpartition("-")
    if family not in SIZED or not (size.isascii() and size.isdecimal()) or size.startswith("0"):
        sized = "".join(f", {each}-N" for each in SIZED)
        raise RecipeError(f"net {name!r}: no such network; there are {', '.join(NETS)}{sized}")
    return SIZED[family](int(size), classes)


def pooled(name: str) -> str:
    """The name of the network with the same backbone whose last layer reads the pooled features; else ``name``.

    Example:
        >>> pooled("mn04"), pooled("mn04-pooled"), pooled("resnet54")
        ('mn04-pooled', 'mn04-pooled', 'resnet54')
    """
    return name + POOLED if name in NETS and NETS[name].pooled is not None else name


def same_backbone(one: str, other: str) -> bool:
    """Whether two networks differ at most in what their last layers read.

    Example:
        >>> same_backbone("mn04", "mn04-pooled"), same_backbone("mn04", "mn10")
        (True, False)
    """
    return one.removesuffix(POOLED) == other.removesuffix(POOLED)


def head_of(net: nn.Module) -> str | None:
    """The name of the last layer; ``None`` for a module that is no :class:`Network`."""
    head = getattr(net, "head", None)
    return head if isinstance(head, str) else None


def segmentwise(net: nn.Module) -> tuple[str, ...]:
    """The linear layers that are applied to each segment of a clip: :attr:`Network.segmentwise`, else none."""
    return getattr(net, "segmentwise", ())


def backbone(net: nn.Module, head: str) -> tuple[str, ...]:
    """The names of the largest modules that make up all of ``net`` but its last layer.

    Example:
        >>> classifier = nn.Sequential(nn.ReLU(), nn.Linear(4, 2))
        >>> net = nn.ModuleDict({"features": nn.Conv2d(1, 4, 3), "classifier": classifier})
        >>> backbone(net, head="classifier.1")
        ('features', 'classifier.0')

    Args:
        net: The network.
        head: The name of its last layer.
    """
    return tuple(_outside(net, head, ""))


def _outside(module: nn.Module, head: str, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        path = prefix + name
        if head.startswith(f"{path}."):
            yield from _outside(child, head, f"{path}.")
        elif path != head:
            yield path
