"""Tables of a cross-validation, from values given by hand."""

import math
from types import SimpleNamespace

import pytest

from bayes_panns.jobs.crossval import Spread
from bayes_panns.metrics import Interval
from bayes_panns.report import crossval_latex, crossval_table

NAN = math.nan


@pytest.fixture
def result():
    spreads = {
        "flip_1": {
            "cls/accuracy": Spread((0.8, 0.9), 2, 0.85, 0.0707, 0.2147, 1.4853),
            "cls/map": Spread((0.8, 0.9), 2, 0.85, 0.0707, 0.2147, 1.4853),
            "cls/d_prime": Spread((math.inf, 2.0), 2, math.inf, NAN, NAN, NAN),
            "cal/nll": Spread((0.5, NAN), 1, 0.5, NAN, NAN, NAN),
            "ood/auroc": Spread((NAN, NAN), 0, NAN, NAN, NAN, NAN),
        },
        "det": {
            "cls/accuracy": Spread((0.7,), 1, 0.7, NAN, NAN, NAN),
            "cal/ece": Spread((0.1,), 1, 0.1, NAN, NAN, NAN),
        },
    }
    differences = {
        ("flip_1", "det"): {"cls/accuracy": Interval(0.15, 0.05, 0.25), "cal/ece": Interval(-0.01, -0.05, 0.03)}
    }
    return SimpleNamespace(evaluations=spreads, spread=spreads.__getitem__, differences=differences)


def test_a_row_has_the_metric_its_name_and_a_cell_for_each_strategy(result):
    lines = crossval_table(result).splitlines()
    assert lines[0].split("  ")[0] == "metric"
    (accuracy,) = [line for line in lines if line.startswith("cls/accuracy")]
    assert "Accuracy ↑" in accuracy
    assert "0.8500 ± 0.0707 (0.2147 to 1.4853)" in accuracy
    assert accuracy.endswith("0.7000")
    # A metric of the second strategy only has a row too; one that is undefined everywhere has none.
    assert any(line.startswith("cal/ece") and "Expected calibration error (ECE) ↓" in line for line in lines)
    assert "ood/auroc" not in crossval_table(result)
    # A fold without a value is counted.
    (nll,) = [line for line in lines if line.startswith("cal/nll")]
    assert "Negative log-likelihood (NLL) / nats ↓" in nll
    assert nll.endswith("0.5000 [1 of 2 folds]")


def test_a_star_marks_a_difference_whose_interval_excludes_0(result):
    first, second = crossval_table(result).splitlines()[-2:]
    assert first.endswith("+0.1500 (+0.0500 to +0.2500) *")
    assert second.endswith("-0.0100 (-0.0500 to +0.0300)")
    assert "flip_1 minus det, pooled (* the interval excludes 0)" in crossval_table(result)


def test_latex_has_the_short_names_and_escapes(result):
    text = crossval_latex(result, ("cls/accuracy", "cls/map", "cls/d_prime", "cal/nll", "ood/auroc"))
    assert text.splitlines()[0] == r"\begin{tabular}{lrrr}"
    assert text.splitlines()[2] == r"strategy & accuracy & d$'$ & NLL / nats \\"
    assert r"flip\_1 & $0.850 \pm 0.071$ & $\infty$ & $0.500$ \\" in text
    assert r"det & $0.700$ & -- & -- \\" in text
