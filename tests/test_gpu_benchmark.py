"""``python -m benchmarks gpu``: its dry run on a CPU, its verdicts, and that it needs only what the page lists."""

import importlib.metadata
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tests.pages import ROOT, blocks

FOUND = importlib.metadata.PackageNotFoundError


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def call(*arguments):
    from benchmarks.__main__ import main

    return CliRunner().invoke(main, ["gpu", *map(str, arguments)])


@pytest.mark.long
def test_a_dry_run_on_a_cpu_checks_and_judges_no_time(tmp_path):
    parts = ["agree", "statistics", "random", "waiting", "steps", "loader"]
    only = [word for part in parts for word in ("--only", part)]
    result = call("--device", "cpu", "--tiny", *only, "-o", tmp_path / "made" / "dry.1")
    assert result.exit_code == 0, result.output
    run = json.loads((tmp_path / "made" / "dry.1.json").read_text())
    assert (tmp_path / "made" / "dry.1.md").read_text() in result.output
    assert (tmp_path / "made" / "dry.1.png").read_bytes().startswith(b"\x89PNG")
    assert list(run["parts"]) == parts
    assert run["parts"]["waiting"]["reason"] == "there is no GPU to wait for"
    assert not any(part["failed"] for part in run["parts"].values())
    for name in ("agree", "statistics", "random"):
        assert {row["verdict"] for row in run["parts"][name]["rows"]} == {"met"}
    verdicts = {row["name"]: row["verdict"] for row in run["parts"]["steps"]["rows"] if row["verdict"]}
    names = ("weights", "mirrored", "flipout", "natural-gradient")
    assert verdicts == {f"{name} / deterministic": "not measured" for name in names}
    assert all(row["value"] > 0 for row in run["parts"]["steps"]["rows"])
    assert run["dry_run"] is True
    assert "**A dry run" in result.output
    assert "a CPU agrees with itself" in result.output
    assert "| weights / deterministic |" in result.output


def outcomes_of(tmp_path, parts, seconds=200.0):
    """What comes of parts, and how many rows there were each time that something was kept."""
    from benchmarks.gpu.run import run_parts
    from benchmarks.gpu.setting import Setting

    kept = []
    outcomes = run_parts(
        parts,
        Setting("cpu", True, tmp_path),
        seconds,
        lambda found: kept.append(sum(len(each.rows) for each in found.values())),
    )
    return outcomes, kept


def test_a_part_that_fails_or_takes_too_long_ends_and_the_others_go_on(tmp_path):
    from benchmarks.gpu.run import Part
    from benchmarks.gpu.setting import Found, Skipped

    def fails(setting, ends):
        yield Found("before")
        raise ValueError("it\nbroke")

    def hangs(setting, ends):
        yield Found("before", 1.0)
        # Its time is over at once.
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 200
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(600)
        yield Found("never")

    def skips(setting, ends):
        raise Skipped("nothing to do")
        yield

    def works(setting, ends):
        yield Found("a", 1.0)
        yield Found("b", 2.0)

    parts = {"fails": Part("", 30, fails), "hangs": Part("", 30, hangs), "skips": Part("", 30, skips)}
    parts |= {"works": Part("", 30, works)}
    outcomes, kept = outcomes_of(tmp_path, parts)
    assert {name: each.reason.partition(" after")[0] for name, each in outcomes.items()} == {
        "fails": "ValueError: it broke",
        "hangs": "cut off",
        "skips": "nothing to do",
        "works": "",
    }
    assert [name for name, each in outcomes.items() if each.failed] == ["fails", "hangs"]
    assert [len(each.rows) for each in outcomes.values()] == [1, 1, 0, 2]
    assert kept == [1, 1, 2, 2, 2, 3, 4, 4], "what is there is kept after each row"
    outcomes, _ = outcomes_of(tmp_path, parts, seconds=0.0)
    assert {each.reason for each in outcomes.values()} == {"the time was over"}


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({"value": 1.0}, ""),
        ({"value": 1.1, "most": 1.1}, "met"),
        ({"value": 1.11, "most": 1.1}, "missed"),
        ({"value": math.nan, "most": 1.1}, "missed"),
        ({"value": 130.0, "least": 100.0}, "met"),
        ({"value": 99.0, "least": 100.0}, "missed"),
        ({"most": 1.1}, "not measured"),
        ({"value": 1.0, "most": 1.1, "judged": False}, "not measured"),
    ],
)
def test_a_row_has_its_verdict(row, verdict):
    from benchmarks.gpu.setting import Found

    assert Found("x", **row).verdict == verdict


def test_a_dry_run_on_a_gpu_judges_no_time_either(tmp_path):
    from benchmarks.gpu.measures import ratio
    from benchmarks.gpu.setting import Ratio, Setting

    found = Ratio([2.0], [1.0], 0.0)
    for tiny, verdict in ((True, "not measured"), (False, "missed")):
        assert ratio(Setting("cuda", tiny, tmp_path), "a / b", found, 1.1, "so").verdict == verdict


def test_a_gpu_that_is_not_there_is_a_mistake_of_usage(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    result = call("--device", "cuda:2")
    assert result.exit_code == 2
    assert "--device cuda:2: torch sees 2 GPUs here, from cuda:0 on" in result.stderr


def test_a_fit_whose_time_is_over_is_left_to_nobody(tmp_path, monkeypatch):
    from benchmarks.gpu import fitting
    from benchmarks.gpu.run import _limited, _TimeUp

    command = [
        sys.executable,
        "-c",
        f"import os, pathlib, signal, time; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()));"
        "os.kill(os.getppid(), signal.SIGALRM); time.sleep(600)",
    ]
    monkeypatch.setattr(fitting, "_command", lambda words: command)
    with pytest.raises(_TimeUp), _limited(300.0):
        fitting._killed_after_a_line(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_record_holds_what_is_no_number_and_the_table_says_what_was_missed(tmp_path):
    from benchmarks.gpu.results import record, table, write
    from benchmarks.gpu.run import Outcome, Part
    from benchmarks.gpu.setting import Found, Setting

    rows = [Found("a / b", math.nan, most=1.0), Found("c", 0.5, "s", (0.4, 0.6), least=0.1, note="so")]
    parts = {"one": Part("What it does", 5, lambda setting, ends: iter(rows), measures=True)}
    run = record(Setting("cpu", True, tmp_path), parts, {"one": Outcome(rows, 1.0, "it broke", True)})
    assert write(run, tmp_path / "x", picture=False) == ""
    assert json.loads((tmp_path / "x.json").read_text())["parts"]["one"]["rows"][0]["value"] == "nan"
    text = table(run)
    assert "Of 2 tolerances and targets: 1 met, 1 missed, 0 not measured." in text
    assert "| a / b | nan |  | ≤ 1 | **missed** |  |" in text
    assert "| c | 0.5 s | 0.4-0.6 | ≥ 0.1 | met | so |" in text
    assert "Failed: it broke." in text


def test_a_step_is_compared_with_its_baseline_in_random_order(tmp_path, monkeypatch):
    from benchmarks.gpu.setting import Setting, compared

    calls, order = {"mine": 0, "baseline": 0}, []

    def timed(setting, step, steps=None):
        order.append(step)
        return 2.0 if step is mine else 1.0

    def mine():
        calls["mine"] += 1

    def baseline():
        calls["baseline"] += 1

    monkeypatch.setattr(Setting, "time", timed)
    found = compared(Setting("cpu", False, tmp_path), lambda: mine, baseline, math.inf)
    assert calls == {"mine": 3, "baseline": 0}, "it is warm before it is timed, as the baseline is already"
    assert (found.value, found.interval) == (2.0, (2.0, 2.0))
    assert len(order) == 12, "it is known after the least number of rounds"
    pairs = {tuple(order[at : at + 2]) for at in range(0, 12, 2)}
    assert pairs == {(mine, baseline), (baseline, mine)}
    assert len(compared(Setting("cpu", False, tmp_path), lambda: mine, baseline, 0.0).seconds) == 1


@pytest.mark.long
def test_a_profile_finds_the_draw_and_the_update():
    from benchmarks.contenders import TRAIN, Work
    from benchmarks.gpu.profile import profiled

    work = Work("resnet14-narrow", clips=2, seconds=0.4, device="cpu", threads=1, precision="float32")
    found = {}
    for name in ("deterministic", "weights", "natural-gradient"):
        step = TRAIN[name].make(work)
        step()
        found[name] = profiled(step, on_gpu=False, steps=1)
    assert found["deterministic"][0] == 0
    assert all(min(each) > 0 for name, each in found.items() if name != "deterministic")
    assert found["deterministic"][1] > 0


def test_devices_see_the_same_noise_in_whatever_pieces_they_ask():
    from benchmarks.gpu.agreement import _same_noise

    whole, halves = torch.empty(1000), torch.empty(1000)
    with _same_noise():
        whole.normal_()
    with _same_noise():
        halves[:300].normal_()
        halves[300:].normal_(generator=torch.Generator())
    assert torch.equal(whole, halves)
    assert abs(float(whole.mean())) < 0.1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_usage_error():
    result = call("--device", "cuda:1")
    assert result.exit_code == 2
    assert "torch sees no GPU here" in result.output
    assert call("--device", "tpu").exit_code == 2


def wheels():
    """What the page says has to be carried along."""
    page = ROOT / "benchmarks" / "README.md"
    listed = next(block.text for block in blocks(page) if block.text.startswith("pyro-ppl "))
    return listed.split()


def needs(name, seen):
    """A distribution and those that it needs."""
    if name in seen:
        return seen
    try:
        asked = importlib.metadata.requires(name) or ()
    except FOUND:
        return seen
    seen.add(name)
    for each in asked:
        if "extra ==" not in each:
            needs(re.match(r"[\w.-]+", each)[0], seen)
    return seen


@pytest.fixture
def bare(tmp_path):
    """A folder of packages that holds torch, torchaudio and NumPy, with what these need, and the listed ones alone."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name in {*needs("torch", set()), "torchaudio", "numpy", *wheels()}:
        distribution = importlib.metadata.distribution(name)
        for path in {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / path).exists():
                (folder / path).symlink_to(Path(distribution.locate_file(path)))
    return folder


@pytest.mark.long
def test_every_part_runs_from_a_bare_checkout_with_the_listed_wheels(bare, tmp_path):
    out = tmp_path / "dry"
    command = [sys.executable, "-S", "-m", "benchmarks", "gpu", "--device", "cpu", "--tiny", "-o", str(out)]
    command += ["--minutes", "30"]
    from benchmarks.gpu.command import PARTS

    command += [word for part in PARTS for word in ("--only", part)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    environment |= {"PYTHONPATH": str(bare), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no picture: matplotlib is not installed" in done.stderr
    run = json.loads(out.with_name("dry.json").read_text())
    assert list(run["parts"]) == list(PARTS)
    assert {name for name, part in run["parts"].items() if part["reason"]} == {"golden", "waiting"}
    checks = [row for part in run["parts"].values() if not part["measures"] for row in part["rows"]]
    assert {row["verdict"] for row in checks} == {"met"}
    fit = {row["name"]: row for row in run["parts"]["fit"]["rows"]}
    assert fit["steps at the end of the resumed fit"]["verdict"] == "met"
    assert fit["posterior of the killed and resumed fit"]["value"] == 0
    notes = [row["note"] for row in run["parts"]["peers"]["rows"]]
    assert "left out: bayesian-torch is not installed" in notes


@pytest.mark.long
def test_the_golden_values_are_met(reference):
    result = call("--device", "cpu", "--only", "golden", "--reference", ROOT.parent / "shared" / "reference")
    assert result.exit_code == 0, result.output
    assert "| resnet54: logits against the published code |" in result.output
    assert "1 met, 0 missed" in result.output
