import math

import pytest
import torch
from torch.nn import functional as F

from bayes_panns.bayes import MultiLabel, OneOfK, kronecker_gaussian, logistic_regression

K, E, N, V = 3, 4, 200, 2


@pytest.fixture
def problem():
    views = torch.randn(N, V, E, dtype=torch.float64) @ torch.randn(E, E, dtype=torch.float64) + 1
    weight, bias = torch.randn(K, E, dtype=torch.float64), torch.randn(K, dtype=torch.float64)
    return views, weight, bias


@pytest.mark.parametrize("likelihood", [OneOfK(), MultiLabel()])
def test_axes_and_scales_are_those_of_the_curvatures(problem, likelihood):
    views, weight, bias = problem
    found = kronecker_gaussian(views, weight, bias, likelihood, prior_scale=0.7, bias_prior_scale=5.0)
    flat = views.flatten(0, 1)
    centred = flat - found.centre
    torch.testing.assert_close(found.centre, flat.mean(dim=0))
    # Of the mean log-likelihood in the logits, by automatic differentiation.
    logits = flat @ weight.T + bias

    def negative_log_likelihood(shift):
        if isinstance(likelihood, OneOfK):
            return (logits + shift).logsumexp(dim=1).mean()
        return F.softplus(logits + shift).sum(dim=1).mean()

    curvature = torch.autograd.functional.hessian(negative_log_likelihood, torch.zeros(K, dtype=torch.float64))
    spread = centred.T @ centred / len(flat)
    bend, width = found.left.T @ curvature @ found.left, found.right.T @ spread @ found.right
    for matrix in (bend, width):
        torch.testing.assert_close(matrix, matrix.diag().diag(), atol=1e-10, rtol=0)
    precision = N * torch.outer(bend.diag(), width.diag())
    torch.testing.assert_close(found.scale, (precision + 0.7**-2) ** -0.5)
    torch.testing.assert_close(found.bias_scale, (N * bend.diag() + 5.0**-2) ** -0.5)
    if isinstance(likelihood, OneOfK):
        # A shift of all logits at once is not seen, so there the prior stays as it is.
        torch.testing.assert_close(found.bias_scale.max().item(), 5.0)
        torch.testing.assert_close(found.scale.max().item(), 0.7)


def test_the_priors_width_is_mackays_fixed_point(problem):
    views, weight, bias = problem
    found = kronecker_gaussian(views, weight, bias, OneOfK(), bias_prior_scale=5.0)
    variance = found.prior_scale**2
    determined = (1 - found.scale.square() / variance).sum()
    assert variance == pytest.approx(float(weight.square().sum() / determined), rel=1e-9)
    assert 0 < determined < K * E


@pytest.mark.parametrize("likelihood", [OneOfK(), MultiLabel()])
def test_the_fitted_head_is_where_the_penalised_gradient_is_zero(likelihood):
    views = 3 + 2 * torch.randn(60, V, E)
    if isinstance(likelihood, OneOfK):
        target = torch.arange(60) % K
        views[..., :K] += F.one_hot(target, K)[:, None]
    else:
        target = (torch.rand(60, K) < 0.3).float()
    weight, bias = logistic_regression(views, target, K, likelihood, bias_prior_scale=10.0)
    weight, bias = weight.double().requires_grad_(), bias.double().requires_grad_()
    logits = views.double() @ weight.T + bias
    fit = sum(likelihood(logits[:, view], target).log_prob(target).sum() for view in range(V)) / V
    at_centre = bias + weight @ views.double().mean(dim=(0, 1))
    variance = views.double().flatten(0, 1).var(dim=0, correction=0).mean()
    loss = -fit + weight.square().sum() * variance / 2 + at_centre.square().sum() / 200
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        assert gradient.abs().max() < 0.02 * math.sqrt(60)
