"""The benchmarks run, pair each contender with its baseline, and say what they left out. No time is asserted."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from bayes_panns.bayes import sites

ROOT = Path(__file__).resolve().parent.parent
TINY = ["--net", "resnet14-narrow", "--clips", "2", "--seconds", "1", "--device", "cpu", "--threads", "1"]


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    # What a run sets for its workers is put back.
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, "1")


@pytest.fixture
def tiny():
    from benchmarks.contenders import Work

    return Work("resnet14-narrow", clips=2, seconds=0.4, device="cpu", threads=1, precision="float32")


def call(*arguments):
    from benchmarks.__main__ import main

    return CliRunner().invoke(main, arguments)


@pytest.mark.slow
def test_a_run_leaves_its_record_table_and_picture(tmp_path):
    out = tmp_path / "results" / "tiny.1"
    command = [sys.executable, "-m", "benchmarks", "train", *TINY, "--rounds", "2", "--only", "flipout", "-o", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    assert "| `flipout` |" in result.stdout
    assert out.with_name("tiny.1.md").read_text() == result.stdout
    assert out.with_name("tiny.1.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads(out.with_name("tiny.1.json").read_text())
    assert record["failed"] == {}
    assert list(record["contenders"]) == ["deterministic", "flipout"]
    flipout = record["contenders"]["flipout"]
    assert len(flipout["ratios"]) == len(flipout["seconds"]) == 2
    assert min(flipout["ratios"]) > 0
    assert flipout["baseline_seconds"] == record["contenders"]["deterministic"]["seconds"]
    assert flipout["peak_gib"] > 0.1


def test_every_contender_steps(tiny, monkeypatch):
    from benchmarks import contenders, report

    monkeypatch.setattr(contenders, "DRAWS", 2)
    for contender in [*contenders.TRAIN.values(), *contenders.PREDICT.values()]:
        if contender.package is None or report.version(contender.package) is not None:
            contender.make(tiny)()


@pytest.mark.parametrize(("command", "name"), [("TRAIN", "flipout"), ("PREDICT", "flip")])
def test_a_contender_steps_in_bfloat16(command, name, tiny, monkeypatch):
    from benchmarks import contenders

    monkeypatch.setattr(contenders, "DRAWS", 2)
    getattr(contenders, command)[name].make(replace(tiny, precision="bf16"))()


@pytest.mark.parametrize("kind", ["Flipout", "Reparameterization"])
def test_bayesian_torch_takes_over_every_weight(kind, tiny):
    pytest.importorskip("bayesian_torch")
    from benchmarks.contenders import _bayesian_torch_net

    expected = len(sites(tiny.network()))
    net = _bayesian_torch_net(tiny, kind)
    assert not [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len([name for name, _ in net.named_parameters() if ".rho_" in f".{name}"]) == expected


class FakeWorker:
    """Steps that take 1 s for a baseline and 2 s for others, and a log of who stepped."""

    log: list = []  # noqa: RUF012
    peaks = {"small": 2.0, "other": 3.0, "large": 9.0, "base": 1.0, "broken": 1.0}  # noqa: RUF012

    def __init__(self, contender, work):
        from benchmarks.measure import ContenderError

        self.name, self.hardware, self.free, self.peak = contender.summary, "abacus", 10.0, 0.0
        self.log.append(("start", self.name))
        if self.name == "broken":
            raise ContenderError("it broke")

    def step(self):
        self.log.append(("step", self.name))
        self.peak = self.peaks[self.name]
        return 1.0 if self.name == "base" else 2.0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.log.append(("stop", self.name))


def fake_contenders(*names):
    from benchmarks.contenders import Contender

    return {name: Contender(name, lambda work: lambda: None, None if name == "base" else "base") for name in names}


def test_contenders_take_turns_each_right_after_its_baseline_with_those_that_fit_beside_it(monkeypatch, tiny, caplog):
    from benchmarks import measure

    monkeypatch.setattr(measure, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "log", [])
    measured = measure.measure(fake_contenders("base", "small", "other", "large", "broken"), tiny, rounds=2, memory=7.0)
    assert measured.failed == {"broken": "it broke"}
    assert "broken: left out: it broke" in caplog.messages
    assert list(measured.results) == ["base", "small", "other", "large"]
    assert measured.results["small"].ratios == [2.0, 2.0]
    assert measured.results["large"].peak == 9.0
    assert measured.results["base"].ratios == []
    log = FakeWorker.log
    turn = [("step", "base"), ("step", "small"), ("step", "base"), ("step", "other")]
    first = log.index(turn[0], log.index(("start", "broken")))
    assert log[first : first + 8] == turn * 2
    # The large one comes when the small ones are gone.
    assert log.index(("stop", "other"), first) < len(log) - log[::-1].index(("start", "large"))


@pytest.mark.parametrize(
    ("memory", "groups"),
    [(6.0, [["a", "b", "c"]]), (5.0, [["a", "b"], ["c"]]), (0.5, [["a"], ["b"], ["c"]])],
)
def test_groups_fit_into_memory(memory, groups):
    from benchmarks.measure import together

    assert together({"a": 1.0, "b": 2.0, "c": 3.0}, memory) == groups


def test_a_run_in_which_nothing_works_is_an_error(monkeypatch, tiny):
    from benchmarks import measure

    monkeypatch.setattr(measure, "Worker", FakeWorker)
    with pytest.raises(measure.ContenderError, match="no contender"):
        measure.measure(fake_contenders("base", "broken"), tiny, rounds=1, memory=None)


def test_an_unknown_contender_is_a_usage_error():
    result = call("train", "--only", "nobody")
    assert result.exit_code == 2
    assert "'nobody' is not one of 'weights'" in result.output


def test_a_missing_peer_is_told(monkeypatch):
    from benchmarks import report

    monkeypatch.setattr(report, "version", lambda package: None)
    result = call("train", "--only", "bt-flipout")
    assert result.exit_code == 1
    assert "bt-flipout: left out: bayesian-torch is not installed; pip install -e '.[bench]'" in result.output
    assert "no contender is left to measure" in result.output


def test_a_contender_that_fails_shows_in_the_table(tiny):
    from benchmarks import report
    from benchmarks.measure import Measured, Result

    measured = Measured(
        "abacus", {"base": Result([1.0], [], 1.0), "small": Result([3.0], [1.0], 2.0)}, {"large": "big"}
    )
    run = report.record("train", tiny, 1, fake_contenders("base", "small", "large"), measured)
    assert "| `small` | 3.00 (3.00-3.00) | base | 2.00 | small |" in report.table(run)
    assert "| `large` | left out: big |" in report.table(run)


def test_an_hour_is_timed_whole_and_beside_a_plain_pass(tmp_path):
    out = tmp_path / "hour"
    result = call("hour", "--minutes", "0.5", "--rate", "32000", "--draws", "2", "--rounds", "1", "-o", str(out))
    assert result.exit_code == 0, result.output
    record = json.loads(out.with_name("hour.json").read_text())
    (turn,) = record["rounds"]
    assert list(turn) == ["plain", "mean", "draws"]
    assert all(each["wall"] > 0 and each["cpu"] > 0 and each["peak_gib"] > 0.1 for each in turn.values())
    assert "mn04, random weights" in result.output
    assert "| `draws` |" in result.output


def test_the_plain_pass_predicts_what_the_posteriors_mean_does(tmp_path):
    from bayes_panns.posterior import load
    from bayes_panns.predictions import tag
    from benchmarks.hour import SECONDS, _prepare

    command = _prepare(tmp_path, None, 0.5, 32000, 2)["plain"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    tags = tag(load(tmp_path / "posterior"), tmp_path / "sound.wav", 0)
    plain = torch.load(tmp_path / "plain.pt", weights_only=True)
    assert len(plain) == 30 / SECONDS
    torch.testing.assert_close(plain.double(), torch.from_numpy(tags.uncertainty.probability), rtol=0, atol=1e-5)
