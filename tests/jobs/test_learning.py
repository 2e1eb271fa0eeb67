"""Learning from clips without a recipe: the plan, what is refused, and what is made, on embeddings and short tones."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from bayes_panns.clips import ClipSet, Task, write_embeddings
from bayes_panns.core.choices import ClassShares, Target
from bayes_panns.core.errors import FitError, StoreError
from bayes_panns.jobs import evaluate_posterior, fit
from bayes_panns.jobs.learning import Foundation, baseline, carry_out, make_plan, plan, run
from bayes_panns.metrics import accuracy
from bayes_panns.posterior import load
from bayes_panns.recipes import read_run
from bayes_panns.report import read_sources
from bayes_panns.report.page.facts import facts_of
from bayes_panns.report.sources import Scoring
from bayes_panns.report.text.learning import duration_text, main_score, plan_text, result_text
from tests.harness.quick_recipe import quick_recipe

NETWORK = Foundation("a network", None, 8000)
WIDTH = 16


def vectors(path, counts=(12, 12, 12), *, seed=0, distance=4.0, twice=2, fold=False):
    """A store of embeddings of classes with so many recordings, ``twice`` clips each."""
    generator = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(counts)), counts)
    x = distance * np.eye(len(counts), WIDTH)[label] + generator.normal(size=(len(label), WIDTH))
    x = np.repeat(x, twice, axis=0) + 0.05 * generator.normal(size=(twice * len(label), WIDTH))
    label = np.repeat(label, twice)
    source = [f"tape{index // twice}" for index in range(len(label))]
    labels = ["bee", "frog", "owl"][: len(counts)]
    folds = np.arange(len(label)) // twice % 3 + 1 if fold else None
    target = np.eye(len(counts), dtype=bool)[label]
    write_embeddings(path, x, target, labels, Task.ONE_OF_K, model="toy", source=source, fold=folds)
    return path


def tone(path, seconds=0.6, pitch=500.0, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * 8000)) / 8000
    noise = 0.01 * np.random.default_rng(seed).normal(size=len(time))
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch * time) + noise, 8000)
    return path


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """The recipe with fewer candidates to choose among."""
    path = quick_recipe(tmp_path_factory.mktemp("recipe"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "RECIPE", str(path))
        patched.setattr(baseline, "SCALES", (0.3, 1.0))
        patched.setattr(baseline, "_ENOUGH", 0)
        yield path


@pytest.fixture(scope="module")
def learned(tmp_path_factory, quick):
    folder = tmp_path_factory.mktemp("learned")
    return carry_out(make_plan(vectors(folder / "clips.h5"), folder / "model", NETWORK), None)


def test_every_clip_is_scored_by_a_fit_that_has_not_heard_its_recording(learned):
    clips = ClipSet(learned.folder / "clips.h5")
    assert learned.evaluation.names == clips.names
    np.testing.assert_array_equal(learned.evaluation.target, clips.target())
    assert learned.evaluation.provenance["leaks"] == {"own": 0, "upstream": 0}
    assert all(len(set(clips.folds[clips.recordings == each])) == 1 for each in np.unique(clips.recordings))
    assert learned.evaluation.metrics["cls/accuracy"] > 0.9
    assert learned.baseline.metrics["cls/accuracy"] > 0.9
    assert learned.baseline.names == clips.names


def test_with_few_recordings_the_posterior_is_of_all_clips_and_has_label_sets(learned):
    posterior = load(learned.folder)
    assert posterior.provenance["clips"] == 72
    assert posterior.calibration.temperature == 1
    assert posterior.calibration.clips == (0, 72)
    held = learned.evaluation.uncertainty.probability[learned.evaluation.target] >= posterior.calibration.threshold
    assert 0.9 <= held.mean() < 0.95
    fresh = vectors(learned.folder.parent / "fresh.h5", seed=1)
    found = evaluate_posterior(posterior, [fresh])
    assert found.metrics["set/coverage"] > 0.8
    assert found.provenance["leaks"]["own"] == 0


def test_decisions_come_from_the_cross_validation_and_can_be_asked_for_later(learned):
    asked = replace(learned.plan, target=Target.PRECISION, value=0.8)
    decisions = carry_out(asked, None).posterior.calibration.decisions
    assert (decisions.target, decisions.value, decisions.clips, decisions.recordings) == ("precision", 0.8, 72, 36)
    # A call without a target keeps them.
    assert carry_out(learned.plan, None).posterior.calibration.decisions == decisions


def test_with_many_recordings_a_fifth_is_held_out_for_label_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "MANY", 30)
    made = carry_out(
        make_plan(vectors(tmp_path / "clips.h5", (20, 20, 20), fold=True), tmp_path / "model", NETWORK), None
    )
    assert made.plan.held_out == 0.2
    assert made.posterior.provenance["clips"] == 96
    assert sum(made.posterior.calibration.clips) == 24
    # Its own folds, in the store where it is.
    assert made.plan.own_folds
    assert made.plan.folds == 3
    assert not (tmp_path / "model" / "clips.h5").exists()


def test_the_folder_is_a_run(learned):
    source = read_sources(learned.folder, Scoring())[0]
    assert source.kind == "run"
    assert source.evaluation.names == learned.evaluation.names
    assert source.parts[0].clips.names == learned.evaluation.names
    assert not source.parts[0].warnings
    scored = dict(facts_of(source))["Scored on"]
    assert scored == "72 clips of clips.h5, each by one of 5 fits that have not heard its fold"


def test_the_same_call_again_keeps_what_is_there(learned, monkeypatch):
    monkeypatch.setattr(run, "logistic_baseline", None)
    monkeypatch.setattr(run, "repack", None)
    before = {path: path.stat().st_mtime_ns for path in learned.folder.rglob("*") if path.is_file()}
    again = carry_out(learned.plan, None)
    np.testing.assert_array_equal(again.evaluation.target, learned.evaluation.target)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_what_was_stopped_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "FOLDS", 2)
    chosen = make_plan(vectors(tmp_path / "clips.h5", (4, 4)), tmp_path / "model", NETWORK)
    with monkeypatch.context() as patched:
        patched.setattr(run, "fit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            carry_out(chosen, None)
    scored = tmp_path / "model" / "evaluation" / "evaluation.json"
    before = scored.stat().st_mtime_ns
    assert carry_out(chosen, None) is not None
    assert scored.stat().st_mtime_ns == before


def test_another_folder_is_left_alone(learned, tmp_path):
    other = make_plan(vectors(tmp_path / "other.h5", seed=5), learned.folder, NETWORK)
    with pytest.raises(FitError, match=r"begun with other clips or settings \(from .*clips.h5\)"):
        carry_out(other, None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(FitError, match="is not empty, and nothing was learned there"):
        carry_out(make_plan(tmp_path / "other.h5", tmp_path / "full", NETWORK), None)
    (learned.folder / "learn.json").rename(tmp_path / "kept")
    (learned.folder / "learn.json").write_text("{")
    with pytest.raises(FitError, match="is damaged"):
        carry_out(learned.plan, None)
    (tmp_path / "kept").replace(learned.folder / "learn.json")


def test_equal_classes_find_more_of_the_rare_ones(tmp_path, quick):
    store, fresh = (
        vectors(tmp_path / f"{name}.h5", counts, seed=seed, distance=1.6, twice=1)
        for name, counts, seed in (("clips", (40, 40, 5), 0), ("fresh", (60, 60, 60), 1))
    )
    found = {}
    for classes in ClassShares:
        chosen = make_plan(store, tmp_path / classes, NETWORK, classes=classes)
        assert any("classes are unequal (5 to 40 clips)" in remark for remark in chosen.remarks)
        balanced = f"fit.selection.balanced={str(classes is ClassShares.EQUAL).lower()}"
        recipe = read_run(quick, [balanced], stores=[store])
        found[classes] = evaluate_posterior(fit(recipe, tmp_path / classes).posterior, [fresh])
    rare = {name: accuracy(each.uncertainty.probability[120:], each.target[120:]) for name, each in found.items()}
    assert rare["equal"] > rare["as-labelled"] + 0.1
    assert found["equal"].metrics["cal/nll"] < found["as-labelled"].metrics["cal/nll"]
    # The shares are taken out of the odds: 8 times as many clips were of the first as of the last.
    odds = {
        name: np.log(each.uncertainty.probability[:, 0] / each.uncertainty.probability[:, 2])
        for name, each in found.items()
    }
    np.testing.assert_allclose(np.median(odds["as-labelled"] - odds["equal"]), np.log(8), atol=0.3)
    both = np.eye(2, dtype=bool)[[0, 1] * 4]
    write_embeddings(tmp_path / "m.h5", np.eye(8), both, ["a", "b"], Task.MULTI_LABEL)
    with pytest.raises(StoreError, match="no shares of classes"):
        make_plan(tmp_path / "m.h5", tmp_path / "x", NETWORK, classes="equal")


def test_a_folder_of_clips_from_a_tenth_of_a_second_to_minutes_is_planned(tmp_path):
    for kind, pitch in (("low", 200), ("high", 900)):
        for index, seconds in enumerate((0.1, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 70)):
            tone(tmp_path / "clips" / kind / f"{kind}{index}.wav", seconds, pitch, seed=index + pitch)
    (tmp_path / "clips" / "low" / "broken.wav").write_bytes(b"no sound")
    (tmp_path / "clips" / "low" / "copy.wav").write_bytes((tmp_path / "clips" / "high" / "high2.wav").read_bytes())
    made = make_plan(tmp_path / "clips", tmp_path / "model", NETWORK)
    assert made.seconds == 1
    assert {each.label: (each.clips, each.recordings) for each in made.labels} == {"high": (21, 10), "low": (22, 11)}
    assert made.recordings == 20
    assert [name for name, _ in made.skipped] == ["low/broken.wav"]
    text = plan_text(made)
    assert "1 s: holds 90 % of the recordings whole, which are 0.1 to 70 s long" in text
    assert "with different labels: 1, such as high/high2.wav and low/copy.wav" in text
    assert "files that cannot be read and are left out: 1" in text
    assert "less than half is taken" in text
    assert not (tmp_path / "model").exists()
    assert make_plan(tmp_path / "clips", tmp_path / "model", NETWORK).digest == made.digest
    assert make_plan(tmp_path / "clips", tmp_path / "model", NETWORK, seconds=2.0).digest != made.digest


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "holds no sound file"),
        (("a.wav", "b.wav"), "have no labels; put them into one sub-folder a class"),
        (("owl/a.wav", "owl/b.wav"), "has the one class 'owl'.*add a class such as background"),
        (("owl/a.wav", "frog/b.wav"), "2 of its classes must have two recordings or more.*frog 1, owl 1"),
    ],
)
def test_too_little_is_refused_with_what_is_needed(tmp_path, files, message):
    folder = tmp_path / "clips"
    folder.mkdir()
    for index, name in enumerate(files):
        tone(folder / name, seed=index)
    with pytest.raises(StoreError, match=message):
        make_plan(folder, tmp_path / "model", NETWORK)


def test_clips_of_one_recording_are_refused(tmp_path):
    rows = [f"{kind}{n}.wav,{kind},tape" for kind in ("owl", "frog") for n in range(3)]
    for index, row in enumerate(rows):
        tone(tmp_path / row.split(",")[0], seed=index)
    (tmp_path / "labels.csv").write_text("\n".join(["file,labels,source", *rows]))
    with pytest.raises(StoreError, match=r"all of one recording.*--recordings files"):
        make_plan(tmp_path / "labels.csv", tmp_path / "model", NETWORK)
    assert make_plan(tmp_path / "labels.csv", tmp_path / "model", NETWORK, recordings="files").recordings == 6


def test_rare_and_doubled_labels_are_remarked(tmp_path):
    for index in range(6):
        tone(tmp_path / "clips" / "owl" / f"a{index}.wav", seed=index)
    tone(tmp_path / "clips" / "frog" / "x.wav", seed=8)
    for index in range(3):
        tone(tmp_path / "clips" / "Owl" / f"b{index}.wav", seed=10 + index)
    text = " ".join(plan_text(make_plan(tmp_path / "clips", tmp_path / "model", NETWORK)).split())
    assert "1 label ('frog') has one recording" in text
    assert "1 label ('Owl') has fewer than 5 recordings" in text
    assert "'Owl' and 'owl' may be one label" in text


def test_stretches_of_long_recordings_are_cut_to_their_length(tmp_path):
    rows = []
    for tape in range(4):
        tone(tmp_path / f"tape{tape}.wav", 20, seed=tape)
        rows += [
            f"tape{tape}.wav,{kind},{start},{start + 1.4}" for kind, start in (("owl", 2), ("frog", 9), ("owl", 15))
        ]
    (tmp_path / "labels.csv").write_text("\n".join(["file,labels,start,end", *rows]))
    made = make_plan(tmp_path / "labels.csv", tmp_path / "model", NETWORK)
    assert (made.seconds, made.clips, made.recordings) == (1.5, 12, 4)


def test_a_perfect_score_has_an_interval(learned):
    evaluation = learned.evaluation
    perfect = evaluation.of(
        evaluation.uncertainty,
        np.eye(3, dtype=bool)[evaluation.uncertainty.probability.argmax(axis=1)],
        names=evaluation.names,
        labels=evaluation.labels,
        sources=evaluation.sources,
        provenance={},
    )
    found = main_score(perfect)
    assert found.value == found.high == 1
    # Clopper and Pearson's of 36 recordings.
    assert found.low == pytest.approx(0.025 ** (1 / 36))


def test_the_result_says_how_good_it_is_and_what_to_do_next(learned):
    text = result_text(learned)
    assert text.splitlines()[0].split() == [
        "72",
        "clips,",
        "unheard",
        "accuracy",
        "(95",
        "%)",
        "per",
        "class",
        "NLL",
        "ECE",
    ]
    assert "logistic regression" in text
    assert "always bee" in text
    assert f"bayes-panns predict {learned.folder} new-recordings/" in text
    assert "acquire" not in text
    assert "acquire" in result_text(learned, ["acquire"])
    assert json.loads((learned.folder / "learn.json").read_text())["format_version"] == 1
    assert duration_text(0.1) == "1 s"
