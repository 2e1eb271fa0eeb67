"""Fits to embeddings of another model, and embeddings of our own that go back in."""

import csv
import sys

import numpy as np
import pytest
import soundfile
import torch

from bayes_panns.clips import ClipSet, Store, Task, embeddings, pack_embeddings, write_embeddings
from bayes_panns.core.errors import (
    AudioError,
    OutputError,
    PosteriorError,
    PredictionError,
    RecipeError,
    StoreError,
)
from bayes_panns.jobs import calibrate, crossval, embed, evaluate_posterior, fit
from bayes_panns.jobs.embed import model_name
from bayes_panns.posterior import Ensemble, load
from bayes_panns.predictions import embed_files, predict, tag
from bayes_panns.recipes import read_run

RATE, WIDTH, LABELS = 8000, 24, ("a", "b", "c")
HEADS = ["det", "map-head", "det-flip", "last-layer", "low-rank-head", "rotated-head"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """90 vectors of three labels, two of each recording, in three folds."""
    generator = np.random.default_rng(0)
    label = np.arange(90) // 2 % 3
    vectors = 0.6 * np.eye(3, WIDTH)[label] * WIDTH**0.5 + generator.normal(size=(90, WIDTH))
    path = tmp_path_factory.mktemp("vectors") / "x.h5"
    write_embeddings(
        path,
        vectors,
        np.eye(3, dtype=bool)[label],
        LABELS,
        "one-of-k",
        model="Toy",
        fold=np.arange(90) // 30 + 1,
        source=[f"r{index // 2}" for index in range(90)],
    )
    return path


def recipe_of(store, *changes, guide="rotated-head", **given):
    """The recipe of a guide that is rotated, or of others; neither names a net."""
    if guide == "rotated-head":
        return read_run("rotated-head", changes, stores=[store], **given)
    settings = ["data.validation=0", "fit.epochs=30", *changes]
    return read_run("fixed-features", settings, stores=[store], guide=guide, **given)


@pytest.fixture(scope="module")
def fitted(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits") / "rotated"
    fit(recipe_of(store, "data.folds=[1, 2]"), folder)
    return folder


@pytest.mark.parametrize("guide", HEADS)
def test_every_guide_of_the_last_layer_fits_is_saved_and_scored(store, tmp_path, guide):
    made = fit(recipe_of(store, "data.folds=[1, 2]", guide=guide), tmp_path / "run").posterior
    posterior = load(tmp_path / "run")
    assert (posterior.net, posterior.embeddings_of, posterior.width) == ("embeddings-24", "Toy", WIDTH)
    assert (posterior.sample_rate, posterior.clip_seconds) == (0, 0.0)
    evaluation = evaluate_posterior(posterior, store, folds=[3])
    assert evaluation.metrics["cls/accuracy"] > 0.8
    same = evaluate_posterior(made, store, folds=[3])
    np.testing.assert_allclose(same.uncertainty.probability, evaluation.uncertainty.probability, atol=1e-6)
    assert evaluation.provenance["leaks"] == {"own": 0, "upstream": 0}
    assert evaluate_posterior(posterior, store, folds=[2]).provenance["leaks"]["own"] == 30


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ((), {"guide": "flip"}, "guide flip: is of more than the last layer, and embeddings-24 has no backbone"),
        ((), {"guide": "map"}, "guide map: is of more than the last layer"),
        ((), {"guide": "drop"}, "guide drop: is of more than the last layer"),
        ((), {"guide": "flip-last-stage"}, "guide flip-last-stage: is of more than the last layer"),
        ((), {"guide": "flip-upstream-prior"}, "guide flip-upstream-prior: is of more than the last layer"),
        (("freeze=['locs']",), {"guide": "det"}, "guide det: has points only, and freeze holds locs"),
        (("net=resnet14-narrow",), {}, "holds embeddings of 24 numbers .Toy., but net = 'resnet14-narrow' takes sound"),
        (("net=embeddings-512",), {}, "but net = 'embeddings-512' takes 512"),
        (("fit.features=memory",), {"guide": "det-flip"}, "sees no sound; set fit.features"),
        (("fit.views=2",), {"guide": "det-flip"}, "sees no sound; set fit.features"),
    ],
)
def test_a_recipe_that_asks_for_more_is_refused(store, tmp_path, changes, given, message):
    with pytest.raises(RecipeError, match=message) as error:
        fit(recipe_of(store, *changes, **given), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_sound_is_not_fitted_as_embeddings(stores, tmp_path):
    with pytest.raises(RecipeError, match="holds sound at 8000 Hz, but net = 'embeddings' takes embeddings"):
        fit(recipe_of(stores["downstream"], "net=embeddings"), tmp_path / "run")


def test_the_net_of_the_stores_own_width_may_be_named(store, tmp_path):
    run = fit(recipe_of(store, "net=embeddings-24", "fit.epochs=2"), tmp_path / "run")
    assert run.posterior.net == "embeddings-24"


def test_sound_and_embeddings_are_told_apart_everywhere(store, stores, fitted, upstream, tmp_path):
    sound = stores["upstream"]
    with pytest.raises(StoreError, match=r"holds embeddings of 24 numbers .Toy., not sound"):
        ClipSet(store).waveform([0])
    with pytest.raises(StoreError, match="holds sound, not embeddings"):
        ClipSet(sound).embedding([0])
    with pytest.raises(StoreError, match="differ in holds: embeddings and waveforms"):
        ClipSet([store, sound])
    with pytest.raises(StoreError, match="holds sound at 8000 Hz, but the posterior takes embeddings of 24 numbers"):
        evaluate_posterior(load(fitted), stores["downstream"])
    with pytest.raises(
        StoreError, match=r"holds embeddings of 24 numbers .Toy., but the posterior takes sound at 8000"
    ):
        calibrate(load(upstream), ClipSet(store))
    with pytest.raises(PosteriorError, match="differ in"):
        Ensemble([load(fitted), load(upstream)])
    with pytest.raises(PredictionError, match=r"takes embeddings of 24 numbers .Toy., not sound"):
        tag(load(fitted), [tmp_path / "x.wav"])


def test_vectors_without_labels_are_out_of_distribution(store, fitted, tmp_path):
    far = 30 * np.random.default_rng(1).normal(size=(20, WIDTH))
    write_embeddings(tmp_path / "ood.h5", far, np.zeros((20, 0), dtype=bool), [], Task.UNLABELLED)
    metrics = evaluate_posterior(load(fitted), store, folds=[3], ood=tmp_path / "ood.h5").metrics
    assert metrics["ood/auroc"] == pytest.approx(metrics["ood/auroc"])
    with pytest.raises(StoreError, match="have no labels to learn"):
        fit(recipe_of(tmp_path / "ood.h5"), tmp_path / "run")


def test_a_fit_goes_on_from_a_posterior_of_the_same_model_only(store, fitted, tmp_path):
    again = fit(recipe_of(store, "fit.epochs=2", upstream=fitted), tmp_path / "again")
    assert "fc.weight" in again.inherited.taken
    vectors = Store(store)
    index = np.arange(len(vectors))
    write_embeddings(
        tmp_path / "other.h5", vectors.embedding(index), vectors.target(), LABELS, "one-of-k", model="Another"
    )
    with pytest.raises(StoreError, match=r"\(Another\), but the posterior takes embeddings of 24 numbers \(Toy\)"):
        fit(recipe_of(tmp_path / "other.h5", upstream=fitted), tmp_path / "run")


def test_members_of_an_ensemble_take_embeddings_of_one_model(store, fitted):
    one, other = load(fitted), load(fitted)
    assert predict(Ensemble([one, other]), ClipSet(store)).probability.shape == (90, 3)
    other.embeddings_of = "Another"
    with pytest.raises(PosteriorError, match="differ in embeddings_of"):
        Ensemble([one, other])


class TestEmbed:
    @pytest.mark.parametrize("form", ["npz", "parquet", "csv"])
    def test_a_store_goes_through_a_file_back_into_a_store(self, stores, upstream, tmp_path, form):
        if form == "parquet":
            pytest.importorskip("pyarrow")
        posterior, sound = load(upstream), Store(stores["downstream"])
        made = embed(posterior, stores["downstream"], tmp_path / f"e.{form}")
        expected = posterior.embed(torch.from_numpy(sound.waveform(np.arange(16)))).numpy()
        np.testing.assert_array_equal(made.embedding, expected)
        pack_embeddings(embeddings(tmp_path / f"e.{form}"), tmp_path / "e.h5")
        store = Store(tmp_path / "e.h5")
        np.testing.assert_array_equal(store.embedding(np.arange(16)), expected)
        np.testing.assert_array_equal(store.target(), sound.target())
        np.testing.assert_array_equal(store.folds, sound.folds)
        assert (store.names, store.labels, store.task) == (sound.names, sound.labels, sound.task)
        assert store.model == model_name(posterior)
        assert store.model.startswith("resnet14-narrow ")

    def test_the_embedding_is_the_input_of_the_last_layer(self, stores, downstream):
        posterior = load(downstream.folder)
        waveform = torch.from_numpy(Store(stores["downstream"]).waveform(np.arange(16)))
        weight, bias = (posterior.guide.median()[f"net.fc_audioset.{name}"] for name in ("weight", "bias"))
        (logits,) = posterior.logits(waveform, 0)
        torch.testing.assert_close(posterior.embed(waveform) @ weight.T + bias, logits, atol=1e-4, rtol=1e-4)

    def test_files_are_a_row_a_window(self, upstream, tmp_path):
        posterior = load(upstream)
        time = np.arange(RATE * 2) / RATE
        for name, seconds in (("long", 1.25), ("short", 0.2)):
            samples = 0.3 * np.sin(2 * np.pi * 440 * time[: round(seconds * RATE)])
            soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="FLOAT")
        (tmp_path / "broken.wav").write_bytes(b"RIFF")
        files = [tmp_path / f"{name}.wav" for name in ("long", "broken", "short")]
        made = embed(posterior, files, tmp_path / "e.npz", hop=0.25)
        assert [(each.start, each.end) for each in made.windows] == [
            (0.0, 0.5),
            (0.25, 0.75),
            (0.5, 1.0),
            (0.75, 1.25),
            (0.0, 0.2),
        ]
        assert [file for file, _ in made.skipped] == [str(tmp_path / "broken.wav")]
        whole = torch.from_numpy(soundfile.read(tmp_path / "long.wav", dtype="float32")[0])
        second = posterior.embed(whole[None, 2000:6000]).numpy()
        np.testing.assert_allclose(made.embedding[1:2], second, atol=1e-5)
        table = embeddings(tmp_path / "e.npz")
        assert [clip.name for clip in table.catalog.clips][1] == f"{tmp_path}/long.wav 0.25-0.75"
        assert table.catalog.clips[1].source == f"{tmp_path}/long.wav"
        # The windows are those of the tags.
        assert [each.start for each in tag(posterior, files, 0, hop=0.25).windows] == [e.start for e in made.windows]

    def test_a_row_of_csv_has_the_file_the_seconds_and_the_numbers(self, upstream, tmp_path):
        soundfile.write(tmp_path / "x.wav", np.zeros(4000), RATE)
        made = embed(load(upstream), tmp_path / "x.wav", tmp_path / "e.csv")
        (row,) = csv.DictReader((tmp_path / "e.csv").read_text().splitlines())
        assert (row["file"], row["start"], row["end"]) == (str(tmp_path / "x.wav"), "0.0", "0.5")
        assert np.float32(row["e127"]) == made.embedding[0, 127]

    def test_what_does_not_fit_is_refused_before_any_work(self, stores, upstream, fitted, tmp_path, monkeypatch):
        posterior, store = load(upstream), stores["downstream"]
        for output, error, message in (
            ("e.h5", OutputError, r"ends in \.npz, \.parquet, \.csv"),
            ("no/e.npz", OutputError, "does not exist"),
        ):
            with pytest.raises(error, match=message):
                embed(posterior, store, tmp_path / output)
        with pytest.raises(PredictionError, match=r"is a store and .* is none"):
            embed(posterior, [store, tmp_path / "x.wav"], tmp_path / "e.npz")
        with pytest.raises(PredictionError, match="embedded whole; leave window and hop out"):
            embed(posterior, store, tmp_path / "e.npz", window=1.0)
        with pytest.raises(PredictionError, match="not sound"):
            embed(load(fitted), store, tmp_path / "e.npz")
        with pytest.raises(StoreError, match="sample rate 16000 Hz, but the posterior's is 8000 Hz"):
            embed(posterior, stores["fast"], tmp_path / "e.npz")
        with pytest.raises(AudioError, match="no such file"):
            embed_files(posterior, [tmp_path / "x.wav"])
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(OutputError, match=r"pip install 'bayes-panns\[parquet\]'"):
            embed(posterior, store, tmp_path / "e.parquet")
        assert not list(tmp_path.iterdir())

    def test_another_backbone_has_another_name(self, upstream, downstream):
        assert model_name(load(upstream)) != model_name(load(downstream.folder))
        assert model_name(load(upstream)) == model_name(load(upstream))


@pytest.mark.parametrize("guide", ["map-head", "rotated-head"])
def test_a_fit_to_a_file_of_embeddings_is_the_fit_to_the_stores_own(stores, upstream, tmp_path, guide):
    """Once on cached embeddings of the upstream's backbone, and once on a store of the same embeddings."""
    sound = stores["downstream"]
    embed(load(upstream), sound, tmp_path / "e.npz")
    pack_embeddings(embeddings(tmp_path / "e.npz"), tmp_path / "e.h5")
    convex = ["fit.batch_size=512", "fit.epochs=80", "fit.kl_weight=1", "fit.kl_warmup=0", "head=probe"]
    settings = convex if guide == "map-head" else []
    ours = recipe_of(sound, *settings, guide=guide, upstream=upstream)
    theirs = recipe_of(tmp_path / "e.h5", *settings, guide=guide)
    draws = 0 if guide == "map-head" else 400
    found = [crossval(recipe, tmp_path / name, draws=draws) for name, recipe in (("ours", ours), ("theirs", theirs))]
    one, other = (each.pooled(guide) for each in found)
    assert one.names == other.names
    np.testing.assert_allclose(one.uncertainty.probability, other.uncertainty.probability, atol=0.01)
    assert one.metrics["cal/nll"] == pytest.approx(other.metrics["cal/nll"], abs=0.01)
