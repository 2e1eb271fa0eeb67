"""The page: its structure, that text from data stays text, that it asks for nothing, and what is refused."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.core.errors import BayesPannsError, OutputError
from bayes_panns.posterior import load, save
from bayes_panns.report import Scoring, read_sources, render_page, write_report
from bayes_panns.report.page import render

WHOLE = [
    "Summary",
    "Training",
    "Calibration",
    "Selective prediction",
    "Aleatoric and epistemic uncertainty",
    "Out-of-distribution detection",
    "Confusions",
    "Results by label",
    "Clips to review",
    "Weights",
    "All metrics",
]


def test_a_run_has_every_section_and_the_contents_lead_to_them(html, make):
    found = make.page(html)
    assert found.sections == WHOLE
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [attributes["href"] for attributes in found.all("a")]
    assert len(links) == len(WHOLE) + 1
    assert {link.removeprefix("#") for link in links} <= set(ids)
    levels = [level for level, _ in found.headings]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_pictures_are_described_and_charts_are_whole(html, make):
    found = make.page(html)
    assert all(image["alt"] for image in found.all("img"))
    drawings = re.findall(r'<svg class="chart".*?</svg>', html, flags=re.DOTALL)
    assert len(drawings) > 10
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert len(root.attrib["aria-label"]) > 20
        inside = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
        used = re.findall(r'(?:href="#|url\(#)([^")]*)', drawing)
        assert set(used) <= inside
        # Only colours of the style sheet: others would vanish on a dark page.
        assert not re.search("#(?:000000|ffffff|333333)", drawing)
    assert "<text" in drawings[0]


def test_the_page_makes_no_requests(html, make):
    found = make.page(html)
    policy = next(meta["content"] for meta in found.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    for _, attributes in found.elements:
        for name in ("src", "href", "xlink:href"):
            assert re.match("data:|#|$", attributes.get(name) or "")
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    assert len(html) < 10_000_000


def test_text_from_data_is_escaped(html, make):
    found = make.page(html)
    assert len(found.all("script")) == 1
    assert f"Tones {make.evil}" in found.text
    for label in make.labels:
        assert label in found.text
    assert f'{make.evil}"' in found.text
    handlers = [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert handlers == []
    assert html.count("<script") == 1


def test_the_facts_say_what_was_fitted_and_scored(html, make):
    text = make.page(html).text
    assert re.search("Fitted to ?16 clips of clips.h5, folds 1, 2", text)
    assert re.search("Scored on ?8 clips of clips.h5, fold 3", text)
    assert re.search("Out of distribution ?6 clips of noise.h5", text)
    assert "clips of 0.5 s" in text


def test_a_clip_length_keeps_its_digits(home, make):
    (source,) = read_sources(home / "flip", make.quick)
    part = source.parts[0]
    long = replace(part, header={**part.header, "clip_seconds": 10000.25})
    assert "clips of 10000.25 s" in make.page(render_page([replace(source, parts=(long,))])).text


def test_a_report_is_written_whole_or_not_at_all(runs, monkeypatch):
    path = write_report([runs / "flip"])
    assert path == runs / "flip" / "report.html"
    before = path.read_text(encoding="utf-8")
    assert before.rstrip().endswith("</html>")

    def fail(sources):
        raise RuntimeError

    monkeypatch.setattr(render, "render_page", fail)
    with pytest.raises(RuntimeError):
        write_report([runs / "flip"])
    assert path.read_text(encoding="utf-8") == before
    assert not [each for each in (runs / "flip").iterdir() if each.name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runs": []}, "name at least one folder"),
        ({"runs": ["nowhere"]}, "nowhere: no such folder"),
        ({"runs": ["flip", "flip"]}, "a run is named twice"),
        ({"runs": ["flip", "drop"]}, "name the file with -o"),
        ({"runs": ["flip"], "ood": ["noise.h5"]}, "name these with --data"),
        ({"runs": ["empty"]}, "empty: is not a run"),
        ({"runs": ["flip"], "stores": ["none.h5"]}, "none.h5: no such file"),
    ],
)
def test_mistakes_get_one_line(runs, monkeypatch, arguments, message):
    monkeypatch.chdir(runs)
    (runs / "empty").mkdir()
    with pytest.raises(BayesPannsError, match=message) as caught:
        write_report(**arguments)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("out", ["no/where.html", "flip", None])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(runs, monkeypatch, out):
    monkeypatch.chdir(runs)
    (runs / "flip" / "report.html").mkdir()
    monkeypatch.setattr(render, "read_sources", None)
    with pytest.raises(OutputError, match="the folder no does not exist" if out == "no/where.html" else "is a folder"):
        write_report(["flip"], out, stores=["clips.h5"])


def test_the_command_calls_it(runs, monkeypatch, make):
    monkeypatch.chdir(runs)
    result = CliRunner().invoke(main, ["report", "flip", "-o", "page.html"])
    assert (result.exit_code, result.stdout) == (0, "page.html\n")
    assert make.page(Path("page.html").read_text(encoding="utf-8")).sections == WHOLE
    result = CliRunner().invoke(main, ["report", "flip", "drop"])
    assert result.exit_code == 1
    expected = "bayes-panns: a report on several runs has no default place; name the file with -o\n"
    assert result.stderr == expected


@pytest.mark.slow
def test_the_same_run_makes_the_same_page(home, html, tmp_path):
    code = (
        "import sys; from bayes_panns.report.page import intervals; intervals.RESAMPLES = 25\n"
        "from bayes_panns.report import write_report; write_report([sys.argv[1]], sys.argv[2], draws=4)"
    )
    # Another process orders its sets in another way.
    command = [sys.executable, "-c", code, str(home / "flip"), str(tmp_path / "page.html")]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[3], capture_output=True)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == html


def test_sounds_are_left_out_where_the_page_would_grow_too_large(home, make, monkeypatch):
    monkeypatch.setattr(render, "MEDIA_BYTES", 12_000)
    found = make.page(render_page(read_sources(home / "flip", make.quick)))
    assert len(found.all("audio")) < len(found.all("article"))
    assert "Some clips have no sound, to limit the size of the page." in found.text


def test_an_imported_posterior_is_reported_on_and_so_is_one_that_started_from_it(home, tmp_path):
    posterior = load(home / "flip")
    posterior.provenance = {"imported": "panns", "checkpoint": "ResNet54.pth", "versions": {"torch": "2"}}
    save(posterior, tmp_path / "imported")
    page = render_page(read_sources(tmp_path / "imported", Scoring(stores=[home / "clips.h5"], draws=2)))
    assert "Imported from" in page
    assert "ResNet54.pth" in page
    posterior.provenance = load(home / "flip").provenance | {"upstream": {"folder": "imported", **posterior.provenance}}
    save(posterior, tmp_path / "tuned")
    page = render_page(read_sources(tmp_path / "tuned", Scoring(stores=[home / "clips.h5"], draws=2)))
    assert "imported (ResNet54.pth)" in page
