"""Which clips to label next: scores, and batches that do not ask the same twice."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_panns.core.choices import AcquireStrategy
from bayes_panns.metrics import acquisition
from bayes_panns.metrics.acquisition import Candidates, choose_batch, score_clips

ONE, MANY = "one-of-k", "multi-label"


def drawn(clips, draws, labels, seed=0, task=ONE):
    random = np.random.default_rng(seed)
    if task == ONE:
        return random.dirichlet(np.full(labels, 0.4), (clips, draws))
    return random.beta(0.4, 0.4, (clips, draws, labels))


def candidates(samples, strategy="batch-bald", task=ONE, recordings=None, **more):
    score = score_clips(samples, task, strategy)
    names = np.arange(len(samples)) if recordings is None else np.array(recordings)
    return Candidates(score, names, task, samples=samples, **more)


def joint_information(samples):
    """I(labels; weights) of clips ``(n, T, K)``, from all configurations: equation 8 of Kirsch et al., 2019."""
    clips, draws, labels = samples.shape
    total = 0.0
    for each in product(range(labels), repeat=clips):
        p = np.mean([np.prod([samples[i, t, y] for i, y in enumerate(each)]) for t in range(draws)])
        total -= p * np.log(p) if p > 0 else 0
    inside = -(samples * np.log(np.maximum(samples, 1e-300))).sum(axis=2).mean(axis=1).sum()
    return total - inside


def test_scores_are_what_their_papers_say():
    samples = np.array([[[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]], [[0.9, 0.1], [0.7, 0.3]]])
    two = np.log(2)
    mean = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    inside = np.mean([-(p * np.log(p) + (1 - p) * np.log(1 - p)) for p in (0.9, 0.7)])
    assert score_clips(samples, ONE, "entropy") == pytest.approx([two, two, mean])
    assert score_clips(samples, ONE, "bald") == pytest.approx([0, two, mean - inside], abs=1e-12)
    # Two labels that exclude each other say the same twice, and each counts.
    assert score_clips(samples, MANY, "bald") == pytest.approx([0, 2 * two, 2 * (mean - inside)], abs=1e-12)
    with pytest.raises(ValueError, match="no predictions"):
        score_clips(samples, ONE, "typical")


@given(st.integers(0, 10**6), st.integers(2, 3), st.integers(2, 6))
@settings(max_examples=15)
def test_a_batch_is_the_greedy_one_of_the_joint_information(seed, labels, draws):
    samples = drawn(6, draws, labels, seed)
    batch = choose_batch(candidates(samples), "batch-bald", 3)
    chosen = []
    for number, winner in enumerate(batch.index.tolist()):
        left = [i for i in range(6) if i not in chosen]
        gains = {i: joint_information(samples[[*chosen, i]]) for i in left}
        assert gains[winner] == pytest.approx(max(gains.values()), abs=1e-5)
        assert batch.score[: number + 1].sum() == pytest.approx(gains[winner], abs=1e-4)
        chosen.append(winner)


def test_a_sample_of_configurations_comes_near_the_exact_information(monkeypatch):
    samples = drawn(8, 10, 3, seed=3)
    exact = choose_batch(candidates(samples), "batch-bald", 4)
    monkeypatch.setattr(acquisition, "CONFIGURATIONS", 8)
    few = choose_batch(candidates(samples), "batch-bald", 4)
    assert few.score.sum() == pytest.approx(exact.score.sum(), rel=0.25)
    monkeypatch.setattr(acquisition, "CONFIGURATIONS", 26)
    sampled = [choose_batch(candidates(samples), "batch-bald", 4, seed=seed).score.sum() for seed in range(20)]
    assert np.mean(sampled) == pytest.approx(joint_information(samples[exact.index]), rel=0.08)


def test_a_batch_does_not_ask_the_same_twice():
    torn, other = [[0.95, 0.05], [0.05, 0.95]] * 2, [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]
    samples = np.array([torn, torn, torn, other])
    assert set(choose_batch(candidates(samples, "bald"), "bald", 2).index) < {0, 1, 2}
    assert set(choose_batch(candidates(samples), "batch-bald", 2).index) == {0, 3}
    both = np.stack([samples[..., 0], samples[..., 0]], axis=2)
    assert set(choose_batch(candidates(both, task=MANY), "batch-bald", 2).index) == {0, 3}


def test_typical_clips_are_of_the_groups_without_a_label():
    random = np.random.default_rng(0)
    centres = np.eye(8)[:3]
    group = np.repeat([0, 1, 2], [30, 20, 10])
    embeddings = centres[group] + 0.05 * random.normal(size=(60, 8))
    embeddings[0] = centres[0]  # The middle of its group.
    score, names = np.zeros(60), np.arange(60)
    fresh = choose_batch(Candidates(score, names, ONE, embeddings=embeddings), "typical", 3)
    assert sorted(group[fresh.index]) == [0, 1, 2]
    assert group[fresh.index[0]] == 0
    known = Candidates(score, names, ONE, embeddings=embeddings, known=centres[[0, 1]])
    assert group[choose_batch(known, "typical", 1).index[0]] == 2
    with pytest.raises(ValueError, match="needs the embeddings"):
        choose_batch(Candidates(score, names, ONE), "typical", 1)


def test_the_mix_looks_among_the_uncertain():
    random = np.random.default_rng(0)
    embeddings = np.eye(4)[np.repeat([0, 1, 2, 3], 10)] + 0.01 * random.normal(size=(40, 4))
    entropy = np.repeat([0.7, 0.0, 0.7, 0.0], 10)
    found = choose_batch(Candidates(entropy, np.arange(40), ONE, embeddings=embeddings), "mix", 2).index
    assert sorted(found // 10) == [0, 2]


@pytest.mark.parametrize("strategy", AcquireStrategy.words())
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 15), st.lists(st.integers(0, 4), max_size=4)
)
@settings(max_examples=10)
def test_recordings_take_turns_and_no_clip_comes_twice(strategy, recordings, count, before):
    samples = drawn(len(recordings), 4, 3)
    needs = strategy in acquisition.NEEDS_SCORES
    pool = Candidates(
        score_clips(samples, ONE, strategy) if needs else np.zeros(len(recordings)),
        np.array(recordings),
        ONE,
        samples=samples,
        embeddings=np.random.default_rng(1).normal(size=(len(recordings), 5)),
        known_recordings=np.array(before, dtype=int),
    )
    batch = choose_batch(pool, strategy, count)
    assert len(set(batch.index)) == len(batch.index) == min(count, len(recordings))
    assert np.isfinite(batch.score).all()
    taken = [*before, *np.array(recordings)[batch.index].tolist()]
    left = [recordings[i] for i in range(len(recordings)) if i not in batch.index]
    # A recording that has clips left is not passed over for one of which more are labelled.
    for name in set(left):
        ahead = [taken.count(other) for other in np.array(recordings)[batch.index] if other != name]
        assert not ahead or max(ahead) <= max(taken.count(name) + 1, max(map(before.count, [*before, -1])) + 1)
    again = choose_batch(pool, strategy, count)
    assert again.index.tolist() == batch.index.tolist()


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"samples \(3, 2\)"):
        Candidates(np.zeros(3), np.arange(3), ONE, samples=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="known"):
        Candidates(np.zeros(3), np.arange(3), ONE, embeddings=np.zeros((3, 2)), known=np.zeros((1, 4)))
    with pytest.raises(ValueError, match="task"):
        Candidates(np.zeros(3), np.arange(3), "none")


@pytest.mark.parametrize("strategy", list(AcquireStrategy))
def test_of_no_clips_none_is_chosen(strategy):
    none = Candidates(
        np.empty(0), np.empty(0, int), "one-of-k", samples=np.empty((0, 3, 2)), embeddings=np.empty((0, 4))
    )
    assert choose_batch(none, strategy, 3).index.tolist() == []
