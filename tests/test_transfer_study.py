"""The transfer study runs in small, goes on where it stopped, and its numbers are those of the evaluations."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bayes_panns.clips import Task, write
from bayes_panns.evaluations import Evaluation, evaluate
from bayes_panns.jobs import fit
from bayes_panns.posterior import load
from bayes_panns.predictions import decompose
from bayes_panns.recipes import read_run
from bayes_panns.soundscapes.scenes import DOWNSTREAM, NOVEL, UPSTREAM, soundscapes

ROOT = Path(__file__).resolve().parent.parent
RATE = 8000
QUICK = ["fit.epochs=1", "fit.kl_warmup=0", "fit.spec_augment=false", "fit.views=0"]


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    for seed, (name, kinds, count) in enumerate(
        (("upstream", UPSTREAM[:2], 4), ("data", DOWNSTREAM[:2], 8), ("near", NOVEL[:2], 2), ("speech", NOVEL[2:4], 2))
    ):
        made = soundscapes(kinds, count, sample_rate=RATE, events=(1, 1), seed=seed, seconds=0.5)
        known = name in ("upstream", "data")
        write(
            folder / f"{name}.h5",
            made.waveform,
            made.target if known else made.target[:, :0],
            made.labels if known else (),
            Task.ONE_OF_K if known else Task.UNLABELLED,
            RATE,
            fold=np.arange(count) % 2 + 1,
            names=[f"{name}-{index}.wav" for index in range(count)],
        )
    return folder


@pytest.fixture(scope="module")
def upstreams(stores):
    settings = [*QUICK, "data.validation=0", f'data.stores=["{stores}/upstream.h5"]']
    for guide in ("flip", "det"):
        fit(read_run("study-scratch", [*settings, f"guide={guide}"]), stores / guide)
    return {guide: str(stores / guide) for guide in ("flip", "det")}


@pytest.mark.long
def test_the_study_runs_and_goes_on(stores, upstreams, tmp_path):
    from benchmarks.transfer_study import METRIC_NAMES, ROWS, main

    command = ["--data", f"{stores}/data.h5", "--near", f"{stores}/near.h5", "--speech", f"{stores}/speech.h5"]
    command += ["--flip", upstreams["flip"], "--det", upstreams["det"], "-o", f"{tmp_path}/study", "--seeds", "0"]
    command += ["--shares", "1", "--resamples", "20", "--results", f"{tmp_path}/kept/study"]
    command += [word for change in QUICK for word in ("--set", change)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "study" / "results.json").read_text())
    names = {arm: [row["name"] for row in record["rows"] if row["arm"] == arm] for arm in ("transfer", "scratch")}
    assert names["transfer"] == [row.guide for row in ROWS] + ["det + temperature", "rotated-head + flip"]
    assert "last-layer" not in names["scratch"]
    assert "rotated-head" in names["scratch"]
    for row in record["rows"]:
        # A Det has no mutual information.
        single = row["name"] in ("det", "det + temperature", "map")
        assert set(row["metrics"]) == {name for name in METRIC_NAMES if not (single and "mutual" in name)}
    assert {claim["name"] for claim in record["claims"]} == set(names["scratch"])
    for stage in record["times"]:
        assert stage["cpu_seconds"] > 0
    logged = {stage["stage"].split(",")[0]: stage["fit_seconds_by_the_clock"] for stage in record["times"]}
    assert logged["flip"] > 0
    assert logged["drop"] == 0  # its fit is det's
    assert str(tmp_path) not in (tmp_path / "study" / "results.json").read_text()
    assert str(stores) not in (tmp_path / "study" / "results.json").read_text()
    assert (tmp_path / "kept" / "study.md").read_text() == result.stdout
    assert "### From the upstream posterior, 100% of the labels" in result.stdout

    header = load(tmp_path / "study" / "transfer" / "100" / "rotated-head" / "seed-0" / "fold-2")
    assert header.provenance["upstream"]["folds"] == [1]
    fitted = sorted((tmp_path / "study").rglob("metrics.jsonl"))
    before = [path.stat().st_mtime_ns for path in fitted]
    again = CliRunner().invoke(main, command)
    assert again.stdout == result.stdout, again.output
    assert [path.stat().st_mtime_ns for path in fitted] == before

    # Of a study that is under way, what is there: a fold is missing from one row, and all of another arm.
    (tmp_path / "study" / "transfer" / "100" / "map" / "seed-0" / "fold-2" / "evaluation").rename(tmp_path / "taken")
    (tmp_path / "study" / "scratch").rename(tmp_path / "scratch")
    part = CliRunner().invoke(main, [*command, "--no-fit", "--seeds", "0,1"])
    assert part.exit_code == 0, part.output
    record = json.loads((tmp_path / "study" / "results.json").read_text())
    assert [row["name"] for row in record["rows"]] == [name for name in names["transfer"] if name != "map"]
    assert record["claims"] == []
    nothing = CliRunner().invoke(main, [*command, "--no-fit", "--arm", "scratch"])
    assert nothing.exit_code == 1
    assert "no row of the study is fitted on every fold yet" in nothing.output


@pytest.mark.long
def test_drops_fit_is_dets(stores, upstreams, tmp_path):
    from benchmarks.transfer_study import leave_dropout_on

    settings = [*QUICK, f"upstream={upstreams['det']}", f'data.stores=["{stores}/data.h5"]']
    recipes = {guide: read_run("study-transfer", [*settings, f"guide={guide}"]) for guide in ("det", "drop")}
    for guide, recipe in recipes.items():
        fit(recipe, tmp_path / guide)
    leave_dropout_on(tmp_path / "det", tmp_path / "made")
    fitted, made = load(tmp_path / "drop"), load(tmp_path / "made")
    for name, value in fitted.points().items():
        torch.testing.assert_close(made.points()[name], value, rtol=0, atol=0)
    assert made.strategy == fitted.strategy
    assert made.stochastic
    assert read_run(tmp_path / "made" / "run.toml") == recipes["drop"]


class Predicted:
    """Evaluations of two folds of 30 clips by made-up posteriors, beside 2 x 8 strange clips."""

    def __init__(self, draws=4, sharp=2.0, seed=0):
        self.draws, self.sharp, self.generator = draws, sharp, torch.Generator().manual_seed(seed)

    def _of(self, logits):
        noise = torch.randn(self.draws, *logits.shape, generator=self.generator, dtype=torch.float64)
        return decompose((self.sharp * (logits + 0.5 * noise)).softmax(dim=2), "one-of-k")

    def folds(self):
        found = {}
        for fold in (1, 2):
            label = np.arange(30) % 3
            target = np.eye(3, dtype=bool)[label]
            found[fold] = Evaluation.of(
                self._of(torch.from_numpy(target.astype(float))),
                target,
                self._of(torch.zeros(16, 3, dtype=torch.float64)),
                names=[f"{fold}-{clip}" for clip in range(30)],
                labels=("a", "b", "c"),
                sources=np.array([f"{fold}-{clip // 2}" for clip in range(30)]),
                ood_names=[f"near-{clip}" for clip in range(8)] + [f"speech-{clip}" for clip in range(8)],
                provenance={"posterior": "p", "stores": [], "folds": [fold], "ood": [], "draws": self.draws},
            )
        return found


class Strange:
    """A store of strange clips, as far as the study looks at it."""

    def __init__(self, kind, sources=True):
        self.names = [f"{kind}-{clip}" for clip in range(8)]
        self.sources = np.array([f"{kind}-{clip // 4}" for clip in range(8)]) if sources else None

    def __len__(self):
        return len(self.names)


@pytest.fixture
def outside():
    from benchmarks.transfer_study import OutOfDistribution

    return OutOfDistribution(Strange("near"), Strange("speech", sources=False))


@pytest.fixture
def lines():
    from benchmarks.transfer_study import results

    def of(share, seeds=(0, 1)):
        made = {
            "det": {seed: Predicted(1, 4.0, seed).folds() for seed in seeds},
            "flip": {seed: Predicted(4, 2.0, 10 + seed).folds() for seed in seeds},
            "rotated-head": {0: Predicted(6, 2.0, 20).folds()},
        }
        found = {("transfer", share, guide): by_seed for guide, by_seed in made.items()}
        return made, {line.name: line for line in results(found, "transfer", share)}

    return of


def test_lines_are_means_over_seeds_or_mixtures(lines):
    made, mine = lines(1.0)
    assert list(mine) == [
        "det",
        "flip",
        "rotated-head",
        "det + temperature",
        "rotated-head + flip",
        "det, all seeds",
        "flip, all seeds",
    ]
    assert [(line.seeds, line.mixed, len(line.runs)) for line in mine.values()] == [
        (2, False, 2),
        (2, False, 2),
        (1, False, 1),
        (2, False, 2),
        (1, False, 1),
        (2, True, 1),
        (2, True, 1),
    ]
    both = np.mean([made["flip"][seed][2].uncertainty.probability for seed in (0, 1)], axis=0)
    np.testing.assert_allclose(mine["flip, all seeds"].runs[0].uncertainty.probability[30:], both)
    one, two = (made[name][0][1].uncertainty.probability for name in ("rotated-head", "flip"))
    np.testing.assert_allclose(mine["rotated-head + flip"].runs[0].uncertainty.probability[:30], (one + two) / 2)


def test_with_few_labels_nothing_sees_more_of_them(lines):
    """Another seed's clips, and labels that a temperature is fitted to, are labels too."""
    assert list(lines(0.25)[1]) == ["det", "flip", "rotated-head", "rotated-head + flip"]


def test_each_folds_temperature_is_the_others(lines):
    from benchmarks.transfer_study import tempered

    made, mine = lines(1.0)
    det, soft = made["det"][0], mine["det + temperature"].runs[0]
    temperature = tempered(det)[1].provenance["temperature"]
    expected = det[1].tempered(temperature).uncertainty.probability
    np.testing.assert_allclose(soft.uncertainty.probability[:30], expected)

    def loss(at):
        """The NLL of fold 2, the only other, and that of the weak prior of the temperature."""
        return len(det[2].uncertainty.probability) * det[2].tempered(at).metrics["cal/nll"] + 2 * np.log(at) ** 2

    at = {t: loss(t) for t in (0.99 * temperature, temperature, 1.01 * temperature)}
    assert min(at, key=at.get) == temperature


def test_measures_are_those_of_the_evaluations(lines, outside):
    from benchmarks.transfer_study import measure

    mine = lines(1.0)[1]
    for name in ("flip", "det", "flip, all seeds"):
        line = mine[name]
        found = measure(line, outside, 50)
        for metric, known in (
            ("accuracy", "cls/accuracy"),
            ("nll", "cal/nll"),
            ("brier", "cal/brier"),
            ("ece", "cal/ece"),
            ("aurc", "sc/aurc"),
        ):
            expected = np.mean([run.metrics[known] for run in line.runs])
            assert found[metric].value == pytest.approx(expected)
            assert found[metric].low <= found[metric].high
        for kind in ("near", "speech"):
            parts = []
            for run in line.runs:
                strange = run.ood.take(np.flatnonzero([name.startswith(kind) for name in run.ood_names]))
                parts.append(evaluate(run.uncertainty, run.target, run.task, strange))
            assert found[f"{kind}_entropy"].value == pytest.approx(np.mean([part["ood/auroc"] for part in parts]))
            if name == "det":
                assert np.isnan(found[f"{kind}_mutual_information"].value)


def test_differences_are_paired_over_recordings(lines, outside):
    from benchmarks.transfer_study import difference

    _, mine = lines(1.0)
    found = difference(mine["flip"], mine["det"], "nll", outside, 50)
    expected = np.mean([run.metrics["cal/nll"] for run in mine["flip"].runs])
    expected -= np.mean([run.metrics["cal/nll"] for run in mine["det"].runs])
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high


def test_a_study_that_stops_is_one_of_fewer_seeds():
    from benchmarks.transfer_study import ROWS, stages

    whole, first = stages([0, 1], [1, 0.25]), stages([0], [1, 0.25])
    assert whole[: len(first)] == first
    assert {stage.row.guide for stage in whole[len(first) :]} == {row.guide for row in ROWS if row.seeds is None}
    names = [str(stage) for stage in whole]
    assert len(set(names)) == len(names)
    part = stages([0, 1], [1, 0.25], ["scratch"], ["flip", "last-layer"])
    assert part == [stage for stage in whole if stage.arm == "scratch" and stage.row.guide == "flip"]
    # What others start from is fitted first.
    for arm in ("transfer", "scratch"):
        mine = [stage.row.guide for stage in first if (stage.arm, stage.share) == (arm, 1)]
        assert mine.index("det") < min(mine.index("drop"), mine.index("rotated-head"))


def test_clips_cannot_be_near_and_speech_at_once():
    from benchmarks.transfer_study import OutOfDistribution

    with pytest.raises(Exception, match="near-0: is in both stores"):
        OutOfDistribution(Strange("near"), Strange("near"))


def test_the_page_shows_commands_that_there_are():
    from bayes_panns.cli import main as package
    from benchmarks.__main__ import main as benchmarks
    from benchmarks.transfer_study import ROWS

    page = (ROOT / "docs" / "transfer-study.md").read_text(encoding="utf-8").replace("\\\n", "")
    for name, value in re.findall(r"^([A-Z]+)='?(.*?)'?$", page, re.MULTILINE):
        page = page.replace(f"${name}", value)
    lines = re.findall(r"^(?:bayes-panns|python) .*", page, re.MULTILINE)
    commands = [shlex.split(line, comments=True) for line in lines]
    programs = {"bayes-panns pack", "bayes-panns pretrain", "bayes-panns finetune", "python -m"}
    assert {" ".join(words[:2]) for words in commands} == programs
    for program, name, *words in commands:
        if program == "python":
            assert words[:2] == ["benchmarks", "transfer-study"]
            benchmarks.commands[words[1]].make_context(words[1], words[2:])
            continue
        package.commands[name].make_context(name, list(words))
        if name in ("pretrain", "finetune"):
            read_run(words[0], [words[index + 1] for index, word in enumerate(words) if word == "--set"])
    for row in ROWS:
        assert f"`{row.guide}`" in page


def test_make_study_is_the_documented_command():
    page = (ROOT / "docs" / "transfer-study.md").read_text(encoding="utf-8")
    (documented,) = re.findall(r"^python (-m benchmarks transfer-study .*\n.*)$", page, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (made,) = re.findall(r"^\t\$\(BIN\)/python (-m benchmarks transfer-study .*\n.*)$", makefile, re.MULTILINE)
    assert made.replace("\\", "").split() == documented.replace("\\", "").split()


def test_the_published_tables_are_those_of_the_published_numbers():
    from benchmarks.transfer_study import tables

    results = ROOT / "benchmarks" / "results"
    record = json.loads((results / "transfer-study.json").read_text(encoding="utf-8"))
    assert tables(record) == (results / "transfer-study.md").read_text(encoding="utf-8")
