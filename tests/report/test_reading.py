"""What a page is about, read from disk: scored, kept, missing, moved, damaged, leaked."""

import json
import re
import shutil

import numpy as np
import pytest

from bayes_panns.clips import ClipSet
from bayes_panns.core.digests import sealed
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.evaluations import Evaluation
from bayes_panns.jobs import calibrate, fit
from bayes_panns.posterior import load, save_calibration
from bayes_panns.report import Scoring, read_sources, render_page, write_report
from bayes_panns.report.page.cards import MediaBudget, make_cards
from bayes_panns.report.page.clips import choose_clips


def stored(run):
    table = json.loads((run / "evaluation" / "evaluation.json").read_text())
    return {key: value for key, value in table.items() if key != "digest"}


def change(run, **provenance):
    """Change the provenance of a run's evaluation; None removes a key."""
    content = stored(run)
    content["provenance"] |= provenance
    content["provenance"] = {key: value for key, value in content["provenance"].items() if value is not None}
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(sealed(content)))


@pytest.mark.parametrize("scoring", ["other fold", "other store", "no ood"])
def test_a_report_never_replaces_an_evaluation_of_other_clips(home, runs, make, caplog, scoring):
    other = make.tones(runs / "other.h5", seed=5)
    chosen = {
        "other fold": {"stores": [str(home / "clips.h5")], "folds": [2], "ood": [home / "noise.h5"]},
        # The same names and targets, from another file.
        "other store": {"stores": [other], "folds": [3], "ood": [home / "noise.h5"]},
        "no ood": {"stores": [str(home / "clips.h5")], "folds": [3]},
    }[scoring]
    before = stored(runs / "flip")
    write_report([runs / "flip"], runs / "elsewhere.html", draws=2, **chosen)
    assert stored(runs / "flip") == before
    write_report([runs / "flip"], draws=2, **chosen)
    assert stored(runs / "flip") == before
    assert "already exists and is kept" in caplog.text
    # The page is about the clips that were named.
    (source,) = read_sources(runs / "flip", Scoring(draws=2, **chosen))
    assert source.evaluation.metrics["draws"] == 2


def test_folds_are_those_of_clips_to_score_now(runs):
    with pytest.raises(BayesPannsError, match="name these with --data"):
        write_report([runs / "flip"], folds=[2])


def test_an_evaluation_of_the_same_clips_is_kept_too(home, runs):
    scoring = Scoring([str(home / "clips.h5")], [3], [home / "noise.h5"], draws=2)
    before = stored(runs / "flip")
    read_sources(runs / "flip", scoring)
    assert stored(runs / "flip") == before
    shutil.rmtree(runs / "flip" / "evaluation")
    read_sources(runs / "flip", scoring)
    assert Evaluation.load(runs / "flip" / "evaluation").metrics["draws"] == 2


def test_a_posterior_fitted_again_since_its_evaluation_is_said(runs, make, caplog):
    assert read_sources(runs / "flip", make.quick)[0].parts[0].warnings == ()
    change(runs / "flip", sha256="0" * 64)
    (source,) = read_sources(runs / "flip", make.quick)
    (warning,) = source.parts[0].warnings
    assert warning.startswith("The posterior was fitted again after this evaluation")
    assert f"Warning. {warning}" in make.page(render_page([source])).text
    assert warning in caplog.text


def test_a_posterior_calibrated_since_its_evaluation_is_said(home, runs, make):
    posterior = load(runs / "flip")
    calibrate(posterior, ClipSet(home / "clips.h5", folds=[2]), coverage=0.5, draws=2)
    save_calibration(posterior)
    (source,) = read_sources(runs / "flip", make.quick)
    (warning,) = source.parts[0].warnings
    assert warning.startswith("The posterior was calibrated after this evaluation")


@pytest.mark.parametrize("content", ["newer", "something else"])
def test_what_cannot_be_read_is_not_replaced_either(home, runs, caplog, content):
    place = runs / "flip" / "evaluation"
    if content == "newer":
        table = stored(runs / "flip") | {"format_version": 99}
        (place / "evaluation.json").write_text(json.dumps(sealed(table)))
    else:
        shutil.rmtree(place)
        place.write_text("notes")
    before = place.read_bytes() if place.is_file() else (place / "evaluation.json").read_bytes()
    (source,) = read_sources(runs / "flip", Scoring([str(home / "clips.h5")], [3], draws=2))
    assert source.evaluation.metrics["draws"] == 2
    assert (place.read_bytes() if place.is_file() else (place / "evaluation.json").read_bytes()) == before
    assert "already exists and is kept" in caplog.text


def test_what_is_missing_is_said(runs, make):
    shutil.rmtree(runs / "flip" / "posterior")
    (runs / "flip" / "metrics.jsonl").unlink()
    change(runs / "flip", stores=["nowhere.h5"])
    found = make.page(render_page(read_sources(runs / "flip", make.quick)))
    assert not {"Training", "Clips to review", "Weights"} & set(found.sections)
    assert "Calibration" in found.sections
    assert "nowhere.h5: no such file" in found.text
    assert "The run has no posterior yet." in found.text
    with pytest.raises(BayesPannsError, match="has no posterior to score yet"):
        read_sources(runs / "flip", Scoring(stores=["x.h5"]))


def test_a_store_that_holds_other_clips_now_shows_none(runs, make, tmp_path):
    change(runs / "flip", stores=[make.tones(tmp_path / "other.h5", clips=48)])
    (source,) = read_sources(runs / "flip", make.quick)
    assert "no longer holds the clips that were scored" in source.parts[0].notes[0]
    found, _ = make_cards(source, choose_clips(source.evaluation, 2), MediaBudget(10**7))
    assert set(found) == {"ood-detected", "ood-missed"}


def test_an_evaluation_finds_its_run_and_does_without(runs, make):
    moved = runs / "flip" / "evaluation"
    (source,) = read_sources(moved, make.quick)
    assert (source.kind, source.name) == ("evaluation", "flip")
    assert source.parts[0].metrics
    (runs / "alone").mkdir()
    shutil.copytree(moved, runs / "alone" / "evaluation")
    change(runs / "alone", posterior=str(runs / "gone"))
    shutil.move(runs / "alone" / "evaluation", runs / "lonely")
    (source,) = read_sources(runs / "lonely", make.quick)
    assert source.name == "lonely"
    found = make.page(render_page([source]))
    assert f"The posterior is missing, so clips and weights are not shown: {runs / 'gone'}" in found.text
    assert "Weights" not in found.sections
    with pytest.raises(BayesPannsError, match="is an evaluation; name its run"):
        read_sources(runs / "lonely", Scoring(stores=["x.h5"]))


@pytest.mark.slow
def test_a_run_without_evaluation_is_scored_on_what_it_held_out(home, tmp_path, make):
    store = str(home / "clips.h5")
    fit(make.recipe(store, folds=None, validation=0.25), tmp_path / "held")
    (source,) = read_sources(tmp_path / "held", make.quick)
    part = source.parts[0]
    held = len(part.evaluation.names)
    assert 0 < held < 24
    assert not (tmp_path / "held" / "evaluation").exists()
    assert f"{held} clips that the run held out" in part.notes[0]
    assert part.warnings == ()
    logged = load(tmp_path / "held").metrics["val/nll"]
    assert part.evaluation.metrics["cal/nll"] == pytest.approx(logged, rel=0.5)
    fit(make.recipe(store, folds=None), tmp_path / "none")
    (source,) = read_sources(tmp_path / "none", make.quick)
    found = make.page(render_page([source]))
    assert "Nothing was scored; name clips with --data." in found.text
    assert found.sections == ["Training", "Weights"]


def test_leaks_that_were_counted_are_told(runs, make):
    change(runs / "flip", leaks={"own": 3, "upstream": 0})
    (source,) = read_sources(runs / "flip", make.quick)
    (warning,) = source.parts[0].warnings
    assert warning.startswith("3 of the 8 scored clips were in the training set of this posterior")
    assert f"Warning. {warning}" in make.page(render_page([source])).text
    change(runs / "flip", leaks={"own": 0, "upstream": 5})
    (source,) = read_sources(runs / "flip", make.quick)
    (warning,) = source.parts[0].warnings
    assert warning.startswith("5 of the 8 scored clips were in the training set of the posterior that this one started")
    # The names of stores say nothing against a count.
    change(runs / "flip", leaks={"own": 0, "upstream": 0}, folds="all")
    (source,) = read_sources(runs / "flip", make.quick)
    assert source.parts[0].warnings == ()


def test_without_a_count_equal_store_names_say_may(runs, make):
    change(runs / "flip", leaks=None)
    (source,) = read_sources(runs / "flip", make.quick)
    assert source.parts[0].warnings == ()
    content = (runs / "flip" / "run.toml").read_text()
    assert "folds" in content
    header = runs / "flip" / "posterior" / "posterior.toml"
    text = re.sub('digest = ".*"\n', "", header.read_text())
    header.write_text(text.replace("folds = [\n    1,\n    2,\n]", "folds = [\n    2,\n    3,\n]"))
    (source,) = read_sources(runs / "flip", make.quick)
    (warning,) = source.parts[0].warnings
    assert "may have been in the training set of this posterior" in warning
    assert "clips.h5 (fold 3)" in warning


def damage(kind, run):
    evaluation, log = run / "evaluation", run / "metrics.jsonl"
    {
        "evaluation.json is empty": lambda: (evaluation / "evaluation.json").write_text(""),
        "evaluation.json is a list": lambda: (evaluation / "evaluation.json").write_text("[1, 2]"),
        "predictions.npz is no archive": lambda: (evaluation / "predictions.npz").write_bytes(b"PK damaged"),
        "predictions.npz is missing": lambda: (evaluation / "predictions.npz").unlink(),
        "run.toml is not TOML": lambda: (run / "run.toml").write_text("= 3"),
        "the log is binary": lambda: log.write_bytes(b"\xff\x00\n" + log.read_bytes() + b"\x80"),
        "the log has other lines": lambda: log.write_text(
            log.read_text() + '[1]\nnull\n{"nll": 1}\n{"epoch": "x"}\n{"epoch": 3, "nll": NaN}\n{"epoch": 3'
        ),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        "evaluation.json is empty",
        "evaluation.json is a list",
        "predictions.npz is no archive",
        "predictions.npz is missing",
        "run.toml is not TOML",
    ],
)
def test_a_damaged_file_is_an_error_of_one_line(runs, make, kind):
    damage(kind, runs / "flip")
    with pytest.raises(BayesPannsError) as caught:
        read_sources(runs / "flip", make.quick)
    assert len(str(caught.value).splitlines()) == 1
    assert str(runs / "flip") in str(caught.value)


@pytest.mark.parametrize(("kind", "lines"), [("the log is binary", 2), ("the log has other lines", 6)])
def test_damaged_lines_of_a_log_are_left_out_with_a_warning(runs, make, caplog, kind, lines):
    (before,) = read_sources(runs / "flip", make.quick)
    damage(kind, runs / "flip")
    (source,) = read_sources(runs / "flip", make.quick)
    assert source.parts[0].metrics == before.parts[0].metrics
    assert f"metrics.jsonl: {lines} damaged lines are left out" in caplog.text
    assert "Training" in make.page(render_page([source])).sections


@pytest.mark.slow
def test_a_cross_validation_is_one_source_of_all_its_clips(home, tmp_path, make, html):
    store = str(home / "clips.h5")
    for fold in (2, 10, 1):
        held = {2: 1, 10: 2, 1: 3}[fold]
        fit(make.recipe(store, folds={1, 2, 3} - {held}), tmp_path / "cv" / f"fold-{fold}")
    scoring = Scoring(stores=[store], ood=[home / "noise.h5"], draws=2)
    (source,) = read_sources(tmp_path / "cv", scoring)
    assert [part.name for part in source.parts] == ["fold-1", "fold-2", "fold-10"]
    assert len(source.evaluation.names) == 24
    assert len(set(source.evaluation.names)) == 24
    assert all(part.warnings == () for part in source.parts)
    found = make.page(render_page(read_sources(tmp_path / "cv", make.quick)))
    assert found.sections == make.page(html).sections
    assert "cross-validation of 3 runs" in found.text
    made, _ = make_cards(source, choose_clips(source.evaluation, 4), MediaBudget(10**7))
    for reason in ("epistemic", "aleatoric"):
        for card in made[reason]:
            part = next(part for part in source.parts if part.name == card.fold)
            index = part.evaluation.names.index(card.name)
            probability = part.evaluation.uncertainty.probability[index].max()
            assert card.rows[0].mean == probability
            assert np.mean(card.rows[0].draws) == pytest.approx(probability, abs=1e-6)
    # A report on other clips replaces no evaluation of the series.
    kept = [stored(run) for run in sorted((tmp_path / "cv").iterdir())]
    other = Scoring(stores=[make.tones(tmp_path / "other.h5", seed=5)], draws=2)
    read_sources(tmp_path / "cv", other)
    assert [stored(run) for run in sorted((tmp_path / "cv").iterdir())] == kept
    # A folder of such series has a source for each strategy and seed.
    (tmp_path / "all").mkdir()
    for name in ("flip/seed-0", "drop/seed-0"):
        shutil.copytree(tmp_path / "cv", tmp_path / "all" / name)
    sources = read_sources(tmp_path / "all", make.quick)
    assert [source.name for source in sources] == ["drop/seed-0", "flip/seed-0"]


def test_runs_of_the_same_clips_are_no_cross_validation(runs, make):
    with pytest.raises(BayesPannsError, match="not the folds of a cross-validation; name the runs one by one"):
        read_sources(runs, make.quick)
