"""The choices that recipes, their comments and the pages name are those that there are."""

import re
from pathlib import Path

import pytest

from bayes_panns.core.choices import (
    CheckpointKind,
    Dropout,
    EstimatorKind,
    ExportFormat,
    Features,
    HeadStart,
    PosteriorKind,
    PriorKind,
    Sampling,
    ScaleRule,
    Schedule,
    TagFormat,
    Task,
)

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted([*ROOT.glob("guides/*.toml"), *ROOT.glob("runs/*.toml")])
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])

KEYS = {
    "dropout": Dropout,
    "estimator": EstimatorKind,
    "features": Features,
    "head": HeadStart,
    "posterior": PosteriorKind,
    "prior": PriorKind,
    "sampling": Sampling,
    "schedule": Schedule,
    "task": Task,
}
OPTIONS = {"format": [*TagFormat, *ExportFormat], "scale": ScaleRule, "import": CheckpointKind}


def named(text):
    """Each choice that a text sets, as in a recipe or with an option: its key and the word."""
    settings = re.findall(r"(?<![\w-])([a-z_]+) ?= ?[\"']([^\"'\s]+)[\"']", text)
    settings += re.findall(r"--set '?(?:\w+\.)?([a-z_]+)=([a-z][\w-]*)", text)
    options = re.findall(r"(?:--|bayes-panns )([a-z]+) ([a-z][\w-]*)", text)
    return [pair for pair in settings if pair[0] in KEYS] + [pair for pair in options if pair[0] in OPTIONS]


def words(key):
    return {str(word) for word in (KEYS | OPTIONS)[key]}


@pytest.mark.parametrize("path", [*RECIPES, *PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_word_that_is_set_is_a_choice(path):
    for key, word in named(path.read_text(encoding="utf-8")):
        assert word in words(key), f"{key} = {word}: there are {sorted(words(key))}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_alternatives_in_a_recipes_comments_are_choices(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        setting, _, comment = line.partition("#")
        key = setting.partition("=")[0].strip()
        if key in KEYS:
            assert set(re.findall(r'"([^"]*)"', comment)) <= words(key), line


def test_words_are_found_in_every_form():
    text = 'posterior = "normal"; prior="laplace" --set head=probe --format csv, bayes-panns import vi-pann x.pth'
    expected = {
        ("posterior", "normal"),
        ("prior", "laplace"),
        ("head", "probe"),
        ("format", "csv"),
        ("import", "vi-pann"),
    }
    assert set(named(text)) == expected
    found = {key for path in [*RECIPES, *PAGES] for key, _ in named(path.read_text(encoding="utf-8"))}
    assert found >= {"posterior", "prior", "estimator", "dropout", "schedule", "features", "head", "format", "import"}
