"""Metrics have one name: in tables, LaTeX, figures and on the page."""

import re

import numpy as np
import pytest

from bayes_panns.report import METRIC_NAMES, metric_name, render_page, training_curves
from bayes_panns.report.names import validation_name
from bayes_panns.report.page.sections.training import section as training
from bayes_panns.report.sources import Source, SourcePart


@pytest.mark.parametrize("task", ["one-of-k", "multi-label"])
def test_every_metric_of_an_evaluation_has_a_name_and_a_sentence(make, task):
    p = np.random.default_rng(0).dirichlet(np.ones(3), (3, 9))
    target = np.eye(3, dtype=bool)[np.arange(9) % 3]
    found = make.evaluation(p, target, task, ood=p[:, :4])
    metrics = (set(found.metrics) | {"set/coverage", "set/size"}) - {"draws", "clips"}
    assert len(metrics) > 30
    for metric in metrics:
        name = metric_name(metric)
        assert name.title != metric
        assert name.reading.endswith(".")
    titles = [metric_name(metric).title for metric in metrics]
    assert len(set(titles)) == len(titles)


def test_standard_names_and_directions():
    assert METRIC_NAMES["cal/ece"].title == "Expected calibration error (ECE)"
    assert METRIC_NAMES["cal/nll"].axis == "NLL / nats"
    assert METRIC_NAMES["sc/aurc"].title == "Area under the risk-coverage curve (AURC)"
    assert {name: METRIC_NAMES[name].arrow for name in ("cls/accuracy", "cal/ece", "unc/total", "ood/fpr95")} == {
        "cls/accuracy": "↑",
        "cal/ece": "↓",
        "unc/total": "",
        "ood/fpr95": "↓",
    }
    by = metric_name("ood/fpr95_mutual_information")
    assert (by.title, by.better) == ("Out-of-distribution FPR at 95 % TPR by mutual information", "lower")
    assert metric_name("seconds").title == "seconds"
    assert metric_name("sc/aurc_nonsense").title == "sc/aurc_nonsense"
    assert validation_name("val/accuracy") == METRIC_NAMES["cls/accuracy"]
    assert validation_name("val/other").title == "other"


def test_the_charts_of_a_fit_have_the_names_of_its_metrics(make):
    lines = [{"epoch": n, "nll": 1.0, "kl": 2.0, "val/nll": 1.1, "val/map": 0.5, "val/accuracy": 0.5} for n in (1, 2)]
    titles = [ax.get_title(loc="left") for ax in training_curves(lines).axes]
    on_page = []

    def draw(title, *_, **__):
        on_page.append(title)

    part = SourcePart("run", None, metrics=lines)
    training(Source("run", "run", (part,)), type("Context", (), {"draw": staticmethod(draw)}))
    assert titles == on_page
    for metric in ("cls/map", "cls/accuracy"):
        assert f"Validation: {METRIC_NAMES[metric].title}" in titles


def test_a_comparison_titles_its_charts_as_its_table(home, make, monkeypatch):
    from bayes_panns.report import read_sources

    sources = [source for name in ("flip", "drop") for source in read_sources(home / name, make.quick)]
    monkeypatch.setattr("bayes_panns.report.page.render.make_sections", lambda *_: ([], []))
    html = render_page(sources)
    table = re.findall(r'<tr><th scope="row">(.*?)(?: <span.*?)?</th>', html)
    found = make.page(html)
    charts = [text for level, text in found.headings if level == 3]
    assert len(table) == 7
    assert charts[: len(table)] == table
