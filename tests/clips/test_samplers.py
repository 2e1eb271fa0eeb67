import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayes_panns.clips import Sampler
from bayes_panns.core.errors import StoreError

KINDS = ("random", "balanced", "alternate")
SKEWED = torch.arange(4).repeat_interleave(torch.tensor([700, 200, 90, 10]))
"""1,000 clips, one label each, 70 times as many of the first as of the last."""


def drawn(sampler, passes):
    return torch.cat([sampler.batch(step) for step in range(passes * sampler.batches)])


def multi_label(clips=600, labels=7):
    """Common and rare labels, many together; some clips without."""
    generator = torch.Generator().manual_seed(0)
    share = torch.logspace(-0.3, -2, labels)
    return (torch.rand((clips, labels), generator=generator) < share).float()


@given(clips=st.integers(1, 40), batch=st.integers(1, 12), number=st.integers(0, 3), seed=st.integers(0, 2**40 - 1))
def test_random_shows_every_clip_once_a_pass(clips, batch, number, seed):
    sampler = Sampler(torch.zeros(clips, dtype=torch.long), batch, seed=seed)
    batches = [sampler.batch(number * sampler.batches + place) for place in range(sampler.batches)]
    assert torch.cat(batches).sort().values.tolist() == list(range(clips))
    sizes = [len(each) for each in batches]
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


def test_balanced_draws_each_label_equally_often():
    label = SKEWED[drawn(Sampler(SKEWED, 32, sampling="balanced"), 3)]
    assert label.bincount().tolist() == [750] * 4
    at_random = SKEWED[drawn(Sampler(SKEWED, 32), 3)]
    assert at_random.bincount().tolist() == [2100, 600, 270, 30]


def test_balanced_shows_a_labels_clips_in_turn():
    clip = drawn(Sampler(SKEWED, 32, sampling="balanced"), 3)
    for label in range(4):
        members = (label == SKEWED).nonzero().flatten()
        times = clip[label == SKEWED[clip]].bincount(minlength=1000)[members]
        assert times.max() - times.min() <= 1
    rare = clip[SKEWED[clip] == 3]
    orders = [tuple(each.tolist()) for each in rare.split(10)]
    assert all(sorted(each) == list(range(990, 1000)) for each in orders)
    assert len(set(orders)) == len(orders), "in a new order each time"


def test_balanced_with_several_labels_a_clip():
    target = multi_label()
    before = target.mean(dim=0)
    clip = drawn(Sampler(target, 32, sampling="balanced"), 20)
    after = target[clip].mean(dim=0)
    # Each label is drawn in one of 7 draws; beyond that, it comes along with others.
    assert (after > 1 / 7 - 0.001).all()
    assert after.max() / after.min() < 0.4 * before.max() / before.min()
    assert (target[clip].sum(dim=1) > 0).all(), "a clip without labels is never drawn"
    assert len(clip.unique()) == int((target.sum(dim=1) > 0).sum()), "every other one is"


def test_a_batch_no_larger_than_the_labels_shows_each_once():
    # What PANNs' mixup pairs are then made of: clips drawn for different labels.
    target = torch.arange(64).repeat(3)
    sampler = Sampler(target, 32, sampling="balanced")
    for step in range(sampler.batches):
        assert len(target[sampler.batch(step)].unique()) == 32


def test_labels_without_clips_are_passed_over():
    target = torch.tensor([5, 5, 2])
    assert target[drawn(Sampler(target, 2, sampling="balanced"), 20)].bincount().tolist() == [0, 0, 30, 0, 0, 30]
    with pytest.raises(StoreError, match="no clip has a label to balance by"):
        Sampler(torch.zeros(3, 2), 2, sampling="balanced")


def test_alternate_takes_turns():
    kinds = {kind: Sampler(SKEWED, 32, sampling=kind, seed=3) for kind in KINDS}
    for step in range(3 * kinds["random"].batches):
        expected = kinds["random" if step % 2 else "balanced"].batch(step // 2)
        assert torch.equal(kinds["alternate"].batch(step), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_function_of_seed_and_step(kind):
    target = multi_label()
    whole = Sampler(target, 32, sampling=kind, seed=1)
    batches = [whole.batch(step) for step in range(3 * whole.batches)]
    for step in np.random.default_rng(0).permutation(len(batches))[:12]:
        assert torch.equal(Sampler(target, 32, sampling=kind, seed=1).batch(int(step)), batches[step])
        assert torch.equal(whole.batch(int(step)), batches[step])
    assert not torch.equal(drawn(Sampler(target, 32, sampling=kind, seed=2), 1), torch.cat(batches[: whole.batches]))
    assert not torch.equal(torch.cat(batches[: whole.batches]), torch.cat(batches[whole.batches : 2 * whole.batches]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_of_one_label_and_few_clips(kind):
    sampler = Sampler(torch.zeros(3, dtype=torch.long), 2, sampling=kind)
    assert sorted(drawn(sampler, 2).tolist()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("random", [[4, 3, 6], [1, 5], [2, 0], [3, 1, 5], [4, 5], [5, 3]]),
        ("balanced", [[4, 2, 0], [6, 1], [5, 3], [5, 1, 4], [3, 3], [5, 4]]),
        ("alternate", [[4, 2, 0], [4, 3, 6], [6, 1], [1, 5], [3, 1, 5], [3, 4]]),
    ],
)
def test_batches_stay_as_they_are(kind, expected):
    """A fit with the same seed sees the same batches in every version, and can be resumed in a later one."""
    sampler = Sampler(torch.arange(7) % 3, 3, sampling=kind, seed=5)
    assert [sampler.batch(step).tolist() for step in (0, 1, 2, 3, 7, 40)] == expected


def test_the_default_is_random_with_seed_0():
    sampler = Sampler(torch.arange(7) % 3, 3)
    assert [sampler.batch(step).tolist() for step in (0, 4)] == [[4, 0, 5], [3, 5]]


def test_arguments_that_make_no_batch():
    with pytest.raises(StoreError, match="there are no clips to draw batches from"):
        Sampler(torch.zeros(0, dtype=torch.long), 2)
    with pytest.raises(ValueError, match="1 clip or more, not 0"):
        Sampler(torch.zeros(3, dtype=torch.long), 0)
    with pytest.raises(ValueError, match="guess"):
        Sampler(torch.zeros(3, dtype=torch.long), 2, sampling="guess")
    assert Sampler(torch.zeros(3, dtype=torch.long), 1).batches == 3


class TestBlocks:
    """The statistics that the docstring of Sampler states."""

    @given(
        clips=st.integers(1, 60),
        batch=st.integers(1, 12),
        block=st.integers(1, 20),
        number=st.integers(0, 3),
        seed=st.integers(0, 2**40 - 1),
    )
    def test_every_clip_once_a_pass_in_runs_of_neighbours(self, clips, batch, block, number, seed):
        sampler = Sampler(torch.zeros(clips, dtype=torch.long), batch, sampling="blocks", block=block, seed=seed)
        batches = [sampler.batch(number * sampler.batches + place) for place in range(sampler.batches)]
        assert max(map(len, batches)) - min(map(len, batches)) <= 1
        order = torch.cat(batches)
        assert order.sort().values.tolist() == list(range(clips))
        # At most as many jumps as there are borders between runs.
        jumps = ((order[1:] - order[:-1]) % clips != 1).sum() if clips > 1 else 0
        assert jumps <= -(-clips // block) - 1

    def test_a_batch_follows_from_seed_and_number(self):
        target = torch.zeros(50, dtype=torch.long)
        whole = Sampler(target, 8, sampling="blocks", block=4, seed=3)
        batches = [whole.batch(step) for step in range(3 * whole.batches)]
        for step in (20, 3, 11):
            assert torch.equal(Sampler(target, 8, sampling="blocks", block=4, seed=3).batch(step), batches[step])
            assert torch.equal(whole.batch(step), batches[step])
        assert not torch.equal(batches[0], Sampler(target, 8, sampling="blocks", block=4, seed=4).batch(0))

    def test_runs_are_of_the_file_and_not_of_the_set(self):
        places = np.random.default_rng(0).permutation(40) * 3
        sampler = Sampler(torch.zeros(40, dtype=torch.long), 40, sampling="blocks", block=8, places=places)
        rank = np.argsort(np.argsort(places))[sampler.batch(0).numpy()]
        assert ((np.diff(rank) % 40) == 1).sum() >= 40 - 5

    def test_clips_are_everywhere_equally_often_and_meet_as_stated(self):
        clips, block, passes = 11, 4, 4000
        sampler = Sampler(torch.zeros(clips, dtype=torch.long), clips, sampling="blocks", block=block)
        order = np.stack([sampler.batch(step).numpy() for step in range(passes)])
        place = order.argsort(axis=1)
        times = np.stack([np.bincount(place[:, clip], minlength=clips) for clip in range(clips)])
        # Chi squared of 10 degrees of freedom a clip; 11 clips, 5 standard deviations.
        assert (((times - passes / clips) ** 2).sum() / (passes / clips)) < 110 + 5 * np.sqrt(2 * 110)
        for apart in (1, 2, 3, 4, 5):
            together = np.stack([place[:, (clip + apart) % clips] - place[:, clip] == apart for clip in range(clips)])
            in_a_run = (clips // block * max(0, block - apart) + max(0, clips % block - apart)) / clips
            # Runs that follow each other on the ring may do so in a pass, too, by chance.
            runs = -(-clips // block)
            assert in_a_run - 0.03 < together.mean() < in_a_run + (1 - in_a_run) / (runs - 1) + 0.03

    def test_runs_of_one_clip_are_random_in_law(self):
        passes = 6000
        sampler = Sampler(torch.zeros(4, dtype=torch.long), 4, sampling="blocks", block=1)
        seen = np.stack([sampler.batch(step).numpy() for step in range(passes)]) @ (4 ** np.arange(4))
        times = np.unique(seen, return_counts=True)[1]
        assert len(times) == 24, "every order"
        # Chi squared of 23 degrees of freedom, 5 standard deviations.
        assert ((times - passes / 24) ** 2).sum() / (passes / 24) < 23 + 5 * np.sqrt(2 * 23)
