"""The benchmarks run, pair each contender with its baseline, and say what they left out. No time is asserted."""

import json
import os
import random
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bayes_panns.bayes import sites

ROOT = Path(__file__).resolve().parent.parent
TINY = ["--net", "resnet14-narrow", "--clips", "2", "--seconds", "1", "--device", "cpu", "--threads", "1"]


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture
def tiny():
    from benchmarks.contenders import Work

    # Guides of Pyro keep their values there by name. In a run each has its own process.
    pyro.clear_param_store()
    return Work("resnet14-narrow", clips=2, seconds=0.4, device="cpu", threads=1, precision="float32")


def call(*arguments):
    from benchmarks.__main__ import main

    return CliRunner().invoke(main, arguments)


@pytest.mark.long
def test_a_run_leaves_its_record_table_and_picture(tmp_path):
    out = tmp_path / "results" / "tiny.1"
    command = [sys.executable, "-m", "benchmarks", "train", *TINY, "--rounds", "2", "--max-rounds", "2"]
    command += ["--only", "flipout", "-o", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    assert "| `flipout` |" in result.stdout
    assert out.with_name("tiny.1.md").read_text() == result.stdout
    assert out.with_name("tiny.1.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads(out.with_name("tiny.1.json").read_text())
    assert record["failed"] == {}
    assert list(record["contenders"]) == ["deterministic", "flipout"]
    flipout, baseline = (record["contenders"][name] for name in ("flipout", "deterministic"))
    for clock in ("wall", "cpu"):
        mine = flipout[clock]
        assert len(mine["ratios"]) == len(mine["seconds"]) == 2
        assert mine["ratio_of_minima"] == min(mine["seconds"]) / min(mine["baseline_seconds"])
        assert min(mine["ratios"]) > 0
        assert mine["baseline_seconds"] == baseline[clock]["seconds"]
    assert flipout["settled"] is False
    assert flipout["peak_gib"] > 0.1


def test_a_warm_worker_keeps_the_memory_that_it_frees(tiny):
    from benchmarks.contenders import TRAIN
    from benchmarks.worker import FRESH, Worker, environment

    before = dict(os.environ)
    with environment(threads=1):
        worker = Worker(TRAIN["deterministic"], replace(tiny, clips=8, seconds=2.0), lambda: None)
    assert dict(os.environ) == before
    with worker:
        worker.warm()
        # It allocates hundreds of MB in each step.
        assert worker._step().fresh < FRESH * worker.peak
        times = worker.step()
        assert 0 < times.cpu < 1.5 * times.wall
        assert worker.last == times.wall
        assert 0.1 < worker.held <= worker.peak + 0.01


def installed(contenders):
    from benchmarks.versions import version

    return [each for each in contenders.values() if each.package is None or version(each.package) is not None]


def test_every_contender_steps(tiny):
    from benchmarks import contenders

    for contender in [*installed(contenders.TRAIN), *installed(contenders.PREDICT)]:
        contender.make(tiny)()


def test_every_contender_but_moments_steps_on_a_network_with_another_front_end(tiny):
    from benchmarks import contenders

    predict = {name: each for name, each in contenders.PREDICT.items() if name != "moments"}
    for contender in [*installed(contenders.TRAIN), *installed(predict)]:
        contender.make(replace(tiny, net="mn04"))()


@pytest.mark.parametrize(
    ("net", "rate", "mels"), [("resnet54", 32000, 64), ("mn04", 32000, 128), ("cnn14-16k", 16000, 64)]
)
def test_the_front_end_is_the_networks_own(net, rate, mels, tiny):
    work = replace(tiny, net=net)
    features, target = work.labelled()
    assert work.sample_rate == rate
    assert features.shape == (2, *work.front_end().shape(round(0.4 * rate)))
    assert features.shape[-1] == mels
    assert target.shape == (2, 527)


@pytest.mark.parametrize("name", ["deterministic", "ivon", "posteriors"])
def test_a_step_moves_batchnorm(name, tiny, monkeypatch):
    from benchmarks import contenders
    from benchmarks.versions import version

    contender = contenders.TRAIN[name]
    if contender.package is not None and version(contender.package) is None:
        pytest.skip(f"{contender.package} is not installed")
    net = tiny.network()
    monkeypatch.setattr(contenders.Work, "network", lambda work: net)
    before = {name: value.clone() for name, value in net.named_buffers() if name.endswith("running_mean")}
    contender.make(tiny)()
    moved = dict(net.named_buffers())
    assert before
    assert not [name for name, value in before.items() if torch.equal(value, moved[name])]


@pytest.mark.parametrize(("command", "name"), [("TRAIN", "flipout"), ("PREDICT", "flip"), ("PREDICT", "moments")])
def test_a_contender_steps_in_bfloat16(command, name, tiny, monkeypatch):
    from benchmarks import contenders

    made, posterior = [], contenders._posterior
    monkeypatch.setattr(contenders, "_posterior", lambda *given: made.append(posterior(*given)) or made[-1])
    getattr(contenders, command)[name].make(replace(tiny, precision="bf16"))()
    # Draws are as `predict --precision bf16` makes them; moments have float32 only.
    assert [each.precision for each in made] == {"flip": ["bf16"], "moments": ["float32"]}.get(name, [])


@pytest.mark.parametrize("kind", ["Flipout", "Reparameterization"])
def test_bayesian_torch_takes_over_every_weight(kind, tiny):
    pytest.importorskip("bayesian_torch")
    from benchmarks.contenders import _bayesian_torch_net

    expected = len(sites(tiny.network()))
    net = _bayesian_torch_net(tiny, kind)
    assert not [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len([name for name, _ in net.named_parameters() if ".rho_" in f".{name}"]) == expected


class FakeClock:
    """Time that only steps take."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


class FakeWorker:
    """Steps of given seconds, by name, with noise, and a log of who stepped."""

    clock = FakeClock()
    log: list = []  # noqa: RUF012
    peaks = {"small": 2.0, "other": 3.0, "large": 9.0, "base": 1.0, "broken": 1.0, "huge": 99.0}  # noqa: RUF012
    seconds = {"base": 1.0, "slow": 50.0}  # noqa: RUF012
    noise = {"noisy": 0.4, "stuck": 0.4}  # noqa: RUF012

    def __init__(self, contender, work, watch):
        self.name, self.watch = contender.summary, watch
        self.hardware, self.free, self.peak, self.held, self.last = "abacus", 10.0, 0.0, 0.0, 0.0
        self.random = random.Random(1)

    def warm(self):
        from benchmarks.worker import ContenderError

        self.log.append(("start", self.name))
        if self.name == "broken":
            raise ContenderError("it broke")
        self.held = self.peak = self.peaks.get(self.name, 1.0)
        self.watch()
        self.last = self.seconds.get(self.name, 2.0)

    def step(self):
        from benchmarks.worker import Times

        self.log.append(("step", self.name))
        wall = self.seconds.get(self.name, 2.0) * np.exp(self.noise.get(self.name, 0) * self.random.gauss())
        # After its third step it does not answer.
        if self.name == "stuck" and self.log.count(("step", "stuck")) > 3:
            self.clock.now += 1e6
            self.watch()
        self.clock.now += wall
        self.last = wall
        return Times(wall, wall / 2)

    def close(self):
        self.log.append(("stop", self.name))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def fake_contenders(*names):
    from benchmarks.contenders import Contender

    return {name: Contender(name, lambda work: lambda: None, None if name == "base" else "base") for name in names}


@pytest.fixture
def turns(monkeypatch, tiny):
    """Measures fake contenders, by name, and returns what was measured, the log and the minutes that it took."""
    from benchmarks import measure

    def run(*names, rounds=10, most=50, minutes=1000.0, memory=None):
        clock = FakeClock()
        monkeypatch.setattr(measure, "Worker", FakeWorker)
        monkeypatch.setattr(measure, "time", clock)
        monkeypatch.setattr(FakeWorker, "clock", clock)
        monkeypatch.setattr(FakeWorker, "log", [])
        plan = measure.Plan(rounds, most, minutes, memory)
        measured = measure.measure(fake_contenders("base", *names), tiny, plan)
        return measured, [name for what, name in FakeWorker.log if what == "step"], clock.now / 60

    return run


def test_a_turn_is_a_step_and_one_of_its_baseline_in_random_order(turns):
    measured, steps, _ = turns("small", "other", rounds=20)
    pairs = [tuple(steps[at : at + 2]) for at in range(0, len(steps), 2)]
    assert {frozenset(pair) for pair in pairs} == {frozenset(("base", "small")), frozenset(("base", "other"))}
    assert len(set(pairs)) == 4, "the baseline comes first and second"
    order = [next(name for name in pair if name != "base") for pair in pairs]
    rounds = [tuple(order[at : at + 2]) for at in range(0, len(order), 2)]
    assert set(rounds) == {("small", "other"), ("other", "small")}, "each once in a round, in an order that changes"
    assert measured.results["small"].ratios("wall") == measured.results["small"].ratios("cpu") == [2.0] * 20
    assert measured.results["small"].of_minima("wall") == 2.0
    assert measured.results["base"].ratios("wall") == []
    assert len(measured.results["base"].steps) == 40
    assert turns("small", "other", rounds=20)[1] == steps, "the order is seeded"


def test_contenders_that_fit_into_memory_are_measured_together(turns, caplog):
    measured, _, _ = turns("small", "other", "large", "broken", "huge", memory=10.0)
    assert measured.failed["broken"] == "it broke"
    assert "needs more memory than the 10.0 GiB" in measured.failed["huge"]
    assert "broken: left out: it broke" in caplog.messages
    assert list(measured.results) == ["base", "small", "other", "large"]
    assert measured.results["large"].peak == 9.0
    # The large one is tried beside the small ones, and comes when they are gone.
    first, second = (at for at, entry in enumerate(FakeWorker.log) if entry == ("start", "large"))
    assert first < FakeWorker.log.index(("step", "small"))
    assert FakeWorker.log.index(("stop", "other")) < second


def test_a_contender_goes_on_until_its_ratio_is_known(turns):
    measured, _, _ = turns("small", "noisy", most=30)
    assert len(measured.results["small"].steps) == 10
    assert len(measured.results["noisy"].steps) == 30
    assert measured.results["small"].settled(("wall", "cpu"))
    assert not measured.results["noisy"].settled(("wall",))


@pytest.mark.parametrize("minutes", [3.0, 8.0])
def test_a_run_ends_in_time_and_slow_contenders_leave_time_to_the_others(turns, minutes):
    measured, _, took = turns("small", "slow", minutes=minutes)
    assert took <= minutes
    assert len(measured.results["small"].steps) == 10, "it is settled"
    # What the other has left over, less than a turn lost.
    assert len(measured.results["slow"].steps) == (60 * minutes - 10 * 3) // 51


def test_time_is_left_for_those_that_wait_for_memory(turns):
    measured, _, took = turns("slow", "large", minutes=10.0, memory=10.0)
    assert took <= 10
    assert len(measured.results["slow"].steps) == 300 // 51
    assert len(measured.results["large"].steps) == 10


def test_a_contender_without_a_round_or_an_answer_in_time_does_not_stop_the_others(turns):
    measured, _, _ = turns("small", "slow", minutes=0.8)
    assert measured.failed == {"slow": "the time limit left no round for it"}
    assert list(measured.results) == ["base", "small"]
    measured, _, _ = turns("stuck", minutes=100)
    assert measured.failed == {}
    assert len(measured.results["stuck"].steps) == 3, "what it did counts"


def test_a_run_in_which_nothing_works_is_an_error(turns):
    from benchmarks.worker import ContenderError

    with pytest.raises(ContenderError, match="no contender"):
        turns("broken")


@pytest.mark.parametrize(("rounds", "rank"), [(6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (50, 18)])
def test_the_interval_is_that_of_the_tables(rounds, rank):
    from benchmarks.ratios import interval

    ratios = [float(value) for value in range(1, rounds + 1)]
    assert interval(ratios) == (rank, rounds + 1 - rank)


@pytest.mark.parametrize("rounds", range(6))
def test_few_rounds_have_no_interval_and_are_not_settled(rounds):
    from benchmarks.ratios import interval, settled

    assert interval([1.0] * rounds) is None
    assert not settled([1.0] * rounds)


@given(st.lists(st.floats(0.1, 100), min_size=6, max_size=30), st.integers(-3, 3))
def test_the_interval_holds_the_median_and_needs_no_order_or_unit(ratios, power):
    from benchmarks.ratios import interval

    low, high = interval(ratios)
    assert low <= statistics.median(ratios) <= high
    assert interval([2.0**power * ratio for ratio in reversed(ratios)]) == (2.0**power * low, 2.0**power * high)


@pytest.mark.parametrize("noise", ["normal", "heavy", "skewed"])
@pytest.mark.parametrize("spread", [0.03, 0.1])
def test_stopping_when_the_interval_is_narrow_leaves_its_coverage_as_it_is(noise, spread):
    from benchmarks.ratios import interval, settled

    random_ = np.random.default_rng(0)
    runs, hits, lengths = 300, 0, []
    for _ in range(runs):
        # Each has the median 0.
        deviates = {
            "normal": random_.standard_normal(50),
            "heavy": random_.standard_t(3, 50),
            "skewed": random_.exponential(size=50) - np.log(2),
        }[noise]
        ratios = list(1.7 * np.exp(spread * deviates))
        length = next((count for count in range(10, 50) if settled(ratios[:count])), 50)
        low, high = interval(ratios[:length])
        hits += low <= 1.7 <= high
        lengths.append(length)
    # Three standard errors of a share of 95 % in 300 runs are 3.8 %.
    assert hits / runs > 0.95 - 0.038
    assert (statistics.mean(lengths) < 12) == (spread < 0.05)


def test_an_unknown_contender_is_a_usage_error():
    result = call("train", "--only", "nobody")
    assert result.exit_code == 2
    assert "'nobody' is not one of 'weights'" in result.output


def test_a_most_number_of_rounds_below_the_least_is_a_usage_error():
    result = call("predict", "--max-rounds", "5")
    assert result.exit_code == 2
    assert "--max-rounds 5: is less than --rounds 10" in result.output


def test_a_missing_peer_is_told(monkeypatch):
    from benchmarks import beside

    monkeypatch.setattr(beside, "version", lambda package: None)
    result = call("train", "--only", "bt-flipout")
    assert result.exit_code == 1
    assert "bt-flipout: left out: bayesian-torch is not installed; pip install -e '.[bench]'" in result.output
    assert "no contender is left to measure" in result.output


def test_the_table_says_what_is_known_and_what_failed(tiny, tmp_path):
    from benchmarks import report
    from benchmarks.measure import Measured, Plan, Result
    from benchmarks.worker import Times

    base = [Times(1.0, 0.5)] * 10
    # The last round is slow by the clock alone.
    small = Result([Times(3.0, 2.0)] * 9 + [Times(9.0, 2.0)], base, 2.0)
    brief = Result([Times(2.0, 1.5)], base[:1], 2.0)
    measured = Measured("abacus", {"base": Result(base, [], 1.0), "small": small, "brief": brief}, {"large": "big"})
    contenders = fake_contenders("base", "small", "brief", "large")
    run = report.record("train", tiny, Plan(10, 50, 1.0), contenders, measured)
    table = report.table(run)
    assert "| `small` | base | 10 | 3.00 (3.00-3.00) | 3.00 | 4.00 (4.00-4.00) | 4.00 | 2 (2) | 2.00 | small |" in table
    assert "| `brief` | base | 1* | 2.00 (no interval) | 2.00 | 3.00 (no interval) | 3.00 |" in table
    assert "| `base` | - | 10 | 1 | - | 1 | - | 0.5 (0.5) | 1.00 | base |" in table
    assert "| `large` | left out: big |" in table
    report.write(run, tmp_path / "run")
    assert json.loads((tmp_path / "run.json").read_text())["contenders"]["small"]["settled"] is True


@pytest.mark.long
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
