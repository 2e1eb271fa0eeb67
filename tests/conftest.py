import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _messages_are_captured(caplog):
    caplog.set_level("INFO", logger="bayes_panns")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with ESC-10, UrbanSound8K and spoken digits; see CONTRIBUTING.md."""
    folder = Path(os.environ.get("BAYES_PANNS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real audio: set BAYES_PANNS_DATA to a folder with esc10/, urbansound8k/ and fsdd/")
    return folder


@pytest.fixture(scope="session")
def reference():
    """The golden values of the published networks, and the formula that makes their tensors."""
    folder = ROOT.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("no golden values: ../shared/reference is missing")
    import importlib.util

    import numpy as np

    spec = importlib.util.spec_from_file_location("formula", folder / "formula.py")
    formula = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formula)
    return formula, np.load(folder / "resnet54_golden.npz")
