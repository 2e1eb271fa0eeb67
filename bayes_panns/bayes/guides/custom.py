"""A guide of the user's own, as a part."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bayes_panns.bayes.guides.part import Part, take
from bayes_panns.bayes.local_parameters import keep_local
from bayes_panns.bayes.model import BayesianNet
from bayes_panns.core.errors import PosteriorError, RecipeError


class UserGuide(Protocol):
    """What this package needs of a guide of your own: any of Pyro's autoguides has it.

    It must also be a ``torch.nn.Module``; its parameters must exist after one call.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor] | None:
        """Sample every site of the model; called with the model's arguments."""

    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """A point that stands for the posterior, by site name: for ``--draws 0``, validation and export."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters to train."""

    def state_dict(self) -> dict[str, Any]:
        """The tensors to save; they are filled in place when a posterior is loaded."""


class CustomGuide(Part):
    """A guide of the user's own over all sites of a model.

    What works: fits with any schedule, checkpoints and resume; draws, ``--draws 0`` and everything made of them
    (prediction, evaluation, calibration, reports, ensembles); saving, and loading when the function is named again.

    What is refused, since means and widths of the weights are not known: ``freeze``, starting from a posterior or being
    started from, the prior ``upstream`` from it, a probed or rotated last layer, propagated moments, and the export of
    the last layer's draws. Draws are plain ones, not mirrored pairs.

    Args:
        model: The model.
        guide: The guide; its parameters are kept out of Pyro's global store.
    """

    explicit = False
    independent = False

    def __init__(self, model: BayesianNet, guide: nn.Module):
        super().__init__(model, tuple(model.initial))
        self.stochastic = bool(model.sites)
        keep_local(guide)
        # Not by attribute: Pyro would then ask this guide, as its master, for plates.
        self.add_module("guide", guide)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Call the guide."""
        return self.guide(*args, **kwargs) or {}

    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The guide's own median."""
        return self.guide.median(*args, **kwargs)

    def quantiles(self, quantiles: list[float], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The guide's own quantiles, if it has any."""
        return self.guide.quantiles(quantiles, *args, **kwargs)

    def gaussians(self) -> dict[str, tuple[Tensor, Tensor]]:
        """None are known."""
        return {}

    def assign(self, posterior: Mapping[str, tuple[Tensor, Tensor | None]]) -> None:
        """Refused.

        Raises:
            PosteriorError: Always.
        """
        raise PosteriorError("weights cannot be set in a custom guide")

    def tensors(self) -> dict[str, Tensor]:
        """The guide's state, as ``guide/*``."""
        return {f"guide/{name}": value for name, value in self.guide.state_dict().items()}

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take the guide's state out of ``tensors``; a guide that builds itself has been called before."""
        for name, value in self.guide.state_dict().items():
            value.copy_(take(tensors, f"guide/{name}", value))

    def freeze(self, *modules: str) -> None:
        """Refused.

        Raises:
            RecipeError: Always.
        """
        raise RecipeError("freeze is not supported with a custom guide")

    def freeze_locs(self) -> None:
        """Refused.

        Raises:
            RecipeError: Always.
        """
        self.freeze()
