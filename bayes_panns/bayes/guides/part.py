"""What every posterior family has in common: the interface of a part of a guide."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from bayes_panns.bayes.local_parameters import LocalParameters
from bayes_panns.bayes.model import BayesianNet
from bayes_panns.bayes.strategy import Settings


class Part(AutoGuide, LocalParameters):
    """A posterior family over some of a model's sites: by itself a Pyro guide of a model that has no others.

    A family of your own is a subclass that defines :meth:`forward`, :meth:`factors`, :meth:`weights`,
    :meth:`gaussians`, :meth:`assign`, :meth:`tensors`, :meth:`load_tensors`, :meth:`freeze_site` and
    :meth:`freeze_locs`, and, to be made by a guide recipe, :meth:`for_sites`.

    Every family here is a linear function of independent Normal factors, w = A (m + s e) + b with e standard Normal.
    Its means, and draws in mirrored pairs (:func:`~bayes_panns.bayes.mirrored_draws`), follow from :meth:`factors` and
    :meth:`weights`.

    Args:
        model: The model.
        sites: The Pyro sites of the part, such as ``net.fc1.weight``, in the model's order.

    Attributes:
        sites: The same.
        explicit: Whether means and standard deviations of the weights are known, not only draws. The methods above need
            it, and so do mirrored draws, propagated moments, transfer, and freezing.
        independent: Whether all weights are independent of each other, as propagated moments need.
        stochastic: Whether two draws can differ.
        assigns_widths: Whether :meth:`assign` takes over standard deviations.
        needs_embeddings: Whether :meth:`prepare` must be given the clips' embeddings before a fit.
    """

    explicit: bool = True
    independent: bool = True
    stochastic: bool = True
    assigns_widths: bool = True
    needs_embeddings: bool = False

    def __init__(self, model: BayesianNet, sites: Sequence[str]):
        super().__init__(model)
        unknown = [site for site in sites if site not in model.initial]
        if unknown:
            raise ValueError(f"the model has no site {unknown[0]}; it has {', '.join(model.initial) or 'none'}")
        self.sites = tuple(sites)

    @classmethod
    def for_sites(cls, model: BayesianNet, settings: Mapping[str, Settings]) -> Self:
        """The part that a guide recipe describes, over the sites that ``settings`` names."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site of the part; takes the model's arguments.

        Returns:
            The drawn weights by site name.
        """
        raise NotImplementedError

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(loc, scale) of the independent Normals that :meth:`weights` makes weights of, by a name of their own."""
        raise NotImplementedError

    def weights(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights by site name for values of the :meth:`factors`; a linear function of them."""
        raise NotImplementedError

    def gaussians(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Marginal mean and standard deviation of each weight, by site name; sites without a width are left out."""
        raise NotImplementedError

    def points(self) -> dict[str, Tensor]:
        """The weights of sites without a width, by site name: the parameters themselves, not copies."""
        return {}

    def assign(self, posterior: Mapping[str, tuple[Tensor, Tensor | None]]) -> None:
        """Set the weights to given means and standard deviations, by site name; ``None`` keeps the deviations.

        Raises:
            ValueError: A site is not of this part.
        """
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """What ``guide.safetensors`` holds of the part, by the name there."""
        raise NotImplementedError

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take the part's tensors out of ``tensors``, as :meth:`tensors` names them.

        Raises:
            KeyError: One is missing.
            RuntimeError: One is of another shape.
        """
        raise NotImplementedError

    def freeze(self, *modules: str) -> None:
        """Stop training every site inside these modules of the network."""
        prefixes = tuple(f"net.{module}." for module in modules)
        for site in self.sites:
            if site.startswith(prefixes):
                self.freeze_site(site)

    def freeze_site(self, site: str) -> None:
        """Stop training one site."""
        raise NotImplementedError

    def freeze_locs(self) -> None:
        """Stop training every mean; the widths are still trained."""
        raise NotImplementedError

    def prepare(self, embeddings: Tensor | None, target: Tensor | None) -> None:
        """Start from the clips, once before a fit.

        Args:
            embeddings: The clips' embeddings, shape ``(N, V, E)``: V views of each clip; ``None`` where a fit has none.
            target: The labels, as the likelihood takes them, if the last layer is new; ``None`` keeps its mean.
        """

    @torch.no_grad()
    def means(self) -> dict[str, Tensor]:
        """The posterior means by site name, which may be the parameters themselves."""
        centre = {name: loc.detach() for name, (loc, _) in self.factors().items()}
        return {site: mean.detach() for site, mean in self.weights(centre).items()}

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The posterior medians by site name, which are the means; takes the model's arguments, and ignores them."""
        return {site: mean.clone() for site, mean in self.means().items()}

    @torch.no_grad()
    def quantiles(self, quantiles: list[float], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Posterior quantiles by site name, each of shape ``(len(quantiles), *weight shape)``."""
        standard = [dist.Normal(0.0, 1.0).icdf(torch.tensor(quantile)) for quantile in quantiles]
        found = {site: (mean, torch.zeros_like(mean)) for site, mean in self.means().items()} | self.gaussians()
        return {site: torch.stack([mean + each * std for each in standard]) for site, (mean, std) in found.items()}

    def _require(self, sites: Mapping[str, Any]) -> None:
        for site in sites:
            if site not in self.sites:
                raise ValueError(f"the guide has no site {site}")


def parameter_name(site: str) -> str:
    """The parameter of a Pyro site, by its name in the network: ``fc1.weight`` for ``net.fc1.weight``."""
    return site.removeprefix("net.")


def take(tensors: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    """Take a tensor out of ``tensors``.

    Raises:
        KeyError: It is missing.
        RuntimeError: Its shape is not that of ``like``.
    """
    value = tensors.pop(name)
    if value.shape != like.shape:
        raise RuntimeError(f"{name} is of shape {tuple(value.shape)}, not {tuple(like.shape)}")
    return value
