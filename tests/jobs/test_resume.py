"""Runs that are stopped, resumed, continued to more epochs, and locked."""

import json
import shutil
import sys

import h5py
import numpy as np
import pytest

from bayes_panns.clips import Store, write
from bayes_panns.core.errors import FitError
from bayes_panns.core.files import locked
from bayes_panns.jobs import RunFolder, calibrate, divide, evaluate_posterior, fit, held_out, inputs
from bayes_panns.posterior import freezing, load, save, save_calibration
from bayes_panns.recipes import read_run, replaced


def same_weights(one, other):
    pairs = zip(one.gaussians().values(), other.gaussians().values(), strict=True)
    return all((a == b).all() for first, second in pairs for a, b in zip(first, second, strict=True))


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def finished(stores, tmp_path_factory, recipe):
    """A complete run of two epochs, calibrated and evaluated; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    fit(recipe(stores["upstream"], validation=0.3), folder)
    posterior = load(folder)
    calibrate(posterior, held_out(folder), coverage=0.5, draws=2)
    save_calibration(posterior)
    evaluate_posterior(posterior, [stores["upstream"]], draws=2).save(folder / "evaluation")
    (folder / "posterior" / "notes.txt").write_text("mine")
    return folder


def as_older_versions_wrote(run, *keys):
    """Leave out the digest of ``run.toml``, and what they did not write into ``resume.json``."""
    without_digest(run)
    path = RunFolder(run).resumable
    table = {key: value for key, value in json.loads(path.read_text()).items() if key not in {"digest", *keys}}
    table["inputs"] = {key: table["inputs"][key] for key in ("stores", "upstream", "guide") if key in table["inputs"]}
    path.write_text(json.dumps({**table, "format_version": 1}))


def without_digest(run):
    path = RunFolder(run).recipe
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("digest")))


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_a_stopped_run_goes_on_as_if_it_had_not(stores, tmp_path, recipe, interrupted):
    quick = recipe(stores["upstream"], validation=0.0)
    whole = fit(quick, tmp_path / "whole")
    with interrupted():
        assert not fit(quick, tmp_path / "parts").complete
    assert load(tmp_path / "parts").provenance["complete"] is False
    assert not RunFolder(tmp_path / "parts").complete
    resumed = fit(quick, tmp_path / "parts", resume=True)
    assert resumed.complete
    assert RunFolder(tmp_path / "parts").complete
    assert same_weights(whole.posterior, resumed.posterior)
    assert "continued" not in resumed.posterior.provenance


def test_resuming_a_complete_run_changes_nothing_and_says_so(stores, run, recipe, caplog):
    before = content(run)
    caplog.clear()
    again = fit(recipe(stores["upstream"], validation=0.3), run, resume=True)
    assert content(run) == before
    assert again.complete
    assert again.posterior.calibration is not None
    assert f"{run}: the fit is complete, with fit.epochs = 2; raise it to continue the fit" in caplog.messages


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_complete_run_is_continued_to_more_epochs(stores, tmp_path, recipe, caplog, schedule):
    quick = recipe(stores["upstream"], schedule=schedule)
    fit(quick, tmp_path / "run")
    longer = replaced(quick, {"fit.epochs": 4})
    caplog.clear()
    continued = fit(longer, tmp_path / "run", resume=True)
    assert continued.complete
    provenance = load(tmp_path / "run").provenance
    assert (provenance["epochs"], provenance["steps"]) == (4, 8)
    assert provenance["continued"] == [{"epochs": 2, "step": 4}]
    assert RunFolder(tmp_path / "run").read_recipe().fit.epochs == 4
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    text = "\n".join(caplog.messages)
    assert "fit.epochs rises from 2 to 4" in text
    whole = fit(longer, tmp_path / "whole")
    if schedule == "constant":
        assert same_weights(whole.posterior, continued.posterior)
    else:
        assert "the learning rate follows the cosine of 4 epochs, from 0.0005" in text
        # Half-way down the longer cosine, where the shorter one had ended.
        rates = [line["learning_rate"] for line in lines]
        assert rates[2] == pytest.approx(1e-3 * 0.5 * (1 + np.cos(np.pi * 5 / 8)))
        assert rates[1] < rates[2]
        assert not same_weights(whole.posterior, continued.posterior)
    fit(longer, tmp_path / "run", resume=True)
    assert "the fit is complete, with fit.epochs = 4" in caplog.messages[-1]


def test_a_run_that_is_stopped_while_it_is_continued_is_not_complete(stores, run, recipe, interrupted, caplog):
    longer = recipe(stores["upstream"], validation=0.3, epochs=3)
    # Killed before its first checkpoint: the posterior of two epochs is still there.
    folder = RunFolder(run)
    folder.write(replaced(longer, {"net": folder.read_recipe().net}), folder.read_resumable())
    assert not folder.complete
    with interrupted():
        assert not fit(longer, run, resume=True).complete
    assert "its calibration and its evaluation are of the posterior before this fit" in "\n".join(caplog.messages)
    assert not folder.complete
    assert fit(longer, run, resume=True).complete
    assert load(run).calibration is None


def test_a_complete_run_without_its_checkpoint_cannot_be_continued(stores, run, recipe):
    for file in RunFolder(run).checkpoints:
        file.unlink(missing_ok=True)
    before = content(run)
    with pytest.raises(FitError, match=r"checkpoint.pt: is missing, so the fit cannot be resumed"):
        fit(recipe(stores["upstream"], validation=0.3, epochs=3), run, resume=True)
    assert content(run) == before


def test_a_run_whose_recipe_is_empty_is_refused(stores, run, recipe):
    (run / "run.toml").write_text("")
    with pytest.raises(FitError, match=r"run.toml: is not the recipe that was run"):
        fit(recipe(stores["upstream"], validation=0.3, epochs=30), run, resume=True)


@pytest.mark.parametrize("recorded", [True, False])
def test_the_same_store_by_another_path_goes_on(stores, run, recipe, monkeypatch, recorded):
    if not recorded:
        # As older versions left it.
        without_digest(run)
        (run / "resume.json").unlink()
    monkeypatch.chdir(run)
    relative = recipe("../" * 20 + stores["upstream"].lstrip("/"), validation=0.3)
    assert fit(relative, run, resume=True).complete


def test_a_store_that_has_moved_goes_on_and_is_written_down(stores, tmp_path, recipe, interrupted):
    moved = shutil.copy(stores["upstream"], tmp_path / "moved.h5")
    quick = recipe(stores["upstream"])
    with interrupted():
        fit(quick, tmp_path / "run")
    assert fit(replaced(quick, {"data.stores": [str(moved)]}), tmp_path / "run", resume=True).complete
    assert RunFolder(tmp_path / "run").read_recipe().data.stores == [str(moved)]


@pytest.mark.parametrize("what", ["target", "audio_name", "fold", "label_names"])
def test_a_store_that_has_changed_is_refused(stores, tmp_path, recipe, what):
    """Stores of older versions, which do not notice it themselves."""
    store = shutil.copy(stores["downstream"], tmp_path / "clips.h5")
    with h5py.File(store, "r+") as file:
        del file.attrs["sha256"]
    fit(recipe(str(store), epochs=1), tmp_path / "run")
    with h5py.File(store, "r+") as file:
        file[what][:] = np.roll(file[what][:], 1, axis=0)
    with pytest.raises(FitError, match=r"clips.h5: is not the store that the run in .*run was started with"):
        fit(recipe(str(store), epochs=1), tmp_path / "run", resume=True)


@pytest.mark.parametrize("digests", [True, False])
def test_a_store_whose_sound_has_changed_is_refused(stores, tmp_path, recipe, digests):
    """With or without digests in the store, such as that of another program."""
    store, other = tmp_path / "clips.h5", tmp_path / "other.h5"
    shutil.copy(stores["downstream"], store)
    shutil.copy(store, other)
    with Store(other) as clips:
        louder = clips.waveform(np.arange(16)) * 0.9
    tones_again(other, louder)
    for path in (store, other):
        if not digests:
            with h5py.File(path, "r+") as file:
                del file["digest"], file.attrs["sha256"]
    fit(recipe(str(store), epochs=1), tmp_path / "run")
    before = content(tmp_path / "run")
    other.rename(store)
    with pytest.raises(FitError, match=r"clips.h5: is not the store .* the same names and labels, but what is heard"):
        fit(recipe(str(store), epochs=2), tmp_path / "run", resume=True)
    assert content(tmp_path / "run") == before


def tones_again(path, waveform):
    """Write the store again with other sound."""
    with Store(path) as store:
        about = (store.target(), store.labels, store.task, store.sample_rate)
        names, folds = store.names, store.folds
    write(path, waveform, *about, names=names, fold=folds)


def test_a_large_store_without_digests_is_compared_by_clips_spread_over_it(stores, tmp_path, recipe, monkeypatch):
    store = shutil.copy(stores["downstream"], tmp_path / "clips.h5")
    with h5py.File(store, "r+") as file:
        del file["digest"], file.attrs["sha256"]
    monkeypatch.setattr(inputs, "_READ_BYTES", 4 * 4 * 4000)
    fit(recipe(str(store), epochs=1), tmp_path / "run")
    for row, same in ((7, True), (15, False)):
        with h5py.File(store, "r+") as file:
            file["waveform"][row] = 0
        if same:
            fit(recipe(str(store), epochs=1), tmp_path / "run", resume=True)
        else:
            with pytest.raises(FitError, match="is not the store"):
                fit(recipe(str(store), epochs=1), tmp_path / "run", resume=True)


def test_another_store_is_refused_in_a_run_that_recorded_none(stores, tmp_path, run, recipe):
    without_digest(run)
    (run / "resume.json").unlink()
    copy = str(shutil.copy(stores["upstream"], tmp_path / "copy.h5"))
    with pytest.raises(FitError, match=r"was started with data.stores = "):
        fit(recipe(copy, validation=0.3), run, resume=True)


def test_an_upstream_by_another_path_goes_on_and_another_is_refused(stores, upstream, finished, tmp_path, recipe):
    quick = recipe(stores["downstream"], upstream=str(upstream), epochs=1)
    fit(quick, tmp_path / "run")
    moved = shutil.copytree(upstream / "posterior", tmp_path / "moved")
    assert fit(replaced(quick, {"upstream": str(moved)}), tmp_path / "run", resume=True).complete
    with pytest.raises(FitError, match=r"finished: is not the posterior that the run in .* was started with"):
        fit(replaced(quick, {"upstream": str(finished)}), tmp_path / "run", resume=True)


def test_an_upstream_that_says_something_else_is_refused_but_not_its_calibration(
    stores, finished, tmp_path, recipe, monkeypatch
):
    upstream = shutil.copytree(finished, tmp_path / "upstream")
    quick = recipe(stores["downstream"], upstream=str(upstream), epochs=1)
    fit(quick, tmp_path / "run")
    posterior = load(upstream)
    posterior.calibration = None
    save_calibration(posterior)
    assert fit(quick, tmp_path / "run", resume=True).complete
    posterior.provenance = {**posterior.provenance, "seed": 7}
    save(posterior, upstream / "posterior")
    with pytest.raises(FitError, match=r"upstream: is not the posterior that the run in .* was started with"):
        fit(quick, tmp_path / "run", resume=True)


def test_a_recipe_that_was_changed_by_hand_is_refused_but_not_its_paths(stores, run, tmp_path, recipe):
    path = RunFolder(run).recipe
    moved = shutil.copy(stores["upstream"], tmp_path / "moved.h5")
    path.write_text(path.read_text().replace(stores["upstream"], str(moved)))
    assert held_out(run).names
    path.write_text(path.read_text().replace("batch_size = 8", "batch_size = 9"))
    with pytest.raises(FitError, match=r"run.toml: is not the recipe that was run: it was changed by hand or damaged"):
        held_out(run)
    with pytest.raises(FitError, match=r"run.toml: is not the recipe that was run"):
        fit(recipe(stores["upstream"], validation=0.3, batch_size=9), run, resume=True)


def test_a_resume_json_that_was_changed_is_told_from_the_one_written(stores, run, recipe):
    path = RunFolder(run).resumable
    path.write_text(path.read_text().replace('"frozen_points": true', '"frozen_points": false'))
    with pytest.raises(FitError, match=r"resume.json: is damaged; restore it"):
        fit(recipe(stores["upstream"], validation=0.3), run, resume=True)
    path.write_text('{"format_version": 3}')
    with pytest.raises(FitError, match=r"resume.json: was written by a newer version"):
        fit(recipe(stores["upstream"], validation=0.3), run, resume=True)


def test_a_run_without_its_resume_json_is_not_taken_for_an_old_one(stores, run, recipe):
    RunFolder(run).resumable.unlink()
    with pytest.raises(FitError, match=r"resume.json: is missing; restore it"):
        fit(recipe(stores["upstream"], validation=0.3), run, resume=True)


def test_the_recipe_of_a_run_can_be_taken_for_another(stores, run, tmp_path):
    path = shutil.copy(RunFolder(run).recipe, tmp_path / "mine.toml")
    path.write_text(path.read_text().replace("epochs = 2", "epochs = 1"))
    assert read_run(path).fit.epochs == 1


def test_a_run_of_an_older_version_goes_on(stores, tmp_path, recipe, interrupted):
    quick = recipe(stores["upstream"])
    with interrupted():
        fit(quick, tmp_path / "run")
    as_older_versions_wrote(tmp_path / "run")
    assert fit(quick, tmp_path / "run", resume=True).complete


@pytest.mark.parametrize("killed_before", ["run.toml", "resume.json"])
def test_a_fit_that_was_killed_before_it_began_is_started_again(stores, tmp_path, recipe, monkeypatch, killed_before):
    """Without --resume: there is nothing to resume yet."""
    run_folder = sys.modules[RunFolder.__module__]

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, {"run.toml": "whole_file", "resume.json": "write_json"}[killed_before], killed)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe(stores["upstream"], epochs=1), tmp_path / "run")
    assert fit(recipe(stores["upstream"], epochs=1), tmp_path / "run").complete


def test_the_next_fit_removes_what_killed_ones_left(stores, tmp_path, recipe, interrupted):
    quick = recipe(stores["upstream"], features="disk")
    with interrupted():
        fit(quick, tmp_path / "run")
    assert RunFolder(tmp_path / "run").features.is_file()
    (tmp_path / "run" / ".check-start-abc" / "run").mkdir(parents=True)
    (tmp_path / "run" / "tmpabc.features").touch()
    (tmp_path / "run" / ".checkpoint.pt.0123456789ab.part").mkdir()
    assert fit(quick, tmp_path / "run", resume=True).complete
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"run.toml", "resume.json", "metrics.jsonl", "checkpoint.pt", "checkpoint.previous.pt", "posterior"}


def test_a_guide_recipe_that_has_changed_is_refused(stores, tmp_path, recipe):
    guide = tmp_path / "mine.toml"
    guide.write_text('[default]\nposterior = "point"\n')
    quick = recipe(stores["downstream"], guide=str(guide), epochs=1)
    fit(quick, tmp_path / "run")
    guide.write_text('description = "points"\n[default]\nposterior = "point"\n')
    fit(quick, tmp_path / "run", resume=True)
    guide.write_text('[default]\nposterior = "normal"\n')
    with pytest.raises(FitError, match=r"mine.toml: is not the guide recipe that the run"):
        fit(quick, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fit.learning_rate": 0.1}, r"was started with fit.learning_rate = 0.001, not 0.1"),
        ({"data.validation": 0.2}, r"was started with data.validation = 0.3, not 0.2"),
        ({"fit.seed": 4}, r"was started with fit.seed = 0, not 4"),
    ],
)
def test_what_has_changed_in_the_recipe_is_refused_by_name(stores, finished, recipe, changes, message):
    before = content(finished)
    with pytest.raises(FitError, match=message):
        fit(replaced(recipe(stores["upstream"], validation=0.3), changes), finished, resume=True)
    assert content(finished) == before


def test_fewer_epochs_than_a_complete_run_has_are_there_already(stores, run, recipe, caplog):
    before = content(run)
    caplog.clear()
    again = fit(recipe(stores["upstream"], validation=0.3, epochs=1), run, resume=True)
    assert again.posterior.provenance["epochs"] == 2
    assert "the fit is complete, with fit.epochs = 2" in caplog.messages[-1]
    assert content(run) == before


def test_an_interrupted_run_is_not_resumed_to_fewer_epochs(stores, tmp_path, recipe, interrupted):
    with interrupted():
        fit(recipe(stores["upstream"]), tmp_path / "run")
    with pytest.raises(FitError, match=r"fit.epochs = 2, not 1; a fit can be continued to more epochs, not to fewer"):
        fit(recipe(stores["upstream"], epochs=1), tmp_path / "run", resume=True)


def test_a_description_is_no_change(stores, finished, recipe):
    assert fit(replaced(recipe(stores["upstream"], validation=0.3), {"description": "x"}), finished, resume=True)


def test_a_run_that_is_there_is_not_replaced_and_one_that_is_not_cannot_be_resumed(stores, finished, tmp_path, recipe):
    with pytest.raises(FitError, match="is not empty; resume the run there with --resume"):
        fit(recipe(stores["upstream"]), finished)
    with pytest.raises(FitError, match="there is nothing to resume"):
        fit(recipe(stores["upstream"]), tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_in_which_a_fit_runs_is_locked(stores, run, recipe, resume):
    with (
        locked(run),
        pytest.raises(FitError, match="another fit is running there, or a command that writes there; wait for it"),
    ):
        fit(recipe(stores["upstream"], validation=0.3), run, resume=resume)


def test_a_fit_holds_its_lock_until_it_ends(stores, tmp_path, recipe, monkeypatch):
    from bayes_panns.svi import Fit

    seen, run = [], Fit.run

    def look(job):
        with locked(tmp_path / "run") as ours:
            seen.append(ours)
        return run(job)

    monkeypatch.setattr(Fit, "run", look)
    fit(recipe(stores["upstream"], epochs=1), tmp_path / "run")
    with locked(tmp_path / "run") as ours:
        assert (seen, ours) == ([False], True)


def test_a_damaged_resume_json_is_reported(stores, run, recipe):
    (run / "resume.json").write_text("{")
    with pytest.raises(FitError, match=r"resume.json: is damaged; restore it"):
        fit(recipe(stores["upstream"], validation=0.3), run, resume=True)


def test_a_run_is_found_from_its_folder_and_those_inside(finished, tmp_path):
    for place in (finished, finished / "posterior", finished / "evaluation"):
        assert RunFolder.around(place).path.resolve() == finished.resolve()
    assert RunFolder.around(tmp_path) is None
    with pytest.raises(FitError, match=r"there is no run \(run.toml is missing\)"):
        RunFolder(tmp_path).read_recipe()


def test_an_old_run_keeps_the_clips_that_it_held_out(stores, tmp_path, recipe, interrupted):
    """Older versions held clips out by another rule, and did not write it down."""
    old = replaced(recipe(stores["upstream"], validation=0.3), {"data.split": "prefix"})
    with interrupted():
        fit(old, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    run.recipe.write_text(run.recipe.read_text().replace('split = "prefix"\n', ""))
    as_older_versions_wrote(run.path)
    before = held_out(run.path)
    assert before.names == divide(old)[0].names
    now = replaced(old, {"data.split": "stratified"})
    assert before.names != divide(now)[0].names
    assert fit(now, run.path, resume=True).complete
    assert held_out(run.path).names == before.names
    assert fit(now, tmp_path / "new").complete
    assert 'split = "stratified"' in RunFolder(tmp_path / "new").recipe.read_text()


FROZEN = {"guide": "flip-from-points", "freeze": ["bn0", "conv_block1"]}


@pytest.fixture(scope="session")
def points(stores, tmp_path_factory, recipe):
    """A run whose posterior is points."""
    return fit(recipe(stores["upstream"], guide="det", epochs=1), tmp_path_factory.mktemp("runs") / "det").folder


@pytest.mark.parametrize("recorded", [True, False])
def test_an_old_run_goes_on_drawing_what_it_froze(stores, points, tmp_path, recipe, interrupted, monkeypatch, recorded):
    """Older versions drew frozen weights that start from points, and did not write it down."""
    quick = recipe(stores["downstream"], upstream=str(points), **FROZEN)
    with monkeypatch.context() as patch:
        patch.setattr(freezing, "with_points", lambda strategy, *arguments: strategy)
        whole = fit(quick, tmp_path / "whole").posterior
        with interrupted():
            assert not fit(quick, tmp_path / "run").complete
    path = RunFolder(tmp_path / "run").resumable
    if recorded:
        as_older_versions_wrote(tmp_path / "run", "frozen_points")
    else:
        without_digest(tmp_path / "run")
        path.unlink()
    resumed = fit(quick, tmp_path / "run", resume=True)
    assert resumed.complete
    assert "conv_block1.conv1.weight" in load(tmp_path / "run").gaussians()
    assert resumed.posterior.gaussians().keys() == whole.gaussians().keys()
    assert same_weights(whole, resumed.posterior)
    # Also if it is then continued to more epochs.
    longer = fit(replaced(quick, {"fit.epochs": 3}), tmp_path / "run", resume=True)
    assert "conv_block1.conv1.weight" in longer.posterior.gaussians()


def test_a_run_with_frozen_points_goes_on_with_them(stores, points, tmp_path, recipe, interrupted):
    quick = recipe(stores["downstream"], upstream=str(points), **FROZEN)
    whole = fit(quick, tmp_path / "whole").posterior
    with interrupted():
        assert not fit(quick, tmp_path / "run").complete
    resumed = fit(quick, tmp_path / "run", resume=True).posterior
    assert "conv_block1.conv1.weight" not in resumed.gaussians()
    assert same_weights(whole, resumed)
