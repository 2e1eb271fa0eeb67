"""Natural-gradient steps for mean-field Normal posteriors, with the curvature from gradients.

For q(w) = Normal(m, s^2) under the prior Normal(m0, s0^2), N clips and a ``kl_weight`` of c, the loss of
:class:`~bayes_panns.svi.MeanFieldELBO` a clip is L = E_q[nll(w)] + (c / N) KL. Per weight:

| symbol | what |
|---|---|
| a = N / c | the precision that one unit of a clip's curvature is worth |
| d = 1 / (a s0^2) | the curvature that the prior is worth |
| h | the curvature: E_q of the second derivative of a clip's NLL, or an estimate that cannot be negative |
| g | the gradient of L in m: that of the NLL, g_nll, plus d (m - m0) |
| B | clips a batch |

A natural-gradient step in the Normal's precision and mean (Khan et al., 2018, arXiv:1806.04854; Khan and Rue, 2023,
arXiv:2107.04562) is then, at the rates 1 - b and r::

    h <- b_t h + (1 - b_t) h_batch        s^2 = 1 / (a (h + d))
    v <- b1 v + (1 - b1) g            m <- m - r clip(v / ((1 - b1^t) (h + d)))

where b_t is b, or less in the first steps, so that a start that is no estimate has no weight in the average:
b_t = b (1 - b^(t-1)) / (1 - b^t), as in Adam. At its fixed point g = 0 and 1 / s^2 = 1 / s0^2 + a h: the optimum of L,
as far as the estimate of h is right. An estimate comes from each batch:

- ``squared-gradients``: B g^2, close to Osawa et al., 2019 (arXiv:1906.02506), who square the gradient of the NLL
  alone. Its mean is the variance of a clip's gradient, which where the model is right is the Fisher information; plus
  B (E g)^2, which is 0 at the fixed point and slows a fit far from it; plus what the draw of the weights adds to the
  variance, about B s^2 h^2, a share of up to B / a. Where labels are fitted with certainty it falls below the Fisher
  information; where they are wrong it lies above.
- ``gauss-newton``: B g_nll^2 at labels drawn from the model, for which E g_nll = 0. Without bias for the diagonal of
  the Gauss-Newton matrix, which leaves out the second derivatives of the network.
- ``price``: noise times gradient over s^2, as Shen et al., 2024 (arXiv:2402.17641). Without bias for E_q of the second
  derivative itself, but noisy; it can be negative, and the step then keeps h + d positive (Lin et al., 2020,
  arXiv:2002.10060, eq. 8).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from bayes_panns.bayes import BayesianNet, ComposedGuide, MeanField, Part, RotatedHead
from bayes_panns.bayes.estimators.blocks import each_block
from bayes_panns.bayes.estimators.draw_and_kl import NormalPrior, flat, flat_prior, normal_kl
from bayes_panns.bayes.estimators.lazy_weight import normal_prior
from bayes_panns.core.choices import Curvature


@dataclass(frozen=True)
class TrainedWeight:
    """A weight that natural gradients fit.

    Attributes:
        site: Its site.
        loc: The guide's parameter of its mean.
        log_scale: The guide's parameter of the logarithm of its standard deviation.
    """

    site: str
    loc: Tensor
    log_scale: Tensor


class NaturalGradient(torch.optim.Optimizer):
    """The natural-gradient optimiser of the mean-field Normal parts of a guide.

    It takes the place of Adam for their means and standard deviations. The widths follow from the curvature; their
    parameters require no gradient from then on, whether they did before or not. All other parameters need an optimiser
    of their own. See the module for the equations.

    Its memory is one tensor a weight, the momentum, beside the guide's own two.

    Usage::

        model = BayesianNet(net, priors, OneOfK(), clips=320)
        guide = MeanField(model, estimator="weights")
        elbo = MeanFieldELBO()(model, guide)            # or pyro.infer.TraceMeanField_ELBO()
        optimizer = NaturalGradient(model, guide, clips=320)
        for clips, target in batches:
            optimizer.zero_grad()
            (elbo(clips, target) / 320).backward()
            optimizer.step(len(clips))

    Args:
        model: The model; the priors of the weights must be Normal.
        guide: Its guide: a :class:`~bayes_panns.bayes.MeanField`, or a guide that has such parts.
        clips: N, the size of the data set.
        kl_weight: c, the weight of the KL in the loss; above 0.
        learning_rate: r, in (0, 1] of a Newton step.
        momentum: b1, in [0, 1).
        memory: b, in [0, 1): how much of the curvature a step keeps.
        clip: The largest step of a mean before the learning rate, in units of its prior's standard deviation.
        curvature: One of :class:`~bayes_panns.core.choices.Curvature`. ``gauss-newton`` needs the gradients of
            :meth:`MeanFieldELBO.sampled_nll`; see :meth:`step`.
        adds_kl: Whether the loss leaves out the KL of the sites in :attr:`without_kl`, as :class:`MeanFieldELBO` can.
            A step then adds its gradient: one pass over the weights less.
        trusts_start: Whether the guide's first widths are estimates, which the average of the curvature starts from.
            If not, only the first draw depends on them; with ``price`` they last longer, since a step changes the
            precision by a factor of 0.5 to 2.5 at most.

    Raises:
        ValueError: A prior is not Normal, a mean is frozen while its width is not, the guide has no mean-field Normal
            part that is trained, or a number is out of its range.
    """

    def __init__(
        self,
        model: BayesianNet,
        guide: Part,
        *,
        clips: int,
        kl_weight: float = 1.0,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        memory: float = 0.95,
        clip: float = 0.3,
        curvature: Curvature | str = Curvature.SQUARED_GRADIENTS,
        adds_kl: bool = False,
        trusts_start: bool = False,
    ):
        if clips < 1 or not 0 < kl_weight < math.inf:
            raise ValueError(f"natural gradients need clips and a kl_weight above 0, not {clips} and {kl_weight}")
        if not (0 < learning_rate <= 1 and 0 <= momentum < 1 and 0 <= memory < 1 and clip > 0):
            raise ValueError(
                f"learning_rate {learning_rate} must be in (0, 1], momentum {momentum} and memory {memory} in [0, 1), "
                f"clip {clip} above 0"
            )
        self._model, self._precision = model, clips / kl_weight
        self._curvature, self._adds_kl, self._trusts_start = Curvature(curvature), adds_kl, trusts_start
        require_natural(model, guide)
        self._weights = trained_weights(guide)
        if not self._weights:
            raise ValueError("the guide has no mean-field Normal part that is trained")
        for weight in self._weights:
            weight.log_scale.requires_grad_(self._curvature == Curvature.PRICE)
        settings = {"lr": learning_rate, "momentum": momentum, "memory": memory, "clip": clip}
        super().__init__([weight.loc for weight in self._weights], settings)

    @property
    def locs(self) -> list[Tensor]:
        """The parameters that hold the means, in order."""
        return [weight.loc for weight in self._weights]

    @property
    def without_kl(self) -> frozenset[str]:
        """The sites whose KL the loss must leave out, because a step adds its gradient.

        Of a prior whose width is learned the KL stays in the loss: the width needs its gradient.
        """
        return frozenset(weight.site for weight in self._weights if self._adds(weight))

    @torch.no_grad()
    def kl(self) -> float:
        """The KL that the loss leaves out, in nats."""
        found = [
            normal_kl(weight.loc, weight.log_scale, self._prior(weight)).item()
            for weight in self._weights
            if self._adds(weight)
        ]
        return sum(found)

    def _adds(self, weight: TrainedWeight) -> bool:
        """Whether a step adds the gradient of a weight's KL."""
        return self._adds_kl and weight.site not in self._model.learned

    def _prior(self, weight: TrainedWeight) -> NormalPrior:
        prior = normal_prior(self._model.prior(weight.site), weight.loc)
        assert prior is not None, "the priors were checked"
        return prior

    @property
    def handles(self) -> set[int]:
        """The ``id`` of each parameter that this optimiser changes: means and log-scales."""
        return {id(each) for weight in self._weights for each in (weight.loc, weight.log_scale)}

    @property
    def samples_labels(self) -> bool:
        """Whether :meth:`step` needs gradients at labels drawn from the model."""
        return self._curvature == Curvature.GAUSS_NEWTON

    @torch.no_grad()
    def step(self, batch: int, sampled: Sequence[Tensor | None] | None = None) -> None:  # type: ignore[override]
        """One step, from the gradients that a backward pass of the loss a clip has left.

        Args:
            batch: B, how many clips the gradients are of.
            sampled: With ``gauss-newton``, the gradients of :attr:`locs` of the NLL a clip at labels drawn from the
                model.

        Raises:
            ValueError: ``sampled`` is missing, or given where it is not used.
        """
        if (sampled is not None) != self.samples_labels:
            raise ValueError(f"the curvature {self._curvature} takes {'' if self.samples_labels else 'no '}sampled")
        (group,) = self.param_groups
        for number, weight in enumerate(self._weights):
            if weight.loc.grad is None:
                continue
            state = self.state[weight.loc]
            if not state:
                state["step"] = 0
                state["known"] = float(self._trusts_start)
                state["momentum"] = torch.zeros_like(weight.loc)
            prior = self._prior(weight)
            state["step"] += 1
            # A learned prior's width has changed since the last step, and with it what the scales say of h.
            before = state.get("prior_scale", prior.scale)
            if weight.site in self._model.learned:
                state["prior_scale"] = prior.scale.clone()
            self._update(weight, state, prior, before, group, batch, None if sampled is None else sampled[number])
            # zero_grad knows the means only.
            weight.log_scale.grad = None

    def _update(
        self,
        weight: TrainedWeight,
        state: dict[str, Any],
        prior: NormalPrior,
        before: Tensor,
        settings: dict[str, Any],
        batch: int,
        sampled: Tensor | None,
    ) -> None:
        """One pass over a weight, in blocks; ``before`` is the prior's scale at the last step."""
        like, a = weight.loc.detach(), self._precision
        grad, price = weight.loc.grad, self._curvature == Curvature.PRICE
        assert grad is not None
        flats = [flat(each, like) for each in (like, weight.log_scale, state["momentum"], grad)]
        other = weight.log_scale.grad if price else sampled
        others = None if other is None else flat(other, like)
        priors, earlier = flat_prior(prior, like), flat_prior(NormalPrior(None, before), like)
        # A start wider than the prior stands for a curvature below 0, and its draws would last for many steps.
        unchanged = before is prior.scale and state["step"] > 1
        keep, smooth = self._kept(state, settings["memory"]), settings["momentum"]
        unbiased, adds = 1 - smooth ** state["step"], self._adds(weight)

        def work(index: int, span: slice, scratch: list[Tensor], generator: torch.Generator | None) -> None:
            here = priors.at(span)
            ours = here.scale.pow(-2)  # a d, what the prior adds to the precision
            loc, log_scale, velocity, grad = (each[span] for each in flats)
            precision = torch.mul(log_scale, -2, out=scratch[0]).exp_()
            # What the gradient of the log-scale says of the curvature is times the precision that it was drawn with.
            curvature = others[span] * precision * a if price and others is not None else None
            if curvature is not None and not adds:
                # Without the gradient of the KL, (s^2 / s0^2 - 1) / a.
                curvature += precision - ours
            if not unchanged:
                precision.sub_(earlier.at(span).scale.pow(-2)).clamp_(min=0).add_(ours)
            if adds:
                grad = torch.mul(here.distance(loc, scratch[1]), ours / a, out=scratch[1]).add_(grad)
            velocity.lerp_(grad, 1 - smooth)
            if curvature is not None:
                # Squared, the change leaves the precision positive; bounded, it does not explode.
                change = (curvature + ours).div_(precision).sub_(1).mul_(1 - keep).clamp_(-1, 1)
                precision.addcmul_(precision, change + change.square() / 2)
            else:
                squared = grad if others is None else others[span]
                precision.mul_(keep).addcmul_(squared, squared, value=(1 - keep) * batch * a).add_((1 - keep) * ours)
            change = torch.div(velocity, precision, out=scratch[1])
            bound = (unbiased * settings["clip"] / a) * here.scale
            change = torch.clamp(change, min=-bound, max=bound, out=scratch[1])
            loc.sub_(change, alpha=settings["lr"] * a / unbiased)
            torch.log(precision, out=log_scale).mul_(-0.5)

        each_block(like, work)

    def _kept(self, state: dict[str, Any], memory: float) -> float:
        """How much of the curvature this step keeps: b, or less while the average is young and the start is no part."""
        before = state["known"]
        state["known"] = memory * before + 1 - memory
        return memory * before / state["known"]


def require_natural(model: BayesianNet, guide: Part) -> None:
    """Check that natural gradients can fit the mean-field Normals of a guide, if it has any.

    Raises:
        ValueError: A prior is not Normal, or a mean is frozen while its width is not.
    """
    for weight in trained_weights(guide):
        if not weight.loc.requires_grad:
            raise ValueError(f"site {weight.site}: natural gradients fit means and widths together; its mean is frozen")
        require_normal_prior(model, weight.site)


def require_normal_prior(model: BayesianNet, site: str, *, centred: bool = False) -> None:
    """Check that natural gradients can fit a weight under its prior.

    Args:
        model: The model.
        site: The weight's site.
        centred: Whether the prior's mean must be 0.

    Raises:
        ValueError: The prior is another.
    """
    prior = model.prior(site)
    normal = normal_prior(prior, torch.empty(prior.event_shape, device="meta"))
    if normal is None or (centred and prior.mean.any()):
        base = type(getattr(prior, "base_dist", prior)).__name__
        raise ValueError(
            f"the prior of {site.removeprefix('net.')} must be Normal{' with mean 0' if centred else ''}, and it is "
            f"{base if normal is None else 'around other means'}"
        )


def trained_weights(guide: Part, *, rotated: bool = False) -> list[TrainedWeight]:
    """The mean-field Normals of a guide whose mean or width a fit changes.

    Args:
        guide: The guide.
        rotated: Whether a rotated last layer counts, by its factors.
    """
    parts = guide.parts if isinstance(guide, ComposedGuide) else (guide,)
    found = []
    for part in parts:
        if not isinstance(part, MeanField) or (isinstance(part, RotatedHead) and not rotated):
            continue
        for site in part.sites:
            loc, log_scale = (attrgetter(f"{site}_unconstrained")(group) for group in (part.locs, part.log_scales))
            # Natural gradients set widths without a gradient of their own.
            if loc.requires_grad or log_scale.requires_grad:
                found.append(TrainedWeight(site, loc, log_scale))
    return found
