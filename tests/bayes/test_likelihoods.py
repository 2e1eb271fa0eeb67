import pyro
import pytest
import torch
from torch.nn import functional as F

from bayes_panns.bayes import LIKELIHOODS, ExpectedCategorical, MultiLabel, OneOfK
from bayes_panns.core.choices import Task


def test_one_of_k_is_cross_entropy():
    logits, target = torch.randn(6, 4), torch.randint(0, 4, (6,))
    expected = -F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(OneOfK()(logits, target).log_prob(target), expected)
    one_hot = F.one_hot(target, 4).float()
    torch.testing.assert_close(OneOfK()(logits, one_hot).log_prob(one_hot), expected)


def test_soft_targets_enter_as_the_expected_log_likelihood():
    logits = torch.randn(5, 3)
    share = torch.rand(5, 1)
    a, b = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 1, 0, 2, 2])
    soft = share * F.one_hot(a, 3) + (1 - share) * F.one_hot(b, 3)
    hard = OneOfK()(logits)
    expected = share[:, 0] * hard.log_prob(a) + (1 - share[:, 0]) * hard.log_prob(b)
    torch.testing.assert_close(OneOfK()(logits, soft).log_prob(soft), expected)

    target = torch.rand(5, 3)
    bernoulli = torch.distributions.Bernoulli(logits=logits)
    ones, zeros = bernoulli.log_prob(torch.ones(5, 3)), bernoulli.log_prob(torch.zeros(5, 3))
    expected = (target * ones + (1 - target) * zeros).sum(dim=1)
    torch.testing.assert_close(MultiLabel()(logits, target).log_prob(target), expected)


def test_draws_have_the_probabilities():
    logits = torch.tensor([[0.0, 1.0, -1.0]])
    draws = ExpectedCategorical(logits).sample((20000,))
    assert draws.shape == (20000, 1, 3)
    assert (draws.sum(dim=-1) == 1).all()
    assert (draws.mean(dim=0) - logits.softmax(dim=-1)).abs().max() < 0.015


def test_expands_like_a_pyro_distribution():
    with pyro.plate("clips", 7):
        value = pyro.sample("label", ExpectedCategorical(torch.zeros(3)))
    assert value.shape == (7, 3)


def test_probabilities_are_what_predictions_report():
    logits = torch.randn(4, 3)
    torch.testing.assert_close(OneOfK().probability(logits), logits.softmax(dim=1))
    torch.testing.assert_close(MultiLabel().probability(logits), logits.sigmoid())


def test_targets_outside_the_simplex_are_refused_where_pyro_validates():
    soft = ExpectedCategorical(torch.zeros(2, 3), validate_args=True)
    with pytest.raises(ValueError, match="Simplex"):
        soft.log_prob(torch.ones(2, 3))
    MultiLabel()(torch.zeros(2, 3)).log_prob(torch.full((2, 3), 0.3))


def test_each_task_has_its_likelihood():
    assert isinstance(LIKELIHOODS[Task.ONE_OF_K], OneOfK)
    assert isinstance(LIKELIHOODS[Task.MULTI_LABEL], MultiLabel)
    assert {likelihood.task for likelihood in LIKELIHOODS.values()} == set(LIKELIHOODS)


def test_labels_are_drawn_as_the_task_says():
    logits = torch.tensor([[20.0, -20.0, 20.0]])
    assert OneOfK()(logits, torch.tensor([0])).sample().shape == (1,)
    assert MultiLabel()(logits).sample().tolist() == [[1.0, 0.0, 1.0]]
