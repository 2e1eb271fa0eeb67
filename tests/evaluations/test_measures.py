import numpy as np
import pytest
import torch

from bayes_panns.evaluations import compare, evaluate, intervals
from bayes_panns.metrics import (
    ace,
    auc,
    aurc,
    auroc,
    average_precision,
    bootstrap,
    brier,
    classwise_ece,
    clip_loss,
    coverage_at_risk,
    mean_auc,
    nll,
    paired,
    pavpu,
)
from bayes_panns.predictions import decompose, scores

CAL = ["ece", "ace", "classwise_ece", "nll", "brier", "brier_reliability", "brier_resolution", "brier_uncertainty"]
SHARED = ["cls/map", "cls/auc", "cls/d_prime", *(f"cal/{name}" for name in CAL)]
OTHERS = ["mutual_information", "expected_entropy", "total", "aleatoric", "epistemic"]
SC = ["sc/aurc", "sc/augrc", "sc/coverage_at_5_percent_risk", "sc/pavpu"]
UNC = [f"unc/{name}" for name in ("entropy", *OTHERS)]


def names(task, ood):
    one_of_k = task == "one-of-k"
    others = ["entropy", *OTHERS] if one_of_k else OTHERS
    return [
        *(["cls/accuracy"] if one_of_k else []),
        *SHARED,
        *SC,
        *(f"sc/aurc_{score}" for score in others),
        *UNC,
        *(f"ood/{part}{suffix}" for suffix in suffixes(one_of_k) for part in ("auroc", "aupr", "fpr95") if ood),
        *COUNTS,
    ]


def suffixes(one_of_k):
    return ["", *(["_confidence"] if one_of_k else []), *(f"_{score}" for score in OTHERS)]


COUNTS = ["draws", "clips"]


def test_one_of_k_with_out_of_distribution():
    label = torch.arange(30) % 3
    logits = 4 * torch.nn.functional.one_hot(label, 3) + torch.randn(8, 30, 3)
    inside = decompose(logits.softmax(dim=2), "one-of-k")
    outside = decompose((2 * torch.randn(8, 10, 3)).softmax(dim=2), "one-of-k")
    metrics = evaluate(inside, np.eye(3, dtype=bool)[label], "one-of-k", ood=outside)
    assert list(metrics) == names("one-of-k", ood=True)
    assert metrics["cls/accuracy"] == 1
    assert metrics["cls/d_prime"] == np.inf
    assert metrics["sc/aurc"] == 0
    assert metrics["unc/total"] == pytest.approx(metrics["unc/aleatoric"] + metrics["unc/epistemic"])
    assert metrics["unc/total"] == pytest.approx(1 - (inside.probability**2).sum(axis=1).mean())
    assert metrics["ood/auroc"] > 0.7
    assert metrics["ood/auroc_mutual_information"] > 0.7
    assert (metrics["draws"], metrics["clips"]) == (8, 30)


def test_multi_label_alone():
    p = torch.rand(3, 20, 4)
    target = np.random.default_rng(0).random((20, 4)) < 0.5
    metrics = evaluate(decompose(p, "multi-label"), target, "multi-label")
    assert list(metrics) == names("multi-label", ood=False)
    assert all(type(value) in (int, float) for value in metrics.values())


@pytest.fixture(params=["one-of-k", "multi-label"])
def example(request):
    """Two predictions of the same clips, some from outside, the target and the task."""
    torch.manual_seed(1)
    label = torch.arange(60) % 4
    logits = 2 * torch.nn.functional.one_hot(label, 4) + torch.randn(60, 4)
    target = np.eye(4, dtype=bool)[label]
    if request.param == "multi-label":
        target |= np.random.default_rng(0).random(target.shape) < 0.2

    def predict(logits):
        draws = logits + 0.4 * torch.randn(6, *logits.shape)
        return decompose(draws.softmax(dim=2) if request.param == "one-of-k" else draws.sigmoid(), request.param)

    return predict(logits), predict(logits / 2), predict(torch.randn(25, 4)), target, request.param


def test_each_metric_is_the_function_of_its_name(example):
    u, _, ood, target, task = example
    metrics, p, loss, score = (
        evaluate(u, target, task, ood),
        u.probability,
        clip_loss(u.probability, target, task),
        scores(u),
    )
    first = "confidence" if task == "one-of-k" else "entropy"
    assert metrics["cal/classwise_ece"] == pytest.approx(classwise_ece(p, target).mean())
    parts = (metrics[f"cal/brier_{part}"] for part in ("reliability", "resolution", "uncertainty"))
    assert np.dot([*parts], [1, -1, 1]) == pytest.approx(brier(p, target, task))
    assert metrics["sc/aurc"] == aurc(score[first], loss)
    assert metrics["sc/aurc_epistemic"] == aurc(u.epistemic.sum(axis=1), loss)
    assert metrics["sc/coverage_at_5_percent_risk"] == coverage_at_risk(score[first], loss, 0.05)
    middle = (u.entropy.min() + u.entropy.max()) / 2
    assert metrics["sc/pavpu"] == pytest.approx(((u.entropy <= middle) == (loss == 0)).mean())
    assert metrics["sc/pavpu"] == pavpu(u.entropy, loss > 0).at(middle)
    assert metrics["unc/entropy"] == pytest.approx(metrics["unc/expected_entropy"] + metrics["unc/mutual_information"])
    assert metrics["ood/auroc"] == auroc(u.entropy, ood.entropy)
    assert metrics["ood/auroc_aleatoric"] == auroc(u.aleatoric.sum(axis=1), ood.aleatoric.sum(axis=1))


def test_intervals_are_those_of_each_metrics_own_bootstrap(example):
    u, _, ood, target, task = example
    found = intervals(u, target, task, resamples=50, seed=3)
    metrics = evaluate(u, target, task)
    assert {name: each.value for name, each in found.items()} == {
        name: value for name, value in metrics.items() if name not in COUNTS
    }
    own = {"resamples": 50, "seed": 3}
    assert found["cls/auc"] == bootstrap(mean_auc, u.probability, target, **own)
    assert found["cal/nll"] == bootstrap(lambda p, t: nll(p, t, task), u.probability, target, **own)
    assert found["unc/epistemic"] == bootstrap(lambda e: float(e.sum(axis=1).mean()), u.epistemic, **own)
    assert found["cal/ace"] == bootstrap(lambda p, t: ace(p, t, task), u.probability, target, centred=True, **own)
    # What clips from outside score does not change the clips from inside that are drawn first.
    outside = intervals(u, target, task, ood, resamples=50, seed=3)
    assert set(outside) > set(found)
    for suffix in suffixes(task == "one-of-k"):
        assert outside[f"ood/auroc{suffix}"].low < outside[f"ood/auroc{suffix}"].high
    assert outside["ood/auroc"].low <= outside["ood/auroc"].value <= outside["ood/auroc"].high


def test_no_interval_of_a_calibration_error_goes_below_0():
    # Half of the clips at one half: no error, but hardly a resample without.
    half = decompose(torch.full((1, 20, 1), 0.5), "multi-label")
    target = np.arange(20)[:, None] % 2 == 0
    found = intervals(half, target, "multi-label", resamples=60)["cal/ece"]
    assert (found.value, found.low) == (0, 0)
    assert found.high > 0
    assert bootstrap(lambda t: abs(t.mean() - 0.5), target, resamples=60, centred=True).low < 0


def test_intervals_of_whole_recordings(example):
    u, _, _, target, task = example
    # Five clips a recording, all the same: a fifth of the clips, and intervals more than twice as wide.
    index = np.repeat(np.arange(12), 5)
    twice, goal = u.take(index), target[index]
    single = intervals(twice, goal, task, resamples=100)["cal/brier"]
    whole = intervals(twice, goal, task, resamples=100, groups=index)["cal/brier"]
    assert whole.value == single.value
    assert whole.high - whole.low > 1.5 * (single.high - single.low)


def test_a_comparison_is_paired(example):
    a, b, ood, target, task = example
    found = compare(a, b, target, task, resamples=50)
    first, second = evaluate(a, target, task), evaluate(b, target, task)
    for name, each in found.items():
        assert each.value == pytest.approx(first[name] - second[name])
    assert list(found) == [name for name in first if name not in COUNTS]
    assert found["cal/brier"] == paired(
        lambda p, t: brier(p, t, task), a.probability, b.probability, target, resamples=50
    )
    # Half the logits: surely less certain.
    assert found["unc/entropy"].high < 0
    same = compare(a, a, target, task, (ood, ood), resamples=10)
    assert {(each.value, each.low, each.high) for each in same.values()} == {(0, 0, 0)}
    assert "ood/auroc" in same
    with pytest.raises(ValueError, match="25 and 24 out-of-distribution"):
        compare(a, b, target, task, (ood, ood.take(np.arange(24))))


def test_intervals_where_a_label_has_one_clip_or_none():
    p = torch.rand(4, 12, 3, dtype=torch.float64)
    target = np.zeros((12, 3), dtype=bool)
    target[:, 0], target[0, 1] = np.arange(12) % 2, True
    found = intervals(decompose(p, "multi-label"), target, "multi-label", resamples=60)
    assert all(np.isfinite([each.low, each.high]).all() for each in found.values())
    right = decompose(torch.tensor(np.eye(2)[[0, 1, 0, 1]])[None] * 0.8 + 0.1, "one-of-k")
    perfect = intervals(right, np.eye(2, dtype=bool)[[0, 1, 0, 1]], "one-of-k", resamples=60)
    assert (perfect["cls/accuracy"].low, perfect["cls/d_prime"].high) == (1, np.inf)
    same = compare(right, right, np.eye(2, dtype=bool)[[0, 1, 0, 1]], "one-of-k", resamples=60)
    # Infinity less infinity.
    assert np.isnan(same["cls/d_prime"].value)
    assert same["cls/accuracy"].value == 0


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
def test_one_clip_and_one_draw_leave_the_undefined_as_nan(task):
    clip = decompose(torch.tensor([[[0.8, 0.2]]]), task)
    metrics = evaluate(clip, np.array([[True, False]]), task, ood=clip)
    assert {name for name, value in metrics.items() if np.isnan(value)} == {"cls/auc", "cls/d_prime"}
    assert metrics["unc/epistemic"] == 0
    assert metrics["ood/auroc"] == 0.5


def test_predictions_that_do_not_belong_together_are_refused():
    inside = decompose(torch.rand(2, 3, 4), "multi-label")
    target = np.zeros((3, 4), dtype=bool)
    with pytest.raises(ValueError, match="'multi-label'"):
        evaluate(inside, target, "one-of-k")
    with pytest.raises(ValueError, match="equal"):
        intervals(inside, target[:2], "multi-label")
    with pytest.raises(ValueError, match="other labels"):
        evaluate(inside, target, "multi-label", ood=decompose(torch.rand(2, 3, 5), "multi-label"))


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
def test_labels_that_no_clip_has_are_left_out_of_means_over_labels(task):
    """A test set may lack classes: it is scored on those that it has."""
    p = torch.rand(4, 30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = p / p.sum(dim=2, keepdim=True) if task == "one-of-k" else p
    target = np.eye(5, dtype=bool)[np.arange(30) % 3]
    u = decompose(p, task)
    metrics = evaluate(u, target, task)
    assert all(np.isfinite(value) for value in metrics.values())
    for name, each in (("cls/map", average_precision), ("cls/auc", auc)):
        values = each(u.probability, target)
        assert np.isnan(values[3:]).all()
        assert metrics[name] == pytest.approx(values[:3].mean())
    found = intervals(u, target, task, resamples=20)
    assert all(np.isfinite([each.low, each.high]).all() for each in found.values())


def test_multi_label_clips_without_any_positive_leave_the_undefined_as_nan():
    u = decompose(torch.rand(2, 8, 3, dtype=torch.float64), "multi-label")
    none = np.zeros((8, 3), dtype=bool)
    metrics = evaluate(u, none, "multi-label")
    assert {name for name, value in metrics.items() if np.isnan(value)} == {"cls/map", "cls/auc", "cls/d_prime"}
    assert metrics["sc/aurc"] == 0
    found = intervals(u, none, "multi-label", resamples=5)
    assert np.isnan([found["cls/map"].value, found["cls/map"].low, found["cls/map"].high]).all()
    assert np.isfinite(found["cal/nll"].low)
