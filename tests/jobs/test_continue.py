"""A last layer that goes on with new clips only: nothing that it has learned is lost."""

import numpy as np
import pytest
import torch

from bayes_panns.clips import ClipSet, Task, write_embeddings
from bayes_panns.core.errors import RecipeError
from bayes_panns.jobs import fit
from bayes_panns.posterior import load
from bayes_panns.predictions import predict
from bayes_panns.recipes import read_run
from bayes_panns.svi.last_layer import HeadAxes, realigned

WIDTH, LABELS = 24, ("bee", "frog", "owl")
PLAIN = ["fit.selection.folds=0", "fit.selection.prior_scales=[0.3]"]
"""One width and no power, so that two fits differ in their clips alone."""


def store(path, kinds, seed, labels=LABELS, task=Task.ONE_OF_K):
    generator = np.random.default_rng(seed)
    label = np.array(kinds)
    x = 2.5 * np.eye(3, WIDTH)[label] + generator.normal(size=(len(label), WIDTH))
    write_embeddings(path, x, np.eye(3, dtype=bool)[label][:, : len(labels)], labels, task, model="toy")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("continue")
    store(folder / "old.h5", [0, 1, 2] * 14, seed=1)
    store(folder / "new.h5", [0, 1, 2] * 6, seed=2)
    store(folder / "bees.h5", [0] * 12 + [1], seed=3)
    store(folder / "test.h5", [0, 1, 2] * 30, seed=4)
    fit(read_run("rotated-head", PLAIN, stores=[folder / "old.h5"]), folder / "old")
    return folder


def continued(place, name, stores, out, changes=()):
    return fit(read_run("continue", list(changes), stores=stores, upstream=str(place / name)), place / out).posterior


def nll(posterior, place):
    clips = ClipSet(place / "test.h5")
    p = predict(posterior, clips).probability
    return -np.log(p[clips.target()]).mean()


def test_new_clips_alone_teach_what_all_clips_together_teach(place):
    went_on = continued(place, "old", [place / "new.h5"], "went-on")
    both = [place / "old.h5", place / "new.h5"]
    together = fit(read_run("rotated-head", PLAIN, stores=both), place / "together").posterior
    clips = ClipSet(place / "test.h5")
    one, two, before = (predict(each, clips).probability for each in (went_on, together, load(place / "old")))
    assert np.abs(one - two).mean() < 0.4 * np.abs(before - two).mean()
    assert nll(went_on, place) == pytest.approx(nll(together, place), rel=0.03)
    assert load(place / "went-on").provenance["upstream"]["folder"] == "old"


def test_what_the_new_clips_do_not_show_is_kept(place, caplog):
    posterior = continued(place, "old", [place / "bees.h5"], "bees")
    assert nll(posterior, place) < nll(load(place / "old"), place) + 0.1
    caplog.clear()
    alone = fit(
        read_run("rotated-head", PLAIN, stores=[place / "bees.h5"], upstream=str(place / "old")), place / "alone"
    )
    assert nll(alone.posterior, place) > nll(posterior, place) + 0.3
    assert "kept by the recipe continue" in caplog.text


def test_power_and_kl_weight_stay_and_clips_do_not_count_twice(place, caplog):
    changes = ["fit.selection.folds=2", "fit.selection.prior_scales=[0.3]", "fit.selection.kl_weights=[0.3]"]
    old = fit(read_run("rotated-head", changes, stores=[place / "old.h5"]), place / "calibrated").posterior
    posterior = continued(place, "calibrated", [place / "new.h5"], "calibrated-2")
    assert (posterior.power, posterior.provenance["kl_weight"]) == (old.power, 0.3)
    assert load(place / "calibrated-2").power == old.power
    caplog.clear()
    continued(place, "calibrated", [place / "old.h5"], "twice")
    assert (
        "42 of the 42 clips are among those that the upstream posterior was fitted to, and count twice" in caplog.text
    )


def test_what_does_not_fit_is_refused(place):
    with pytest.raises(RecipeError, match="needs a posterior with a rotated last layer"):
        fit(read_run("continue", stores=[place / "new.h5"]), place / "none")
    store(place / "others.h5", [0, 1] * 8, seed=5, labels=("bee", "wren"))
    with pytest.raises(RecipeError, match=r"'wren' is new.*rotated-head"):
        continued(place, "old", [place / "others.h5"], "others")
    store(place / "fewer.h5", [0, 1] * 8, seed=5, labels=("bee", "frog"))
    with pytest.raises(RecipeError, match=r"'owl' is missing.*--labels"):
        continued(place, "old", [place / "fewer.h5"], "fewer")


def test_only_free_axes_are_turned():
    torch.manual_seed(0)
    axes = HeadAxes(torch.eye(2), torch.linalg.qr(torch.randn(8, 8)).Q, torch.randn(8), 1.0)
    free = torch.arange(8) >= 3
    embeddings = torch.randn(2, 8)
    turned = realigned(axes, free, embeddings)
    torch.testing.assert_close(turned.right[:, :3], axes.right[:, :3])
    torch.testing.assert_close(turned.right.T @ turned.right, torch.eye(8), atol=1e-5, rtol=0)
    # Two clips lie along two of the free axes.
    assert turned.inputs(embeddings)[:, 5:].abs().max() < 1e-5
    assert realigned(axes, torch.zeros(8, dtype=torch.bool), embeddings) is axes
