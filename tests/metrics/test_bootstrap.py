import numpy as np
import pytest

from bayes_panns.metrics import Interval, auroc, bootstrap, ece, mean_auc, paired
from bayes_panns.metrics.bootstrap import Sample

RIGHT = np.repeat([True, False], [80, 20])


def test_the_mean_of_coins_by_the_binomial():
    found = bootstrap(np.mean, RIGHT, resamples=4000)
    assert found.value == 0.8
    # The 2.5 % and 97.5 % quantiles of a binomial of 100 at 0.8 are 72 and 87.
    assert found.low == pytest.approx(0.72, abs=0.011)
    assert found.high == pytest.approx(0.87, abs=0.011)
    narrow = bootstrap(np.mean, RIGHT, level=0.5)
    assert found.low < narrow.low < 0.8 < narrow.high < found.high
    assert str(Interval(0.8, 0.72, 0.87)) == "0.800 (0.720 to 0.870)"


def test_95_of_100_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        found = bootstrap(np.mean, rng.random(60) < 0.6, resamples=200, seed=seed)
        held += found.low <= 0.6 <= found.high
    # The standard error of the share is 0.015.
    assert 0.9 <= held / 200 <= 0.99


def test_the_seed_decides():
    first, again, other = (bootstrap(np.mean, RIGHT, resamples=50, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_arrays_of_the_same_clips_stay_together():
    clips = np.arange(30.0)
    found = bootstrap(lambda a, b: float(np.abs(a - b).max()), clips, clips, resamples=50)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_arrays_of_different_clips_are_resampled_each_on_its_own():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=50), rng.normal(2, size=20)
    found = bootstrap(auroc, inside, outside, together=False)
    assert found.value == auroc(inside, outside)
    assert 0.8 < found.low < found.value < found.high <= 1
    fewer = bootstrap(auroc, inside, outside[:5], together=False)
    assert fewer.high - fewer.low != found.high - found.low


def test_whole_groups_are_resampled():
    # Ten recordings, each cut into twenty clips that are all right or all wrong.
    groups = np.repeat(list("abcdefghij"), 20)
    right = np.isin(groups, list("abcdefg"))
    shuffled = np.random.default_rng(0).permutation(200)
    whole = bootstrap(np.mean, right[shuffled], groups=groups[shuffled])
    single = bootstrap(np.mean, right)
    assert (single.low, single.high) == (pytest.approx(0.64, abs=0.02), pytest.approx(0.765, abs=0.02))
    assert (whole.low, whole.high) == (0.4, 1)
    draw = Sample(200, groups).draw(np.random.default_rng(0))
    assert all(np.bincount(draw, minlength=200).reshape(10, 20).std(axis=1) == 0)
    assert len(draw) == 200


def test_groups_of_different_size_make_resamples_of_different_size():
    groups = np.array([1, 1, 1, 2])
    sizes = {len(Sample(4, groups).draw(np.random.default_rng(seed))) for seed in range(20)}
    assert sizes == {2, 4, 6}


def test_pairing_cancels_what_makes_clips_hard():
    rng = np.random.default_rng(0)
    hard = rng.random(200)
    a, b = hard + 0.05 + 0.01 * rng.normal(size=200), hard + 0.01 * rng.normal(size=200)
    found = paired(np.mean, a, b)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert 0.04 < found.low < found.value < found.high < 0.06
    apart = bootstrap(lambda a, b: a.mean() - b.mean(), a, b, together=False)
    assert apart.high - apart.low > 10 * (found.high - found.low)


def test_paired_shares_the_target():
    target = np.random.default_rng(0).random((50, 2)) < 0.5
    same = paired(mean_auc, *[np.random.default_rng(1).random((50, 2))] * 2, target, resamples=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_an_undefined_resample_is_left_out():
    target = np.zeros((20, 1), dtype=bool)
    target[:2] = True
    p = np.random.default_rng(0).random((20, 1))
    # 12 % of the resamples have no positive clip.
    found = bootstrap(mean_auc, p, target)
    assert np.isfinite([found.low, found.high]).all()
    assert found.low <= found.value <= found.high


def test_mostly_undefined_is_nan():
    found = bootstrap(lambda x: x.mean() if 0 in x else np.nan, np.arange(1.0, 3.0) - 1, resamples=40)
    assert np.isfinite(found.low)
    # Both clips are there in half of the resamples, all three of three in 22 %.
    found = bootstrap(lambda x: x.mean() if len(np.unique(x)) == 3 else np.nan, np.arange(3.0))
    assert found.value == 1
    assert np.isnan([found.low, found.high]).all()
    undefined = bootstrap(lambda x: np.nan, np.ones(3), resamples=5)
    assert np.isnan([undefined.value, undefined.low, undefined.high]).all()


def test_an_infinite_value_is_an_end_like_any_other():
    found = bootstrap(lambda x: np.inf if x.min() > 0.5 else x.min(), np.array([0.1, 0.9, 0.8, 0.7]))
    assert (found.low, found.high) == (0.1, np.inf)


def calibrated(rng, clips):
    p = rng.random((clips, 1))
    return p, rng.random(p.shape) < p


def pooled_ece(p, t):
    return ece(p, t, "multi-label")


def test_a_centred_interval_is_the_percentile_one_moved():
    p, target = calibrated(np.random.default_rng(0), 100)
    seen = []
    plain = bootstrap(lambda p, t: seen.append(pooled_ece(p, t)) or seen[-1], p, target, resamples=200)
    centred = bootstrap(pooled_ece, p, target, resamples=200, centred=True)
    bias = np.mean(seen[1:]) - plain.value
    # The model is calibrated, and resamples make it look worse than the clips themselves do.
    assert bias > 0.01
    assert (centred.low, centred.high) == pytest.approx((plain.low - bias, plain.high - bias))
    assert centred.low < centred.value < centred.high


def test_centred_intervals_of_a_calibration_error_hold_what_other_clips_show():
    rng = np.random.default_rng(0)
    expected = np.mean([pooled_ece(*calibrated(rng, 100)) for _ in range(500)])
    held = np.zeros(2)
    for seed in range(60):
        example = calibrated(rng, 100)
        for index, centred in enumerate((False, True)):
            found = bootstrap(pooled_ece, *example, resamples=100, seed=seed, centred=centred)
            held[index] += found.low <= expected <= found.high
    assert held[1] >= 0.9 * 60
    assert held[0] < 0.8 * 60


def test_one_clip():
    found = bootstrap(np.mean, np.array([0.3]), resamples=5)
    assert found == Interval(0.3, 0.3, 0.3)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ([], {}, "one or more"),
        ([np.ones(3), np.ones(2)], {}, "same clips"),
        ([np.ones(0)], {}, "no clips"),
        ([np.ones(3), np.ones(0)], {"together": False}, "no clips"),
        ([np.ones(3)], {"groups": np.ones(2)}, "expected \\(3,\\)"),
        ([np.ones(3), np.ones(3)], {"groups": np.ones(3), "together": False}, "resampled together"),
        ([np.ones(3)], {"resamples": 0}, "at least one"),
        ([np.ones(3)], {"level": 95}, "between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_refused(arrays, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(lambda *arrays: 0.0, *arrays, **options)
