"""``inspect --verify`` and ``repack``: what is on disk is what was written."""

import random

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.clips import Store, write
from bayes_panns.jobs import evaluate_posterior, verify
from bayes_panns.posterior import load

RATE = 8000


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    waveforms = np.random.default_rng(0).uniform(-0.5, 0.5, (12, RATE // 2))
    write(folder / "clips.h5", waveforms, np.eye(2, dtype=bool)[np.arange(12) % 2], ["a", "b"], "one-of-k", RATE)
    settings = ["fit.epochs=1", "fit.batch_size=4", "data.validation=0"]
    run(
        *("pretrain", "scratch", "--data", folder / "clips.h5", "-o", folder / "run", "--guide", "det"),
        *(part for setting in settings for part in ("--set", setting)),
    )
    evaluate_posterior(load(folder / "run"), [folder / "clips.h5"], draws=0).save(folder / "run" / "evaluation")
    return folder


def test_all_of_a_run_is_verified(home):
    text = run("inspect", home / "run", "--verify").stdout
    assert text.splitlines() == [
        f"{name}: verified" for name in ("run.toml", "metrics.jsonl", "checkpoint.pt", "posterior", "evaluation")
    ]
    assert run("inspect", home / "run" / "posterior", "--verify").stdout == "posterior: verified\n"
    assert run("inspect", home / "clips.h5", "--verify").stdout == "clips.h5: verified: 12 clips\n"


@pytest.mark.parametrize(
    "name",
    [
        "metrics.jsonl",
        "checkpoint.pt",
        "posterior/posterior.toml",
        "posterior/guide.safetensors",
        "posterior/fitted-clips.npz",
        "evaluation/evaluation.json",
        "evaluation/predictions.npz",
    ],
)
def test_damage_to_any_file_of_a_run_is_told(home, name):
    path = home / "run" / name
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 4
    try:
        path.write_bytes(changed)
        text = run("inspect", home / "run", "--verify", code=1).stdout
    finally:
        path.write_bytes(whole)
    (line,) = [line for line in text.splitlines() if "damaged" in line]
    assert line.startswith(name.split("/")[0])


def test_damaged_clips_are_named(home, tmp_path):
    path = tmp_path / "clips.h5"
    path.write_bytes((home / "clips.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file["waveform"][3, 7] += 1
        file["waveform"][5, 0] += 1
    assert run("inspect", path, "--verify", code=1).stdout == "clips.h5: damaged: 2 of 12 clips: clip 3, clip 5\n"


def test_stores_of_others_have_nothing_to_verify_and_get_it(home, tmp_path):
    path = tmp_path / "clips.h5"
    path.write_bytes((home / "clips.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        del file.attrs["sha256"]
    assert "verified: 12 clips; their names and labels have no digest" in run("inspect", path, "--verify").stdout
    with h5py.File(path, "r+") as file:
        del file["digest"], file.attrs["sample_rate"]
    assert "nothing to verify: it has no digests of its 12 clips" in run("inspect", path, "--verify").stdout
    assert "sample_rate          unknown" in run("inspect", path).stdout
    told = run("evaluate", home / "run", "--data", path, code=1).stderr
    assert "lacks the attribute 'sample_rate'" in told
    assert "--sample-rate" in told
    run("repack", path, "-o", tmp_path / "again.h5", code=1)
    (tmp_path / "labels.csv").write_text("index,display_name\n0,x\n1,y\n")
    run("repack", path, "-o", tmp_path / "again.h5", "--sample-rate", RATE)
    assert "again.h5: verified: 12 clips" in run("inspect", tmp_path / "again.h5", "--verify").stdout
    assert Store(tmp_path / "again.h5").sample_rate == RATE
    run("repack", path, "-o", tmp_path / "again.h5", "--sample-rate", RATE, "--labels", tmp_path / "labels.csv", code=1)


def test_what_is_neither_is_an_error(tmp_path):
    assert "is not a store" in run("inspect", tmp_path, "--verify", code=1).stderr


@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.jsonl"])
def test_flipped_bits_in_a_run_are_told_or_change_nothing(home, name):
    path = home / "run" / name
    whole, chosen, told = path.read_bytes(), random.Random(0), 0
    try:
        for _ in range(10):
            changed = bytearray(whole)
            changed[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
            path.write_bytes(changed)
            told += not verify(home / "run").whole
    finally:
        path.write_bytes(whole)
    assert told >= 9
