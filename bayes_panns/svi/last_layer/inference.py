"""Natural-gradient variational inference of a rotated last layer, on all clips at once.

| symbol | shape | what |
|---|---|---|
| x_n | (R,) | the input of clip n along the axes; see :mod:`bayes_panns.svi.last_layer.axes` |
| M, S | (K, R) | means and standard deviations of the weights along the axes |
| c, s | (K,) | those of the logits of the mean embedding |
| tau, tau_b | | standard deviations of the prior of M and of c |
| kappa | | the weight of the KL |

Under the mean-field posterior the logits of a clip along U are independent Normals::

    mean_n = M x_n + c        var_n = S^2 x_n^2 + s^2        squares taken element by element

so the objective, expected NLL + kappa KL, needs draws of K numbers a clip: local reparameterization, exact for a linear
layer that is applied once a clip (Kingma, Salimans and Welling, 2015, arXiv:1506.02557). With r_n and h_n the expected
gradient and minus the expected second derivatives of the log-likelihood along U, and r the step size::

    1 / S^2  <-  (1 / S^2)^(1-r) (sum_n h_n x_n^2 / kappa + 1 / tau^2)^r
    M        <-  M + r S^2 / kappa (sum_n r_n x_n - kappa M / tau^2)

and likewise for c and s. This is the natural-gradient step for a Normal (Khan and Lin, 2017, arXiv:1703.04265; Khan et
al., 2018, arXiv:1806.04854), with a geometric mean of precisions in place of an arithmetic one. Its fixed point is the
optimum of the objective: Opper and Archambeau, 2009, "The Variational Gaussian Approximation Revisited".

A posterior of earlier clips can be the prior of later ones: its means and standard deviations along its own axes then
take the places of 0 and tau, and the KL is from it. With the KL's weight kept, this is what all clips together would
give, but for what a mean-field posterior forgets of their correlations (Broderick et al., 2013, arXiv:1307.6769).

The noise is drawn once, in mirrored pairs, so the objective is a function of the parameters: a step that raises it is
taken back and made smaller, one that lowers it makes the next one larger. Several (tau, kappa) are inferred together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_panns.bayes import Likelihood
from bayes_panns.core.choices import Task
from bayes_panns.core.draw_count import draw_count
from bayes_panns.svi.last_layer.axes import HeadAxes, curvature_axes, embedding_axes
from bayes_panns.svi.last_layer.objective import NUMBERS, Fixed, Problem, State, along, evaluate

ITERATIONS = 100
"""The most steps; most fits end sooner."""

_PAIRS = 4
"""Mirrored pairs of draws a clip in a fit."""

_TOLERANCE, _PATIENCE = 1e-4, 8
"""A fit ends when no objective has fallen by so many nats a clip (times kappa) in any of so many steps."""

_GROW, _SHRINK = 1.25, 0.4
"""What the step size is multiplied with after a good step and after one that is taken back."""

_START_SCALE, _START_WEIGHT, _START_STEPS = 0.3, 0.01, 25
"""tau, kappa and steps of the short fit that finds U: close to logistic regression."""


@dataclass(frozen=True)
class HeadPrior:
    """The posterior of earlier clips, along its axes.

    Attributes:
        loc: M, ``(K, R)``.
        scale: S, ``(K, R)``.
        bias_loc: c, ``(K,)``.
        bias_scale: s, ``(K,)``.
    """

    loc: Tensor
    scale: Tensor
    bias_loc: Tensor
    bias_scale: Tensor


@dataclass(frozen=True)
class HeadPosterior:
    """Mean-field posteriors of a last layer along its axes, for G pairs of tau and kappa.

    Attributes:
        axes: The axes.
        prior_scale: tau, in units of the embeddings' spread, ``(G,)``.
        kl_weight: kappa, ``(G,)``.
        loc: M, ``(G, K, R)``.
        scale: S, ``(G, K, R)``.
        bias_loc: c, ``(G, K)``.
        bias_scale: s, ``(G, K)``.
        nll: The expected NLL, in nats, ``(G,)``.
        kl: The KL, in nats, ``(G,)``.
        steps: How many steps were made.
    """

    axes: HeadAxes
    prior_scale: Tensor
    kl_weight: Tensor
    loc: Tensor
    scale: Tensor
    bias_loc: Tensor
    bias_scale: Tensor
    nll: Tensor
    kl: Tensor
    steps: int

    @torch.no_grad()
    def probability(self, embeddings: Tensor, likelihood: Likelihood, draws: int = 128, seed: int = 0) -> Tensor:
        """The mean probabilities of clips over draws of their logits, in mirrored pairs: float32 ``(G, N, K)``.

        Args:
            embeddings: ``(N, E)``. What lies outside the axes has the prior's variance.
            likelihood: The likelihood.
            draws: How many; an even number.
            seed: Seeds them.

        Raises:
            SettingError: ``draws`` is no whole number from 2 up.
        """
        pairs = draw_count(draws, least=2) // 2
        generator = torch.Generator().manual_seed(seed)
        labels = self.loc.shape[1]
        found = []
        for rows in embeddings.split(max(1, NUMBERS // (2 * labels * len(self.loc)))):
            x = self.axes.inputs(rows)
            mean = along(x, self.loc) + self.bias_loc
            prior = self.prior_scale[:, None].square() * self.axes.outside(rows)[:, None, None]
            deviation = (along(x.square(), self.scale.square()) + self.bias_scale.square() + prior).sqrt()
            total = torch.zeros_like(mean)
            for _ in range(pairs):
                noise = torch.randn(len(rows), 1, labels, generator=generator).to(mean)
                for sign in (1, -1):
                    logits = (mean + sign * noise * deviation) @ self.axes.left.T.to(mean)
                    total += likelihood.probability(logits)
            found.append(total / (2 * pairs))
        return torch.cat(found).transpose(0, 1)


def find_axes(views: Tensor, target: Tensor, labels: int, likelihood: Likelihood) -> tuple[HeadAxes, Tensor, Tensor]:
    """The axes of a last layer for clips, and where its fit starts: M ``(K, R)`` and c ``(K,)``.

    Args:
        views: Embeddings ``(N, V, E)``: V views of each clip.
        target: The labels, as the likelihood takes them.
        labels: K.
        likelihood: The likelihood.
    """
    axes = embedding_axes(views.flatten(0, 1), labels)
    settings = ([_START_SCALE], [_START_WEIGHT])
    short = infer_head(views, target, likelihood, axes, *settings, steps=_START_STEPS, pairs=1)
    logits = axes.inputs(views.flatten(0, 1)) @ short.loc[0].T + short.bias_loc[0]
    left = curvature_axes(likelihood.probability(logits), likelihood)
    turn = left.T.to(logits)
    return HeadAxes(left, axes.right, axes.centre, axes.spread), turn @ short.loc[0], turn @ short.bias_loc[0]


@torch.no_grad()
def infer_head(
    views: Tensor,
    target: Tensor,
    likelihood: Likelihood,
    axes: HeadAxes,
    prior_scales: Sequence[float],
    kl_weights: Sequence[float],
    *,
    bias_prior_scale: float = 10.0,
    prior: HeadPrior | None = None,
    start: tuple[Tensor, Tensor] | None = None,
    steps: int = ITERATIONS,
    pairs: int = _PAIRS,
    seed: int = 0,
    on_step: Callable[[int, Tensor, Tensor, Tensor], bool] | None = None,
) -> HeadPosterior:
    """Fit the mean-field posterior of a last layer for G pairs of prior scale and KL weight; see the module.

    Args:
        views: Embeddings ``(N, V, E)``: V views of each clip, each of which counts as 1 / V of it.
        target: The labels, as the likelihood takes them; not soft ones for one-of-K.
        likelihood: The likelihood.
        axes: The axes; see :func:`find_axes`.
        prior_scales: tau of each of the G, in units of the embeddings' spread.
        kl_weights: kappa of each.
        bias_prior_scale: tau_b.
        prior: The posterior of earlier clips along the same axes, in place of tau and tau_b; the fit starts there.
        start: M and c to start from; by default 0 and the logs of the labels' shares.
        steps: The most steps.
        pairs: Mirrored pairs of draws a clip.
        seed: Seeds the draws.
        on_step: Called after each step with its number, the expected NLL and the KL ``(G,)`` in nats and the step
            sizes; the fit ends if it returns False.
    """
    problem = Problem.of(views, target, likelihood, axes, pairs, seed)
    labels, rank, device = len(axes.left), axes.right.shape[1], problem.device
    tau, kappa = (torch.tensor(list(each), device=device)[:, None, None] for each in (prior_scales, kl_weights))
    count = len(tau)
    fixed = Fixed(tau, kappa, bias_prior_scale)
    if prior is not None:
        means, deviations, bias_means, bias_deviations = (
            each.to(device)[None] for each in (prior.loc, prior.scale, prior.bias_loc, prior.bias_scale)
        )
        fixed, start = Fixed(deviations, kappa, bias_deviations, means, bias_means), (prior.loc, prior.bias_loc)
    loc, bias = _start(problem, likelihood) if start is None else start
    # The uniform labels' curvature is a first guess of every clip's.
    guess = 1 / labels * (1 - 1 / labels) if likelihood.task is Task.ONE_OF_K else 0.25
    curvature = guess * problem.squares.to(device)
    now = State(
        loc.to(device).expand(count, labels, rank),
        bias.to(device).expand(count, labels),
        *fixed.precisions(
            curvature.expand(count, labels, rank), torch.full((count, labels), guess * problem.clips, device=device)
        ),
    )
    here = evaluate(now, problem, fixed)
    size = torch.full((count,), 0.5, device=device)
    idle = torch.zeros(count, device=device)
    done = 0
    while done < steps and bool((idle < _PATIENCE).any()):
        there_state = fixed.step(now, here, size)
        there = evaluate(there_state, problem, fixed)
        better = there.objective <= here.objective + 1e-6 * here.objective.abs()
        fallen = torch.where(better, here.objective - there.objective, 0)
        now, here = now.where(better, there_state), here.where(better, there)
        size = torch.where(better, (size * _GROW).clamp(max=1), size * _SHRINK)
        enough = fallen > _TOLERANCE * problem.clips * kappa.flatten().clamp(max=1)
        idle = torch.where(enough, 0, idle + 1)
        done += 1
        if on_step is not None and not on_step(done, here.nll, here.kl, size):
            break
    return HeadPosterior(
        axes,
        tau.flatten(),
        kappa.flatten(),
        now.loc,
        now.precision.rsqrt(),
        now.bias,
        now.bias_precision.rsqrt(),
        here.nll,
        here.kl,
        done,
    )


def _start(problem: Problem, likelihood: Likelihood) -> tuple[Tensor, Tensor]:
    """M = 0, and c such that each label has its share of the clips."""
    rows = sum(len(chunk.x) for chunk in problem.chunks)
    share = torch.stack([chunk.target.sum(dim=0) for chunk in problem.chunks]).sum(dim=0) / rows
    share = share.clamp(1 / (2 * rows), 1 - 1 / (2 * rows))
    logits = share.logit() if likelihood.task is Task.MULTI_LABEL else share.log() - share.log().mean()
    rank = problem.chunks[0].x.shape[1]
    return torch.zeros(len(share), rank, device=share.device), problem.left.T @ logits
