import numpy as np
import pytest
import torch

from bayes_panns.uncertainty import decompose, evaluate

SHARED = ["cls/map", "cls/auc", "cls/d_prime", "cal/ece", "cal/ace", "cal/nll", "cal/brier"]
UNC = ["unc/total", "unc/aleatoric", "unc/epistemic"]
OOD = ["ood/auroc", "ood/aupr", "ood/fpr95", "ood/auroc_mutual_information"]
COUNTS = ["draws", "clips"]


def test_one_of_k_with_out_of_distribution():
    label = torch.arange(30) % 3
    logits = 4 * torch.nn.functional.one_hot(label, 3) + torch.randn(8, 30, 3)
    inside = decompose(logits.softmax(dim=2), "one-of-k")
    outside = decompose((2 * torch.randn(8, 10, 3)).softmax(dim=2), "one-of-k")
    metrics = evaluate(inside, np.eye(3, dtype=bool)[label], "one-of-k", ood=outside)
    assert list(metrics) == ["cls/accuracy", *SHARED, "sc/aurc", *UNC, *OOD, *COUNTS]
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
    assert list(metrics) == [*SHARED, *UNC, *COUNTS]
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
