import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from bayes_panns.bayes import RotatedNormal

K, E = 3, 4


def axes(size):
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))[0]


def rotated(kind):
    shape = (K, E) if kind == "matrix" else (K,)
    loc, scale = torch.randn(shape, dtype=torch.float64), torch.rand(shape, dtype=torch.float64) + 0.1
    shift = torch.randn(shape, dtype=torch.float64)
    return RotatedNormal(loc, scale, axes(K), axes(E) if kind == "matrix" else None, shift)


def dense(rotation):
    """The same distribution of the flattened weight, its covariance written out."""
    turn = rotation.left if rotation.right is None else torch.kron(rotation.left, rotation.right)
    shift = rotation.shift.flatten()
    covariance = turn @ rotation.scale.flatten().square().diag() @ turn.T
    return MultivariateNormal(turn @ rotation.loc.flatten() + shift, covariance)


@pytest.mark.parametrize("kind", ["matrix", "vector"])
def test_it_is_the_multivariate_normal_written_out(kind):
    rotation = rotated(kind)
    whole = dense(rotation)
    value = torch.randn(rotation.event_shape, dtype=torch.float64)
    torch.testing.assert_close(rotation.log_prob(value), whole.log_prob(value.flatten()))
    torch.testing.assert_close(rotation.mean.flatten(), whole.mean)
    torch.testing.assert_close(rotation.variance.flatten(), whole.variance)
    torch.testing.assert_close(rotation.entropy(), whole.entropy())
    several = torch.randn(5, *rotation.event_shape, dtype=torch.float64)
    torch.testing.assert_close(rotation.log_prob(several), whole.log_prob(several.flatten(1)))


@pytest.mark.parametrize("kind", ["matrix", "vector"])
def test_draws_have_its_moments(kind):
    rotation = rotated(kind)
    draws = rotation.sample((200_000,)).flatten(1)
    whole = dense(rotation)
    torch.testing.assert_close(draws.mean(dim=0), whole.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(draws.T.cov(), whole.covariance_matrix, atol=0.03, rtol=0)
    assert rotation.rsample().shape == rotation.event_shape


@pytest.mark.parametrize("kind", ["matrix", "vector"])
def test_its_kl_from_any_independent_normal_is_that_of_the_multivariate_normal(kind):
    rotation = rotated(kind)
    loc = torch.randn(rotation.event_shape, dtype=torch.float64)
    scale = torch.rand(rotation.event_shape, dtype=torch.float64) + 0.5
    prior = dist.Normal(loc, scale).to_event(len(rotation.event_shape))
    whole = kl_divergence(dense(rotation), MultivariateNormal(loc.flatten(), scale.flatten().square().diag()))
    torch.testing.assert_close(kl_divergence(rotation, prior), whole)
    draws = rotation.sample((100_000,))
    sampled = (rotation.log_prob(draws) - prior.log_prob(draws)).mean()
    torch.testing.assert_close(sampled, whole, atol=0.1, rtol=0.02)


def test_the_kl_of_another_prior_is_not_made_up():
    rotation = rotated("vector")
    for prior in (dist.Laplace(torch.zeros(K), 1.0).to_event(1), dist.Normal(torch.zeros(K + 1), 1.0).to_event(1)):
        with pytest.raises(NotImplementedError):
            kl_divergence(rotation, prior)


def test_gradients_reach_its_factors_and_its_shift():
    leaves = [torch.randn(K, requires_grad=True) for _ in range(3)]
    rotation = RotatedNormal(leaves[0], leaves[1].exp(), axes(K).float(), shift=leaves[2])
    prior = dist.Normal(torch.ones(K), 2.0).to_event(1)
    (rotation.rsample().square().sum() + kl_divergence(rotation, prior)).backward()
    assert all(leaf.grad.abs().min() > 0 for leaf in leaves)


def test_it_expands_as_pyro_asks():
    rotation = rotated("matrix")
    assert rotation.expand(()).batch_shape == ()
    many = rotation.expand((7,))
    assert (many.batch_shape, many.event_shape) == ((7,), (K, E))
    assert many.sample().shape == (7, K, E)
