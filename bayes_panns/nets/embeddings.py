"""A network for embeddings that another model has made: its last layer is all there is of it.

Its name ends in the embeddings' width, as in ``embeddings-1024``, so that a posterior on disk says what it takes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bayes_panns.audio.front_end import FrontEnd
from bayes_panns.clips.store_format import WIDEST
from bayes_panns.core.choices import Holds
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets.network import SIZED, Network

FAMILY = "embeddings"
"""The name without the width: in a recipe, the network of the store's own width."""


def takes_embeddings(name: str) -> bool:
    """Whether the name is that of a network for embeddings.

    Example:
        >>> takes_embeddings("embeddings-1024"), takes_embeddings("resnet54")
        (True, False)
    """
    return name.rpartition("-")[0] == FAMILY


class EmbeddingNet(Network):
    """One linear layer on embeddings; its front end and its backbone are the identity.

    Args:
        width: How many numbers an embedding has.
        classes: How many labels.

    Raises:
        RecipeError: The width is 0, or absurdly large.

    Example:
        >>> net = EmbeddingNet(512, classes=10)
        >>> net(torch.ones(3, 512)).shape
        torch.Size([3, 10])
    """

    takes = Holds.EMBEDDINGS
    head = "fc"
    place: Tensor

    def __init__(self, width: int, classes: int):
        super().__init__()
        if not 0 < width <= WIDEST:
            raise RecipeError(f"net {FAMILY}-{width}: embeddings have from 1 to {WIDEST} numbers")
        self.width = width
        self.fc = nn.Linear(width, classes)
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        # A model whose weights are all drawn has no other tensor that tells its device.
        self.register_buffer("place", torch.zeros(()), persistent=False)

    def front_end(self, sample_rate: int) -> "NoFrontEnd":
        """The identity; ``sample_rate`` is 0.

        Raises:
            RecipeError: It is not, so clips are sound.
        """
        if sample_rate:
            raise RecipeError(
                f"net {FAMILY}-{self.width}: takes embeddings of {self.width} numbers, not sound at {sample_rate} Hz"
            )
        return NoFrontEnd(self.width)

    def activation_bytes(self, frames: int) -> int:
        """The bytes of an embedding."""
        return 4 * self.width

    def embed(self, features: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """``features`` themselves, shape ``(batch, width)``.

        Raises:
            ValueError: They are to be augmented, as only spectrograms can be.
        """
        if augment is not None:
            raise ValueError("embeddings of another model cannot be augmented: there is no spectrogram")
        return features

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits, shape ``(batch, classes)``, of embeddings."""
        return self.fc(embedding)


class NoFrontEnd(FrontEnd):
    """Passes embeddings on as they are.

    Args:
        width: How many numbers an embedding has.
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    @property
    def signature(self) -> str:
        """A text that tells it from other front ends."""
        return f"{type(self).__name__}({self.width})"

    def frames(self, samples: int) -> int:
        """1: an embedding is one frame."""
        return 1

    def shape(self, samples: int) -> tuple[int, int]:
        """1 and the width."""
        return 1, self.width

    def forward(self, waveform: Tensor) -> Tensor:
        """``waveform`` itself, which is an embedding, shape ``(batch, width)``.

        Raises:
            ValueError: It is of another width.
        """
        if waveform.shape[-1] != self.width:
            raise ValueError(f"embeddings of {waveform.shape[-1]} numbers, but the network takes {self.width}")
        return waveform


SIZED[FAMILY] = EmbeddingNet
