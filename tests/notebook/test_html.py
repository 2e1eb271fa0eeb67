"""What a notebook shows: whole by itself, bounded, without a script, and with every name escaped."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
import torch

from bayes_panns.clips import Task
from bayes_panns.notebook import PosteriorTagger, html, media, timeline
from bayes_panns.posterior import Posterior
from bayes_panns.predictions import EventRules
from bayes_panns.recipes import read_strategy

RATE = 8000
EVIL = "<script>alert(1)\"'&"
VOID = {"img", "rect", "path"}


class Parts(HTMLParser):
    """The elements of a page, checked to be well nested."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def count(self, tag):
        return sum(each == tag for each, _ in self.found)


@pytest.fixture(scope="module")
def tagger():
    torch.manual_seed(0)
    return PosteriorTagger.of(
        Posterior.build(
            net="resnet14-coarse",
            labels=("cat", EVIL, "rain"),
            task=Task.ONE_OF_K,
            sample_rate=RATE,
            clip_seconds=0.5,
            strategy=read_strategy("det-flip"),
        )
    )


@pytest.fixture(scope="module")
def sound():
    return (0.1 * np.random.default_rng(0).normal(size=2 * RATE)).astype(np.float32)


def check(text):
    """What holds of every page."""
    parts = Parts(text)
    names = {tag for tag, _ in parts.found}
    assert names.isdisjoint({"script", "style", "link", "iframe", "form", "object"})
    for _, attributes in parts.found:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
        assert "href" not in attributes
        assert "url(" not in attributes.get("style", "")
    assert "<script>" not in text
    return parts


def test_a_sound_has_a_picture_a_player_and_a_lane_for_each_label(tagger, sound):
    tags = tagger.predict({f"a/{EVIL}": sound}, rate=RATE, draws=4, hop=0.25, events=EventRules(threshold=0.34))
    text = tags._repr_html_()
    parts = check(text)
    assert (parts.count("img"), parts.count("audio"), parts.count("svg")) == (1, 1, 3)
    assert "&lt;script&gt;" in text
    assert re.search(r"\d+ events?", text)
    before = torch.get_rng_state()
    tags._repr_html_()
    assert torch.equal(before, torch.get_rng_state())


def test_one_window_has_bars_with_the_band_of_the_draws(tagger, sound):
    tags = tagger.predict(sound, RATE, draws=4)[2]
    text = tags._repr_html_()
    assert check(text).count("svg") == 3
    assert "1 s to 1.5 s, 1 window" in text
    top = tags.top(1)[0]
    assert f"{top.probability:.2f} ({top.low:.2f}–{top.high:.2f})" in text
    assert "<details" not in text


def test_many_sounds_are_bounded(tagger, sound, monkeypatch):
    monkeypatch.setattr(html, "ROWS", 2)
    tags = tagger.predict({f"{number}": sound[:4000] for number in range(8)}, rate=RATE, draws=2)
    text = tags._repr_html_()
    parts = check(text)
    assert parts.count("img") == html.SOUNDS
    assert parts.count("tr") == 1 + 2
    assert "... and 3 more sounds" in text


def test_a_long_sound_is_bounded(tagger, sound, monkeypatch):
    monkeypatch.setattr(media, "PLAYED", 0.5)
    monkeypatch.setattr(media, "DRAWN", 1.0)
    monkeypatch.setattr(timeline, "COLUMNS", 3)
    tags = tagger.predict(sound, RATE, draws=2, hop=0.1)
    text = tags._repr_html_()
    parts = check(text)
    assert parts.count("img") == 0
    assert "the first 0.5 s can be played" in text
    steps = max(attributes["d"].count("L") for tag, attributes in parts.found if tag == "path")
    assert steps == 4 * 3 - 1


def test_a_lane_shows_the_windows_where_they_are():
    edges = np.array([0.0, 500.0, 1000.0])
    path = timeline._path(edges, np.array([0.5, 1.0]), np.array([0.0, 0.5]))
    assert path == "M0.0 15.0L500.0 15.0L500.0 0.0L1000.0 0.0L1000.0 15.0L500.0 15.0L500.0 30.0L0.0 30.0Z"
    p = np.array([0.1, 0.9, 0.3, 0.2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "COLUMNS", 2)
        highest, _, _, bounds = timeline._steps(p, p, p, np.arange(5.0))
    assert highest.tolist() == [0.9, 0.3]
    assert bounds.tolist() == [0, 2, 4]


def test_a_file_that_has_gone_leaves_the_rest(tagger, sound, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sound, RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    tags = tagger.predict(tmp_path, draws=2)
    path.unlink()
    text = tags._repr_html_()
    assert check(text).count("img") == 0
    assert "no picture: " in text
    assert "skipped: " in text
    assert check(tagger._repr_html_()).count("tr") > 3
