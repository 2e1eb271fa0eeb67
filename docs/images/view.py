"""The picture of ``bayes-panns view``: a recording with known content, and a screenshot of the page about it.

    python docs/images/view.py record stores/esc10.h5 disk/20250601_043000.wav
    bayes-panns predict runs/esc10-held disk/ -o results/ --hop 2.5 --merge-gap 2.5 --abstain-above 1
    python docs/images/view.py shoot results/ docs/images/view.png

The clips are of fold 5 of ESC-10 (CC BY 3.0), which the posterior has not heard; only the picture is kept here.
"""

import sys
import threading

import numpy as np
import soundfile
from PIL import Image

from bayes_panns.clips import ClipSet
from bayes_panns.report.view import ViewServer

SECONDS, EVERY, BACKGROUND = 1200, 14.0, 0.0006


def record(store: str, out: str) -> None:
    """Write twenty minutes of clips, at random times and of random loudness, over noise that comes and goes."""
    clips, generator = ClipSet(store, folds=[5]), np.random.default_rng(4)
    rate = clips.sample_rate
    samples = SECONDS * rate
    slow = 1 + 0.6 * np.sin(np.arange(samples) / rate / 40)
    sound = BACKGROUND * slow * generator.normal(size=samples)
    for at in np.arange(4, SECONDS - 8, EVERY):
        clip = clips.waveform([int(generator.integers(len(clips)))])[0]
        clip = clip * generator.uniform(0.02, 0.2) / max(1e-4, float(np.sqrt(np.mean(clip**2))))
        start = round((at + generator.uniform(0, EVERY - 6)) * rate)
        sound[start : start + len(clip)] += clip[: samples - start]
    soundfile.write(out, np.clip(sound, -1, 1), rate)


def shoot(results: str, out: str) -> None:
    """Write a screenshot of the page, with the first events labelled."""
    from playwright.sync_api import sync_playwright

    with ViewServer(results) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 980})
        page.goto(server.address)
        page.locator("#events button").first.wait_for()
        page.locator("#lanes").select_option("6")
        page.keyboard.press("j")
        for key in "ynyy":
            page.wait_for_timeout(600)
            page.keyboard.press(key)
        page.wait_for_timeout(6000)
        page.screenshot(path=out)
        # A quarter of the bytes, and no difference to the eye.
        with Image.open(out) as image:
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    {"record": record, "shoot": shoot}[sys.argv[1]](*sys.argv[2:])
