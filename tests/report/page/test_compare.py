"""Several sources side by side."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bayes_panns.metrics import Interval
from bayes_panns.report import METRIC_NAMES, Scoring, read_sources, render_page
from bayes_panns.report.formatting import number
from bayes_panns.report.page import compare, render


def test_runs_side_by_side(home, make, html):
    sources = [source for name in ("flip", "drop") for source in read_sources(home / name, make.quick)]
    found = make.page(render_page(sources))
    assert found.sections == ["Comparison", "flip", "drop"]
    whole = make.page(html).sections
    second = [text for _, text in found.headings].index("flip")
    assert [text for level, text in found.headings[second:] if level == 3][: len(whole)] == whole
    for metric in ("cal/nll", "ood/auroc"):
        a, b = (source.evaluation.metrics[metric] for source in sources)
        shown = re.escape(("+" if b > a else "") + number(b - a))
        title = re.escape(METRIC_NAMES[metric].title)
        assert re.search(rf"{title} .{{0,20}}{number(a)}.{{0,40}}{number(b)}.{{0,40}} {shown} \(", found.text)
    assert sources[0].evaluation.metrics["ood/auroc"] != sources[1].evaluation.metrics["ood/auroc"]
    assert "drop and flip were scored on the same clips" in found.text
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_sources_share_charts(home, make, drawn, monkeypatch):
    monkeypatch.setattr(render, "make_sections", lambda *_: ([], []))
    text = render_page([source for name in ("flip", "drop") for source in read_sources(home / name, make.quick)])
    drawings = re.findall(r'<svg class="chart".*?</svg>', text, flags=re.DOTALL)
    assert len(drawings) == 9
    for drawing in drawings:
        shown = "".join(ElementTree.fromstring(drawing).itertext())
        assert "flip" in shown
        assert "drop" in shown


def test_sources_of_other_clips_have_no_difference(home, make):
    (first,) = read_sources(home / "flip", make.quick)
    scoring = Scoring(stores=[str(home / "clips.h5")], folds=[1], draws=2)
    (other,) = read_sources(home / "drop" / "posterior", scoring)
    found = make.page(render_page([first, other]))
    assert not [each for each in found.all("span") if "difference" in (each.get("class") or "")]
    assert "There is no difference for a run that was not scored on the clips of flip." in found.text


def test_equal_names_are_numbered(home, make):
    (source,) = read_sources(home / "flip", make.quick)
    found = make.page(render_page([source, replace(source, name="flip")]))
    assert found.sections == ["Comparison", "flip (1)", "flip (2)"]


@pytest.mark.parametrize(
    ("low", "high", "better", "verdict"),
    [
        (0.1, 0.2, "higher", "better"),
        (0.1, 0.2, "lower", "worse"),
        (-0.2, -0.1, "higher", "worse"),
        (-0.2, -0.1, "lower", "better"),
        (0.1, 0.2, "", "different"),
        (-0.1, 0.2, "higher", ""),
        (0.0, 0.2, "higher", ""),
    ],
)
def test_a_verdict_needs_an_interval_that_excludes_0(low, high, better, verdict):
    found = compare._compared(Interval(0.5, 0.4, 0.6), Interval((low + high) / 2, low, high), better)
    assert found.verdict == verdict
