"""The figures of the demo."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bayes_panns import report
from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import reliability, risk_coverage, top_label
from bayes_panns.svi import read_metrics


def save_figures(evaluations: Mapping[str, Evaluation], metrics: Mapping[str, Path], folder: Path) -> None:
    """Save the demo's figures as PNG files.

    Args:
        evaluations: The posteriors that are compared, by name; each with out-of-distribution clips.
        metrics: The ``metrics.jsonl`` of each fit, by name.
        folder: Where the figures go.
    """
    for name, path in metrics.items():
        report.save(report.training_curves(read_metrics(path)), folder / f"training-{name.replace(' ', '-')}.png")
    results = {name: evaluation.metrics for name, evaluation in evaluations.items()}
    report.save(report.comparison(results), folder / "comparison.png")
    report.save(_reliability(evaluations), folder / "reliability.png")
    report.save(_uncertainty(evaluations), folder / "uncertainty.png")
    report.save(_risk_coverage(evaluations), folder / "risk-coverage.png")


def _reliability(evaluations: Mapping[str, Evaluation]) -> Figure:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, len(evaluations))
    for axis, (name, evaluation) in zip(axes, evaluations.items(), strict=True):
        reliability(evaluation.uncertainty.probability, evaluation.target, evaluation.uncertainty.task).plot(axis)
        axis.set_title(name)
    return figure


def _uncertainty(evaluations: Mapping[str, Evaluation]) -> Figure:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, len(evaluations), sharey=True)
    for axis, (name, evaluation) in zip(axes, evaluations.items(), strict=True):
        _, right = top_label(evaluation.uncertainty.probability, evaluation.target)
        assert evaluation.ood is not None
        entropy = evaluation.uncertainty.entropy
        groups = {"right": entropy[right], "wrong": entropy[~right], "novel": evaluation.ood.entropy}
        report.uncertainty_histograms(axis, groups)
        axis.set_title(name)
    return figure


def _risk_coverage(evaluations: Mapping[str, Evaluation]) -> Figure:
    figure = Figure(figsize=(5.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for name, evaluation in evaluations.items():
        confidence, right = top_label(evaluation.uncertainty.probability, evaluation.target)
        risk_coverage(-confidence, ~right).plot(axis, name)
    return figure
