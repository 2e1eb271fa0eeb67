"""Widths from the Fisher information of clips, without a fit and without labels.

A Laplace approximation with a diagonal (MacKay, 1992; Ritter et al., 2018): per weight 1 / s^2 = 1 / s0^2 + (N / c) h,
for the prior's width s0, N clips, a ``kl_weight`` of c, and the diagonal h of the Fisher information of a clip.
"""

import math
from collections.abc import Sequence

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor

from bayes_panns.bayes import BayesianNet, Part
from bayes_panns.bayes.estimators.lazy_weight import normal_prior
from bayes_panns.bayes.likelihoods import Likelihood
from bayes_panns.core import progress
from bayes_panns.svi.loader import Inputs, one_pass
from bayes_panns.svi.natural_gradient import require_normal_prior, trained_weights

CLIPS = 2000
"""The most clips that the information is estimated from, spread evenly over the set."""

BATCH = 8
"""The most clips of a batch."""

_LEAST_BATCHES = 100
"""Of so many Normal gradients the mean square has a relative standard error of 14 %, and a width of half that."""


def fisher_information(
    model: BayesianNet,
    guide: Part,
    data: Inputs,
    sites: Sequence[str],
    *,
    batch_size: int = BATCH,
    device: torch.device | str,
    workers: int = 0,
) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of a clip, at the posterior means.

    The mean, over clips x and labels y drawn from the model, of the squared gradient of -log p(y | x, w). It equals the
    diagonal of the Gauss-Newton matrix (Martens, 2020, arXiv:1412.1193), and needs no labels. The squared gradient of a
    batch's sum has the sum of the clips' as its mean, whatever the size of the batch; see :func:`random_score` for what
    takes the place of labels. It draws from torch's random state.

    The model runs in eval mode, so that BatchNorm does not move; afterwards it is in the mode that it was in.

    Args:
        model: The model.
        guide: Its guide.
        data: The clips; of more than :data:`CLIPS`, so many. Their targets are not used.
        sites: The sites of the weights.
        batch_size: The most clips a pass.
        device: Where to compute.
        workers: How many processes read clips ahead.

    Returns:
        By site name, the shape of the weight.
    """
    training = model.training
    model.eval()
    means = guide.means()
    means |= {site: means[site].detach().clone().requires_grad_() for site in sites}
    weights = [means[site] for site in sites]
    found = {site: torch.zeros_like(means[site], requires_grad=False) for site in sites}
    chosen = torch.linspace(0, len(data) - 1, min(len(data), CLIPS)).long()
    batches = chosen.tensor_split(max(math.ceil(len(chosen) / batch_size), min(len(chosen), _LEAST_BATCHES)))
    with (
        torch.enable_grad(),
        progress.task("Fisher information", total=len(batches), unit="batch") as bar,
        one_pass(data, batches, device, workers=workers) as read,
    ):
        for clips, _ in read:
            logits = poutine.condition(model, data=means)(clips, embedded=data.embedded)
            score = random_score(model.likelihood, logits)
            for site, gradient in zip(sites, torch.autograd.grad(logits, weights, score), strict=True):
                found[site].addcmul_(gradient, gradient, value=1 / len(chosen))
            bar.advance()
    model.train(training)
    return found


def random_score(likelihood: Likelihood, logits: Tensor) -> Tensor:
    """Random gradients of clips' -log p(y | x) in their logits: mean 0, and the Fisher information as covariance.

    Labels drawn from the model have such gradients. Of one-of-K and multi-label clips random signs make others of less
    noise (Martens et al., 2012, arXiv:1206.6464): most draws miss a rare label, whose information is then far too low.

    Args:
        likelihood: The labels' likelihood.
        logits: Shape ``(batch, K)``.

    Returns:
        Shape ``(batch, K)``.
    """
    logits = logits.detach().requires_grad_()
    labels = likelihood(logits)
    each = getattr(labels, "base_dist", labels)
    if isinstance(each, torch.distributions.Bernoulli):
        probability = each.probs.detach()
        return (probability * (1 - probability)).sqrt() * _signs(probability)
    if isinstance(each, torch.distributions.Categorical):
        # diag(p) - p p' is A A' for A = (I - p 1') diag(p)^(1/2).
        probability = each.probs.detach()
        signs = probability.sqrt() * _signs(probability)
        return signs - probability * signs.sum(dim=-1, keepdim=True)
    return _drawn_score(labels, logits)


def _signs(like: Tensor) -> Tensor:
    return torch.randint_like(like, 2).mul_(2).sub_(1)


def _drawn_score(labels: TorchDistribution, logits: Tensor) -> Tensor:
    """The gradient at labels drawn from the model."""
    with torch.no_grad():
        drawn = labels.sample()
    (score,) = torch.autograd.grad(-labels.log_prob(drawn).sum(), logits)
    return score


def require_fisher(model: BayesianNet, guide: Part) -> None:
    """Check that a guide has widths that the Fisher information can set.

    Raises:
        ValueError: It has no mean-field Normals that are trained, or the prior of one is not Normal.
    """
    weights = trained_weights(guide)
    if not weights:
        raise ValueError("the guide has no mean-field Normal part that is trained, so there are no widths to set")
    for weight in weights:
        require_normal_prior(model, weight.site)


@torch.no_grad()
def start_from_fisher(
    model: BayesianNet,
    guide: Part,
    data: Inputs,
    *,
    clips: int,
    kl_weight: float,
    batch_size: int = BATCH,
    device: torch.device | str,
    workers: int = 0,
) -> None:
    """Set the widths of the mean-field Normals that are trained: 1 / s^2 = 1 / s0^2 + (clips / kl_weight) h.

    This is the fixed point of :class:`~bayes_panns.svi.NaturalGradient` at the present means, with the Fisher
    information as the curvature h. Means, frozen weights and other parts of the guide stay as they are.

    Args:
        model: The model; the priors of the weights must be Normal with s0.
        guide: Its guide.
        data: The clips of the information.
        clips: How many clips the posterior is of.
        kl_weight: The weight of the KL, above 0.
        batch_size: The most clips a pass.
        device: Where to compute.
        workers: How many processes read clips ahead.

    Raises:
        ValueError: The guide has no such widths, a prior is another, or a number is out of its range.
    """
    if clips < 1 or not 0 < kl_weight < math.inf:
        raise ValueError(
            f"widths from the Fisher information need clips and a kl_weight above 0, not {clips} and {kl_weight}"
        )
    require_fisher(model, guide)
    weights = {weight.site: weight for weight in trained_weights(guide)}
    information = fisher_information(
        model, guide, data, tuple(weights), batch_size=batch_size, device=device, workers=workers
    )
    for site, weight in weights.items():
        prior = normal_prior(model.prior(site), weight.loc)
        assert prior is not None, "the prior was checked"
        precision = information[site].mul_(clips / kl_weight).add_(prior.scale.pow(-2))
        weight.log_scale.copy_(precision.log().mul_(-0.5))
