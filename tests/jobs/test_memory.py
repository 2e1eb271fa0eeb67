"""What is left of the start in a run's widths."""

import json
import math
import shutil

import pytest
import torch

from bayes_panns.core.errors import BayesPannsError, FitError
from bayes_panns.jobs import RunFolder, check_start, fit, read_start_memory
from bayes_panns.jobs.memory import compared
from bayes_panns.posterior import load
from bayes_panns.recipes import replaced
from bayes_panns.report import start_table
from bayes_panns.svi import trained_log_scales

NATURAL = {"optimizer": "natural-gradient", "natural": {"memory": 0.0}}


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(stores, tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(recipe(stores["upstream"], guide="det-flip", validation=0.2), folder)
    return folder


def test_what_is_left_is_a_share_of_the_factor():
    first = torch.randn(40, 50)
    wide = first + math.log(100)
    kept = compared({"a": first, "b": first}, {"a": wide, "b": first.clone()}, 100)
    assert (kept["a"].weights, kept["a"].left) == (2000, pytest.approx(1, abs=1e-6))
    assert (kept["b"].left, kept["b"].rank_correlation) == (0, pytest.approx(1))
    half = compared({"a": first}, {"a": -first}, 100)["a"]
    assert half.rank_correlation == pytest.approx(-1)
    # Up and down do not cancel.
    assert half.left == pytest.approx(2 * first.abs().mean().item() / math.log(100), rel=1e-5)
    narrow = compared({"a": first}, {"a": first + math.log(0.1)}, 0.1)["a"]
    assert narrow.left == pytest.approx(1, abs=1e-5)


def test_ranks_of_equal_widths_are_undefined_and_of_large_tensors_sampled():
    same = torch.zeros(10)
    assert compared({"a": same}, {"a": torch.randn(10)}, 2)["a"].rank_correlation is None
    large = torch.arange(1 << 21).float()
    assert compared({"a": large}, {"a": large**2}, 2)["a"].rank_correlation == pytest.approx(1)


def test_a_short_fit_by_adam_keeps_all_of_its_start(stores, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    before = content(folder)
    found = check_start(folder)
    assert set(found.parameters) == {"fc_audioset.weight", "fc_audioset.bias"}
    assert found.left == pytest.approx(1, abs=0.01)
    after = content(folder)
    assert after.pop(RunFolder("").start) == (folder / "start.json").read_bytes()
    assert after == before
    assert json.loads((folder / "start.json").read_text())["factor"] == 100
    assert read_start_memory(RunFolder(folder)) == found
    table = start_table(found).splitlines()
    assert table[0].split() == ["parameter", "weights", "left", "of", "the", "start", "rank", "correlation"]
    assert [row.split()[0] for row in table[1:]] == ["fc_audioset.weight", "fc_audioset.bias", "all"]


def test_widths_that_each_step_infers_forget_it(stores, tmp_path, recipe):
    quick = recipe(stores["upstream"], guide="det-flip", epochs=4, **NATURAL)
    fit(quick, tmp_path / "run")
    found = check_start(tmp_path / "run", factor=10)
    assert found.left < 0.3
    assert found.parameters["fc_audioset.weight"].rank_correlation > 0.5


def test_the_second_fit_differs_by_its_start_alone(stores, tmp_path, recipe):
    # With a learning rate of nothing, the widths at the end are those of the start.
    quick = recipe(stores["upstream"], guide="det-flip", learning_rate=1e-12, start="fisher")
    first = fit(quick, tmp_path / "first").posterior
    second = fit(quick, tmp_path / "second", widen=7.0).posterior
    for name, before in trained_log_scales(first.guide).items():
        after = trained_log_scales(second.guide)[name]
        torch.testing.assert_close(after.detach(), before.detach() + math.log(7))
    for site, (loc, _) in first.guide.gaussians().items():
        torch.testing.assert_close(loc, second.guide.gaussians()[site][0], rtol=0, atol=1e-9)


def test_a_run_that_was_fitted_on_since_was_not_checked(stores, run, tmp_path, recipe):
    folder = shutil.copytree(run, tmp_path / "run")
    check_start(folder, factor=0.1)
    fit(replaced(RunFolder(folder).read_recipe(), {"fit.epochs": 3}), folder, resume=True)
    assert read_start_memory(RunFolder(folder)) is None
    assert read_start_memory(RunFolder(tmp_path)) is None


def test_an_interrupted_check_leaves_the_run_as_it_was(run, tmp_path, interrupted):
    folder = shutil.copytree(run, tmp_path / "run")
    before = content(folder)
    with interrupted():
        assert check_start(folder) is None
    assert content(folder) == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".check")]


@pytest.mark.parametrize("factor", [1, 0, -2, math.inf, math.nan])
def test_a_factor_that_changes_nothing_is_refused(run, factor):
    with pytest.raises(ValueError, match="must be above 0, finite and not 1"):
        check_start(run, factor=factor)


def test_what_cannot_be_checked_is_told(stores, run, tmp_path, recipe, interrupted):
    with interrupted():
        fit(recipe(stores["upstream"], guide="det-flip"), tmp_path / "stopped")
    with pytest.raises(FitError, match="its fit is not complete; resume it first"):
        check_start(tmp_path / "stopped")
    fit(recipe(stores["upstream"], guide="det", epochs=1), tmp_path / "points")
    with pytest.raises(FitError, match="no weight has a width of its own that was fitted"):
        check_start(tmp_path / "points")
    with pytest.raises(BayesPannsError, match="there is no run"):
        check_start(tmp_path / "nowhere")
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "start.json").write_text("{")
    with pytest.raises(FitError, match=r"start.json: is damaged; delete it"):
        read_start_memory(RunFolder(folder))


def test_a_store_that_has_changed_is_refused(stores, tmp_path, recipe):
    store = shutil.copy(stores["upstream"], tmp_path / "clips.h5")
    fit(recipe(str(store), guide="det-flip", epochs=1), tmp_path / "run")
    shutil.copy(stores["downstream"], store)
    with pytest.raises(FitError, match=r"is not the store that the run"):
        check_start(tmp_path / "run")
    assert load(tmp_path / "run").provenance["complete"]
