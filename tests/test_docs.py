"""The commands that README and the pages show are understood, and their links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from bayes_panns.cli import main
from bayes_panns.recipes import names

ROOT = Path(__file__).resolve().parent.parent
DATA_PAGES = sorted((ROOT / "docs" / "data").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *DATA_PAGES,
    ROOT / "examples" / "README.md",
    ROOT / "benchmarks" / "README.md",
]
FITS = ("pretrain", "finetune", "crossval")


def title(path):
    return path.relative_to(ROOT).as_posix()


def commands(page):
    """The arguments of every ``bayes-panns`` command in a page, with its shell variables filled in."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"\$\(printf -- '(.*?)%s ' .*?\)", r"\1some.h5", text)
    for name, value in re.findall(r"^([A-Z]+)='?(.*?)'?(?: +#.*)?$", text, re.MULTILINE):
        text = text.replace(f"${name}", value)
    text = text.replace("$fold", "1")
    lines = re.findall(r"^ *bayes-panns (?!COMMAND).*", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_every_catalog_has_a_page():
    catalogs = next(each for each in main.commands["pack"].params if each.name == "catalog").type.choices
    assert {page.stem for page in DATA_PAGES} == set(catalogs)
    for page in DATA_PAGES:
        assert ["pack", page.stem] in [words[:2] for words in commands(page)]


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_its_commands_are_understood(page):
    for name, *words in commands(page):
        context = main.commands[name].make_context(name, words)
        if name in FITS:
            assert context.params["run"] in names("runs")
            given = context.params.get("guides") or [context.params.get("guide")]
            assert all(guide is None or guide in names("guides") for guide in given)
        if name == "crossval":
            # The embeddings of another model are its start.
            assert context.params["upstream"] or page.stem == "embeddings"


def test_the_readme_shows_every_command_and_strategy():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| command |") : text.index("`bayes-panns COMMAND --help`")]
    listed = {
        name
        for row in table.splitlines()[2:]
        for name in re.findall(r"`([a-z-]+)`", row.split("|")[1:2][0] if row else "")
    }
    assert listed == set(main.commands)
    assert set(re.findall(r"\(guides/([\w-]+)\.toml\)", text)) == set(names("guides"))
    shown = {words[0] for words in commands(ROOT / "README.md")}
    assert shown >= {"pack", "pretrain", "finetune", "evaluate", "predict", "report", "crossval", "calibrate"}


def test_the_readme_begins_with_make_and_then_real_data():
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    order = [
        index for index, line in enumerate(first_screen) if re.match(r"make (demo|test)|## Real|bayes-panns pack", line)
    ]
    assert len(order) >= 4
    assert first_screen[order[0]].startswith("make demo")
    assert first_screen[order[1]].startswith("make test")
    assert first_screen[order[2]] == "## Real recordings"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_its_links_lead_to_files_and_headings(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, heading = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings], target


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=title)
def test_a_page_names_no_folder_outside_the_checkout(page):
    assert "../shared" not in page.read_text(encoding="utf-8")


def test_the_layout_that_contributing_shows_is_the_one_there_is():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = text[text.index("bayes_panns/\n") : text.index("guides/   ")]
    listed = re.findall(r"^  (\w+)/", block, re.MULTILINE)
    folders = {path.name for path in (ROOT / "bayes_panns").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert set(listed) == folders
    # In the order in which they may import each other.
    layers = (ROOT / "tests" / "test_layers.py").read_text(encoding="utf-8")
    assert listed == re.findall(r'^    "(\w+)",$', layers[layers.index("ORDER") : layers.index("]")], re.MULTILINE)
