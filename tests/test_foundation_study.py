"""The foundation study runs in small, goes on where it stopped, and its numbers are those of the evaluations."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

from bayes_panns.clips import ClipSet, Task, write, write_embeddings
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs import fit
from bayes_panns.posterior import load
from bayes_panns.recipes import read_run
from bayes_panns.soundscapes.scenes import DOWNSTREAM, NOVEL, UPSTREAM, soundscapes

ROOT = Path(__file__).resolve().parent.parent
WIDTH, LABELS = 24, ("a", "b", "c")
RATE = 8000


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """60 vectors of three labels, two of each recording, in two folds; and others of none."""
    folder, generator = tmp_path_factory.mktemp("vectors"), np.random.default_rng(0)
    label = np.arange(60) // 2 % 3
    write_embeddings(
        folder / "data.h5",
        0.6 * np.eye(3, WIDTH)[label] * WIDTH**0.5 + generator.normal(size=(60, WIDTH)),
        np.eye(3, dtype=bool)[label],
        LABELS,
        "one-of-k",
        model="Toy",
        fold=np.arange(60) // 30 + 1,
        source=[f"r{index // 2}" for index in range(60)],
    )
    for kind in ("near", "speech"):
        write_embeddings(
            folder / f"{kind}.h5",
            2 * generator.normal(size=(12, WIDTH)),
            np.zeros((12, 0), dtype=bool),
            (),
            "unlabelled",
            model="Toy",
            names=[f"{kind} {index}" for index in range(12)],
        )
    return folder


@pytest.mark.long
def test_the_study_runs_and_goes_on(stores, tmp_path):
    from benchmarks.foundation_study import main, tables
    from benchmarks.foundation_study.fits import PEERS

    names = ["rotated-head", "rotated-head-unpowered", "logistic", "logistic-power", "logistic-ensemble"]
    out = tmp_path / "study"
    command = ["--data", f"{stores}/data.h5", "--near", f"{stores}/near.h5", "-o", f"{out}", "--resamples", "20"]
    command += ["--shares", "1,0.5", "--seeds", "0,1", "--note", "Toys.", "--results", f"{tmp_path}/kept/toys"]
    command += [word for name in [*names, "laplace-torch"] for word in ("--row", name)]
    # The peer is left out whether it is installed or not: it is slow to import.
    PEERS["laplace-torch"] = "no_such_module"
    try:
        result = CliRunner().invoke(main, command)
    finally:
        PEERS["laplace-torch"] = "laplace"
    assert result.exit_code == 0, result.output
    record = json.loads((out / "results.json").read_text())
    assert (tmp_path / "kept" / "toys.md").read_text() == result.stdout == tables(record)
    assert "`laplace-torch` | not installed" in result.stdout
    assert str(stores) not in (out / "results.json").read_text()
    rows = {(row["share"], row["name"]): row for row in record["rows"]}
    assert {name for share, name in rows if rows[share, name]["seeds"]} == set(names)
    for (share, name), row in rows.items():
        if name == "laplace-torch":
            continue
        # The seed decides which labels there are.
        assert row["seeds"] == (1 if share == 1 else 2)
        assert row["seconds_a_fold"] >= 0
        drawn = name in ("rotated-head", "rotated-head-unpowered", "logistic-ensemble")
        assert ("near_mutual_information" in row["metrics"]) == drawn
        assert "speech_entropy" not in row["metrics"]
        folder = out / f"{100 * share:g}" / name
        nlls = [
            Evaluation.pool([Evaluation.load(fold / "evaluation") for fold in sorted(seed.iterdir())]).metrics[
                "cal/nll"
            ]
            for seed in sorted(folder.iterdir())
        ]
        assert row["metrics"]["nll"]["value"] == pytest.approx(np.mean(nlls))
        by_fold = [Evaluation.load(path.parent).metrics["ood/auroc"] for path in folder.rglob("evaluation.json")]
        assert row["metrics"]["near_entropy"]["value"] == pytest.approx(np.mean(by_fold))
        other = rows[share, "logistic"]["metrics"]["nll"]["value"]
        if name != "logistic":
            assert row["nll_minus"]["logistic"]["value"] == pytest.approx(np.mean(nlls) - other)

    fold = Path("seed-0/fold-2/evaluation")
    powered, without = (Evaluation.load(out / "100" / name / fold).uncertainty for name in names[:2])
    exponent = load(out / "100" / "rotated-head" / fold.parent).power.exponent
    assert exponent != (1.0,)
    np.testing.assert_allclose(without.probability, powered.mean, atol=1e-6)
    assert not np.allclose(without.probability, powered.probability, atol=1e-3)
    np.testing.assert_allclose(without.mutual_information, powered.mutual_information, atol=1e-6)

    kept = {path: path.stat().st_mtime_ns for path in out.rglob("evaluation.json")}
    again = CliRunner().invoke(main, command[:-2])
    assert again.exit_code == 0, again.output
    assert again.stdout.splitlines()[-2:] == [line for line in result.stdout.splitlines() if "laplace" not in line][-2:]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("evaluation.json")} == kept


def test_speech_has_columns_of_its_own(stores, tmp_path):
    from benchmarks.foundation_study import main

    command = [word for kind in ("data", "near", "speech") for word in (f"--{kind}", f"{stores}/{kind}.h5")]
    command += ["-o", f"{tmp_path}", "--shares", "1", "--resamples", "5", "--row", "logistic-ensemble", "--row", "det"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    ensemble, det = (row["metrics"] for row in json.loads((tmp_path / "results.json").read_text())["rows"])
    assert {"speech_entropy", "speech_mutual_information"} < set(ensemble)
    assert "speech_entropy" in det
    assert "speech_mutual_information" not in det
    assert "12 near sounds and 12 clips of speech" in result.stdout


def test_the_penalty_is_chosen_by_recordings(stores):
    from benchmarks.foundation_study import choose
    from benchmarks.foundation_study.logistic import GRID

    clips = ClipSet(stores / "data.h5", folds=[1, 2])
    chosen = choose(clips, 0)
    assert chosen.penalty == GRID[int(np.argmin(chosen.nll))]
    folds = clips.recording_folds(5, 0)
    assert len(np.unique(folds)) == 5
    inside = folds != 0
    model = LogisticRegression(C=chosen.penalty, max_iter=10_000).fit(chosen.x[inside], chosen.label[inside])
    np.testing.assert_allclose(chosen.held[~inside], model.predict_proba(chosen.x[~inside]), atol=5e-3)
    assert np.square(chosen.x).mean() == pytest.approx(1)
    held = -np.log(chosen.held[chosen.target]).mean()
    assert held == pytest.approx(min(chosen.nll))

    # A power of what predicts is one of the inner folds.
    embedding = clips.embedding(np.arange(len(clips)))
    (p,) = chosen.of(chosen.fit())(embedding)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == chosen.label).mean() > 0.9


def test_a_bootstrap_sample_is_of_whole_recordings_of_every_label(stores):
    from benchmarks.foundation_study import choose

    chosen = choose(ClipSet(stores / "data.h5", folds=[1, 2]), 0)
    counts = [chosen.resampled(seed) for seed in range(5)]
    assert not np.array_equal(counts[0], counts[1])
    for count in counts:
        for recording in np.unique(chosen.recordings):
            assert len(set(count[chosen.recordings == recording])) == 1
        # Each recording has two clips, and each label ten.
        assert [count[chosen.label == label].sum() for label in range(3)] == [20, 20, 20]


@pytest.mark.skipif(find_spec("laplace") is None, reason="laplace-torch is not installed")
@pytest.mark.filterwarnings("ignore")
def test_laplace_is_at_the_regression(stores):
    from benchmarks.foundation_study import choose
    from benchmarks.foundation_study.logistic import laplace

    clips = ClipSet(stores / "data.h5", folds=[1, 2])
    chosen, embedding = choose(clips, 0), clips.embedding(np.arange(len(clips)))
    (p,), (point,) = laplace(chosen)(embedding), chosen.of(chosen.fit())(embedding)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert p.max(axis=1).mean() < point.max(axis=1).mean()


@pytest.mark.slow
def test_sound_is_embedded_once(tmp_path):
    from benchmarks.foundation_study import embedded

    for seed, (name, kinds) in enumerate((("up", UPSTREAM[:2]), ("data", DOWNSTREAM[:2]), ("near", NOVEL[:2]))):
        made = soundscapes(kinds, 4, sample_rate=RATE, events=(1, 1), seed=seed, seconds=0.5)
        target, labels = (made.target, made.labels) if name != "near" else (made.target[:, :0], ())
        task = Task.ONE_OF_K if name != "near" else Task.UNLABELLED
        write(tmp_path / f"{name}.h5", made.waveform, target, labels, task, RATE, fold=[1, 2, 1, 2])
    quick = ["guide=det", "fit.epochs=1", "fit.kl_warmup=0", "fit.spec_augment=false", "data.validation=0"]
    fit(read_run("study-scratch", [*quick, f'data.stores=["{tmp_path}/up.h5"]']), tmp_path / "net")
    data, near = (str(tmp_path / f"{name}.h5") for name in ("data", "near"))
    with pytest.raises(BayesPannsError, match="name the network that embeds it with --from"):
        embedded(data, data, None, tmp_path)
    one, two = (ClipSet(embedded(each, data, str(tmp_path / "net"), tmp_path / "embedded")) for each in (data, near))
    assert one.model == two.model
    assert one.labels == ClipSet(data).labels
    np.testing.assert_array_equal(one.folds, [1, 2, 1, 2])
    expected = load(tmp_path / "net").embed(torch.from_numpy(ClipSet(near).waveform([0, 1])))
    np.testing.assert_allclose(two.embedding([0, 1]), expected, rtol=1e-4, atol=1e-5)
    assert embedded(str(one.stores[0].path), data, None, tmp_path) == str(one.stores[0].path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "results").glob("foundation-*.json")), ids=lambda p: p.stem
)
def test_the_published_tables_are_those_of_the_published_numbers(path):
    from benchmarks.foundation_study import tables

    record = json.loads(path.read_text(encoding="utf-8"))
    assert tables(record) == path.with_suffix(".md").read_text(encoding="utf-8")
