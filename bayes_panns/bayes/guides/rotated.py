"""A last layer that is mean-field along the axes of its inputs and outputs.

| symbol | shape | what |
|---|---|---|
| W, b | (K, E), (K,) | weight and bias of the last layer |
| U, V | (K, K), (E, E) | axes of the labels and of the embedding |
| M, c | (K, E), (K,) | independent Normal factors |
| phi0 | (E,) | the mean embedding |

The last layer::

    W = U M V^T
    b = U c - W phi0,    so that the logits of the mean embedding are U c

:meth:`RotatedHead.align` finds U, V and phi0 from the clips; before it they are the identity and 0.
"""

import logging
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from bayes_panns.bayes.guides.kronecker import kronecker_gaussian
from bayes_panns.bayes.guides.mean_field import MeanField
from bayes_panns.bayes.guides.part import take
from bayes_panns.bayes.guides.rotated_normal import RotatedNormal, rotate
from bayes_panns.bayes.logistic import logistic_regression
from bayes_panns.bayes.model import BayesianNet

logger = logging.getLogger(__name__)


class RotatedHead(MeanField):
    """A rotated mean-field guide of the last layer, its weight and its bias; see the module.

    Along the eigenvectors of embeddings and logits independent Normals come close to the exact posterior. The
    parameters ``locs`` and ``log_scales`` are those of the factors M and c; draw, density and KL those of
    :class:`~bayes_panns.bayes.RotatedNormal`.

    Args:
        model: The model.
        **options: As for :class:`MeanField`. ``init_scale`` is that of the factors, and :meth:`align` replaces it.

    Attributes:
        axes: The buffers U, V and phi0 as ``left``, ``right`` and ``centre``.
    """

    independent = False
    needs_embeddings = True

    def __init__(self, model: BayesianNet, **options: Any):
        options.setdefault("sites", model.head_sites)
        super().__init__(model, **options)
        self._weight, self._bias = require_head(model, self.sites)
        self.axes = Axes(model.initial[self._weight])

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draw weight and bias; takes the model's arguments, and ignores them."""
        axes, weight, bias = self.axes, self._weight, self._bias
        drawn = {
            weight: pyro.sample(weight, RotatedNormal(self.loc(weight), self.scale(weight), axes.left, axes.right))
        }
        shift = -(drawn[weight] @ axes.centre)
        drawn[bias] = pyro.sample(bias, RotatedNormal(self.loc(bias), self.scale(bias), axes.left, shift=shift))
        return drawn

    def weights(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """W and b for values of M and c, which bear their names."""
        axes = self.axes
        weight = rotate(factors[self._weight], axes.left, axes.right)
        return {self._weight: weight, self._bias: rotate(factors[self._bias], axes.left, shift=-(weight @ axes.centre))}

    @torch.no_grad()
    def gaussians(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Marginal mean and standard deviation of each weight along its own axes, by site name."""
        means, axes = self.means(), self.axes
        scale, bias_scale = self.scale(self._weight), self.scale(self._bias)
        weight = RotatedNormal(means[self._weight], scale, axes.left, axes.right)
        # The bias counts from phi0, so the weight's own spread there is part of its spread.
        beneath = scale.square() @ (axes.right.T @ axes.centre).square()
        bias = RotatedNormal(means[self._bias], (bias_scale.square() + beneath).sqrt(), axes.left)
        deviations = {self._weight: weight.variance.sqrt(), self._bias: bias.variance.sqrt()}
        return {site: (means[site], deviations[site].detach()) for site in self.sites}

    def tensors(self) -> dict[str, Tensor]:
        """``<parameter>.loc`` and ``<parameter>.scale`` of the factors, and the axes as ``guide/axes.*``."""
        return super().tensors() | {f"guide/axes.{name}": value for name, value in self.axes.named_buffers()}

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take the factors and the axes out of ``tensors``."""
        super().load_tensors(tensors)
        for name, value in self.axes.named_buffers():
            value.copy_(take(tensors, f"guide/axes.{name}", value))

    def prepare(self, embeddings: Tensor | None, target: Tensor | None) -> None:
        """Align the layer with the clips; see :meth:`align`.

        Raises:
            ValueError: There are no embeddings.
        """
        if embeddings is None:
            raise ValueError("a rotated last layer takes its axes from embeddings, and there are none")
        width = self.align(embeddings, target)
        start = "the upstream posterior's" if target is None else "fitted to the clips"
        logger.info(f"last layer rotated: its mean is {start}, its prior's standard deviation {width:.3g}")

    def align(self, views: Tensor, target: Tensor | None = None) -> float:
        """Find the axes, and start from the Kronecker-factored Laplace approximation around the mean.

        Where the width of the prior is learned, it starts at the width of the greatest evidence. See
        :func:`~bayes_panns.bayes.kronecker_gaussian`.

        Args:
            views: The clips' embeddings, shape ``(N, V, E)``: V views of each clip.
            target: The labels, as the likelihood takes them: the mean is first fitted to them. Without them it stays.

        Returns:
            The prior's standard deviation at which the weight starts.
        """
        model, axes = self.model, self.axes
        views = views.to(axes.centre)
        tau, tau_bias = (model.prior(site).variance.mean().sqrt().item() for site in (self._weight, self._bias))
        if target is None:
            means = self.means()
            weight, bias = means[self._weight], means[self._bias]
        else:
            target = target.to(views.device)
            weight, bias = logistic_regression(
                views, target, len(axes.left), model.likelihood, bias_prior_scale=tau_bias
            )
        learned = self._weight in model.learned
        found = kronecker_gaussian(
            views, weight, bias, model.likelihood, prior_scale=None if learned else tau, bias_prior_scale=tau_bias
        )
        if learned:
            model.set_prior_scale(self._weight, found.prior_scale)
        self.set_factors(
            left=found.left,
            right=found.right,
            centre=found.centre,
            loc=found.left.T @ weight @ found.right,
            scale=found.scale,
            bias_loc=found.left.T @ (bias + weight @ found.centre),
            bias_scale=found.bias_scale,
        )
        return found.prior_scale

    @torch.no_grad()
    def set_factors(
        self,
        *,
        left: Tensor,
        right: Tensor,
        centre: Tensor,
        loc: Tensor,
        scale: Tensor,
        bias_loc: Tensor,
        bias_scale: Tensor,
    ) -> None:
        """Set the axes, and means and standard deviations of the factors M and c; shapes as in the module."""
        axes = self.axes
        for name, value in (("left", left), ("right", right), ("centre", centre)):
            getattr(axes, name).copy_(value)
        self.loc(self._weight).copy_(loc)
        self.loc(self._bias).copy_(bias_loc)
        attrgetter(self._weight)(self.log_scales).copy_(scale.log())
        attrgetter(self._bias)(self.log_scales).copy_(bias_scale.log())


class Axes(nn.Module):
    """The axes of a rotated last layer, and the embedding that its bias counts from; at first the identity, and 0.

    Args:
        weight: The layer's weight, ``(K, E)``.

    Attributes:
        left: Orthogonal, ``(K, K)``.
        right: Orthogonal, ``(E, E)``.
        centre: ``(E,)``.
    """

    left: Tensor
    right: Tensor
    centre: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        labels, embedding = weight.shape
        self.register_buffer("left", torch.eye(labels).to(weight))
        self.register_buffer("right", torch.eye(embedding).to(weight))
        self.register_buffer("centre", weight.new_zeros(embedding))


def require_head(model: BayesianNet, sites: tuple[str, ...]) -> tuple[str, str]:
    """The weight and the bias of the last layer, after a check that ``sites`` are these two.

    Raises:
        ValueError: They are not.
    """
    if sites != model.head_sites:
        raise ValueError(
            f"this family is for {' and '.join(model.head_sites)}, not for {', '.join(sites) or 'no site'}"
        )
    weight, bias = model.head_sites
    return weight, bias
