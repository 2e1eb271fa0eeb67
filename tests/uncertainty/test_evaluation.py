import numpy as np
import pytest
import torch

from bayes_panns.uncertainty import decompose, evaluate

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
    with pytest.raises(ValueError, match="other labels"):
        evaluate(inside, target, "multi-label", ood=decompose(torch.rand(2, 3, 5), "multi-label"))
