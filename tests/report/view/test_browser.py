"""The page of a results folder, driven in a real browser."""

import csv
import io

import pytest
from click.testing import CliRunner
from PIL import Image

from bayes_panns.cli import main
from bayes_panns.clips import ClipSet
from tests.harness.waiting import PATIENCE, until_page
from tests.report.view.conftest import serving
from tests.report.view.made import LABELS, make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def client(made):
    with serving(made.results) as client:
        yield client


@pytest.fixture(scope="module")
def opened(browser, client):
    """The page at 1280 pixels, what it complained about, and all that it asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(client.server.address)
    page.locator("#events button").first.wait_for()
    yield page, complaints, requests
    context.close()


def says(page, text):
    until_page(page, f"document.getElementById('status').textContent.includes({text!r})")


def rows(made):
    path = made.results / "labels.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["labels"], row.get("refuted", ""), row["start"], row["end"]) for row in csv.DictReader(file)]


def test_it_shows_recordings_timeline_and_events(opened, client):
    page, _, _ = opened
    assert page.locator("#list button").count() == 3
    assert page.locator("#list button:disabled").get_attribute("title") == "disk/broken.wav: holds no samples"
    assert page.locator("#file").inner_text() == "disk/one.wav"
    told = client.get(f"events?recording={client.keys['disk/one.wav']}")
    assert page.locator("#events button").count() == told["total"] > 2
    assert set(page.locator("#events .name").all_inner_texts()) <= set(LABELS)
    # The timeline is drawn: it holds many colours, of the spectrogram among them.
    for _ in range(10 * PATIENCE):
        with Image.open(io.BytesIO(page.locator("#drawing").screenshot())) as image:
            colours = len(image.convert("RGB").getcolors(1 << 20))
        if colours > 300:
            return
        page.wait_for_timeout(100)
    pytest.fail(f"only {colours} colours are drawn")


def test_it_plays_and_the_cursor_follows(opened):
    page, _, _ = opened
    page.keyboard.press("Space")
    until_page(page, "document.getElementById('audio').currentTime > 0.3")
    until_page(page, "document.getElementById('play').ariaLabel === 'Pause'")
    page.keyboard.press("Space")
    until_page(page, "document.getElementById('audio').paused")
    until_page(page, "document.getElementById('now').innerText !== '0:00.0'")
    # A click far away goes there, and plays from there.
    box = page.locator("#stage").bounding_box()
    page.mouse.click(box["x"] + 104 + (box["width"] - 104) * 0.75, box["y"] + 60)
    until_page(page, "document.getElementById('now').innerText.startsWith('0:45')")
    page.locator("#play").click()
    until_page(page, "document.getElementById('audio').currentTime > 45.2")
    page.locator("#play").click()


def test_keys_confirm_refute_relabel_and_undo(opened, made):
    page, _, _ = opened
    page.locator("#events button").first.click()
    name = page.locator("#what").inner_text()
    page.keyboard.press("y")
    says(page, "heard. Saved.")
    ((labels, refuted, start, end),) = rows(made)
    assert (labels, refuted) == (name, "")
    assert float(start) < float(end)
    # The next event is selected, and is another label than the model says.
    until_page(page, f"document.getElementById('what').textContent !== {name!r}")
    second = page.locator("#what").inner_text()
    page.keyboard.press("r")
    page.locator("#name").fill("Owl")
    page.keyboard.press("Enter")
    says(page, f"Owl, not {second}")
    assert ("Owl", second) in [row[:2] for row in rows(made)]
    until_page(page, f"document.getElementById('what').textContent !== {second!r}")
    third = page.locator("#what").inner_text()
    page.keyboard.press("n")
    says(page, f"{third}: not heard")
    assert ("", third) in [row[:2] for row in rows(made)]
    until_page(page, "document.querySelectorAll('#events .is-refuted').length === 2")
    page.keyboard.press("u")
    says(page, "taken back")
    assert len(rows(made)) == 2
    until_page(page, f"document.getElementById('what').textContent === {third!r}")
    # A window that is no event: none of the labels is heard.
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("w")
    until_page(page, "document.getElementById('when').textContent.startsWith('Window')")
    page.keyboard.press("0")
    says(page, "none of the labels is heard")
    assert ("", "") in [row[:2] for row in rows(made)]
    until_page(page, "document.getElementById('nothing').ariaPressed === 'true'")
    assert len(rows(made)) == 3


def test_events_are_sorted_and_filtered(opened):
    page, _, _ = opened
    page.locator("#order").select_option("uncertainty")
    page.locator("#scope").select_option("all")
    until_page(page, "document.querySelector('#events .of')")
    bands = page.locator("#events .bar").evaluate_all(
        "bars => bars.map(each => each.style.getPropertyValue('--high') - each.style.getPropertyValue('--low'))"
    )
    assert bands == sorted(bands, reverse=True)
    page.locator("#show").select_option("heard")
    until_page(page, "document.querySelectorAll('#events button').length === 1")
    page.locator("#show").select_option("all")
    page.locator("#scope").select_option("one")
    until_page(page, "!document.querySelector('#events .of')")


def test_the_keys_are_told(opened):
    page, _, _ = opened
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("y")
    page.keyboard.press("Escape")
    assert not page.locator("#keys").is_visible()


def test_labels_come_back_and_are_packed(opened, made, monkeypatch):
    page, _, _ = opened
    before = rows(made)
    page.reload()
    page.locator("#events .is-heard").first.wait_for()
    assert page.locator("#events .is-heard").count() == 1
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "labels.csv"
    saved = made.home / "downloaded" / "labels.csv"
    download.value.save_as(saved)
    assert saved.read_bytes() == (made.results / "labels.csv").read_bytes()
    # With the command that the page shows, as it is.
    monkeypatch.chdir(made.home)
    words = page.locator("footer code").inner_text().split()
    done = CliRunner().invoke(main, [*words[1:], "--sample-rate", "8000"])
    assert done.exit_code == 0, done.output
    clips = ClipSet(["labelled.h5"])
    assert set(clips.labels) == {row[0] for row in before if row[0]}
    assert len(clips) >= 3
    assert rows(made) == before


def test_every_control_has_a_name_and_nothing_leaves_the_page(opened, client):
    page, complaints, requests = opened
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, a, input, select, [role=slider]")].filter(each =>
            !(each.getAttribute("aria-label") || each.textContent.trim() || each.closest("label"))
        ).map(each => each.outerHTML)"""
    )
    assert unnamed == []
    assert complaints == []
    addresses = {url for url in requests if not url.startswith(("data:", "blob:"))}
    assert addresses
    assert all(url.startswith(client.server.address) for url in addresses)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_is_legible_in_light_and_dark(browser, client, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    page = context.new_page()
    page.goto(client.server.address)
    page.locator("#events button").first.wait_for()
    page.locator("#events button").first.tap()
    until_page(page, "!document.getElementById('numbers').hidden")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # The answers are within reach of a thumb, and large enough for it.
    box = page.locator("#yes").bounding_box()
    assert box["y"] + box["height"] <= 844
    assert min(box["height"], box["width"]) >= 40
    contrast = page.evaluate(
        """() => {
            const light = colour => {
                const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(part => part / 255)
                    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
                return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
            };
            const under = each => getComputedStyle(each).backgroundColor === "rgba(0, 0, 0, 0)"
                ? under(each.parentElement) : getComputedStyle(each).backgroundColor;
            return ["body", ".soft", ".legend", "#what", ".pick", "#events .name", "#yes"].map(name => {
                const each = document.querySelector(name);
                const [ink, paper] = [light(getComputedStyle(each).color), light(under(each))];
                return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
            });
        }"""
    )
    # WCAG 2.2 asks for 4.5.
    assert min(contrast) > 4.5
    context.close()


def test_keys_go_on_after_something_was_chosen_with_the_mouse(opened):
    page, _, _ = opened
    chosen = {"#order": lambda: page.select_option("#order", "likely"), "#least": lambda: page.fill("#least", "0.1")}
    for control, choose in chosen.items():
        page.focus(control)
        page.keyboard.press("Shift")
        choose()
        # Who chose with keys stays there.
        assert page.evaluate("document.activeElement.id") == control[1:]
        page.dispatch_event(control, "pointerdown")
        choose()
        page.dispatch_event(control, "change")
        assert page.evaluate("document.activeElement === document.body")
    before = page.inner_text("#when")
    page.keyboard.press("j")
    until_page(page, f"document.getElementById('when').textContent !== {before!r}")
