"""Natural-gradient inference of a last layer: against closed forms, other optimisers and its own definition."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bayes_panns.bayes import MultiLabel, OneOfK
from bayes_panns.svi.last_layer import HeadAxes, find_axes, infer_head
from bayes_panns.svi.last_layer.axes import curvature_axes, embedding_axes

LIKELIHOODS = {"one-of-k": OneOfK(), "multi-label": MultiLabel()}


def clips(task: str, *, count: int = 60, size: int = 12, labels: int = 3, views: int = 1, seed: int = 0):
    """Embeddings ``(N, V, E)`` of overlapping classes, and their targets."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % labels
    centres = torch.randn(labels, size, generator=generator)
    x = centres[label][:, None] + 1.5 * torch.randn(count, views, size, generator=generator)
    if task == "one-of-k":
        return x, label
    return x, (F.one_hot(label, labels) + (torch.rand(count, labels, generator=generator) < 0.2)).clamp(max=1).float()


def objective(posterior, x, target, task, kl_weight, tau, tau_bias=10.0, draws=4096):
    """Expected NLL and KL of the first posterior, by its definition and with fresh draws of the weights."""
    axes = posterior.axes
    torch.manual_seed(1)
    m, s = posterior.loc[0], posterior.scale[0]
    b, sb = posterior.bias_loc[0], posterior.bias_scale[0]
    inputs, nll = axes.inputs(x[:, 0]), 0.0
    for _ in range(draws):
        weight, bias = m + s * torch.randn_like(m), b + sb * torch.randn_like(b)
        logits = (inputs @ weight.T + bias) @ axes.left.T.float()
        if task == "one-of-k":
            nll += F.cross_entropy(logits, target, reduction="sum").item()
        else:
            nll += F.binary_cross_entropy_with_logits(logits, target, reduction="sum").item()
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(m, s), normal(0.0, tau)).sum()
    kl += torch.distributions.kl_divergence(normal(b, sb), normal(0.0, tau_bias)).sum()
    return nll / draws, kl.item(), nll / draws + kl_weight * kl.item()


@pytest.mark.parametrize("task", LIKELIHOODS)
def test_nll_and_kl_are_those_of_the_posterior(task):
    x, target = clips(task)
    axes, *start = find_axes(x, target, 3, LIKELIHOODS[task])
    found = infer_head(x, target, LIKELIHOODS[task], axes, [0.5], [1.0], start=tuple(start))
    nll, kl, _ = objective(found, x, target, task, 1.0, 0.5)
    assert found.kl.item() == pytest.approx(kl, rel=1e-4)
    # 8 fixed draws a clip against 4096 fresh ones of all weights.
    assert found.nll.item() == pytest.approx(nll, rel=0.08)


@pytest.mark.parametrize("task", LIKELIHOODS)
@pytest.mark.parametrize("kl_weight", [1.0, 0.1])
def test_it_ends_where_a_long_fit_by_adam_ends(task, kl_weight):
    x, target = clips(task)
    likelihood, tau = LIKELIHOODS[task], 0.5
    axes, *start = find_axes(x, target, 3, likelihood)
    found = infer_head(x, target, likelihood, axes, [tau], [kl_weight], start=tuple(start), pairs=64, steps=300)
    inputs, left = axes.inputs(x[:, 0]), axes.left.float()
    m, b = torch.zeros(3, inputs.shape[1], requires_grad=True), torch.zeros(3, requires_grad=True)
    rho, rho_b = torch.full_like(m, -2.0).requires_grad_(), torch.full_like(b, -2.0).requires_grad_()
    optimizer = torch.optim.Adam([m, b, rho, rho_b], lr=0.03)
    noise = torch.randn(64, len(x), 3, generator=torch.Generator().manual_seed(5))
    normal, steps = torch.distributions.Normal, 1500
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        mean = inputs @ m.T + b
        deviation = (inputs.square() @ (2 * rho).exp().T + (2 * rho_b).exp()).sqrt() * noise
        logits = torch.cat([mean + deviation, mean - deviation]) @ left.T
        if task == "one-of-k":
            nll = -logits.log_softmax(-1)[..., torch.arange(len(x)), target].mean(0).sum()
        else:
            nll = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none").mean(0).sum()
        kl = torch.distributions.kl_divergence(normal(m, rho.exp()), normal(0.0, tau)).sum()
        kl = kl + torch.distributions.kl_divergence(normal(b, rho_b.exp()), normal(0.0, 10.0)).sum()
        (nll + kl_weight * kl).backward()
        optimizer.step()
    ours = (found.nll + kl_weight * found.kl).item()
    assert ours == pytest.approx((nll + kl_weight * kl).item(), rel=0.01)
    torch.testing.assert_close(found.scale[0], rho.detach().exp(), rtol=0.15, atol=0.02)
    torch.testing.assert_close(found.loc[0], m.detach(), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("task", LIKELIHOODS)
def test_at_a_small_kl_weight_the_means_are_those_of_logistic_regression(task):
    # The prior of the same pull: kappa / tau^2 = 1 / width^2.
    x, target = clips(task, count=90)
    axes, *start = find_axes(x, target, 3, LIKELIHOODS[task])
    kappa, width = 1e-4, 0.7
    found = infer_head(
        x, target, LIKELIHOODS[task], axes, [width * kappa**0.5], [kappa], start=tuple(start), steps=500,
        bias_prior_scale=10.0 * kappa**0.5,
    )  # fmt: skip
    inputs = axes.inputs(x[:, 0]).double()
    weight = torch.zeros(3, inputs.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        logits = inputs @ weight.T + bias
        fit = (
            F.cross_entropy(logits, target, reduction="sum")
            if task == "one-of-k"
            else F.binary_cross_entropy_with_logits(logits, target.double(), reduction="sum")
        )
        total = fit + weight.square().sum() / (2 * width**2) + bias.square().sum() / 200
        total.backward()
        return total

    optimizer.step(loss)
    got = axes.left.float() @ found.loc[0]
    torch.testing.assert_close(got, weight.detach().float(), atol=0.03, rtol=0.03)


def test_without_clips_that_tell_anything_the_posterior_is_the_prior():
    x = torch.zeros(8, 1, 4)
    x[:, 0, 0] = torch.tensor([1.0, -1.0] * 4)
    axes = HeadAxes(torch.eye(2).double(), torch.eye(4)[:, :2].double(), torch.zeros(4).double(), 1.0)
    found = infer_head(x, torch.arange(8) % 2, OneOfK(), axes, [0.3], [1.0], steps=200)
    # The second axis has no variance.
    torch.testing.assert_close(found.scale[0, :, 1], torch.full((2,), 0.3))
    torch.testing.assert_close(found.loc[0, :, 1], torch.zeros(2))
    assert (found.scale[0, :, 0] < 0.3).all()


def test_a_repeated_view_changes_nothing():
    x, target = clips("one-of-k", views=1)
    twice = x.repeat(1, 2, 1)
    axes, *start = find_axes(x, target, 3, OneOfK())
    one = infer_head(x, target, OneOfK(), axes, [0.5], [1.0], start=tuple(start), pairs=256)
    two = infer_head(twice, target, OneOfK(), axes, [0.5], [1.0], start=tuple(start), pairs=256)
    torch.testing.assert_close(one.loc, two.loc, atol=0.03, rtol=0.1)
    torch.testing.assert_close(one.scale, two.scale, atol=0.02, rtol=0.1)


@pytest.mark.parametrize("task", LIKELIHOODS)
def test_several_pairs_are_inferred_as_each_alone(task):
    x, target = clips(task)
    axes, *start = find_axes(x, target, 3, LIKELIHOODS[task])
    pairs = ([0.1, 1.0], [1.0, 0.1])
    both = infer_head(x, target, LIKELIHOODS[task], axes, *pairs, start=tuple(start), steps=40)
    for index in range(2):
        one = infer_head(
            x, target, LIKELIHOODS[task], axes, [pairs[0][index]], [pairs[1][index]], start=tuple(start), steps=40
        )
        torch.testing.assert_close(one.loc[0], both.loc[index], atol=1e-3, rtol=1e-3)


def test_memory_in_parts_gives_the_same(monkeypatch):
    x, target = clips("one-of-k")
    axes, *start = find_axes(x, target, 3, OneOfK())
    whole = infer_head(x, target, OneOfK(), axes, [0.5], [1.0], start=tuple(start), pairs=256, steps=60)
    monkeypatch.setattr("bayes_panns.svi.last_layer.objective.NUMBERS", 2 * 256 * 3 * 7)
    parts = infer_head(x, target, OneOfK(), axes, [0.5], [1.0], start=tuple(start), pairs=256, steps=60)
    torch.testing.assert_close(whole.loc, parts.loc, atol=0.03, rtol=0.1)
    p = whole.probability(x[:, 0], OneOfK())
    monkeypatch.setattr("bayes_panns.svi.last_layer.inference.NUMBERS", 1)
    assert whole.probability(x[:3, 0], OneOfK(), draws=2).shape == (1, 3, 3)
    assert p.shape == (1, 60, 3)


@pytest.mark.parametrize("task", LIKELIHOODS)
def test_probabilities_are_those_of_drawn_weights(task):
    x, target = clips(task, count=20, size=30)
    likelihood = LIKELIHOODS[task]
    axes, *start = find_axes(x, target, 3, likelihood)
    assert axes.right.shape == (30, 19)
    found = infer_head(x, target, likelihood, axes, [0.5], [1.0], start=tuple(start))
    new = torch.randn(6, 30, generator=torch.Generator().manual_seed(9))
    p = found.probability(new, likelihood, draws=20000)[0]
    # All 30 directions: outside those of the clips the weights keep the prior.
    right, torch_generator = axes.complete.float(), torch.Generator().manual_seed(4)
    loc = F.pad(found.loc[0], (0, 11))
    scale = F.pad(found.scale[0], (0, 11), value=0.5)
    inputs, total = ((new.double() - axes.centre) / axes.spread).float() @ right, 0.0
    for _ in range(20000):
        weight = loc + scale * torch.randn(loc.shape, generator=torch_generator)
        bias = found.bias_loc[0] + found.bias_scale[0] * torch.randn(3, generator=torch_generator)
        total = total + likelihood.probability((inputs @ weight.T + bias) @ axes.left.T.float())
    torch.testing.assert_close(p, total / 20000, atol=0.01, rtol=0)


def test_the_axes_are_orthogonal_and_hold_all_variance():
    for count, size in ((10, 30), (80, 12)):
        x = torch.randn(count, size, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 3, size)
        axes = embedding_axes(x, 4)
        rank = axes.right.shape[1]
        assert rank == min(count - 1, size)
        torch.testing.assert_close(axes.complete.T @ axes.complete, torch.eye(size).double(), atol=1e-6, rtol=0)
        inputs = axes.inputs(x)
        covariance = inputs.T @ inputs / count
        torch.testing.assert_close(covariance, covariance.diag().diag(), atol=1e-4, rtol=0)
        assert axes.outside(x).max() < 1e-5
        # In units of the spread the mean variance is 1.
        assert (inputs.square().sum() / count / size).item() == pytest.approx(1, rel=1e-4)


def test_the_axes_of_the_labels_diagonalise_the_curvature():
    p = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)).softmax(dim=1).double()
    left = curvature_axes(p, OneOfK())
    curvature = torch.diag(p.mean(0)) - p.T @ p / 50
    turned = left.T @ curvature @ left
    torch.testing.assert_close(turned, turned.diag().diag(), atol=1e-10, rtol=0)
    torch.testing.assert_close(curvature_axes(p, MultiLabel()), torch.eye(4).double())


def test_embeddings_that_are_all_the_same_are_no_error():
    x = torch.ones(6, 1, 5)
    axes, *start = find_axes(x, torch.arange(6) % 2, 2, OneOfK())
    found = infer_head(x, torch.arange(6) % 2, OneOfK(), axes, [0.3], [1.0], start=tuple(start))
    p = found.probability(x[:, 0], OneOfK())
    assert torch.isfinite(p).all()
    np.testing.assert_allclose(p.numpy(), 0.5, atol=0.05)
