"""--precision on the real command line: what it changes, what says so, and what it cannot be mixed with."""

import csv
import json
import re

import numpy as np
import pytest

from bayes_panns.clips import Task, write
from bayes_panns.evaluations import Evaluation
from bayes_panns.report.reading import read_sources
from bayes_panns.report.sources import Scoring
from tests.cli.field import LABELS, RATE, run, sound, tone

HALF = ("--precision", "bf16")
NEAR = {"rtol": 0.02, "atol": 0.005}


def test_tags_are_near_those_of_float32_which_is_the_default(net, here):
    sound(here / "a.wav")

    def tagged(*options):
        said = json.loads(run("predict", net, "a.wav", "--draws", 4, "--format", "json", *options).stdout)
        return said, np.array([window["probability"] for window in said["windows"]])

    (plain, _), (full, p), (half, q) = tagged(), tagged("--precision", "float32"), tagged(*HALF)
    assert plain == full != half
    np.testing.assert_allclose(q, p, **NEAR)
    result = run("predict", net, "a.wav", "--precision", "half", code=2)
    assert "'half' is not one of 'float32', 'bf16'" in result.stderr


def test_a_results_folder_has_one_precision(net, here):
    sound(here / "a.wav")
    options = ("--draws", 4)
    run("predict", net, "a.wav", "-o", "half/", *options, *HALF)
    assert json.loads((here / "half" / "results.json").read_text())["precision"] == "bf16"
    refused = run("predict", net, "a.wav", "-o", "half/", "--resume", *options, code=1)
    assert "half: was begun with precision = bf16, not float32; resume with the same options" in refused.stderr
    run("predict", net, "a.wav", "-o", "half/", "--resume", *options, *HALF)

    run("predict", net, "a.wav", "-o", "full/", *options)
    # Results of earlier versions do not say, and are of float32.
    path = here / "full" / "results.json"
    table = json.loads(path.read_text())
    assert table.pop("precision") == "float32"
    path.write_text(json.dumps(table))
    run("predict", net, "a.wav", "-o", "full/", "--resume", *options)
    refused = run("predict", net, "a.wav", "-o", "full/", "--resume", *options, *HALF, code=1)
    assert "full: was begun with precision = float32, not bf16" in refused.stderr


def test_embeddings_and_clips_to_label(net, here):
    sound(here / "disk" / "a.wav")
    run("embed", net, "disk", "-o", "full.npz")
    run("embed", net, "disk", "-o", "half.npz", *HALF)
    with np.load("full.npz") as full, np.load("half.npz") as half:
        difference = np.linalg.norm(half["embeddings"] - full["embeddings"]) / np.linalg.norm(full["embeddings"])
    assert 1e-4 < difference < 0.02
    options = ("disk", "--strategy", "entropy", "--draws", 4, "--budget", 3)
    found = []
    for name, more in (("full", ()), ("half", HALF)):
        run("acquire", net, *options, "-o", name, *more)
        with (here / name / "chosen.csv").open() as file:
            rows = sorted(csv.DictReader(file), key=lambda row: row["start"])
        found.append([[float(row[f"probability{rank}"]) for rank in (1, 2, 3)] for row in rows])
    assert found[0] != found[1]
    np.testing.assert_allclose(found[1], found[0], **NEAR)


@pytest.fixture
def store(here):
    clips = np.stack([tone(0.5, RATE, pitch) for pitch in (300, 700, 1500)])
    write(here / "clips.h5", clips, np.eye(3, dtype=bool), LABELS, Task.ONE_OF_K, RATE)
    return here / "clips.h5"


def test_an_evaluation_says_the_precision(net, store, here):
    for name, options in (("full", ()), ("half", HALF)):
        run("evaluate", net, "--data", store, "--draws", 4, "-o", name, *options)
    full, half = Evaluation.load("full"), Evaluation.load("half")
    assert (full.provenance["precision"], half.provenance["precision"]) == ("float32", "bf16")
    assert not np.array_equal(full.uncertainty.probability, half.uncertainty.probability)
    np.testing.assert_allclose(half.uncertainty.probability, full.uncertainty.probability, **NEAR)
    part = read_sources("half", Scoring())[0].parts[0]
    # A page makes the draws again: in float32 they would be other ones than were scored.
    assert part.load_as_evaluated().precision == "bf16"
    assert part.load().precision == "float32"


@pytest.mark.long
def test_a_page_says_the_precision(net, store, here):
    run("report", net, "--data", store, "--draws", 4, "-o", "page.html", *HALF)
    assert re.search(r"<dt>Precision</dt>\s*<dd>bf16</dd>", (here / "page.html").read_text())
