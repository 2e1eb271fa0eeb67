"""The labelling page in a real browser: play, key, label, download, pack, and go on with the new labels."""

import csv
import shlex
import shutil

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.clips import ClipSet, Task, folder, pack
from bayes_panns.core.choices import AcquireStrategy
from bayes_panns.jobs import acquire, fit
from bayes_panns.posterior import Posterior, load, save
from bayes_panns.recipes import read_run
from bayes_panns.report.labelling import write_labelling
from tests.harness.waiting import until_page

pytestmark = pytest.mark.slow

RATE, LABELS = 8000, ("chirp", "hiss", "hum")


def sound(kind, seed, seconds=0.5):
    random, time = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    made = {
        "chirp": np.sin(2 * np.pi * (800 + 3000 * time) * time),
        "hiss": random.normal(size=len(time)),
        "hum": np.sin(2 * np.pi * 120 * time),
    }[kind]
    return 0.1 * made + 0.01 * random.normal(size=len(time))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A last layer on a random network, fitted to a few clips, and unlabelled recordings."""
    root = tmp_path_factory.mktemp("labelling")
    for kind in LABELS:
        (root / "clips" / kind).mkdir(parents=True)
        for seed in range(4):
            soundfile.write(root / "clips" / kind / f"{seed}.wav", sound(kind, seed), RATE)
    pack(folder(root / "clips"), root / "old.h5", sample_rate=RATE, seconds=0.5)
    about = {"net": "resnet14-narrow", "sample_rate": RATE, "clip_seconds": 0.5}
    save(Posterior.build(labels=("a", "b"), task=Task.ONE_OF_K, **about), root / "base")
    changes = ["fit.selection.folds=0", "fit.selection.prior_scales=[0.3]"]
    fit(read_run("rotated-head", changes, stores=[root / "old.h5"], upstream=str(root / "base")), root / "mine")
    (root / "recordings").mkdir()
    for number, kind in enumerate(LABELS):
        soundfile.write(root / "recordings" / f"{kind}.wav", sound(kind, 10 + number), RATE)
    long = np.concatenate([sound(kind, 20 + number) for number, kind in enumerate(LABELS)])
    soundfile.write(root / "recordings" / "day.wav", long, RATE)
    write_page(root, root / "mine", root / "next", 5)
    return root


def write_page(root, posterior, out, budget):
    files = sorted((root / "recordings").glob("*.wav"))
    loaded = load(posterior)
    found = acquire(loaded, files, budget, folder=root / "recordings", strategy=AcquireStrategy.TYPICAL)
    write_labelling(found, loaded, out, source=posterior)
    return found


@pytest.fixture
def opened(browser, place):
    page = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True).new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((place / "next" / "label.html").as_uri())
    yield page
    assert complaints == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}
    assert len([url for url in requests if url.startswith("file:")]) <= 2  # Once more where it was loaded again.
    page.context.close()


def downloaded(page, path):
    with page.expect_download() as info:
        page.click("#download")
    assert info.value.suggested_filename == "labels.csv"
    info.value.save_as(path)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_play_key_label_download_pack_and_go_on(opened, place, monkeypatch):
    page = opened
    until_page(page, "document.getElementById('spectrogram').naturalWidth > 0")
    page.evaluate("document.getElementById('audio').loop = true")
    page.keyboard.press("Space")
    until_page(page, "document.getElementById('audio').currentTime > 0")
    page.keyboard.press("Space")
    until_page(page, "document.getElementById('audio').paused")

    # Each is labelled by its key: as what it is, which the file or the time in it says.
    page.keyboard.press("s")
    page.keyboard.press("u")
    assert page.inner_text("#name").startswith("1.")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#name").startswith("2.")
    page.keyboard.press("ArrowLeft")
    given = {}
    for _ in range(5):
        name = page.inner_text("#name").partition(" ")[2]
        kind = next((kind for kind in LABELS if name.startswith(kind)), None)
        kind = kind or LABELS[round(float(name.split(", ")[1].split()[0]) / 0.5)]
        given[name] = kind
        page.keyboard.press(str(LABELS.index(kind) + 1))
    assert page.inner_text("#count") == "5 of 5 labelled"
    assert page.is_visible("#done")

    # What was said survives the page.
    page.reload()
    assert page.inner_text("#count") == "5 of 5 labelled"
    table = place / "recordings" / "labels.csv"
    rows = downloaded(page, table)
    assert {(row["file"], row["labels"]) for row in rows} == {
        (name.split(", ")[0], kind) for name, kind in given.items()
    }
    assert all(row["start"] and row["end"] for row in rows if row["file"] == "day.wav")

    # The commands that the page shows do what they say.
    commands = [page.inner_text("#pack"), page.inner_text("#finetune")]
    assert f"--labels {place / 'mine'}" in commands[0]
    monkeypatch.chdir(place)
    for command in commands:
        words = shlex.split(command)[1:]
        done = CliRunner().invoke(main, [*words, *(["--sample-rate", str(RATE)] if words[0] == "pack" else [])])
        assert done.exit_code == 0, done.output
    assert (len(ClipSet(place / "new.h5")), ClipSet(place / "new.h5").labels) == (5, LABELS)
    assert load(place / "mine-2").provenance["clips"] == 5


def test_every_part_fits_is_named_and_takes_touch_on_a_small_screen(browser, place):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto((place / "next" / "label.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = page.eval_on_selector_all(
        "button", "all => all.map(each => each.getBoundingClientRect()).filter(box => box.width).map(box => box.height)"
    )
    assert min(sizes) >= 44
    unnamed = page.eval_on_selector_all(
        "button, input, audio, img, progress",
        "all => all.filter(each => !(each.innerText || each.alt || each.ariaLabel || each.labels?.length)).length",
    )
    assert unnamed == 0
    page.tap("#none")
    page.tap("#labels button >> nth=1")
    page.fill("#filter", "owl")
    assert page.locator("#labels button").count() == 0
    page.tap("#add")
    page.tap("#skip")
    page.tap("#back")
    page.tap("#undo")
    assert page.inner_text("#count") == "2 of 5 labelled, 1 none of these"
    rows = downloaded(page, place / "touched.csv")
    # A clip of none of the labels is no clip of a one-of-k task.
    assert [row["labels"] for row in rows] == ["hiss", "owl"]
    assert page.is_visible("#labels button:has-text('owl')")
    page.tap("#labels button >> nth=0")
    page.tap("#labels button >> nth=0")
    # The posterior does not know the new label.
    assert page.is_visible("#fresh")
    assert not page.is_visible("#same")
    assert "--labels" not in page.inner_text("#pack")
    context.close()


def test_several_labels_and_many(browser, place, tmp_path):
    names = tuple(f"kind {number:02}" for number in range(60))
    save(
        Posterior.build(net="resnet14-narrow", labels=names, task=Task.MULTI_LABEL, sample_rate=RATE, clip_seconds=0.5),
        tmp_path / "many",
    )
    shutil.copytree(place / "recordings", tmp_path / "recordings")
    write_page(tmp_path, tmp_path / "many", tmp_path / "next", 3)
    page = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True).new_page()
    page.goto((tmp_path / "next" / "label.html").as_uri())
    best = page.inner_text("#guess tbody tr >> nth=0 >> th")
    page.keyboard.press("1")
    page.keyboard.press("/")
    page.keyboard.type("kind 5")
    shown = page.locator("#labels button").all_inner_texts()
    assert all("kind 5" in text for text in shown)
    page.keyboard.type("7")
    page.keyboard.press("Enter")
    assert page.inner_text("#status") == f"So far: {best}, kind 57"
    # The same key takes it back.
    page.keyboard.press("1")
    assert page.inner_text("#status") == "So far: kind 57"
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    assert page.inner_text("#name").startswith("2.")
    page.keyboard.press("0")
    page.keyboard.press("/")
    page.keyboard.type("a;b")
    page.keyboard.press("Enter")
    assert "cannot hold ;" in page.inner_text("#status")
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    rows = downloaded(page, tmp_path / "labels.csv")
    assert [row["labels"] for row in rows] == [f"kind 57;{best}", ""]
    page.context.close()
