"""What predict and embed do with many files: written as they come, skipped with a reason, of any name, interrupted."""

import csv
import io
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from bayes_panns.cli import main, options
from bayes_panns.clips import Store, Task
from bayes_panns.posterior import Posterior, save
from tests.harness.waiting import PATIENCE, until

RATE = 8000
COMMAND = (sys.executable, "-c", "from bayes_panns.cli import main; main()")
ODD = (b"caf\xe9.wav", b"a\nb\tc.wav", b"\x1b[31mred.wav", "\u202egpj.wav".encode(), b"=1+2.wav", "日本.wav".encode())
"""Names that are not UTF-8, of several lines, that steer a terminal, that are a formula."""


def run(*arguments, code=0, **options):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], **options)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def sound(path, seconds=1.0, channels=1):
    with open(path, "wb") as file:  # noqa: PTH123
        made = 0.1 * np.random.default_rng(0).normal(size=(round(seconds * RATE), channels))
        soundfile.write(file, made, RATE, format="WAV")
    return path


@pytest.fixture(scope="module")
def posterior(tmp_path_factory):
    torch.manual_seed(0)
    labels = ("=dog\nbark", "\x1b[31mred", "c")
    made = Posterior.build(net="resnet14-narrow", labels=labels, task=Task.ONE_OF_K, sample_rate=RATE, clip_seconds=1.0)
    folder = tmp_path_factory.mktemp("p") / "posterior"
    save(made, folder)
    return folder


@pytest.fixture
def odd(tmp_path):
    """A folder of files with odd names."""
    (tmp_path / "odd").mkdir()
    for name in ODD:
        sound(os.fsencode(tmp_path / "odd") + b"/" + name)
    return tmp_path / "odd"


def test_skipped_files_are_counted_and_the_exit_code_is_3(posterior, tmp_path):
    good, bad = sound(tmp_path / "good.wav"), tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    out = tmp_path / "tags.csv"
    result = run(
        "predict", posterior, good, bad, tmp_path / "silent.wav", "--draws", 0, "--format", "csv", "-o", out, code=3
    )
    assert f"skipped {bad}: cannot be read" in result.stderr
    assert f"warning: {tmp_path}/silent.wav: " in result.stderr
    assert f"{out}: 2 files tagged, 1 skipped, 1 silent" in result.stderr
    rows = csv.DictReader(out.read_text().splitlines())
    assert {row["file"] for row in rows} == {str(good), f"{tmp_path}/silent.wav"}
    embedded = run("embed", posterior, good, bad, "-o", tmp_path / "e.npz", code=3)
    assert "1 rows of" in embedded.stderr
    assert "1 file embedded, 1 skipped" in embedded.stderr
    assert len(np.load(tmp_path / "e.npz")["embeddings"]) == 1
    assert not list(tmp_path.glob("*.part"))
    assert "skipped" in run("--help").stdout


def test_files_that_were_named_must_exist_before_anything_is_done(posterior, tmp_path):
    good = sound(tmp_path / "good.wav")
    result = run("predict", tmp_path / "no-posterior", good, tmp_path / "a.wav", tmp_path / "b\n.wav", code=1)
    assert result.stderr == f"bayes-panns: {tmp_path}/a.wav, {tmp_path}/b\\n.wav: no such file\n"
    assert "is one of the files to read" in run("predict", posterior, good, "-o", good, code=1).stderr
    assert soundfile.info(good).frames == RATE


def test_standard_input_is_a_file(posterior, tmp_path):
    data = sound(tmp_path / "x.wav", 1.5).read_bytes()
    rows = run("predict", posterior, "-", "--draws", 0, "--format", "json", input=data)
    named = run("predict", posterior, tmp_path / "x.wav", "--draws", 0, "--format", "json")
    assert [row["file"] for row in json.loads(rows.stdout)["windows"]] == ["standard input"] * 2
    assert rows.stdout.replace("standard input", str(tmp_path / "x.wav")) == named.stdout
    run("embed", posterior, "-", "-o", tmp_path / "e.npz", input=data)
    assert list(np.load(tmp_path / "e.npz")["files"]) == ["standard input"] * 2
    assert "once" in run("predict", posterior, "-", "-", code=2).stderr


def test_a_channel_is_chosen(posterior, tmp_path):
    path = sound(tmp_path / "x.wav", channels=2)

    def tagged(*words, code=0):
        return run("predict", posterior, path, "--draws", 0, "--format", "json", *words, code=code)

    assert tagged("--channel", "left").stdout == tagged("--channel", "1").stdout != tagged().stdout
    assert "no channel 3" in tagged("--channel", "3", code=1).stderr
    for wrong in ("0", "middle"):
        assert "mix, left, right" in tagged("--channel", wrong, code=2).stderr


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_names_and_labels_of_any_bytes_are_written(posterior, odd, tmp_path, form):
    result = run("predict", posterior, odd, "--draws", 0, "--format", form)
    run("predict", posterior, odd, "--draws", 0, "--format", form, "-o", tmp_path / "out")
    text = (tmp_path / "out").read_text(encoding="utf-8")
    assert text == result.stdout
    assert not {"\x1b", "\u202e", "\t", "\r"} & set(text)
    if form == "json":
        assert {os.fsencode(row["file"].rpartition("/")[2]) for row in json.loads(text)["windows"]} == set(ODD)
        return
    assert r"caf\xe9.wav" in text
    assert r"a\nb\tc.wav" in text
    assert len(text.splitlines()) == 1 + len(ODD) * (3 if form == "csv" else 1)
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert {row["label"] for row in rows} == {r"'=dog\nbark", r"\x1b[31mred", "c"}


def test_a_track_and_embeddings_of_odd_names(posterior, odd, tmp_path, monkeypatch):
    # pytest-xdist cannot send a log with such names to the process that reports.
    monkeypatch.setattr(logging.getLogger("bayes_panns"), "propagate", False)
    for name in ODD:
        track = run(
            "predict", posterior, os.fsdecode(os.fsencode(odd) + b"/" + name), "--draws", 0, "--format", "audacity"
        )
        assert [len(line.split("\t")) for line in track.stdout.splitlines()] == [3]
        assert "\x1b" not in track.stdout
    for ending in ("npz", "csv", "parquet"):
        if ending == "parquet":
            pytest.importorskip("pyarrow")
        run("embed", posterior, odd, "-o", tmp_path / f"caf\udce9.{ending}")
        (tmp_path / f"caf\udce9.{ending}").rename(tmp_path / f"e.{ending}")
        run("pack", "embeddings", tmp_path / f"e.{ending}", "-o", tmp_path / f"{ending}.h5")
        assert any(r"caf\xe9.wav" in name for name in Store(tmp_path / f"{ending}.h5").names)


def test_a_cell_that_begins_like_a_formula_is_quoted(posterior, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sound(tmp_path / "=1+2.wav")
    for command in (
        ("predict", posterior, "=1+2.wav", "--draws", 0, "--format", "csv", "-o", "t.csv"),
        ("embed", posterior, "=1+2.wav", "-o", "t.csv"),
    ):
        run(*command)
        assert next(csv.DictReader(Path("t.csv").read_text().splitlines()))["file"] == "'=1+2.wav"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_any_terminal_can_be_printed_to(posterior, odd, encoding):
    """In a process of its own: the streams are made by Python."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"}
    (odd / "bad\u20acé\x1b.wav").write_bytes(b"")
    result = subprocess.run(
        [*COMMAND, "predict", str(posterior), str(odd), "--draws", "0"], capture_output=True, env=environment
    )
    assert result.returncode == 3, result.stderr
    assert b"Traceback" not in result.stderr
    assert b"\x1b" not in result.stdout + result.stderr
    assert "+-" in result.stdout.decode("ascii")
    assert len(result.stdout.splitlines()) == 1 + len(ODD)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interruption_loses_nothing_that_was_computed(posterior, tmp_path, number):
    """The last of the files is a pipe whose writer never ends."""
    sound(tmp_path / "a.wav", 300.0)
    os.mkfifo(tmp_path / "z.wav")
    writer = os.open(tmp_path / "z.wav", os.O_RDWR)
    os.write(writer, b"RIFF")
    out = tmp_path / "tags.json"
    out.write_text("before")
    arguments = [posterior, tmp_path / "a.wav", tmp_path / "z.wav", "--draws", 0, "--format", "json", "-o", out]
    process = subprocess.Popen(
        [*COMMAND, "predict", *map(str, arguments)], stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    part = tmp_path / "tags.json.part"
    # The windows of the first recording are there.
    until(lambda: process.poll() is not None or (part.is_file() and part.read_text().count("\n") > 128))
    assert process.poll() is None, process.communicate()
    assert "another process is writing it" in run("predict", *arguments, code=1).stderr
    process.send_signal(number)
    _, stderr = process.communicate(timeout=PATIENCE)
    os.close(writer)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert out.read_text() == "before"
    if number == signal.SIGKILL:
        # Cut off, but each window is on a line of its own.
        windows = [json.loads(line.rstrip(",")) for line in part.read_text().splitlines()[1:]]
    else:
        windows = json.loads(part.read_text())["windows"]
        assert f"the results so far are in {part}" in stderr.decode()
    assert len(windows) >= 128
    assert b"Traceback" not in stderr
    run("predict", posterior, tmp_path / "a.wav", "--draws", 0, "--window", 100, "--format", "json", "-o", out)
    assert not part.exists()
    assert len(json.loads(out.read_text())["windows"]) == 3


def test_an_error_keeps_what_was_written_and_an_empty_part_is_removed(tmp_path):
    with pytest.raises(OSError, match="full"), options.results(tmp_path / "a.csv") as write:  # noqa: PT012
        write("one\n")
        raise OSError("full")
    assert (tmp_path / "a.csv.part").read_text() == "one\n"
    with pytest.raises(OSError, match="full"), options.results(tmp_path / "b.csv"):
        raise OSError("full")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv.part"]
    with options.results(tmp_path / "a.csv") as write:
        write("two\n")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.csv": "two\n"}
    with options.results(Path(os.devnull)) as write:
        write("nothing")
    assert not Path(os.devnull).is_file()


def test_what_was_typed_cannot_steer_the_terminal():
    for words in (("fl\x1by",), ("--no\x1b",), ("predict", "p", "f", "--draws", "\x1b[31m")):
        result = run(*words, code=2)
        assert "\x1b" not in result.stderr
        assert r"\x1b" in result.stderr
