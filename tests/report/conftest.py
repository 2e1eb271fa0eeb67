import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from markupsafe import Markup

from bayes_panns.clips import Task, write
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs import fit
from bayes_panns.predictions import decompose
from bayes_panns.recipes import Data, Run
from bayes_panns.report import Scoring, read_sources, render_page
from bayes_panns.report.page import charts, intervals
from bayes_panns.svi import FitSettings

RATE, SAMPLES = 8000, 4000
EVIL = "<script>alert(1)</script>"
LABELS = ("$x_1$ & \"'high'", EVIL, "_mid")


def tones(path, task=Task.ONE_OF_K, labels=LABELS, clips=24, folds=True, seed=0):
    """Write a store of noisy tones, one pitch for each label; two clips of each recording, three folds."""
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
        data=Data(stores=[store], folds=None if folds is None else list(folds), validation=validation),
        fit=FitSettings(epochs=2, batch_size=8, spec_augment=False, kl_weight=1e-4),
    )


def evaluation(p, target, task="one-of-k", ood=None):
    """An evaluation of given draws ``(T, N, K)``."""
    made = decompose(torch.tensor(p, dtype=torch.float64), task, covariance=task == "multi-label")
    outside = None if ood is None else decompose(torch.tensor(ood, dtype=torch.float64), task)
    return Evaluation.of(
        made,
        target,
        outside,
        names=[f"clip {clip}" for clip in range(len(target))],
        labels=tuple("abcdefgh"[: target.shape[1]]),
        sources=None,
        ood_names=[] if ood is None else [f"odd {clip}" for clip in range(len(outside.probability))],
        provenance={"draws": len(p)},
    )


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

    @property
    def sections(self):
        return [text for level, text in self.headings if level == 2]


@pytest.fixture(scope="session")
def make():
    """What makes stores, recipes, evaluations and parsed pages for these tests."""
    return SimpleNamespace(
        tones=tones,
        recipe=recipe,
        evaluation=evaluation,
        page=Page,
        quick=Scoring(draws=4),
        labels=LABELS,
        evil=EVIL,
        rate=RATE,
        samples=SAMPLES,
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch, request):
    """Few resamples, and charts only for the tests that look at them: each takes a while."""
    monkeypatch.setattr(intervals, "RESAMPLES", 25)
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(
            charts, "_svg", lambda draw, alt, size, prefix: Markup('<svg aria-label="{}"/>').format(alt)
        )


@pytest.fixture
def drawn():
    """For tests that look at charts."""


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Stores, and two runs on the same clips; both are scored on a fold of their own and on noise."""
    folder = tmp_path_factory.mktemp("report")
    store = tones(folder / "clips.h5")
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, (6, SAMPLES))
    write(folder / "noise.h5", noise, np.zeros((6, 0), bool), (), Task.UNLABELLED, RATE)
    for name in ("flip", "drop"):
        fit(recipe(store, guide=name), folder / name)
        read_sources(folder / name, Scoring(stores=[store], folds=[3], ood=[folder / "noise.h5"], draws=4))
    return folder


@pytest.fixture
def runs(home, tmp_path):
    """A copy of the runs, to change; the stores stay where they are."""
    for name in ("flip", "drop"):
        shutil.copytree(home / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="session")
def html(home):
    """The page about a run, with its charts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 25)
        return render_page(read_sources(home / "flip", Scoring(draws=4)))
