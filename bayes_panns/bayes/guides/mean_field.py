"""The mean-field guide: an independent Normal for each weight, or for factors that weights are made of."""

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoGuide, AutoLowRankMultivariateNormal, init_to_value
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn import PyroModule, PyroParam
from torch import Tensor

from bayes_panns.bayes.estimators.estimators import DrawnNormal
from bayes_panns.bayes.guides.kronecker import fitted_head, head_laplace
from bayes_panns.bayes.guides.rotated import Axes, RotatedNormal, turned
from bayes_panns.bayes.model import BayesianNet
from bayes_panns.bayes.strategy import Strategy
from bayes_panns.nets import HEAD

_WEIGHT, _BIAS = f"net.{HEAD}.weight", f"net.{HEAD}.bias"


class MeanField(AutoGuide):
    """An eager mean-field guide: q(w) = prod_i Normal(w_i | loc_i, scale_i) over every site of a model.

    Unlike Pyro's ``AutoNormal`` it samples the Normal at the site itself, so that ``TraceMeanField_ELBO`` finds the
    closed-form KL; and its parameters exist from construction, so that it loads a ``state_dict`` at once and never runs
    the model to find its sites. They are ``locs.<site>`` and ``log_scales.<site>``.

    A site may have another kind of posterior:

    - ``map``: a point under its prior, ``locs.<site>`` alone; the KL of it is -log prior.
    - ``rotated``, for the last layer: its weight is ``left M right^T`` with M mean-field and orthogonal axes that
      :meth:`align` finds, and its bias such that the logits of the mean embedding, along ``left``, are mean-field. The
      site's parameters are those of the factors, and draw, density and KL a
      :class:`~bayes_panns.bayes.guides.rotated.RotatedNormal`'s.
    - ``low-rank``, for the last layer: Pyro's ``AutoLowRankMultivariateNormal`` over all such sites, as ``low_rank``.

    Usage::

        guide = MeanField(model)
        svi = SVI(model, guide, ClippedAdam({"lr": 1e-3}), TraceMeanField_ELBO())

    Args:
        model: The model, whose weights as built are where the locs start.
        init_scale: The standard deviations at the start: one for all, or by site name.
        estimator: How ``normal`` sites are drawn, one of :data:`ESTIMATORS`; one for all, or by site name.
        posterior: ``normal``, ``map``, ``rotated`` or ``low-rank``; one for all, or by site name. The last two are for
            weight and bias of the last layer, both or none.
    """

    def __init__(
        self,
        model: BayesianNet,
        *,
        init_scale: float | Mapping[str, float] = 0.01,
        estimator: str | Mapping[str, str] = "flipout",
        posterior: str | Mapping[str, str] = "normal",
    ):
        super().__init__(model)
        self.sites = tuple(model.initial)
        self.locs = PyroModule()
        self.log_scales = PyroModule()
        self.axes: Axes | None = None
        self.low_rank: AutoLowRankMultivariateNormal | None = None
        # Pyro's guide inside this one asks it for them; weights are in none.
        self.plates: dict[str, pyro.plate] = {}
        self._estimators, self._kinds = {}, {}
        for name, value in model.initial.items():
            self._estimators[name] = estimator if isinstance(estimator, str) else estimator[name]
            self._kinds[name] = kind = posterior if isinstance(posterior, str) else posterior[name]
            if kind == "low-rank":
                continue
            # Cloning keeps a channels-last weight channels-last, for both parameters.
            deep_setattr(self.locs, name, PyroParam(value.clone(), constraints.real, value.dim()))
            if kind == "map":
                continue
            scale = init_scale if isinstance(init_scale, float) else init_scale[name]
            log_scale = PyroParam(torch.full_like(value, math.log(scale)), constraints.real, value.dim())
            deep_setattr(self.log_scales, name, log_scale)
        if "rotated" in self._kinds.values():
            self.axes = Axes(model.initial[_WEIGHT])
        if packed := self._of("low-rank"):
            self.low_rank = _low_rank(model, packed, init_scale)

    @classmethod
    def from_strategy(cls, model: BayesianNet, strategy: Strategy) -> "MeanField":
        """The guide that a guide recipe describes, for a model made from the same recipe."""
        settings = {name: strategy.settings(site.name) for name, site in model.sites.items()}
        return cls(
            model,
            init_scale={name: settings[name].init_scale / site.fan_in**0.5 for name, site in model.sites.items()},
            estimator={name: chosen.estimator for name, chosen in settings.items()},
            posterior={name: chosen.posterior for name, chosen in settings.items()},
        )

    def _of(self, *kinds: str) -> tuple[str, ...]:
        """The sites of these kinds, in order."""
        return tuple(site for site in self.sites if self._kinds[site] in kinds)

    @property
    def drawn(self) -> tuple[str, ...]:
        """The sites that have a width: all but points under a prior."""
        return self._of("normal", "rotated", "low-rank")

    @property
    def scaled(self) -> tuple[str, ...]:
        """The sites that have a :meth:`loc` and a :meth:`scale`, their own or their factors'."""
        return self._of("normal", "rotated")

    @property
    def independent(self) -> bool:
        """Whether all weights are independent of each other."""
        return not self._of("rotated", "low-rank")

    def loc(self, site: str) -> Tensor:
        """The mean of ``site``, or of its factors: the parameter itself, shape of the weight."""
        return attrgetter(site)(self.locs)

    def scale(self, site: str) -> Tensor:
        """The standard deviation of ``site``, or of its factors, shape of the weight: exp of the parameter."""
        return attrgetter(site)(self.log_scales).exp()

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draw every site; takes the model's arguments, and ignores them.

        Returns:
            The drawn weights by site name.
        """
        drawn: dict[str, Tensor] = {}
        for site in self._of("normal", "map", "rotated"):
            drawn[site] = pyro.sample(site, self._posterior(site, drawn))
        return drawn if self.low_rank is None else drawn | self.low_rank(*args, **kwargs)

    def _posterior(self, site: str, drawn: Mapping[str, Tensor]) -> dist.TorchDistribution:
        """The distribution of ``site``, given those before it."""
        loc = self.loc(site)
        match self._kinds[site]:
            case "map":
                return dist.Delta(loc, event_dim=loc.dim())
            case "rotated":
                assert self.axes is not None
                if site == _WEIGHT:
                    return RotatedNormal(loc, self.scale(site), self.axes.left, self.axes.right)
                shift = -(drawn[_WEIGHT] @ self.axes.centre)
                return RotatedNormal(loc, self.scale(site), self.axes.left, shift=shift)
        normal = DrawnNormal(loc, attrgetter(site)(self.log_scales), self._estimators[site])
        return normal.to_event(loc.dim())

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(loc, scale) of all independent Normals that :meth:`weights` makes weights of, by name.

        Those of a ``normal`` or ``rotated`` site bear its name.
        """
        found = {site: (self.loc(site), self.scale(site)) for site in self.scaled}
        if self.low_rank is not None:
            rank = self.low_rank.loc.new_zeros(self.low_rank.cov_factor.shape[1])
            found["low_rank.own"] = (self.low_rank.loc, self.low_rank.scale)
            found["low_rank.shared"] = (rank, rank + 1)
        return found

    def weights(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights by site name that are made of values of the :meth:`factors`; ``normal`` sites are the values.

        It is linear in the factors.
        """
        made = {}
        for site in self._of("normal", "map", "rotated"):
            kind = self._kinds[site]
            made[site] = self.loc(site) if kind == "map" else factors[site]
            if kind == "rotated":
                assert self.axes is not None
                if site == _WEIGHT:
                    made[site] = turned(factors[site], self.axes.left, self.axes.right)
                else:
                    made[site] = turned(factors[site], self.axes.left, shift=-(made[_WEIGHT] @ self.axes.centre))
        if self.low_rank is not None:
            shared = self.low_rank.scale * (self.low_rank.cov_factor @ factors["low_rank.shared"])
            made |= self._unpacked(factors["low_rank.own"] + shared)
        return made

    def _unpacked(self, values: Tensor) -> dict[str, Tensor]:
        """A vector of the low-rank part by site."""
        shapes = {site: self.model.sites[site].shape for site in self._of("low-rank")}
        parts = values.split([shape.numel() for shape in shapes.values()])
        return {site: part.view(shape) for part, (site, shape) in zip(parts, shapes.items(), strict=True)}

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The posterior medians by site name, which are the means."""
        return {site: mean.clone() for site, mean in self.means().items()}

    @torch.no_grad()
    def means(self) -> dict[str, Tensor]:
        """The posterior means by site name; those of ``normal`` sites are the parameters themselves."""
        centre = {site: self.loc(site).detach() for site in self._of("normal", "rotated", "map")}
        if self.low_rank is not None:
            centre["low_rank.own"] = self.low_rank.loc
            centre["low_rank.shared"] = self.low_rank.loc.new_zeros(self.low_rank.cov_factor.shape[1])
        return {site: mean.detach() for site, mean in self.weights(centre).items()}

    @torch.no_grad()
    def gaussians(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of each weight that has a width, by site name: its own, whatever the axes."""
        means = self.means()
        deviations = {site: self.scale(site) for site in self.scaled}
        if self.axes is not None:
            left, right = self.axes.left, self.axes.right
            deviations[_WEIGHT] = RotatedNormal(means[_WEIGHT], self.scale(_WEIGHT), left, right).variance.sqrt()
            # Where the bias counts from, the weight's own spread is part of it.
            beneath = self.scale(_WEIGHT).square() @ (right.T @ self.axes.centre).square()
            spread = (self.scale(_BIAS).square() + beneath).sqrt()
            deviations[_BIAS] = RotatedNormal(means[_BIAS], spread, left).variance.sqrt()
        if self.low_rank is not None:
            deviations |= self._unpacked(self.low_rank.get_posterior().variance.sqrt())
        return {site: (means[site], deviations[site].detach()) for site in self.drawn}

    @torch.no_grad()
    def quantiles(self, quantiles: list[float], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Posterior quantiles by site name, each of shape ``(len(quantiles), *weight shape)``."""
        standard = [dist.Normal(0.0, 1.0).icdf(torch.tensor(q)) for q in quantiles]
        found = {site: (mean, torch.zeros_like(mean)) for site, mean in self.means().items()} | self.gaussians()
        return {site: torch.stack([mean + each * std for each in standard]) for site, (mean, std) in found.items()}

    @torch.no_grad()
    def assign(self, posterior: Mapping[str, tuple[Tensor, Tensor | None]]) -> None:
        """Set weights to given means and standard deviations, by site name; ``None`` leaves those as they are.

        Of a rotated site these are its own, as its axes are before :meth:`align`; a low-rank part takes means only.
        """
        for site, (loc, scale) in posterior.items():
            if self.low_rank is not None and self._kinds[site] == "low-rank":
                self._unpacked(self.low_rank.loc)[site].copy_(loc)
                continue
            self.loc(site).copy_(loc)
            if scale is not None and self._kinds[site] != "map":
                attrgetter(site)(self.log_scales).copy_(scale.log())

    def align(self, views: Tensor, target: Tensor | None = None) -> float:
        """Give the rotated last layer its axes, and start it from the Laplace approximation around its mean.

        Where the prior's width is learned, that starts from the width of the greatest evidence. See
        :func:`~bayes_panns.bayes.head_laplace`.

        Args:
            views: The clips' embeddings, shape ``(N, V, E)``: V views of each clip.
            target: The labels, as the likelihood takes them: the mean is first fitted to them. Without them it stays.

        Returns:
            The prior's standard deviation at which the weight starts.
        """
        assert self.axes is not None, "no site is rotated"
        model = self.model
        views = views.to(self.axes.centre)
        tau, tau_bias = (model.prior(site).variance.mean().sqrt().item() for site in (_WEIGHT, _BIAS))
        if target is None:
            means = self.means()
            weight, bias = means[_WEIGHT], means[_BIAS]
        else:
            target, labels = target.to(views.device), len(self.axes.left)
            weight, bias = fitted_head(views, target, labels, model.likelihood, bias_prior_scale=tau_bias)
        found = head_laplace(
            views,
            weight,
            bias,
            model.likelihood,
            prior_scale=None if _WEIGHT in model.learned else tau,
            bias_prior_scale=tau_bias,
        )
        if _WEIGHT in model.learned:
            model.set_prior_scale(_WEIGHT, found.prior_scale)
        with torch.no_grad():
            for name in ("left", "right", "centre"):
                getattr(self.axes, name).copy_(getattr(found, name))
            self.loc(_WEIGHT).copy_(self.axes.left.T @ weight @ self.axes.right)
            self.loc(_BIAS).copy_(self.axes.left.T @ (bias + weight @ self.axes.centre))
            attrgetter(_WEIGHT)(self.log_scales).copy_(found.scale.log())
            attrgetter(_BIAS)(self.log_scales).copy_(found.bias_scale.log())
        return found.prior_scale

    def freeze(self, *parts: str) -> None:
        """Stop training the posterior of every site inside these modules of the network."""
        prefixes = tuple(f"net.{part}." for part in parts)
        for site in self.sites:
            if not site.startswith(prefixes):
                continue
            if self.low_rank is not None and self._kinds[site] == "low-rank":
                self.low_rank.requires_grad_(False)
                continue
            for group in (self.locs,) if self._kinds[site] == "map" else (self.locs, self.log_scales):
                attrgetter(f"{site}_unconstrained")(group).requires_grad_(False)

    def freeze_locs(self) -> None:
        """Stop training every mean; what else there is of the posterior goes on."""
        for parameter in self.locs.parameters():
            parameter.requires_grad_(False)
        if self.low_rank is not None:
            self.low_rank.loc.requires_grad_(False)


def _low_rank(
    model: BayesianNet, sites: tuple[str, ...], init_scale: float | Mapping[str, float]
) -> AutoLowRankMultivariateNormal:
    """Pyro's guide over these sites, built at once: of the model it needs the sites alone, so the last layer is run."""
    width = init_scale if isinstance(init_scale, float) else init_scale[sites[0]]
    # A copy: the guide keeps its start, and must not keep the weights of the network.
    start = init_to_value(values={site: model.initial[site].clone() for site in sites})
    guide = AutoLowRankMultivariateNormal(poutine.block(model, expose=list(sites)), start, width)
    with torch.no_grad():
        guide(model.initial[_WEIGHT].new_zeros(1, model.sites[_WEIGHT].shape[1]), embedded=True)
    return guide
