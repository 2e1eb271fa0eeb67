"""The report of a real run, opened in a real browser."""

from dataclasses import replace

import pytest

from bayes_panns.clips import CATALOGS, pack
from bayes_panns.jobs import fit
from bayes_panns.recipes import Data, Run
from bayes_panns.report import write_report
from bayes_panns.report.page import intervals
from bayes_panns.svi import FitSettings
from tests.harness.waiting import until, until_page

pytestmark = pytest.mark.slow


def short(catalog, count):
    """``count`` clips of each label and fold, or of each folder."""
    kept, seen = [], {}
    for clip in catalog.clips:
        key = (clip.labels, clip.fold)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= count:
            kept.append(clip)
    return replace(catalog, clips=tuple(kept))


@pytest.fixture(scope="session")
def report(real_data, tmp_path_factory):
    """The report of a run on a few clips of ESC-10, with spoken digits as what it does not know."""
    folder = tmp_path_factory.mktemp("browser")
    esc10, digits = folder / "esc10.h5", folder / "digits.h5"
    catalog = short(CATALOGS["esc50"](real_data / "esc10"), 1)
    pack(catalog, esc10, sample_rate=8000)
    catalog = short(CATALOGS["folder"](real_data / "fsdd" / "recordings"), 8)
    pack(catalog, digits, sample_rate=8000, seconds=5)
    recipe = Run(
        description="A few clips of ESC-10",
        data=Data(stores=[str(esc10)], folds=[1, 2, 3, 4], validation=0),
        fit=FitSettings(epochs=2, batch_size=8, kl_weight=1e-3),
    )
    fit(recipe, folder / "esc10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 100)
        return write_report([folder / "esc10"], stores=[esc10], folds=[5], ood=[digits], draws=6)


@pytest.fixture(scope="session")
def opened(browser, report):
    """The page at 1280 pixels, and what it complained about or asked for while it was opened."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_load_state("load")
    yield page, complaints, requests
    page.close()


def test_nothing_is_wrong_and_nothing_leaves_the_page(opened, report):
    page, complaints, requests = opened
    # The whole page is looked at, so that nothing is left to load.
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(200)
    until_page(page, "[...document.images].every(each => each.complete)")
    assert complaints == []
    assert report.as_uri() in requests
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}
    assert [url for url in requests if url.startswith("file:")] == [report.as_uri()]


def test_the_policy_stops_a_request(browser, report):
    page = browser.new_page()
    failed = []
    page.on("requestfailed", lambda request: failed.append((request.url, request.failure)))
    page.goto(report.as_uri())
    page.evaluate(
        "new Promise(done => { const i = new Image(); i.onerror = done; i.src = 'https://example.org/x.png'; })"
    )
    until(lambda: page.wait_for_timeout(50) or failed)
    assert failed == [("https://example.org/x.png", "csp")]
    page.close()


def test_every_picture_and_sound_is_loaded(opened):
    page, _, _ = opened
    widths = page.eval_on_selector_all("img", "images => images.map(each => each.complete && each.naturalWidth)")
    assert len(widths) >= 8
    assert all(widths)
    drawn = page.eval_on_selector_all(
        "svg.chart",
        """charts => charts.map(chart => {
            const box = chart.getBoundingClientRect(), inside = chart.getBBox();
            return Math.min(box.width, box.height, inside.width, inside.height);
        })""",
    )
    assert len(drawn) >= 10
    assert min(drawn) > 50
    until_page(page, "[...document.querySelectorAll('audio')].every(each => each.readyState >= 1)")
    seconds = page.eval_on_selector_all("audio", "sounds => sounds.map(each => each.duration)")
    assert len(seconds) == len(widths)
    assert seconds == pytest.approx([5] * len(seconds), abs=0.2)


def test_a_clip_plays_and_its_spectrogram_follows(opened):
    page, _, _ = opened
    first = page.locator(".sound").first
    first.scroll_into_view_if_needed()
    first.locator("audio").evaluate("async sound => { sound.loop = true; await sound.play(); }")
    until_page(
        page,
        """(() => {
            const sound = document.querySelector(".sound audio"), picture = document.querySelector(".sound .picture");
            const played = Number(picture.style.getPropertyValue("--played"));
            return sound.currentTime > 0.3 && Math.abs(played - sound.currentTime / sound.duration) < 0.03;
        })()""",
    )
    # Another one stops it, and a click on a spectrogram goes to that moment.
    second = page.locator(".sound").nth(1)
    box = second.locator(".picture").bounding_box()
    second.locator(".picture").click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    until_page(page, "document.querySelectorAll('.sound audio')[1].currentTime > 2.5")
    assert first.locator("audio").evaluate("sound => sound.paused")
    second.locator("audio").evaluate("sound => sound.pause()")


def column(page, number):
    cells = page.locator("#run1-labels tbody tr").evaluate_all(
        f"rows => rows.map(row => row.cells[{number}].innerText)"
    )
    return [float(cell) if number else cell for cell in cells]


def test_the_table_sorts_by_click_and_by_key(opened):
    page, _, _ = opened
    labels = column(page, 0)
    assert len(labels) == 10
    headings = page.locator("#run1-labels thead th")
    error = headings.nth(6)
    assert error.get_attribute("aria-sort") is None
    error.get_by_role("button").click()
    assert error.get_attribute("aria-sort") == "descending"
    assert column(page, 6) == sorted(column(page, 6), reverse=True)
    error.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert error.get_attribute("aria-sort") == "ascending"
    assert column(page, 6) == sorted(column(page, 6))
    assert len(set(column(page, 6))) > 5
    for _ in range(6):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert column(page, 0) == sorted(labels)
    assert error.get_attribute("aria-sort") is None
    assert headings.first.get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_is_legible_in_light_and_dark(browser, report, scheme):
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    beyond = page.evaluate(
        """[...document.querySelectorAll("main *")].filter(each =>
            !each.closest(".scroll, svg, .hidden") && each.getBoundingClientRect().right > 390.5
        ).map(each => each.outerHTML.slice(0, 80))"""
    )
    assert beyond == []
    contrast = page.evaluate(
        """() => {
            const light = colour => {
                const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(part => part / 255)
                    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
                return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
            };
            const paper = light(getComputedStyle(document.body).backgroundColor);
            const texts = ["body", ".how", ".soft", "nav a", ".chart text"];
            return texts.map(name => {
                const style = getComputedStyle(document.querySelector(name));
                const ink = light(name === ".chart text" ? style.fill : style.color);
                return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
            });
        }"""
    )
    # WCAG 2.2 asks for 4.5.
    assert min(contrast) > 4.5
    heights = page.locator(".plot:not(.wide) svg.chart").evaluate_all(
        "charts => charts.map(each => each.getBoundingClientRect().width / each.viewBox.baseVal.width)"
    )
    # A point of the drawing is no less than a pixel, and no letter is smaller than 6 points.
    assert min(heights) > 1
    page.close()


def test_print_shows_what_is_folded_away(browser, report, tmp_path):
    page = browser.new_page()
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.locator("#run1-metrics tbody tr").first.is_visible()
    assert not page.locator("nav").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 50_000
    page.close()
