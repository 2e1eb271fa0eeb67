"""Members draw independently of each other, and what is said of the draws is what was made."""

import pytest
import torch

from bayes_panns.clips import Task
from bayes_panns.posterior import Ensemble, Posterior
from bayes_panns.recipes import read_strategy


def posterior_of(guide="det-flip", seed=0, scale=None):
    torch.manual_seed(seed)
    posterior = Posterior.build(
        net="resnet14-narrow",
        labels=("cat", "dog", "rain"),
        task=Task.ONE_OF_K,
        sample_rate=8000,
        clip_seconds=0.5,
        strategy=read_strategy(guide),
    )
    if scale is not None:
        posterior.guide.assign(
            {f"net.{name}": (loc, scale * std) for name, (loc, std) in posterior.gaussians().items()}
        )
    return posterior


@pytest.fixture
def clips():
    return 0.1 * torch.randn(2, 4000)


def test_members_draw_other_numbers(clips):
    posterior = posterior_of()
    draws = torch.stack(list(Ensemble([posterior, posterior]).draws(clips, 8)))
    assert draws.shape == (8, 2, 3)
    for first in range(4):
        for second in range(4, 8):
            assert not torch.allclose(draws[first], draws[second])
    again = torch.stack(list(Ensemble([posterior, posterior]).draws(clips, 8)))
    assert torch.equal(draws, again)
    other = torch.stack(list(Ensemble([posterior, posterior]).draws(clips, 8, seed=1)))
    seen = {tuple(draw.flatten().tolist()) for draw in (*draws, *other)}
    assert len(seen) == 16


def honesty(predictor, clips, seeds=150):
    """The standard error that the pairs of 16 draws claim, over the spread of their mean over seeds."""
    means, claimed = [], []
    for seed in range(seeds):
        draws = torch.stack(list(predictor.draws(clips, 16, seed=seed)))
        pairs = draws.unflatten(0, (-1, 2)).mean(dim=1)
        means.append(draws.mean(dim=0))
        claimed.append(pairs.var(dim=0) / len(pairs))
    return (torch.stack(claimed).mean(dim=0) / torch.stack(means).var(dim=0)).sqrt().mean().item()


def test_the_error_of_a_posterior_mixed_with_itself_is_that_of_as_many_draws(clips):
    """With one seed for both members it would be 0.7 of it; over 150 seeds a ratio is known to about 0.05."""
    posterior = posterior_of(scale=3.0)
    mixed, alone = honesty(Ensemble([posterior] * 2), clips), honesty(posterior, clips)
    assert 0.9 < mixed < 1.4
    assert 0.85 < mixed / alone < 1.18


@pytest.mark.parametrize(
    ("members", "asked", "made"),
    [
        (["det-flip"], 5, 6),
        (["det-flip", "det-flip"], 5, 8),
        (["det-flip", "det-flip"], 8, 8),
        (["det", "det"], 8, 0),
        (["det-flip", "det"], 8, 5),
        (["drop", "drop"], 5, 6),
        (["det-flip", "det-flip"], 0, 0),
    ],
)
def test_draws_made_are_told(clips, members, asked, made):
    ensemble = Ensemble([posterior_of(guide, seed) for seed, guide in enumerate(members)])
    assert ensemble.draws_made(asked) == made
    drawn = len(list(ensemble.draws(clips, asked)))
    # A pass of a point posterior is repeated, so that it weighs as much as the draws of the others.
    share = max(each.draws_made(ensemble.share(asked)) for each in ensemble.members)
    assert drawn == len(members) * max(1, share)


def test_a_posterior_tells_its_own():
    assert posterior_of("det").draws_made(7) == 0
    assert posterior_of("flip").draws_made(7) == 7
    assert posterior_of("flip").draws_made(0) == 0


def test_a_member_of_points_weighs_as_much_as_the_others(clips):
    bayesian, point = posterior_of("det-flip", 1), posterior_of("det", 2)
    draws = torch.stack(list(Ensemble([bayesian, point]).draws(clips, 6)))
    assert len(draws) == 8
    expected = (torch.stack(list(bayesian.draws(clips, 4))).mean(dim=0) + next(point.draws(clips, 1))) / 2
    torch.testing.assert_close(draws.mean(dim=0), expected)
