"""What predict takes for a results folder, and what it writes and says then."""

import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from PIL import Image

from bayes_panns.cli import main
from bayes_panns.cli.predicting import _is_folder
from bayes_panns.jobs import ResultsFolder
from tests.cli.field import RATE


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def sound(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=round(seconds * RATE)), RATE)
    return path


def test_a_disk_becomes_a_folder_of_results(net, here):
    sound(here / "disk" / "a" / "20230412_053000.wav")
    sound(here / "disk" / "b" / "20230412_053000.wav", 1.4)
    (here / "disk" / "broken.wav").write_bytes(b"no sound")
    options = ("--draws", 4, "--threshold", 0.2, "--merge-gap", 1, "--least", 0.1, "--format", "csv")
    result = run("predict", net, "disk", "-o", "results/", *options, "--format", "picture", code=3)
    assert result.stdout == ""
    assert "skipped disk/broken.wav: cannot be read" in result.stderr
    assert "2 recordings, 2.4 seconds, 5 windows" in result.stderr
    assert (here / "results" / "summary.txt").read_text() in result.stderr + "\n"
    # No calibration says what is usual: that is not the same as that nothing is unusual.
    assert "out of distribution: not known" in result.stderr
    assert json.loads((here / "results" / "summary.json").read_text())["outside"] is None
    results = ResultsFolder("results")
    assert [entry.name for entry in results.recordings() if entry.record] == ["a/20230412_053000", "b/20230412_053000"]
    assert results.manifest["events"]["gap"] == 1
    assert json.loads((here / "results" / "summary.json").read_text())["skipped"][0]["file"] == "disk/broken.wav"
    with Image.open("results/b/20230412_053000.png") as picture:
        assert picture.size[0] == 1920
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    again = run("predict", net, "disk", "-o", "results", *options, code=1)
    assert "holds results already; go on with --resume" in again.stderr
    assert run("predict", net, "disk", "-o", "results", "--resume", *options, code=3).stderr.count("finished") == 1


def test_parquet_is_a_file_too(net, here):
    import pyarrow.parquet

    sound(here / "a.wav")
    sound(here / "b.wav")
    run("predict", net, "a.wav", "b.wav", "--draws", 4, "--format", "parquet", "-o", "tags.parquet")
    run("predict", net, "a.wav", "b.wav", "--draws", 4, "--format", "parquet", "-o", "results/")
    table = pyarrow.parquet.read_table("tags.parquet").to_pylist()
    parts = [row for name in "ab" for row in pyarrow.parquet.read_table(f"results/{name}.parquet").to_pylist()]
    assert [(row["file"], row["start"], row["label"]) for row in table] == [
        (row["file"], row["start"], row["label"]) for row in parts
    ]
    for row, other in zip(table, parts, strict=True):
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-6)
        assert row["low"] <= row["probability"] <= row["high"]


@pytest.mark.parametrize(
    ("out", "forms", "resume", "files", "folder"),
    [
        (None, [], False, 1, False),
        ("tags.csv", ["csv"], False, 2, False),
        ("tags.csv", [], False, 2, False),
        ("tags", ["csv"], False, 2, False),
        ("/dev/null", [], False, 2, False),
        ("tags.txt", ["audacity"], False, 1, False),
        ("tags.txt/", ["audacity"], False, 2, True),
        ("results", [], False, 1, True),
        ("results/", ["csv"], False, 1, True),
        ("results", ["csv", "json"], False, 1, True),
        ("results.d/", ["csv", "json"], False, 1, True),
        ("results", ["raven"], False, 1, True),
        ("results", ["picture"], False, 1, True),
        ("results", ["csv"], True, 1, True),
        (".", ["csv"], False, 1, True),
    ],
)
def test_what_is_a_results_folder(here, out, forms, resume, files, folder):
    assert _is_folder(out, forms, resume, (here / "x.wav",) * files) is folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "raven"), "--format raven: does not go to standard output"),
        (("--format", "csv", "--format", "json"), "--format csv --format json: does not go to standard output"),
        (("--format", "parquet"), "-o"),
        (("--resume",), "--resume: does not go to standard output"),
        (("--merge-gap", "1"), "for a results folder only"),
        (("--abstain-above", "1", "-o", "tags.csv", "--format", "csv"), "--abstain-above: for a results folder only"),
        (("--jobs", "2"), "--jobs: for a results folder only"),
        (("--format", "table", "-o", "results/"), "--format table: is for the terminal"),
        (("--threshold", "0", "-o", "results/"), "threshold of 0"),
        (
            ("-o", "a.csv", "--format", "csv", "--format", "json"),
            "--format csv --format json: needs a results folder, and a.csv is named like a file; write -o a.csv/",
        ),
        (("-o", "a.png", "--format", "picture"), "--format picture: needs a results folder, and a.png is named like"),
        (("-o", "a.csv", "--format", "csv", "--resume"), "--resume: needs a results folder, and a.csv is named like a"),
    ],
)
def test_wrong_usage(net, here, options, message):
    sound(here / "a.wav")
    result = run("predict", net, "a.wav", *options, code=2)
    assert message in result.stderr
    assert [path.name for path in here.iterdir()] == ["a.wav"]
