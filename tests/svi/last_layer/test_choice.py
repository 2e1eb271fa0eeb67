"""The choice of prior and KL weight of a last layer, and its power, by cross-validation over recordings."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bayes_panns.bayes import MultiLabel, OneOfK
from bayes_panns.metrics import apply_power, fit_power, nll, power_losses
from bayes_panns.svi.last_layer import choice as module
from bayes_panns.svi.last_layer import choose_head, find_axes, infer_head

SETTINGS = {
    "prior_scales": [0.1, 0.5],
    "kl_weights": [1.0, 0.1],
    "smoothing": 0.3,
    "bias_prior_scale": 10.0,
    "steps": 60,
}


def recorded(*, recordings=40, each=2, size=16, labels=3, distance=3.0, seed=0):
    """Embeddings ``(N, 1, E)`` of recordings with several nearly equal clips, labels, recordings and folds."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(recordings) % labels
    centres = distance * torch.eye(labels, size)
    x = centres[label] + torch.randn(recordings, size, generator=generator)
    x = x.repeat_interleave(each, dim=0) + 0.05 * torch.randn(recordings * each, size, generator=generator)
    recording = np.repeat(np.arange(recordings), each)
    return x[:, None], label.repeat_interleave(each), recording, (recording // labels) % 5


def held_out(x, target, folds, likelihood, tau, kappa, steps=60):
    """Held-out predictions by a loop of one's own."""
    found = np.zeros((len(x), 3))
    for fold in np.unique(folds):
        inside, out = torch.from_numpy(folds != fold), torch.from_numpy(folds == fold)
        axes, *start = find_axes(x[inside], target[inside], 3, likelihood)
        fitted = infer_head(
            x[inside], target[inside], likelihood, axes, [tau], [kappa], start=tuple(start), steps=steps
        )
        found[folds == fold] = fitted.probability(x[out, 0], likelihood)[0].numpy()
    return found


def test_each_candidate_is_scored_on_recordings_that_it_was_not_fitted_to():
    x, target, recording, folds = recorded()
    found = choose_head(x, target, 3, OneOfK(), folds, recording, **SETTINGS)
    assert [(each.prior_scale, each.kl_weight) for each in found.candidates] == [
        *((0.1, 1.0), (0.5, 1.0), (0.1, 0.1), (0.5, 0.1)),
    ]
    truth = np.eye(3, dtype=bool)[target]
    for each in found.candidates:
        p = held_out(x, target, folds, OneOfK(), each.prior_scale, each.kl_weight)
        assert each.nll == pytest.approx(nll(p, truth, "one-of-k"), rel=0.02)
        power = fit_power(p, truth, "one-of-k")
        smoothed = power_losses(p, truth, power, "one-of-k", smoothing=0.3).sum() / len(p)
        assert each.smoothed == pytest.approx(smoothed, rel=0.05, abs=0.002)
    assert (found.folds, found.clips) == (5, 80)


def test_of_those_near_the_best_the_largest_kl_weight_and_then_the_least_power_are_taken():
    x, target, recording, folds = recorded(distance=2.0)
    found = choose_head(x, target, 3, OneOfK(), folds, recording, **SETTINGS)
    best = min(found.candidates, key=lambda each: each.smoothed)
    near = [each for each in found.candidates if each.smoothed - best.smoothed <= each.error]
    assert best.error == 0
    assert best in near
    largest = [each for each in near if each.kl_weight == max(one.kl_weight for one in near)]
    assert found.chosen.nll == min(each.nll for each in largest)
    assert found.chosen in largest
    # Twice as many clips of each recording tell no more: the errors are of recordings.
    twice = recorded(distance=2.0, each=4)
    other = choose_head(twice[0], twice[1], 3, OneOfK(), twice[3], twice[2], **SETTINGS)
    worst, other_worst = (max(each.candidates, key=lambda one: one.smoothed) for each in (found, other))
    assert other_worst.error == pytest.approx(worst.error, rel=0.5)


def test_the_power_mends_underconfidence_and_is_left_out_where_it_does_not_help():
    x, target, recording, folds = recorded(distance=6.0)
    found = choose_head(x, target, 3, OneOfK(), folds, recording, **SETTINGS | {"kl_weights": [1.0]})
    assert found.power[0] > 1.5
    assert found.powered_nll < 0.7 * found.nll
    # Labels that nothing predicts: no power makes a difference that lasts.
    shuffled = target[torch.randperm(len(target), generator=torch.Generator().manual_seed(1))]
    none = choose_head(x, shuffled, 3, OneOfK(), folds, np.arange(len(x)), **SETTINGS)
    assert none.powered_nll <= none.nll
    if none.power == (1.0,):
        assert none.powered_nll == none.nll


def power_of(p, truth, folds, task):
    scored = module._Scored.of(np.arange(len(p)), truth, folds, np.arange(len(p)), task, 0.3)
    return scored.power(p[scored.rows])


def test_powers_are_judged_on_folds_they_were_not_fitted_to():
    # In one fold the predictions are right, in the other wrong: each fold's own power would help, the other's harms.
    p = np.array([[0.8, 0.2], [0.2, 0.8]] * 10)
    truth = np.array([[True, False], [False, True]] * 5 + [[False, True], [True, False]] * 5)
    folds = np.repeat([0, 1], 10)
    power, before, after = power_of(p, truth, folds, OneOfK.task)
    assert power == (1.0,)
    assert before == after == pytest.approx(nll(p, truth, "one-of-k"))


def test_each_label_takes_what_serves_it():
    rng = np.random.default_rng(0)
    p, powers = rng.uniform(0.02, 0.98, (2000, 3)), np.array([0.4, 1.0, 4.0])
    truth = rng.random(p.shape) < apply_power(p, powers, "multi-label")
    folds = rng.integers(0, 5, 2000)
    found, before, after = power_of(p, truth, folds, MultiLabel.task)
    np.testing.assert_allclose(found, powers, rtol=0.3)
    assert after < before


def test_labels_that_a_fit_has_not_seen_do_not_count():
    # Two labels that a power serves well, and ten with one positive clip each, predicted as absent.
    rng = np.random.default_rng(1)
    p = rng.uniform(0.02, 0.98, (300, 12))
    truth = rng.random(p.shape) < apply_power(p, 3.0, "multi-label")
    folds = rng.integers(0, 5, 300)
    alone, _, _ = power_of(p[:, :2], truth[:, :2], folds, MultiLabel.task)
    p[:, 2:], truth[:, 2:] = 0.01, False
    truth[np.arange(10), np.arange(2, 12)] = True
    found, _, _ = power_of(p, truth, folds, MultiLabel.task)
    assert len(found) == 12
    np.testing.assert_allclose(found[:2], np.broadcast_to(alone, 2), rtol=0.35)
    assert min(found[:2]) > 1.8


def test_multi_label_runs_through():
    x, label, recording, folds = recorded()
    target = F.one_hot(label, 3).float()
    target[::7, 0] = 1
    found = choose_head(x, target, 3, MultiLabel(), folds, recording, **SETTINGS)
    assert len(found.power) in (1, 3)
    assert found.powered_nll <= found.nll


def test_a_label_of_a_single_recording_is_not_scored():
    x, target, recording, folds = recorded(recordings=30)
    lone = torch.cat([target, torch.tensor([3, 3])])
    more = torch.cat([x, x[:2] + 1])
    found = choose_head(more, lone, 4, OneOfK(), np.append(folds, [0, 0]), np.append(recording, [99, 99]), **SETTINGS)
    assert found.clips == 60


@pytest.mark.parametrize("task", [OneOfK, MultiLabel])
def test_without_a_label_of_two_recordings_there_is_nothing_to_choose(task):
    x, target = torch.randn(3, 1, 5), torch.arange(3)
    target = target if task is OneOfK else F.one_hot(target, 3).float()
    found = choose_head(x, target, 3, task(), np.arange(3), np.arange(3), **SETTINGS)
    assert found is None if task is OneOfK else found is not None


def test_a_fold_of_a_single_clip_is_predicted():
    x, target, _, _ = recorded(recordings=6, each=1, labels=2)
    folds = np.array([0, 1, 1, 1, 1, 1])
    found = choose_head(x, target, 2, OneOfK(), folds, np.arange(6), **SETTINGS)
    assert found.folds == 2


def test_candidates_that_are_not_finite_are_left_out():
    x, target, recording, folds = recorded()
    settings = SETTINGS | {"prior_scales": [0.1, 1e30]}
    found = choose_head(x, target, 3, OneOfK(), folds, recording, **settings)
    assert found.clips == 80
    assert {each.prior_scale for each in found.candidates} == {0.1}
    with pytest.raises(ValueError, match="finite"):
        choose_head(x, target, 3, OneOfK(), folds, recording, **SETTINGS | {"prior_scales": [1e30]})


def test_with_many_clips_some_choose_and_all_fit_the_power(monkeypatch):
    monkeypatch.setattr(module, "MOST_CLIPS", 40)
    x, target, recording, folds = recorded()
    rounds = []
    found = choose_head(x, target, 3, OneOfK(), folds, recording, **SETTINGS, on_fold=lambda: rounds.append(1))
    assert len(rounds) == 10
    assert found.clips == 80
    p = held_out(x, target, folds, OneOfK(), found.chosen.prior_scale, found.chosen.kl_weight)
    assert found.nll == pytest.approx(nll(p, np.eye(3, dtype=bool)[target], "one-of-k"), rel=0.02)


def test_one_fold_is_refused():
    x, target, recording, _ = recorded(recordings=6)
    with pytest.raises(ValueError, match="two folds"):
        choose_head(x, target, 3, OneOfK(), np.zeros(12, int), recording, **SETTINGS)


def test_a_power_must_help_by_more_than_a_standard_error():
    # Calibrated predictions: by chance a power helps some of these sets a little.
    folds, chance = np.arange(60) % 5, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        p = rng.dirichlet(np.ones(3), 60)
        truth = np.eye(3, dtype=bool)[[rng.choice(3, p=each) for each in p]]
        gain = np.zeros(60)
        for fold in range(5):
            out = folds == fold
            power = fit_power(p[~out], truth[~out], "one-of-k")
            gain[out] = (power_losses(p, truth, 1.0, "one-of-k") - power_losses(p, truth, power, "one-of-k"))[out]
        if 0 < gain.sum() < 0.9 * np.sqrt(60) * gain.std():
            chance += 1
            assert power_of(p, truth, folds, OneOfK.task)[0] == (1.0,)
    assert chance >= 1


def test_a_label_counts_in_folds_whose_fit_has_seen_it_and_its_absence():
    truth = np.array([[1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 1, 0]], dtype=bool)
    scored = module._Scored.of(np.arange(4), truth, np.array([0, 0, 1, 1]), np.arange(4), MultiLabel.task, 0.3)
    # Fold 0 is predicted by the last two clips: no positive of label 0, no negative of label 1, both of label 2.
    np.testing.assert_array_equal(scored.rows, np.arange(4))
    np.testing.assert_array_equal(scored.known, [[0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 0]])
