"""The commands that the pages on data sets show are ones that there are."""

import re
import shlex
from pathlib import Path

import pytest

from bayes_panns.cli import main
from bayes_panns.recipes import names

PAGES = sorted((Path(__file__).resolve().parent.parent / "docs" / "data").glob("*.md"))


def commands(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"\$\(printf -- '(.*?)%s ' .*?\)", r"\1some.h5", text)
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^bayes-panns .*", text, re.MULTILINE)]


def test_every_catalog_has_a_page():
    catalogs = next(each for each in main.commands["pack"].params if each.name == "catalog").type.choices
    assert {page.stem for page in PAGES} == set(catalogs)
    for page in PAGES:
        assert ["pack", page.stem] in [words[:2] for words in commands(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_commands_are_understood(page):
    for name, *words in commands(page):
        context = main.commands[name].make_context(name, words)
        if name in ("pretrain", "finetune", "crossval"):
            assert context.params["run"] in names("runs")
        if name == "crossval":
            assert context.params["upstream"]
