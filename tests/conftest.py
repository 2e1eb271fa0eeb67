import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.harness.waiting import PATIENCE

ROOT = Path(__file__).resolve().parent.parent

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"),
)
"""A browser that asks for nothing by itself."""

# How long an example takes says more about the machine than about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _messages_are_captured(caplog):
    caplog.set_level("INFO", logger="bayes_panns")


@pytest.fixture(scope="session")
def browser():
    """A headless browser, one for all tests of a process: two of them cannot be driven side by side."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        message = f"no browser: install {BROWSERS[0]}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(QUIET), timeout=1000 * PATIENCE)
        opened.new_page, opened.new_context = map(_patient, (opened.new_page, opened.new_context))
        yield opened
        opened.close()


def _patient(make):
    def made(**options):
        found = make(**options)
        found.set_default_timeout(1000 * PATIENCE)
        return found

    return made


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with ESC-10, UrbanSound8K and spoken digits; see CONTRIBUTING.md."""
    folder = Path(os.environ.get("BAYES_PANNS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real audio: set BAYES_PANNS_DATA to a folder with esc10/, urbansound8k/ and fsdd/")
    return folder


@pytest.fixture(scope="session")
def mn04_file(real_data) -> Path:
    """The published checkpoint of EfficientAT's mn04, 4 MB."""
    path = real_data / "efficientat" / "mn04_as_mAP_432.pt"
    if not path.is_file():
        pytest.skip(f"no published checkpoint: {path} is missing")
    return path


@pytest.fixture(scope="session")
def formula():
    """The formula that makes the tensors and waveforms of the golden values."""
    return _formula()


@pytest.fixture(scope="session")
def mn04_golden():
    """What the published code computes with mn04's weights, for the formula's waveforms and for two real clips."""
    return _golden("mn04_golden.npz")


@pytest.fixture(scope="session")
def reference():
    """The golden values of the published networks, and the formula that makes their tensors."""
    return _formula(), _golden("resnet54_golden.npz")


def _golden(name):
    import numpy as np

    return np.load(_reference_folder() / name)


def _reference_folder():
    folder = ROOT.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("no golden values: ../shared/reference is missing")
    return folder


def _formula():
    import importlib.util

    folder = _reference_folder()
    spec = importlib.util.spec_from_file_location("formula", folder / "formula.py")
    formula = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formula)
    return formula
