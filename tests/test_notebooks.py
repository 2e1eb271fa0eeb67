"""Every notebook runs, small, in a folder of its own, without a warning, and draws something."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jupytext
import nbformat
import pytest

from bayes_panns.clips import Catalog, esc50, folder, pack, urbansound8k

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "examples" / "notebooks").glob("*.py"))
LONG = ("active-learning", "anatomy", "checks", "covariance", "esc10", "sources", "transfer")
"""Those that fit posteriors of a whole network, several of them, or to recordings."""


def thinned(catalog: Catalog, per_group: int) -> Catalog:
    """The first clips of each class in each fold."""
    seen: dict[tuple, int] = {}
    kept = []
    for clip in catalog.clips:
        group = (clip.labels, clip.fold)
        seen[group] = seen.get(group, 0) + 1
        if seen[group] <= per_group:
            kept.append(clip)
    return replace(catalog, clips=tuple(kept))


@pytest.fixture(scope="module")
def stores(real_data, tmp_path_factory):
    """Little stores of real recordings, under the names that the README gives the full ones."""
    place = tmp_path_factory.mktemp("stores")
    digits = folder(real_data / "fsdd")
    packed = {
        "esc10": thinned(esc50(real_data / "esc10", esc10=True), 2),
        "us8k": thinned(urbansound8k(real_data / "urbansound8k"), 3),
        "fsdd": replace(digits, clips=digits.clips[:30]),
    }
    for name, catalog in packed.items():
        pack(catalog, place / f"{name}.h5", sample_rate=8000, seconds=1.0)
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.long] * (path.stem in LONG), id=path.stem) for path in NOTEBOOKS],
)
def test_a_notebook_runs(path, tmp_path, request):
    settings = {"SMALL": "1", "RUNS": str(tmp_path / "runs")}
    if "STORES" in path.read_text(encoding="utf-8"):
        settings["STORES"] = str(request.getfixturevalue("stores"))
    environment = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "PYTHONWARNINGS")}
    executed = tmp_path / "executed.ipynb"
    command = ["jupytext", "--quiet", "--execute", "--run-path", tmp_path, "--to", "ipynb", "--output", executed, path]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        capture_output=True,
        text=True,
        env=environment | settings,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs = [output for cell in nbformat.read(executed, as_version=4).cells for output in cell.get("outputs", [])]
    lines = [line for output in outputs if output.get("name") == "stderr" for line in output["text"].splitlines()]
    # The few steps of a small run leave widths where they started, which a fit rightly says.
    complaints = [line for line in lines if line.strip() and "widths are those of the start" not in line]
    assert not complaints, complaints
    assert any("image/png" in output.get("data", {}) for output in outputs), "no figure"


def test_a_notebook_begins_with_its_question_and_is_listed():
    readme = (NOTEBOOKS[0].parent.parent / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        first = jupytext.read(path).cells[0]
        assert first.cell_type == "markdown"
        assert first.source.startswith("# ")
        assert "?" in first.source
        assert f"notebooks/{path.name}" in readme
