"""Decisions and totals, from what was fitted to held-out clips."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bayes_panns.core.choices import FittedTo, Target
from bayes_panns.core.errors import PredictionError, SettingError, StoreError
from bayes_panns.metrics.deciding import upper_bound
from bayes_panns.posterior import Calibration
from bayes_panns.predictions import Tally, decide, decompose, fit_confusion, fit_decisions, usual_scores

LABELS = ("wren", "lark", "rook")


def made(clips, *, seed=0, draws=4, noise=0.3, task="one-of-k", skill=4.0, share=(1, 1, 1)):
    """Predictions for clips of three labels, and the truth; the lower the skill, the more of them are wrong."""
    random = np.random.default_rng(seed)
    label = random.choice(3, size=clips, p=np.array(share) / sum(share))
    target = np.eye(3, dtype=bool)[label]
    logits = skill * target + random.normal(size=(clips, 3)) + noise * random.normal(size=(draws, clips, 3))
    tensor = torch.from_numpy(logits if task == "one-of-k" else logits - skill / 2)
    return decompose(tensor.softmax(-1) if task == "one-of-k" else tensor.sigmoid(), task), target


def calibration(**fitted):
    given = {"temperature": 1.0, "threshold": 0.2, "coverage": 0.9, "draws": 4, "clips": (1, 1), "data": ("a.h5",)}
    return Calibration(**given, **fitted)


def posterior(task="one-of-k", **fitted):
    return SimpleNamespace(labels=LABELS, task=task, calibration=calibration(**fitted) if fitted else None)


def fitted(task, aim, value, *, clips=600, **options):
    uncertainty, target = made(clips, task=task, skill=options.pop("skill", 4.0), seed=1)
    groups = np.arange(clips)
    return fit_decisions(uncertainty, target, groups=groups, aim=aim, value=value, **options), uncertainty, target


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
def test_what_is_called_on_new_clips_is_as_precise_as_asked(task):
    found, _, _ = fitted(task, Target.PRECISION, 0.9, skill=2.5)
    uncertainty, target = made(4000, task=task, skill=2.5, seed=2)
    decided = decide(posterior(task, decisions=found), uncertainty)
    assert set(found.fitted) == {FittedTo.OWN}
    for k in range(3):
        called = decided.called[:, k]
        assert target[called, k].mean() >= 0.9
        assert (uncertainty.probability[called, k] >= found.threshold[k]).all()
    assert 0.2 < decided.called.any(axis=1).mean() < 0.99
    if task == "one-of-k":
        assert (decided.called.sum(axis=1) <= 1).all()
        np.testing.assert_array_equal(decided.left, ~decided.called.any(axis=1))


def test_a_risk_is_of_all_decided_windows_and_one_threshold_serves_all():
    found, _, _ = fitted("one-of-k", Target.RISK, 0.1, skill=2.0)
    assert len(set(found.threshold)) == 1
    assert set(found.fitted) == {FittedTo.POOLED}
    uncertainty, target = made(4000, skill=2.0, seed=2)
    decided = decide(posterior(decisions=found), uncertainty)
    assert target[decided.called].mean() >= 0.9
    with pytest.raises(SettingError, match="for one-of-k; use --precision"):
        fitted("multi-label", Target.RISK, 0.1)


def test_false_alarms_are_counted_an_hour_and_need_hours():
    found, uncertainty, target = fitted("multi-label", Target.FALSE_ALARMS, 20, seconds=10.0, skill=3.0)
    decided = decide(posterior("multi-label", decisions=found), uncertainty)
    hours = 600 * 10 / 3600
    for k in range(3):
        wrong = int((decided.called[:, k] & ~target[:, k]).sum())
        assert wrong == found.wrong[k]
        assert found.bound[k] == pytest.approx(upper_bound(wrong, 600, 0.9) * 360)
        assert wrong / hours <= found.bound[k] <= 20
    with pytest.raises(StoreError, match=r"takes 2.3 hours .* and there are 1.7; .* ask for 1.4 or more"):
        fitted("multi-label", Target.FALSE_ALARMS, 1, seconds=10.0)
    with pytest.raises(SettingError, match="embeddings have no length"):
        fitted("multi-label", Target.FALSE_ALARMS, 1)


def test_labels_with_few_clips_share_a_threshold_and_one_without_any_is_never_decided():
    uncertainty, target = made(60, seed=3)
    target[target[:, 2], 2] = False
    found = fit_decisions(uncertainty, target, groups=np.arange(60), aim=Target.PRECISION, value=0.9)
    assert found.fitted == (FittedTo.POOLED, FittedTo.POOLED, FittedTo.NEVER)
    assert found.threshold[0] == found.threshold[1]
    decided = decide(posterior(decisions=found), uncertainty)
    assert not decided.called[:, 2].any()
    assert decided.left[uncertainty.probability.argmax(axis=1) == 2].all()


def test_a_label_whose_own_clips_contradict_the_target_is_taken_out_of_the_pool():
    uncertainty, target = made(54, seed=3, skill=7.0)
    settings = {"groups": np.arange(54), "aim": Target.PRECISION, "value": 0.9}
    assert set(fit_decisions(uncertainty, target, **settings).fitted) == {FittedTo.POOLED}
    # Two thirds of one label's clips are of another in truth.
    wrong, its = target.copy(), np.flatnonzero(target[:, 1])
    wrong[its[: 2 * len(its) // 3]] = [True, False, False]
    assert fit_decisions(uncertainty, wrong, **settings).fitted == (FittedTo.POOLED, FittedTo.NEVER, FittedTo.POOLED)


def test_clips_of_few_recordings_decide_less():
    uncertainty, target = made(300, seed=5)
    settings = {"aim": Target.PRECISION, "value": 0.95}
    alone = fit_decisions(uncertainty, target, groups=np.arange(300), **settings)
    # All clips of a label are of one recording.
    shared = fit_decisions(uncertainty, target, groups=target.argmax(axis=1), **settings)
    assert sum(alone.called) > 200
    assert sum(shared.called) == 0
    assert set(shared.fitted) == {FittedTo.NEVER}


def test_windows_beyond_the_limits_are_left_to_a_person():
    held, _ = made(400, seed=6)
    usual = usual_scores(held, np.arange(400))
    assert (held.entropy > usual.limit).mean() <= 0.01
    found, _, _ = fitted("one-of-k", Target.PRECISION, 0.8)
    # Sounds of no label: all are as probable.
    strange, _ = made(200, skill=0.0, noise=2.0, draws=20, seed=7)
    both = decide(posterior(decisions=found, usual=usual), strange)
    assert both.outside.mean() > 0.3
    assert not both.called[both.outside].any()
    assert both.left[both.outside].all()
    uncertainty, _ = made(200, seed=8)
    limit = float(np.median(uncertainty.entropy))
    cut = decide(posterior(decisions=found), uncertainty, abstain_above=limit)
    np.testing.assert_array_equal(cut.left[uncertainty.entropy > limit], True)
    assert cut.called[uncertainty.entropy <= limit].any(axis=1).mean() > 0.9


def test_with_a_limit_alone_any_posterior_decides():
    uncertainty, _ = made(50)
    decided = decide(posterior(), uncertainty, abstain_above=10.0)
    np.testing.assert_array_equal(decided.called.argmax(axis=1), uncertainty.probability.argmax(axis=1))
    assert not decided.left.any()
    assert not decided.outside.any()
    many, _ = made(50, task="multi-label")
    np.testing.assert_array_equal(
        decide(posterior("multi-label"), many, abstain_above=10.0).called, many.probability >= 0.5
    )
    with pytest.raises(PredictionError, match="no decisions; run calibrate with --precision"):
        decide(posterior(), uncertainty)
    for wrong in (-1.0, math.nan):
        with pytest.raises(PredictionError, match="expected an entropy in nats"):
            decide(posterior(), uncertainty, abstain_above=wrong)


def test_few_clips_mark_as_few_windows_as_they_can_tell_apart():
    uncertainty, _ = made(20)
    usual = usual_scores(uncertainty, np.arange(20))
    assert usual.level == pytest.approx(1 / 21)
    assert usual.limit == uncertainty.entropy.max()


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
def test_totals_add_up_whatever_the_parts_and_counts_hold_the_truth(task):
    held, target = made(300, task=task, seed=9, skill=3.0)
    groups = np.arange(300)
    usual = usual_scores(held, groups)
    found = fit_decisions(held, target, groups=groups, aim=Target.PRECISION, value=0.9)
    who = posterior(task, decisions=found, usual=usual, confusion=fit_confusion(held, target, groups=groups))
    new, truth = made(400, task=task, seed=13, skill=3.0, share=(16, 3, 1))
    decided = decide(who, new)
    whole, parts = Tally(who), Tally(who)
    whole.add(new, decided)
    for start in range(0, 400, 50):
        index = np.arange(start, start + 50)
        parts.add(new.take(index), decide(who, new.take(index)), complete=start == 350)
    totals = whole.result()
    again = parts.result()
    assert again.shift_p == pytest.approx(totals.shift_p)
    assert replace(again, shift_p=totals.shift_p) == totals
    assert (totals.windows, totals.recordings) == (400, 1)
    assert totals.decided + totals.left == 400
    assert totals.outside == decided.outside.sum()
    for k, count in enumerate(totals.counts):
        assert (count.label, count.called) == (LABELS[k], decided.called[:, k].sum())
        # All windows of each label lie in an interval of 90 %, or just outside.
        inside = truth[~decided.outside, k].sum()
        assert count.low - 0.3 * (count.high - count.low) <= inside <= count.high + 0.3 * (count.high - count.low)


def test_recordings_of_another_kind_are_told_and_those_of_the_same_kind_are_not():
    held, target = made(300, seed=11)
    groups = np.arange(300)
    who = posterior(
        usual=usual_scores(held, groups),
        decisions=fit_decisions(held, target, groups=groups, aim=Target.PRECISION, value=0.9),
    )

    def told(**kind):
        tally = Tally(who)
        new, _ = made(60, **kind)
        for index in np.split(np.arange(60), 30):
            tally.add(new.take(index), decide(who, new.take(index)))
        return tally.result()

    like, other = told(seed=12), told(seed=12, skill=1.5)
    assert like.warning == ""
    assert like.shift_p > 0.05
    assert other.shift_p < 0.001
    assert "a precision that was asked for may not hold" in other.warning
    # Only 5 % of runs of the same kind are told: 1 or 2 of 25, and no more than 5.
    assert sum(told(seed=20 + seed).shift_p < 0.05 for seed in range(25)) <= 5
    # Without held-out scores there is no test, and no warning.
    assert Tally(posterior(decisions=fitted("one-of-k", Target.RISK, 0.1)[0])).result().shift_p is None


def test_windows_of_different_recordings_do_not_overlap_however_short_these_are():
    held, target = made(300, seed=9)
    who = posterior(confusion=fit_confusion(held, target, groups=np.arange(300)))
    new, _ = made(30, seed=13)

    def counted(hops, each):
        tally = Tally(who, together=hops)
        for index in np.split(np.arange(30), 30 // each):
            tally.add(new.take(index), decide(who, new.take(index), abstain_above=9.0))
        return tally.result().counts

    assert counted(5.0, 1) == counted(1.0, 1)
    widths = [sum(count.high - count.low for count in counted(5.0, each)) for each in (1, 30)]
    assert widths[0] < widths[1]
