"""One draw for the whole batch."""

from collections.abc import Callable

from torch import Tensor

from bayes_panns.bayes.estimators.lazy_weight import LazyWeight, along_channels


class SharedWeight(LazyWeight):
    """One weight for all clips of a batch: the plain reparameterized draw.

    Blundell et al., 2015, arXiv:1505.05424.
    """

    form = "sum"

    def through(self, layer: Callable, inputs: Tensor, options: list, keywords: dict) -> Tensor:
        """The layer, with the drawn weight."""
        return layer(inputs, self.drawn[0], None, *options, **keywords)

    def added(self, output: Tensor, dim: int) -> Tensor:
        """The drawn bias."""
        return output + along_channels(self.value, output, dim)
