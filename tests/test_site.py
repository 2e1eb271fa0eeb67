"""The documentation site is built without a warning, its links lead somewhere, and its search finds pages."""

import importlib
import inspect
import os
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from bayes_panns.cli import main
from tests.pages import DOCS, ROOT

pytestmark = pytest.mark.slow

LOADED = {"link": "href"} | dict.fromkeys(("script", "img", "iframe", "source", "audio", "video"), "src")
"""What a browser fetches by itself, by the tag and its attribute."""

PACKAGES = sorted({page.stem for page in (DOCS / "reference").glob("*.md")} - {"index", "audio", "core"})
"""The pages of packages that name what is public."""

SEARCH_BOX = "input.md-search__input"

SEARCHES = {
    "learn my own clips": "learn",
    "long recordings": "long-recordings",
    "events": "events",
    "precision threshold": "deciding",
    "out of distribution": "out-of-distribution",
    "active learning": "active-learning",
    "BirdNET": "data/embeddings",
    "own prior": "own-prior-and-guide",
    "many GPUs": "scale",
    "coming from PANNs": "coming-from",
    "flipout": "mathematics/estimators",
    "Raven": "data/timed",
}
"""What people look for, and the page that they should find first."""


@dataclass
class Found(HTMLParser):
    """What a page of the site links to, loads, and can be linked at."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self):
        super().__init__()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors.update(given[name] for name in ("id", "name") if given.get(name))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if given.get("rel") not in ("canonical", "prev", "next") and given.get(LOADED.get(tag)):
            self.loads.append(given[LOADED[tag]])


@dataclass(frozen=True)
class Site:
    """The built site: its folder, what its build printed, and its pages."""

    folder: Path
    printed: str
    pages: dict[Path, Found]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site").resolve()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)],
        cwd=ROOT,
        env=environment | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {}
    for path in folder.rglob("*.html"):
        pages[path] = Found()
        pages[path].feed(path.read_text(encoding="utf-8"))
    return Site(folder, done.stderr, pages)


def test_it_is_built_without_a_warning(site):
    assert "WARNING" not in site.printed
    assert "ERROR" not in site.printed
    assert len(site.pages) > 60


def test_every_link_within_it_leads_to_a_page_and_a_place(site):
    broken = []
    for path, page in site.pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or path.name == "404.html":
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = place / "index.html" if place.is_dir() else place
            anchor = unquote(parts.fragment)
            if not place.is_file() or (anchor and place in site.pages and anchor not in site.pages[place].anchors):
                broken.append((path.relative_to(site.folder).as_posix(), link))
    assert not broken


def test_it_loads_nothing_from_elsewhere(site):
    elsewhere = [(path.name, what) for path, page in site.pages.items() for what in page.loads if urlsplit(what).scheme]
    assert not [each for each in elsewhere if not each[1].startswith("data:")]
    styles = [path.read_text(encoding="utf-8") for path in site.folder.rglob("*.css")]
    assert not any("url(http" in style or "@import" in style for style in styles)


def test_the_links_to_elsewhere_are_listed(site):
    listed = (site.folder / "external-links.txt").read_text(encoding="utf-8").split()
    linked = {link for page in site.pages.values() for link in page.links if urlsplit(link).scheme}
    assert set(listed) == {link for link in linked if not link.startswith("mailto:")}
    assert listed == sorted(listed)
    assert all(urlsplit(link).scheme in ("http", "https") and "." in urlsplit(link).netloc for link in listed)


def test_equations_need_no_script(site):
    for path in (site.folder / "mathematics").glob("*.html"):
        text = path.read_text(encoding="utf-8").split("<article", 1)[1].split("</article>")[0]
        assert "<math" in text
        assert "arithmatex" not in text
        assert "\\(" not in text


@pytest.mark.parametrize("name", PACKAGES)
def test_the_reference_has_every_public_name(site, name):
    module = importlib.import_module("bayes_panns" if name == "bayes_panns" else f"bayes_panns.{name}")
    shown = {anchor.rsplit(".", 1)[-1] for anchor in site.pages[site.folder / "reference" / f"{name}.html"].anchors}
    documented = {each for each in module.__all__ if inspect.isroutine(getattr(module, each))}
    documented |= {each for each in module.__all__ if isinstance(getattr(module, each), type)}
    assert documented <= shown


def test_every_command_has_a_page_with_all_its_options(site):
    for name, command in main.commands.items():
        text = (site.folder / "commands" / f"{name}.html").read_text(encoding="utf-8")
        for parameter in command.params:
            for option in parameter.opts:
                assert option in text or not option.startswith("-"), (name, option)


@pytest.fixture(scope="module")
def opened(browser, site):
    """The first page, opened from the disk, and what was asked for elsewhere or complained about."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith(("http", "ws")) else None)
    page.goto((site.folder / "index.html").as_uri())
    yield page, complaints
    page.close()


def first_found(page, words):
    """The page of the first result of the search, once the search has answered."""
    page.evaluate("document.querySelectorAll('.md-search-result__link').forEach(link => link.dataset.old = '')")
    page.fill(SEARCH_BOX, words)
    page.press(SEARCH_BOX, "End")  # the search listens to keys
    page.wait_for_selector(".md-search-result__link:not([data-old])", state="attached")
    return page.get_attribute(".md-search-result__link", "href")


def test_a_search_finds_its_page_first(site, opened):
    page, complaints = opened
    page.focus(SEARCH_BOX)
    wrong = {}
    for words, expected in SEARCHES.items():
        found = first_found(page, words)
        path = Path(unquote(urlsplit(found).path)).relative_to(site.folder).with_suffix("").as_posix()
        if path != expected:
            wrong[words] = path
    assert not wrong
    assert not complaints


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_is_wider_than_the_screen(site, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    for name in ("index", "results", "strategies/index", "mathematics/natural-gradient", "commands/predict"):
        page.goto((site.folder / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    page.close()
