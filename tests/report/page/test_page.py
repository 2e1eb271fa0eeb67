"""The report: what is on the page, what is said where something is missing, and that strangers' text stays text."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from markupsafe import Markup
from matplotlib.image import imread

from bayes_panns.cli import main
from bayes_panns.clips import Task, write
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs import fit
from bayes_panns.metrics import Interval
from bayes_panns.posterior import load, save
from bayes_panns.predictions import decompose
from bayes_panns.recipes import Data as RecipeData
from bayes_panns.recipes import Run
from bayes_panns.report import Data, Part, Subject, read_subjects, render_page, write_report
from bayes_panns.report.page import charts, page
from bayes_panns.report.page.charts import Charts, plain
from bayes_panns.report.page.clips import Room, cards, choose
from bayes_panns.report.page.meanings import headlines, number
from bayes_panns.svi import FitSettings

RATE, SAMPLES = 8000, 4000
EVIL = "<script>alert(1)</script>"
LABELS = ("$x_1$ & \"'high'", EVIL, "_mid")
QUICK = Data(draws=4)


def tones(path, task=Task.ONE_OF_K, labels=LABELS, clips=24, folds=True, seed=0):
    generator = np.random.default_rng(seed)
    time = np.arange(SAMPLES) / RATE
    label = np.arange(clips) % len(labels)
    pitch = np.array([2500, 300, 900])[label][:, None] * generator.uniform(0.9, 1.1, (clips, 1))
    waveform = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.05 * generator.normal(size=(clips, len(time)))
    target = np.eye(len(labels), dtype=bool)[label]
    if task == Task.MULTI_LABEL:
        target |= generator.random(target.shape) < 0.3
    names = [f'{EVIL}"{clip}".wav' for clip in range(clips)]
    sources = [f"recording {clip // 2}" for clip in range(clips)]
    fold = 1 + np.arange(clips) // 2 % 3 if folds else None
    write(path, waveform, target, labels, task, RATE, names=names, fold=fold, source=sources)
    return str(path)


def recipe(store, *, folds=(1, 2), validation=0.0, guide="flip"):
    return Run(
        description=f"Tones {EVIL}",
        guide=guide,
        data=RecipeData(stores=[store], folds=None if folds is None else list(folds), validation=validation),
        fit=FitSettings(epochs=2, batch_size=8, spec_augment=False, kl_weight=1e-4),
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch, request):
    """Few resamples, and charts only for the tests that look at them: each takes a while."""
    monkeypatch.setattr(page, "RESAMPLES", 25)
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(charts, "_svg", lambda draw, alt, size, prefix: Markup(""))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Stores, two runs on the same data, both scored on a fold of their own and on noise, and one that is not."""
    folder = tmp_path_factory.mktemp("report")
    store = tones(folder / "clips.h5")
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, (6, SAMPLES))
    write(folder / "noise.h5", noise, np.zeros((6, 0), bool), (), Task.UNLABELLED, RATE)
    for name, guide in (("flip", "flip"), ("drop", "drop")):
        fit(recipe(store, guide=guide), folder / name)
        data = Data(stores=[store], folds=[3], ood=[folder / "noise.h5"], draws=4)
        read_subjects(folder / name, data)
    return folder


@pytest.fixture
def runs(home, tmp_path):
    """A copy of them, to break; the stores stay where they are."""
    for name in ("flip", "drop"):
        shutil.copytree(home / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def drawn():
    """For tests that look at charts."""


@pytest.fixture(scope="module")
def html(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "RESAMPLES", 25)
        return render_page(read_subjects(home / "flip", QUICK))


class Page(HTMLParser):
    """A page's elements, its text, and the text of each of its headings."""

    VOID = frozenset({"meta", "link", "img", "col", "br"})

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.texts, self.headings = [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open, "every element is closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            level, text = self.headings.pop()
            self.headings.append((level, text + data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.texts))


def sections(found):
    return [text for level, text in found.headings if level == 2]


WHOLE = [
    "In numbers",
    "Training",
    "Calibration",
    "Knowing when it is wrong",
    "Where the uncertainty lies",
    "Out of distribution",
    "Confusions",
    "Label by label",
    "Clips to look into",
    "Weights",
    "Every metric",
]


def test_a_run_has_every_section_and_the_contents_lead_to_them(html):
    found = Page(html)
    assert sections(found) == WHOLE
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [attributes["href"] for attributes in found.all("a")]
    assert len(links) == len(WHOLE) + 1
    assert {link.removeprefix("#") for link in links} <= set(ids)
    levels = [level for level, _ in found.headings]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_pictures_have_words_and_charts_are_whole(html):
    found = Page(html)
    assert all(image["alt"] for image in found.all("img"))
    drawings = re.findall(r'<svg class="chart".*?</svg>', html, flags=re.DOTALL)
    assert len(drawings) > 10
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert len(root.attrib["aria-label"]) > 20
        inside = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
        used = re.findall(r'(?:href="#|url\(#)([^")]*)', drawing)
        assert set(used) <= inside
        # Nothing that the page's colours do not reach: it would vanish on a dark page.
        assert not re.search("#(?:000000|ffffff|333333)", drawing)
    assert "<text" in drawings[0]


def test_the_page_asks_for_nothing(html):
    found = Page(html)
    policy = next(meta["content"] for meta in found.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    for _, attributes in found.elements:
        for name in ("src", "href", "xlink:href"):
            assert re.match("data:|#|$", attributes.get(name) or "")
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    assert len(html) < 10_000_000


def test_text_of_strangers_is_inert(html):
    found = Page(html)
    assert len(found.all("script")) == 1
    assert f"Tones {EVIL}" in found.text
    for label in LABELS:
        assert label in found.text
    assert f'{EVIL}"' in found.text
    handlers = [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert handlers == []
    assert html.count("<script") == 1


def test_plain_text_for_pictures():
    assert plain("a$b_c$") == r"a\$b_c\$"
    assert plain("_hidden").endswith("_hidden")
    assert not plain("_hidden").startswith("_")
    assert plain("line\nbreak\x00") == "line break "
    assert plain("x" * 99) == "x" * 27 + "…"


def test_a_label_in_any_script_is_drawn_without_a_warning(drawn):
    chart = Charts()("title", lambda ax: ax.set_xlabel(plain("犬 😀 $")), "alt")
    assert "犬 😀 $" in chart.svg


def test_charts_of_a_page_share_no_name(drawn):
    draw = Charts()
    texts = [draw("title", lambda ax: ax.plot([1, 2], "o-", label="a"), 'alt "<&').svg for _ in range(2)]
    names = [set(re.findall(r'id="([^"]*)"', text)) for text in texts]
    assert names[0]
    assert not names[0] & names[1]
    assert 'aria-label="alt &#34;&lt;&amp;"' in texts[0]


def test_headlines_have_an_interval_and_a_meaning(home):
    (subject,) = read_subjects(home / "flip", QUICK)
    found = Page(render_page([subject]))
    hits = (subject.evaluation.uncertainty.probability.argmax(1) == subject.evaluation.target.argmax(1)).sum()
    assert f"{hits} of 8 clips get their label" in found.text
    assert "from 25 resamples of" in found.text
    assert "the 4 recordings that the 8 clips were cut from" in found.text
    assert re.search(r"out of distribution, AUROC.*?\d\.\d{3} \d\.\d{3} to \d\.\d{3}", found.text)
    for name in subject.evaluation.metrics:
        assert name in {"draws", "clips"} or name in found.text


def evaluation(p, target, task="one-of-k", ood=None):
    """Of given draws ``(T, N, K)``."""
    made = decompose(torch.tensor(p, dtype=torch.float64), task)
    names = [f"clip {clip}" for clip in range(len(target))]
    outside = None if ood is None else decompose(torch.tensor(ood, dtype=torch.float64), task)
    ood_names = [] if ood is None else [f"odd {clip}" for clip in range(outside.probability.shape[0])]
    labels = tuple("abc"[: target.shape[1]])
    return Evaluation.of(
        made,
        target,
        outside,
        names=names,
        labels=labels,
        sources=None,
        ood_names=ood_names,
        provenance={"draws": len(p)},
    )


def test_what_the_numbers_mean():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.8, 0.2], [0.8, 0.2]])[None]
    target = np.eye(2, dtype=bool)[[0, 1, 0, 1]]
    made = evaluation(p, target)
    given = {name: Interval(value, np.nan, np.nan) for name, value in made.metrics.items() if isinstance(value, float)}
    lines = {line.metric: line for line in headlines(made, given)}
    assert lines["cls/accuracy"].value == "0.500"
    assert lines["cls/accuracy"].ends == ""
    assert "2 of 4 clips" in lines["cls/accuracy"].meaning
    assert "35.0 points apart" in lines["cal/ece"].meaning
    assert lines["cal/ece"].meaning.endswith("it is too sure.")
    assert "costs 0.69" in lines["cal/nll"].meaning
    assert "no draws" in lines["unc/epistemic"].meaning
    assert "cls/map" not in lines


@pytest.mark.parametrize(("clips", "task"), [([1], "one-of-k"), ([0, 0, 1], "one-of-k"), ([None, None], "multi-label")])
def test_few_clips_and_labels_without_any_make_a_page(drawn, clips, task):
    p = np.random.default_rng(0).dirichlet(np.ones(3), (2, len(clips)))
    target = np.array([[k == clip for k in range(3)] for clip in clips])
    made = evaluation(p, target, task, ood=p[:, :1])
    part = Part("few", Path("few"), None, {}, None, [], made, None, None, None, (), ())
    found = Page(render_page([Subject("few", "evaluation", (part,))]))
    assert "Label by label" in sections(found)
    assert len(found.all("svg")) >= 7


def test_numbers_as_people_read_them():
    shown = [number(value) for value in (0.12345, -1, 1e6, float("nan"), float("inf"))]
    assert shown == ["0.123", "−1.000", "1e+06", "undefined", "∞"]


def test_clips_of_each_kind_are_the_ones_meant():
    # Clip 0: surely wrong; 1: the draws disagree; 2: every draw is torn; 3 and 4: surely right.
    sure, torn = [0.98, 0.01, 0.01], [0.34, 0.33, 0.33]
    draws = np.array(
        [[sure, [0.9, 0.05, 0.05], torn, sure, sure], [sure, [0.05, 0.9, 0.05], torn, sure, sure]], dtype=float
    )
    target = np.eye(3, dtype=bool)[[1, 0, 0, 0, 0]]
    made = evaluation(draws, target, ood=np.array([[torn, sure]] * 2, dtype=float))
    chosen = {kind: indices.tolist() for kind, indices in choose(made, 1).items()}
    assert chosen == {"wrong": [0], "epistemic": [1], "aleatoric": [2], "strange": [0], "fooled": [1]}
    # No clip twice, and right ones are never among the wrong.
    chosen = choose(made, 5)
    assert chosen["wrong"].tolist() == [0]
    known = [clip for kind in ("wrong", "epistemic", "aleatoric") if kind in chosen for clip in chosen[kind].tolist()]
    assert sorted(known) == [0, 1, 2, 3, 4]


def test_a_clip_comes_with_its_sound_its_picture_and_its_draws(home):
    (subject,) = read_subjects(home / "flip", QUICK)
    found, said = cards(subject, 2, Room(10**7))
    assert "one of the 4 draws" in said
    assert set(found) >= {"epistemic", "aleatoric", "strange"}
    for kind, cards_ in found.items():
        strange = kind in ("strange", "fooled")
        clips, made = subject.parts[0].clips, subject.evaluation.uncertainty
        if strange:
            clips, made = subject.parts[0].strangers, subject.evaluation.ood
        for card in cards_:
            index = clips.names.index(card.name)
            assert card.labels == (() if strange else (LABELS[subject.evaluation.target[index].argmax()],))
            for row in card.rows:
                k = LABELS.index(row.label)
                # The draws are those of the evaluation, made again.
                assert np.mean(row.draws) == pytest.approx(made.probability[index, k], abs=1e-6)
                assert row.deviation == pytest.approx(np.std(row.draws), abs=1e-6)
                assert row.low <= row.mean <= row.high
                assert row.true == (row.label in card.labels)
            form, data = card.audio.removeprefix("data:").split(";base64,")
            sound, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
            assert (form, rate) == ("audio/mpeg", RATE)
            waveform = clips.waveform([index])[0]
            assert len(sound) / rate == pytest.approx(card.seconds, abs=0.1)
            spectra = [np.abs(np.fft.rfft(wave, RATE)) for wave in (sound, waveform)]
            # Of noise MP3 drops what no one hears.
            assert strange or np.corrcoef(*spectra)[0, 1] > 0.9
            picture = imread(io.BytesIO(base64.b64decode(card.spectrogram.partition(",")[2])), format="webp")
            assert picture.shape[:2] == (64, 51)


def test_low_sounds_are_at_the_bottom_of_a_spectrogram(home):
    (subject,) = read_subjects(home / "flip", QUICK)
    found, _ = cards(subject, 8, Room(10**7))
    card = next(card for kind in found.values() for card in kind if card.labels == (EVIL,))
    picture = imread(io.BytesIO(base64.b64decode(card.spectrogram.partition(",")[2])), format="webp")
    brightest = picture[..., :3].sum(axis=(1, 2)).argmax()
    assert brightest > 40


def test_sounds_are_left_out_where_the_page_would_grow_too_large(home, monkeypatch):
    monkeypatch.setattr(page, "BYTES", 12_000)
    text = render_page(read_subjects(home / "flip", QUICK))
    found = Page(text)
    assert len(found.all("audio")) < len(found.all("article"))
    assert "Some clips have no sound, to keep the page small." in found.text


def test_what_is_gone_is_said(runs, monkeypatch):
    shutil.rmtree(runs / "flip" / "posterior")
    (runs / "flip" / "metrics.jsonl").unlink()
    words = json.loads((runs / "flip" / "evaluation" / "evaluation.json").read_text())
    words["provenance"]["stores"] = ["nowhere.h5"]
    (runs / "flip" / "evaluation" / "evaluation.json").write_text(json.dumps(words))
    found = Page(render_page(read_subjects(runs / "flip", QUICK)))
    assert sections(found) == [name for name in WHOLE if name not in {"Training", "Clips to look into", "Weights"}]
    assert "nowhere.h5: no such file" in found.text
    assert "The run has no posterior yet." in found.text


def test_a_store_that_holds_other_clips_now_shows_none(runs, home, tmp_path):
    other = tones(tmp_path / "other.h5", clips=48)
    words = json.loads((runs / "flip" / "evaluation" / "evaluation.json").read_text())
    words["provenance"]["stores"] = [other]
    (runs / "flip" / "evaluation" / "evaluation.json").write_text(json.dumps(words))
    (subject,) = read_subjects(runs / "flip", QUICK)
    assert "holds other clips now" in subject.parts[0].notes[0]
    assert set(cards(subject, 2, Room(10**7))[0]) == {"strange", "fooled"}


def test_an_evaluation_finds_its_run_and_does_without(runs):
    moved = runs / "flip" / "evaluation"
    (subject,) = read_subjects(moved, QUICK)
    assert (subject.kind, subject.name) == ("evaluation", "flip")
    assert subject.parts[0].metrics
    shutil.copytree(moved, runs / "alone")
    words = json.loads((runs / "alone" / "evaluation.json").read_text())
    words["provenance"]["posterior"] = str(runs / "gone")
    (runs / "alone" / "evaluation.json").write_text(json.dumps(words))
    (subject,) = read_subjects(runs / "alone", QUICK)
    found = Page(render_page([subject]))
    assert f"The posterior is gone, so clips and weights are not shown: {runs / 'gone'}" in found.text
    assert "Weights" not in sections(found)
    with pytest.raises(BayesPannsError, match="is an evaluation; name its run"):
        read_subjects(runs / "alone", Data(stores=["x.h5"]))


@pytest.mark.slow
def test_a_run_without_evaluation_is_scored_on_what_it_held_out(home, tmp_path):
    store = str(home / "clips.h5")
    fit(recipe(store, folds=None, validation=0.25), tmp_path / "held")
    (subject,) = read_subjects(tmp_path / "held", QUICK)
    part = subject.parts[0]
    assert len(part.evaluation.names) == 6
    assert not (tmp_path / "held" / "evaluation").exists()
    assert "6 clips that the run held out" in part.notes[0]
    assert part.warnings == ()
    logged = load(tmp_path / "held").metrics["val/nll"]
    assert part.evaluation.metrics["cal/nll"] == pytest.approx(logged, rel=0.5)
    fit(recipe(store, folds=None), tmp_path / "none")
    (subject,) = read_subjects(tmp_path / "none", QUICK)
    found = Page(render_page([subject]))
    assert "Nothing was scored: name clips with --data" in found.text
    assert sections(found) == ["Training", "Weights"]


def test_scoring_what_was_fitted_to_is_a_warning(home, runs):
    (subject,) = read_subjects(runs / "flip", Data(stores=[str(home / "clips.h5")], folds=[2, 3], draws=2))
    (warning,) = subject.parts[0].warnings
    assert warning == "The posterior was fitted to clips of clips.h5, fold 2, and is scored on them here."
    assert "Do not trust these numbers." in Page(render_page([subject])).text
    (subject,) = read_subjects(home / "flip", QUICK)
    assert subject.parts[0].warnings == ()


def test_runs_side_by_side(home):
    subjects = [subject for name in ("flip", "drop") for subject in read_subjects(home / name, QUICK)]
    found = Page(render_page(subjects))
    assert sections(found) == ["Side by side", "flip", "drop"]
    second = [text for _, text in found.headings].index("flip")
    assert [text for level, text in found.headings[second:] if level == 3][: len(WHOLE)] == WHOLE
    for metric, title in (("cal/nll", "NLL / nats"), ("ood/auroc", "out of distribution, AUROC")):
        a, b = (subject.evaluation.metrics[metric] for subject in subjects)
        shown = re.escape(("+" if b > a else "") + number(b - a))
        assert re.search(rf"{title} .{{0,20}}{number(a)}.{{0,40}}{number(b)}.{{0,40}} {shown} \(", found.text)
    assert subjects[0].evaluation.metrics["ood/auroc"] != subjects[1].evaluation.metrics["ood/auroc"]
    assert "drop and flip were scored on the same clips" in found.text
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_runs_share_pictures(home, drawn, monkeypatch):
    monkeypatch.setattr(page, "sections", lambda *_, **__: ([], []))
    text = render_page([subject for name in ("flip", "drop") for subject in read_subjects(home / name, QUICK)])
    drawings = re.findall(r'<svg class="chart".*?</svg>', text, flags=re.DOTALL)
    assert len(drawings) == 9
    for drawing in drawings:
        said = "".join(ElementTree.fromstring(drawing).itertext())
        assert "flip" in said
        assert "drop" in said


def test_other_clips_have_no_difference(home, runs):
    read_subjects(runs / "drop", Data(stores=[str(home / "clips.h5")], folds=[1], draws=2))
    subjects = [subject for name in ("flip", "drop") for subject in read_subjects(runs / name, QUICK)]
    found = Page(render_page(subjects))
    assert not [each for each in found.all("span") if "difference" in (each.get("class") or "")]
    assert "there is no difference to take" in found.text


@pytest.mark.slow
def test_a_cross_validation_is_one_subject_of_all_its_clips(home, tmp_path):
    store = str(home / "clips.h5")
    for fold in (2, 10, 1):
        held = {2: 1, 10: 2, 1: 3}[fold]
        fit(recipe(store, folds={1, 2, 3} - {held}), tmp_path / "cv" / f"fold-{fold}")
    (subject,) = read_subjects(tmp_path / "cv", Data(stores=[store], ood=[home / "noise.h5"], draws=2))
    assert [part.name for part in subject.parts] == ["fold-1", "fold-2", "fold-10"]
    assert len(subject.evaluation.names) == 24
    assert len(set(subject.evaluation.names)) == 24
    assert all(part.warnings == () for part in subject.parts)
    found = Page(render_page(read_subjects(tmp_path / "cv", QUICK)))
    assert sections(found) == WHOLE
    assert "cross-validation of 3 runs" in found.text
    made, _ = cards(subject, 4, Room(10**7))
    for kind in ("epistemic", "aleatoric"):
        for card in made[kind]:
            part = next(part for part in subject.parts if part.name == card.fold)
            index = part.evaluation.names.index(card.name)
            said = part.evaluation.uncertainty.probability[index].max()
            assert card.rows[0].mean == said
            assert np.mean(card.rows[0].draws) == pytest.approx(said, abs=1e-6)
    # Below it, one a strategy and seed.
    (tmp_path / "all").mkdir()
    for name in ("flip/seed-0", "drop/seed-0"):
        shutil.copytree(tmp_path / "cv", tmp_path / "all" / name)
    subjects = read_subjects(tmp_path / "all", QUICK)
    assert [subject.name for subject in subjects] == ["drop/seed-0", "flip/seed-0"]


def test_runs_of_the_same_clips_are_no_cross_validation(runs):
    with pytest.raises(BayesPannsError, match="not the folds of a cross-validation; name the runs one by one"):
        read_subjects(runs, QUICK)


@pytest.mark.slow
def test_multi_label_has_covariances_and_no_confusions(tmp_path, drawn):
    store = tones(tmp_path / "tags.h5", Task.MULTI_LABEL)
    fit(recipe(store), tmp_path / "run")
    (subject,) = read_subjects(tmp_path / "run", Data(stores=[store], folds=[3], draws=6))
    found = Page(render_page([subject]))
    assert "Labels confused together" in sections(found)
    assert "Confusions" not in sections(found)
    assert "mean average precision" in found.text.lower()
    covariance = subject.evaluation.uncertainty.covariance.mean(axis=0)
    strongest = max(abs(covariance[i, j]) for i in range(3) for j in range(i))
    assert f"{strongest:.3g}".replace("-", "−") in found.text


def test_signal_to_noise_by_layer(home):
    posterior = load(home / "flip")
    loc, scale = posterior.gaussians()["fc_audioset.weight"]
    ratio = (loc.abs() / scale).numpy()
    found = Page(render_page(read_subjects(home / "flip", QUICK)))
    row = re.search(r"fc_audioset\.weight 384 (.*?) fc_audioset\.bias", found.text[found.text.rindex("below 1") :])[1]
    expected = [f"{np.quantile(ratio, q):.3f}" for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
    assert row.split()[:5] == expected
    assert row.split()[5] == f"{100 * (ratio < 1).mean():.0f}"


def test_a_posterior_of_points_has_neither_noise_nor_epistemic_clips(home, tmp_path):
    fit(recipe(str(home / "clips.h5"), guide="det"), tmp_path / "det")
    data = Data(stores=[str(home / "clips.h5")], folds=[3], draws=4)
    (subject,) = read_subjects(tmp_path / "det" / "posterior", data)
    assert subject.kind == "posterior"
    found = Page(render_page([subject]))
    assert "No weight has a Normal posterior" in found.text
    assert "Most epistemic" not in found.text
    assert "nothing in it was drawn" in found.text
    assert not (tmp_path / "det" / "posterior" / "evaluation").exists()


def test_a_report_is_written_whole_or_not_at_all(runs, monkeypatch):
    path = write_report([runs / "flip"])
    assert path == runs / "flip" / "report.html"
    before = path.read_text(encoding="utf-8")
    assert before.endswith("</html>\n") or before.endswith("</html>")

    def fail(subjects):
        raise RuntimeError

    monkeypatch.setattr(page, "render_page", fail)
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
        ({"runs": ["flip"], "ood": ["noise.h5"]}, "name those with --data"),
        ({"runs": ["flip"], "out": "no/where.html"}, "there is no folder no to write it to"),
        ({"runs": ["flip"], "out": "flip"}, "flip: is a folder; name the file to write"),
        ({"runs": ["empty"]}, "empty: is no run"),
        ({"runs": ["flip"], "stores": ["none.h5"]}, "none.h5: no such file"),
    ],
)
def test_mistakes_get_one_line(runs, monkeypatch, arguments, message):
    monkeypatch.chdir(runs)
    (runs / "empty").mkdir()
    with pytest.raises(BayesPannsError, match=message) as caught:
        write_report(**arguments)
    assert len(str(caught.value).splitlines()) == 1


def test_the_command_calls_it(runs, monkeypatch):
    monkeypatch.chdir(runs)
    result = CliRunner().invoke(main, ["report", "flip", "-o", "page.html"])
    assert (result.exit_code, result.stdout) == (0, "page.html\n")
    assert sections(Page(Path("page.html").read_text(encoding="utf-8"))) == WHOLE
    result = CliRunner().invoke(main, ["report", "flip", "drop"])
    assert result.exit_code == 1
    assert result.stderr == "bayes-panns: a report on several runs needs a place: name the file with -o\n"


@pytest.mark.slow
def test_the_same_run_makes_the_same_page(home, html, tmp_path):
    code = (
        "import sys; from bayes_panns.report.page import page; page.RESAMPLES = 25\n"
        "page.write_report([sys.argv[1]], sys.argv[2], draws=4)"
    )
    # Another process orders its sets in another way.
    command = [sys.executable, "-c", code, str(home / "flip"), str(tmp_path / "page.html")]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2], capture_output=True)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == html


def test_names_that_are_the_same_are_told_apart(home, tmp_path):
    (subject,) = read_subjects(home / "flip", QUICK)
    found = Page(render_page([subject, replace(subject, name="flip")]))
    assert sections(found) == ["Side by side", "flip (1)", "flip (2)"]


def test_a_posterior_that_was_imported_is_reported_on_and_so_is_what_started_from_it(home, tmp_path):
    posterior = load(home / "flip")
    posterior.provenance = {"imported": "panns", "checkpoint": "ResNet54.pth", "versions": {"torch": "2"}}
    save(posterior, tmp_path / "imported")
    page = render_page(read_subjects(tmp_path / "imported", Data(stores=[home / "clips.h5"], draws=2)))
    assert "Imported from" in page
    assert "ResNet54.pth" in page
    posterior.provenance = load(home / "flip").provenance | {"upstream": {"folder": "imported", **posterior.provenance}}
    save(posterior, tmp_path / "tuned")
    page = render_page(read_subjects(tmp_path / "tuned", Data(stores=[home / "clips.h5"], draws=2)))
    assert "imported (ResNet54.pth)" in page
