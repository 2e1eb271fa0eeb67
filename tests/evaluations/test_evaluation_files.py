"""Damaged evaluations: one line that names the file, whatever happened to it."""

import contextlib
import json
import random
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from bayes_panns.core.errors import EvaluationError
from bayes_panns.evaluations import Evaluation
from bayes_panns.predictions import decompose

JSON, ARRAYS = "evaluation.json", "predictions.npz"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    folder = tmp_path_factory.mktemp("evaluation") / "e"
    draws = torch.rand(3, 6, 2, generator=generator, dtype=torch.float64)
    Evaluation.of(
        decompose(draws, "multi-label", covariance=True),
        np.arange(12).reshape(6, 2) % 3 == 0,
        decompose(draws[:, :4], "multi-label", covariance=True),
        names=[f"{clip}.wav" for clip in range(6)],
        labels=("a", "b"),
        sources=np.array(list("rrssst")),
        ood_names=list("wxyz"),
        sets=np.ones((6, 2), dtype=bool),
        provenance={"posterior": "p", "stores": ["s.h5"], "folds": "all", "ood": ["o.h5"]},
    ).save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "e")


@pytest.fixture
def earlier(folder):
    """As earlier versions wrote it, without digests: what is wrong in it is found all the same."""
    table = json.loads((folder / JSON).read_text())
    del table["digest"], table["sha256"]
    (folder / JSON).write_text(json.dumps(table))
    return folder


def refused(folder):
    with pytest.raises(EvaluationError) as error:
        Evaluation.load(folder)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message


def table_with(**change):
    return lambda table: json.dumps(table | change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("[]", "not a table"),
        ("null", "not a table"),
        ('"x"', "not a table"),
        ("[" * 100_000, "is damaged"),
        ('{"format_version": ' + "9" * 5000 + "}", "is damaged"),
        (lambda table: json.dumps(table)[:-40], "is damaged"),
        (lambda table: json.dumps({}), "format_version"),
        (table_with(format_version=99), "format 99 is newer"),
        (table_with(format_version="x"), "format_version"),
        (table_with(format_version=0), "format_version"),
        (table_with(task="unlabelled"), "task"),
        (table_with(task=3), "task"),
        (table_with(draws=0), "draws"),
        (table_with(draws=None), "draws"),
        (table_with(draws="many"), "draws"),
        (table_with(draws=float("nan")), "NaN is not JSON"),
        (table_with(metrics={"cal/nll": float("inf")}), "Infinity is not JSON"),
        (table_with(labels=["a"]), "not bool|not float64"),
        (table_with(labels=7), "labels"),
        (table_with(names=None), "names"),
        (table_with(names=["x"]), "not bool|not float64"),
        (table_with(names=[1] * 6), "names"),
        (table_with(sources=["r"]), "1 sources for 6 clips"),
        (table_with(ood_names=[]), "ood/"),
        (table_with(provenance=[]), "provenance"),
        (table_with(provenance={"threshold": 2}), "threshold"),
        (table_with(provenance={"draws": -1}), "draws"),
        (table_with(calibration={"temperature": 0}), "calibration"),
    ],
)
def test_a_damaged_table(earlier, text, message):
    folder = earlier
    path = folder / JSON
    path.write_text(text if isinstance(text, str) else text(json.loads(path.read_text())))
    assert re.search(message, refused(folder))


def test_a_table_that_is_not_text(folder):
    (folder / JSON).write_bytes(b"\xff\xfe\x00")
    assert "is damaged" in refused(folder)


def test_missing_files(folder):
    (folder / ARRAYS).unlink()
    assert "no such file" in refused(folder)
    (folder / JSON).unlink()
    assert "not an evaluation" in refused(folder)
    assert "not an evaluation" in refused(folder / "nowhere")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(40), b"\x93NUMPY", b"not a zip", b"\x80\x04N."])
def test_arrays_that_are_no_archive(folder, content):
    (folder / ARRAYS).write_bytes(content)
    assert ARRAYS in refused(folder)


def test_arrays_of_another_kind(earlier):
    np.save(earlier / "x.npy", np.ones(3))
    (earlier / "x.npy").rename(earlier / ARRAYS)
    assert "not a zip file" in refused(earlier)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_arrays_cut_short(folder, share):
    path = folder / ARRAYS
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert ARRAYS in refused(folder)


@pytest.mark.parametrize("name", [JSON, ARRAYS])
def test_a_flipped_bit_is_refused(folder, name):
    """Or it changes how the table is written and not what it means."""
    path = folder / name
    whole = path.read_bytes()
    chosen, meaning = random.Random(1), json.loads((folder / JSON).read_text())
    for _ in range(50):
        changed = bytearray(whole)
        changed[chosen.randrange(len(changed))] ^= 1 << chosen.randrange(8)
        path.write_bytes(changed)
        try:
            Evaluation.load(folder)
        except EvaluationError:
            continue
        assert json.loads((folder / JSON).read_text()) == meaning
        assert name == JSON


def test_arrays_of_another_evaluation_are_refused(folder):
    with np.load(folder / ARRAYS) as archive:
        arrays = dict(archive)
    arrays["clips/probability"] = 1 - arrays["clips/probability"]
    np.savez_compressed(folder / ARRAYS, **arrays)
    assert f"its checksum is not the one in {JSON}" in refused(folder)


@pytest.mark.parametrize("name", [JSON, ARRAYS])
def test_flipped_bytes_of_an_earlier_version_load_or_are_refused(earlier, name):
    folder, path = earlier, earlier / name
    whole = path.read_bytes()
    chosen = random.Random(0)
    for _ in range(60):
        changed = bytearray(whole)
        for _ in range(chosen.choice([1, 3, 20])):
            changed[chosen.randrange(len(changed))] = chosen.randrange(256)
        path.write_bytes(changed)
        with contextlib.suppress(EvaluationError):
            Evaluation.load(folder)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("target", None, "target is missing"),
        ("target", np.ones((6, 2)), "target is float64"),
        ("target", np.ones((6, 3), dtype=bool), "not bool"),
        ("sets", np.ones((5, 2), dtype=bool), "sets is bool"),
        ("clips/entropy", None, "clips/entropy is missing"),
        ("clips/entropy", np.ones((6, 2)), "clips/entropy is float64"),
        ("clips/probability", np.full((6, 2), np.nan), "NaN"),
        ("clips/probability", np.full((6, 2), 1.5), "outside"),
        ("clips/probability", np.full((6, 2), "x"), "clips/probability is <U1"),
        ("clips/epistemic", np.full((6, 2), np.inf), "NaN or infinity"),
        ("clips/covariance", np.ones((6, 2)), "clips/covariance"),
        ("clips/standard_error/clip_total", None, "clip_total is missing"),
        ("clips/standard_error/clip_total", np.ones((6, 2)), "clip_total"),
        ("ood/probability", None, "ood/probability is missing"),
        ("ood/probability", np.ones((3, 2)), "ood/probability"),
    ],
)
def test_wrong_arrays(earlier, name, array, message):
    folder = earlier
    with np.load(folder / ARRAYS) as archive:
        arrays = dict(archive)
    if array is None:
        del arrays[name]
    else:
        arrays[name] = array
    np.savez(folder / ARRAYS, **arrays)
    assert message in refused(folder)


def test_code_in_an_archive_is_not_run(folder):
    np.savez(folder / ARRAYS, target=np.array([print], dtype=object))
    assert ARRAYS in refused(folder)


def test_without_covariance_sets_and_clips_from_outside_it_is_whole(earlier):
    folder = earlier
    with np.load(folder / ARRAYS) as archive:
        kept = {
            name: array
            for name, array in archive.items()
            if not name.startswith("ood/") and "covariance" not in name and name != "sets"
        }
    np.savez(folder / ARRAYS, **kept)
    found = Evaluation.load(folder)
    assert (found.ood, found.sets, found.uncertainty.covariance) == (None, None, None)


@pytest.mark.long
@pytest.mark.parametrize("name", [JSON, ARRAYS])
def test_the_command_line_says_so_in_one_line(folder, name):
    (folder / name).write_bytes(b"")
    code = "from bayes_panns.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "report", str(folder), "-o", str(folder / "page.html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "is damaged" in line]
    assert str(folder / name) in line
